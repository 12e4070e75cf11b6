"""Training data for cameras: views of procedural scenes, measured anew by random sensors at every step.

The exact depth of a few thousand views is rendered once and kept on disk. What varies at every use
is cheap: the sensor, its noise, how its frame was shrunk, the crop, mirroring and the size of the world.
Every batch is a function of (seed, step) alone, so a resumed run sees what an undisturbed one would have seen.

A crop is one of three lessons:

- *native*: a camera measures at the low resolution, the exact depth is asked for: remove noise, find edges.
- *decimated, exact*: a larger frame is measured and shrunk, and again the exact depth is asked for.
- *decimated, measured*: the same, but the frame itself is asked for: what a camera saw is not to be smoothed
  away, and its holes are to stay holes. A simulated Kinect's frames show each point four times, and nobody wants that.

How often each is drawn is the recipe's to say, of every kind of camera (`FrameShares`). It is no detail:
librealsense's median of four pixels is the second nearest of them, so a thing in such a frame is up to half a pixel
wider than in one that was measured so small, and in a frame without noise nothing tells which it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import block_mean, decimate
from dsca_ros.depth.files import READ_ERRORS
from dsca_ros.depth.scenes import Scene
from dsca_ros.depth.sensors import (
    IdealSensor,
    PhoneLidarSensor,
    RandomSensor,
    Sensor,
    SimulatedKinectSensor,
    StereoSensor,
    TimeOfFlightSensor,
)
from dsca_ros.training.batch import Batch

#: What a rendered view depends on, in dsca_ros/depth.
RENDERER = (
    *("camera.py", "units.py", "scenes.py", "solids.py", "furniture.py"),
    *("small_things.py", "outdoor_things.py", "curved_things.py"),
)
#: Shares of the kinds of scenes.
SCENES = {"room": 0.3, "clutter": 0.25, "curved": 0.15, "foliage": 0.1, "outdoors": 0.2}


class ViewError(ValueError):
    """Views that cannot be kept or read; the text says what to do."""


@dataclass(frozen=True)
class ViewSettings:
    """What the pool of views holds."""

    count: int = 1500
    width: int = 160
    height: int = 120
    min_fov: float = 24.0
    max_fov: float = 75.0
    scale: int = 2
    first_seed: int = 0
    scenes: dict[str, float] = field(default_factory=lambda: dict(SCENES))


@dataclass(frozen=True)
class FrameShares:
    """How often low-resolution frames come to be in which way; of any sum.

    Attributes:
        native: measured at the low resolution.
        median: measured larger and shrunk, each block to the lower median of its valid pixels, as librealsense does it.
        mean: shrunk to their mean.
        picked: shrunk by leaving pixels out.
    """

    native: float = 0.3
    median: float = 0.42
    mean: float = 0.175
    picked: float = 0.105


USUAL = FrameShares()
#: Kinds of cameras, as recipes name them.
CAMERAS: dict[str, type[RandomSensor]] = {
    "stereo": StereoSensor,
    "tof": TimeOfFlightSensor,
    "phone": PhoneLidarSensor,
    "exact": IdealSensor,
    "simulated": SimulatedKinectSensor,
}
#: Shares of the kinds of cameras.
CAMERA_SHARES = {"stereo": 0.42, "tof": 0.2, "phone": 0.08, "exact": 0.3}


class ViewPool:
    """Exact depth of ``count`` views at factors 1, 2, ... scale of the low resolution.

    Args:
        settings: what to render.
        cache: folder for the rendered views; a pool that is there already is not rendered again.
        progress: called with the number of views done so far.
    """

    def __init__(self, settings: ViewSettings, cache: Path, progress: Callable[[int], None] | None = None) -> None:
        self.settings = settings
        self.factors = [2**k for k in range(settings.scale.bit_length())]
        # The renderer is part of what the cache depends on.
        depth = Path(__file__).parent.parent / "depth"
        source = b"".join((depth / name).read_bytes() for name in RENDERER)
        key = hashlib.sha256(json.dumps(asdict(settings)).encode() + source).hexdigest()[:16]
        folder = cache / f"views-{key}"
        if not folder.exists():
            self._make(folder, progress)
        try:
            self.depth = [np.load(folder / f"x{factor}.npy", mmap_mode="r") for factor in self.factors]
            self.focal = np.load(folder / "focal.npy")
        except READ_ERRORS:
            raise ViewError(f"{folder} is damaged: remove it, and it is made anew") from None

    def _make(self, folder: Path, progress: Callable[[int], None] | None) -> None:
        """Renders aside, then renames: two trainings may want the same views at once."""
        s, cache = self.settings, folder.parent
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Views are written through memory maps, where a full disk would end the process without a word.
            needed = 4 * s.count * s.width * s.height * sum(f * f for f in self.factors)
            there = shutil.disk_usage(cache).free
            if there < needed:
                sizes = f"{s.count} views take {needed / 1e9:.1f} GB, and {there / 1e9:.1f} GB are free"
                raise ViewError(f"{cache}: {sizes}; make room, or name another --folder")
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=cache))
            try:
                self._render(partial, progress)
                partial.rename(folder)
            except BaseException as error:
                shutil.rmtree(partial, ignore_errors=True)
                if not (isinstance(error, OSError) and folder.exists()):  # another training was first
                    raise
        except OSError as error:
            reason = error.strerror
            raise ViewError(f"{cache}: cannot write views ({reason}); make room, or name another --folder") from None

    def _render(self, folder: Path, progress: Callable[[int], None] | None) -> None:
        s = self.settings
        stores = [
            np.lib.format.open_memmap(
                folder / f"x{f}.npy", mode="w+", dtype=np.float32, shape=(s.count, s.height * f, s.width * f)
            )
            for f in self.factors
        ]
        focal = np.empty(s.count)
        for index in range(s.count):
            scene, camera, phase = self.view(index)
            focal[index] = camera.fx
            for factor, store in zip(self.factors, stores):
                store[index] = scene.render(camera.scaled(factor), phase)
            if progress:
                progress(index + 1)
        for store in stores:
            store.flush()
        np.save(folder / "focal.npy", focal)

    def view(self, index: int) -> tuple[Scene, Intrinsics, float]:
        """Scene, low-resolution camera and path phase of a view; three views share a scene."""
        s = self.settings
        rng = np.random.default_rng([s.first_seed, index, 0x71E])
        camera = Intrinsics.from_fov(s.width, s.height, float(rng.uniform(s.min_fov, s.max_fov)))
        seed = s.first_seed + index // 3
        shares = np.array(list(s.scenes.values()))
        kind = list(s.scenes)[int(np.random.default_rng([seed, 0x1D]).choice(len(shares), p=shares / shares.sum()))]
        return Scene.of_kind(kind, seed), camera, float(rng.random())

    def camera(self, index: int) -> Intrinsics:
        """Low-resolution camera of a view."""
        s, focal = self.settings, float(self.focal[index])
        return Intrinsics(s.width, s.height, focal, focal, (s.width - 1) / 2, (s.height - 1) / 2)


def random_sensor(rng: np.random.Generator, shares: Mapping[str, float] = CAMERA_SHARES) -> Sensor:
    """A depth camera from the range that is sold, or a perfect one; ``shares`` are of `CAMERAS`, of any sum."""
    up_to = np.cumsum(list(shares.values()))
    kind = list(shares)[int(np.searchsorted(up_to, rng.random() * up_to[-1], side="right"))]
    return CAMERAS[kind].random(rng)


def kind_of(sensor: Sensor) -> str:
    """Its name in `CAMERAS`; empty for none of them."""
    return next((name for name, kind in CAMERAS.items() if isinstance(sensor, kind)), "")


def shrink(depth: np.ndarray, factor: int, rng: np.random.Generator, shares: FrameShares) -> np.ndarray:
    """A frame as drivers and users shrink it.

    Args:
        depth: [factor * h, factor * w], metres, 0 invalid.
        shares: of the ways to do it.

    Returns:
        [h, w].
    """
    draw = rng.random() * (shares.median + shares.mean + shares.picked)
    if draw < shares.median:
        return decimate(depth, factor)
    if draw < shares.median + shares.mean:
        return block_mean(depth, factor)
    # One of the pixels around the middle of each block: an even factor has no middle pixel.
    row, column = rng.integers(factor // 2 - 1, factor // 2 + 1, 2)
    return depth[row::factor, column::factor]


@dataclass(frozen=True)
class Lesson:
    """A crop and what is asked for: [h, w], and [2^k h, 2^k w] and whether it was measured for every stage."""

    low: np.ndarray
    targets: list[np.ndarray]
    measured: list[bool]


def make_lesson(
    pool: ViewPool,
    index: int,
    crop: int,
    rng: np.random.Generator,
    frames: Mapping[str, FrameShares] = MappingProxyType({}),
    fully_shrunk: float = 0.5,
    cameras: Mapping[str, float] = CAMERA_SHARES,
) -> Lesson:
    """A crop of ``crop`` x ``crop`` low-resolution pixels of a view; see the module for the kinds."""
    camera = pool.camera(index)
    world = np.float32(np.exp(rng.uniform(-0.5, 0.4)))  # the same room as a doll's house or a hall
    top = int(rng.integers(0, camera.height - crop + 1))
    left = int(rng.integers(0, camera.width - crop + 1))
    # What a sensor makes of a pixel depends on its surroundings, and of those mostly on what is left of it.
    before, after = min(left, 8), min(camera.width - crop - left, 2)

    def measure(factor: int) -> np.ndarray:
        rows = slice(top * factor, (top + crop) * factor)
        columns = slice((left - before) * factor, (left + crop + after) * factor)
        exact = pool.depth[pool.factors.index(factor)][index, rows, columns] * world
        return sensor.measure(exact, camera.scaled(factor), rng)[:, before * factor : (before + crop) * factor]

    targets = [
        store[index, top * f : (top + crop) * f, left * f : (left + crop) * f] * world
        for store, f in zip(pool.depth[1:], pool.factors[1:])
    ]
    measured = [False] * len(targets)
    sensor = random_sensor(rng, cameras)
    repeats = isinstance(sensor, SimulatedKinectSensor)
    shares = frames.get(kind_of(sensor), USUAL)
    if rng.random() * sum(astuple(shares)) < shares.native:
        low = measure(1)
    else:
        *others, most = pool.factors[1:]
        factor = most if rng.random() < fully_shrunk or not others else others[int(rng.integers(len(others)))]
        frame = measure(factor)
        low = shrink(frame, factor, rng, shares)
        if isinstance(sensor, IdealSensor) or (not repeats and rng.random() < 0.85):
            for k, f in enumerate(pool.factors[1:]):
                if f <= factor:
                    targets[k] = frame if f == factor else decimate(frame, factor // f)
                    measured[k] = True
    # Mirroring swaps the side the second imager is on: both sides are sold. Of a block one corner is repeated.
    if rng.random() < 0.5 and not repeats:
        low, targets = low[:, ::-1], [target[:, ::-1] for target in targets]
    return Lesson(low, targets, measured)


def make_batch(
    pool: ViewPool,
    size: int,
    crop: int,
    seed: int,
    step: int,
    frames: Mapping[str, FrameShares] = MappingProxyType({}),
    fully_shrunk: float = 0.5,
    cameras: Mapping[str, float] = CAMERA_SHARES,
) -> Batch:
    """The batch of one step.

    Args:
        pool: of views.
        size: crops a batch.
        crop: side of a crop, low-resolution pixels.
        seed, step: what the batch depends on, and nothing else.
        frames: shares of the ways in which frames come to be, by `CAMERAS`; `USUAL` of those not named.
        fully_shrunk: share of the shrunk frames that are shrunk by the pool's scale; the others by 2, of 8 by 4 too.
        cameras: shares of the kinds of cameras.
    """
    rng = np.random.default_rng([seed, step, 0xBA7C])
    indices = rng.integers(0, pool.settings.count, size)
    lessons = [make_lesson(pool, int(index), crop, rng, frames, fully_shrunk, cameras) for index in indices]
    stages = range(len(pool.factors) - 1)
    return Batch(
        np.stack([lesson.low for lesson in lessons])[:, None],
        [np.stack([lesson.targets[k] for lesson in lessons])[:, None] for k in stages],
        [np.array([lesson.measured[k] for lesson in lessons], np.float32) for k in stages],
    )
