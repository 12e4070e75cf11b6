"""Messages with every field hostile, through decode and the core of the node: rejected or answered, never more.

No DDS is between: what it delivers is any message of the type, and so is what is made here. The network is a small
random one, the thread and the queue are the node's own.
"""

from __future__ import annotations

import gc
import math
import struct
import threading
import time
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import Usage

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from dsca_ros.depth.compressed import encode_compressed_depth
from dsca_ros.engine import base as engine_base
from dsca_ros.ros import messages, parameters
from dsca_ros.ros.camera_infos import CameraInfos
from dsca_ros.ros.diagnostics import Health
from dsca_ros.ros.pipeline import Frame, Outputs, Pipeline
from dsca_ros.upsampler import Upsampler

#: Messages of a test; 20,000 and more in all.
IMAGES, INFOS, COMPRESSED, TRUNCATED = 14_000, 3_000, 3_000, 400
#: A half of them is given in so many parts.
PARTS = 5
#: What all these messages may leave behind, bytes: one leaked result a frame would be more.
ALLOWED = 20 * 2**20
#: Nothing may take longer, seconds: a frame takes milliseconds.
HANGS_AFTER = 60.0
SCALE, NEAR, FAR = 2, 0.1, 10.0
WIDTH, HEIGHT = 16, 12
MAX_PIXELS = 4096

#: The same messages in every run, and no example is kept on disk.
fuzz = settings(
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)

# --- what a hostile sender sends ----------------------------------------------------------------

uint32 = st.sampled_from([0, 1, 2, 7, 63, 64, 128, 16384, 16385, 60000, 2**31 - 1, 2**31, 2**32 - 1])
odd_text = st.sampled_from(
    ["", "camera", "/", "a/../../etc", "\x01\n\t", "depth 深度 \U0001f916", "%s%n{0}", "x" * 5000]
)
encodings = st.sampled_from(
    ["16UC1", "mono16", "32FC1", "16UC1", "32FC1", "16uc1", "8UC1", "rgb8", "", "16UC1\n", "ü", "x" * 30_000]
)
numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, 500.0, 1e-320, 1e-9, 1e9, 1e30, 1e308, math.inf, -math.inf, math.nan])
seeds = st.integers(0, 2**32 - 1)


def pixels(seed: int, count: int, encoding: str) -> bytes:
    """Pixels as no camera measures them: any bits, or depth with stray values in it."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        return rng.bytes(count * (4 if encoding == "32FC1" else 2))
    depth = rng.uniform(0.0, 11.0, count)
    stray = rng.random(count) < 0.2
    if encoding == "32FC1":
        depth[stray] = rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-45, 3.4e38, 65.535], stray.sum())
        return depth.astype("<f4").tobytes()
    depth[stray] = rng.choice([0.0, 65.535, 65.534, 0.001], stray.sum())
    return (1000.0 * depth).astype("<u2").tobytes()


@st.composite
def headers(draw: st.DrawFn, message: Image | CameraInfo | CompressedImage) -> None:
    """Gives a message a hostile header."""
    stamp = message.header.stamp
    stamp.sec = draw(st.sampled_from([0, 1, -1, 1_700_000_000, 2**31 - 1, -(2**31)]))
    stamp.nanosec = draw(st.sampled_from([0, 1, 999_999_999, 2**32 - 1]))
    message.header.frame_id = draw(odd_text)


@st.composite
def images(draw: st.DrawFn) -> Image:
    """An Image that is right but for some of its fields."""
    encoding = draw(encodings)
    message = Image(height=HEIGHT, width=WIDTH, encoding=encoding)
    draw(headers(message))
    item = 4 if encoding == "32FC1" else 2
    message.step = WIDTH * item + draw(st.sampled_from([0, 0, 0, 1, 6]))
    data = pixels(draw(seeds), -(-message.step // item) * HEIGHT, encoding)
    message.is_bigendian = draw(st.sampled_from([0, 0, 1, 255]))
    wrong = draw(st.sampled_from(["", "", "", "width", "height", "step", "data"]))
    if wrong == "data":
        data = data[: draw(st.sampled_from([0, 1, 5, len(data) // 2, len(data) - 1]))]
    elif wrong:
        setattr(message, wrong, draw(uint32))
    message.data = array("B", data)
    return message


@st.composite
def camera_infos(draw: st.DrawFn) -> CameraInfo:
    """A CameraInfo of the image's size or of another, its numbers a camera's or any."""
    message = CameraInfo(width=WIDTH, height=HEIGHT, k=np.zeros(9), p=np.zeros(12), r=np.zeros(9))
    draw(headers(message))
    message.distortion_model = draw(odd_text)
    if draw(st.booleans()):
        message.k[[0, 2, 4, 5, 8]] = 15.0, 7.5, 15.0, 5.5, 1.0
        message.p[[0, 2, 5, 6, 10]] = 15.0, 7.5, 15.0, 5.5, 1.0
    for values in (message.k, message.r, message.p):
        for _ in range(draw(st.integers(0, 2))):
            values[draw(st.integers(0, len(values) - 1))] = draw(numbers)
    message.d = draw(st.lists(numbers, max_size=14))
    wrong = draw(st.sampled_from(["", "", "", "size", "binning", "roi"]))
    if wrong == "size":
        message.width, message.height = draw(uint32), draw(uint32)
    elif wrong == "binning":
        message.binning_x, message.binning_y = draw(uint32), draw(uint32)
    elif wrong == "roi":
        roi = message.roi
        roi.x_offset, roi.y_offset, roi.width, roi.height = (draw(uint32) for _ in range(4))
    return message


def png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    """A PNG whose checksums are right, whatever it announces."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@st.composite
def compressed(draw: st.DrawFn) -> CompressedImage:
    """A CompressedImage: right, cut off, with bits flipped, a bomb, or garbage."""
    codec, encoding = draw(st.sampled_from(["png", "rvl"])), draw(st.sampled_from(["16UC1", "32FC1"]))
    dtype = np.dtype("<f4" if encoding == "32FC1" else "<u2")
    seed = draw(seeds)
    depth = np.frombuffer(pixels(seed, WIDTH * HEIGHT, encoding)[: WIDTH * HEIGHT * dtype.itemsize], dtype)
    data, text = encode_compressed_depth(depth.reshape(HEIGHT, WIDTH), encoding, codec, math.inf)
    content, kind = bytearray(data), draw(st.sampled_from(["whole", "cut", "flipped", "bomb", "garbage", "header"]))
    if kind == "cut":
        del content[draw(st.integers(0, len(content) - 1)) :]
    elif kind == "flipped":
        for _ in range(draw(st.integers(1, 4))):
            content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    elif kind == "bomb":
        width, height = draw(uint32), draw(uint32)
        body = draw(st.sampled_from([zlib.compress(bytes(20_000)), b"", b"\0" * 40]))
        bits, colour = draw(st.sampled_from([(16, 0), (8, 2), (16, 6), (1, 0)]))
        numbers_of_rvl = draw(st.sampled_from([b"\xff" * 8, b"\x9f\xff\xff\xff" * 4, bytes(16)]))
        bomb = struct.pack("<II", width, height) + numbers_of_rvl
        content[12:] = png(width, height, bits, colour, body) if codec == "png" else bomb
    elif kind == "garbage":
        content[12:] = np.random.default_rng(seed).bytes(seed % 300)
    elif kind == "header":
        content[:12] = struct.pack("<iff", 0, draw(numbers_of_float), draw(numbers_of_float))
    texts = [text, text, text, encoding, "", "16UC1; jpeg", "x" * 30_000]
    message = CompressedImage(format=draw(st.sampled_from(texts)))
    draw(headers(message))
    message.data = array("B", bytes(content))
    return message


numbers_of_float = st.sampled_from([0.0, 1.0, -1.0, 1e-45, 3.4e38, math.inf, -math.inf, math.nan, 10100.0, -0.5])

# --- the core of the node -----------------------------------------------------------------------


class Sink:
    """A publisher somebody listens to: it keeps the last message, which must be one that can be sent."""

    def __init__(self) -> None:
        self.last: Image | CameraInfo | CompressedImage | PointCloud2 | None = None

    def publish(self, message: Image) -> None:
        serialize_message(message)
        self.last = message

    def get_subscription_count(self) -> int:
        return 1


class Core(Pipeline):
    """The pipeline, which says when it is done with a frame."""

    def __init__(self, *args: object, **options: object) -> None:
        self.done = threading.Event()
        super().__init__(*args, **options)

    def _try(self, frame: Frame) -> None:
        super()._try(frame)
        self.done.set()


class Node:
    """The core of a node with a random network, and what came out of it."""

    def __init__(self) -> None:
        defaults = {name: default for name, (default, _) in parameters.PARAMETERS.items()}
        self.settings = parameters.Settings(**{**defaults, "max_pixels": MAX_PIXELS, "model": "tiny"})
        self.health, self.infos, self.sinks = Health(), CameraInfos(), [Sink() for _ in range(4)]
        self.warned: Counter[str] = Counter()
        upsampler = Upsampler("tiny", SCALE, "onnxruntime", threads=1, share_memory=True)
        outputs, warn = Outputs(*self.sinks), lambda cause, text: self._warn(cause, text)
        self.core = Core(*(upsampler, self.settings, outputs, self.infos, self.health, warn), now=time.time)

    def _warn(self, cause: str, text: str) -> None:
        assert "\n" not in text and len(text) < 1000
        self.warned[cause] += 1

    def give(self, message: Image | CompressedImage) -> None:
        """Puts a frame in, waits until it is done, and looks at what came out."""
        for sink in self.sinks:
            sink.last = None
        before = self.health.counts()
        self.core.done.clear()
        self.core.put(message)
        assert self.core.done.wait(HANGS_AFTER), "it hangs"
        after = Counter(self.health.counts())
        after.subtract(before)
        changed = {cause: count for cause, count in after.items() if count}
        assert not changed.get("engine_error"), self.health.array("", None, True).status[0].message
        rejected = [c for c in changed if c.startswith("rejected_") and not c.startswith("rejected_camera_info")]
        assert len(rejected) + changed.get("published", 0) == 1, changed
        self.look(message, published="published" in changed)

    def look(self, given: Image | CompressedImage, published: bool) -> None:
        """Holds what came out to what may: finite, in range, of the right size, with the header that came."""
        image, small, info, cloud = (sink.last for sink in self.sinks)
        if not published:
            assert image is small is info is cloud is None
            return
        depth = messages.decode_depth(image)
        if depth.dtype == np.float32:
            assert not np.isinf(depth).any() and not (depth == 0).any()
            valid = depth[~np.isnan(depth)]
        else:
            valid = depth[depth > 0] * 1e-3
        if valid.size:
            assert valid.min() >= NEAR - 1e-3 and valid.max() <= FAR + 1e-3
        assert image.header == given.header and small.header == given.header
        if info is not None:
            values = np.concatenate([info.k, info.d, info.r, info.p])
            assert np.isfinite(values).all() and info.header == given.header
            assert (info.width, info.height) == (image.width, image.height)
        if cloud is not None:
            points = np.frombuffer(cloud.data, "<f4").reshape(-1, 3)
            whole = ~np.isnan(points[:, 2])
            assert np.isfinite(points[whole]).all() and np.isnan(points[~whole]).all()


@pytest.fixture(scope="module")
def node(tiny_models: Path) -> Iterator[Node]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSCA_MODELS", str(tiny_models))
        patch.setattr(engine_base, "KEPT_SIZES", 64)  # else most of the time went into getting ready for sizes
        node = Node()
        yield node
        node.core.close()


def give_all(messages_of_a_kind: st.SearchStrategy, count: int, give: Callable[[Any], None]) -> None:
    """So many messages, the same in every run; what the second half of them leaves behind is bounded.

    In parts: hypothesis remembers each part's messages, and that is not the growth that is looked for.
    """
    for part in range(2 * PARTS):
        if part == PARTS:  # the engine has got ready for all sizes by now, and pools are filled
            start = Usage("self")
        seeded(part)(settings(fuzz, max_examples=count // (2 * PARTS))(given(messages_of_a_kind)(give)))()
        gc.collect()
    end = Usage("self")
    assert end.threads == start.threads and end.files == start.files
    assert end.memory - start.memory < ALLOWED, f"{start}, and then {end}"


def test_any_image_is_answered_or_rejected(node: Node) -> None:
    before = node.health.counts()
    give_all(images(), IMAGES, lambda image: node.give(image))
    after = Counter(node.health.counts())
    after.subtract(before)
    # The messages would tell little if most of them failed in one way.
    for cause in ("unknown_encoding", "empty_image", "too_large", "bad_step", "short_data"):
        assert after[f"rejected_{cause}"] > 50, cause
    assert after["published"] > IMAGES / 5


def test_any_camera_info_is_used_or_left_out(node: Node) -> None:
    good = messages.encode_depth(np.full((HEIGHT, WIDTH), 2.0, np.float32), Image().header, "32FC1")

    def give(info: CameraInfo) -> None:
        node.infos.clear()
        node.infos.add(info)
        good.header = info.header
        node.give(good)
        seen[node.sinks[2].last is not None, node.sinks[3].last is not None] += 1

    seen: Counter[tuple[bool, bool]] = Counter()
    before = node.health.counts().get("published", 0)
    give_all(camera_infos(), INFOS, give)
    assert node.health.counts()["published"] - before == sum(seen.values())  # it never costs the image
    assert min(seen[used] for used in ((False, False), (True, False), (True, True))) > 50, seen


def test_any_compressed_image_is_answered_or_rejected(node: Node) -> None:
    before = node.health.counts()
    give_all(compressed(), COMPRESSED, lambda message: node.give(message))
    after = Counter(node.health.counts())
    after.subtract(before)
    assert after["rejected_bad_compressed"] > COMPRESSED / 5 and after["published"] > COMPRESSED / 10


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_a_few_bytes_that_announce_a_huge_image_are_refused_by_what_they_announce(node: Node, codec: str) -> None:
    """Of zeros, so that they are good images: only their size is wrong."""
    side = 4 * int(math.sqrt(MAX_PIXELS))
    data, text = encode_compressed_depth(np.zeros((side, side), np.uint16), "16UC1", codec)
    assert len(data) < 2000
    for content in (data, data[:12] + png(60_000, 60_000, 16, 0, b"") if codec == "png" else data[:12] + b"\xff" * 16):
        rejected = node.health.counts().get("rejected_bad_compressed", 0)
        message = CompressedImage(format=text)
        message.data = array("B", content)
        node.give(message)
        assert node.health.counts()["rejected_bad_compressed"] == rejected + 1


def test_every_truncation_of_a_compressed_image_is_answered_or_rejected(node: Node) -> None:
    depth = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 37
    for codec in ("png", "rvl"):
        data, text = encode_compressed_depth(depth, "16UC1", codec)
        for length in range(min(len(data), TRUNCATED)):
            message = CompressedImage(format=text)
            message.data = array("B", data[:length])
            node.give(message)
