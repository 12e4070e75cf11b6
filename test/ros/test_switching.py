"""Parameters changed while frames flow: the change falls between two frames, and none is lost or doubled by it."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from clients import Lifecycle, Parameters, Usage, node_threads
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.parameter import Parameter
from ros_graph import INPUTS, OUTPUTS, TIMEOUT, Graph, as_told, key, pixels, scales, scene, values, xyz
from sensor_msgs.msg import CameraInfo, Image

from dsca_ros.engine.base import EngineError
from dsca_ros.engine.zoo import MANIFEST, models_folder
from dsca_ros.ros import messages
from dsca_ros.ros import node as node_module
from dsca_ros.upsampler import Upsampler

IMAGE, INFO, POINTS = OUTPUTS
NODE = "dsca_ros.ros.node"
#: A scale other than the default one, and an engine other than the one that `auto` takes.
needs_another_scale = pytest.mark.skipif(4 not in scales(), reason="the default model has one scale")
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no torch")


class Stream:
    """Frames that carry their number in every pixel, one after the other; and what comes back, all of it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.sent: list[Image] = []
        self.images: list[Image] = []  # the listener keeps one of each stamp
        self.infos: list[CameraInfo] = []
        graph.connect()
        graph.tester.create_subscription(Image, IMAGE, self.images.append, 100)
        graph.tester.create_subscription(CameraInfo, INFO, self.infos.append, 100)
        graph.spin_until(lambda: graph.connected(IMAGE) and graph.connected(INFO), "the second listeners")

    def step(self) -> Image:
        """Sends a frame and gives the image that answers it."""
        image = self._graph.camera.image(np.full((48, 64), 1000 + len(self.sent), np.uint16))
        self.sent.append(image)
        return self._graph.exchange(image, self._graph.camera.info(image))

    def until_scale(self, scale: int) -> None:
        """Goes on until a result is so many times larger, and a few frames more."""
        deadline = time.monotonic() + TIMEOUT
        while self.step().width != 64 * scale:
            assert time.monotonic() < deadline, f"no result of scale {scale}"
        for _ in range(3):
            assert self.step().width == 64 * scale

    def check(self) -> list[int]:
        """Every frame came back once, in order, as itself, with a camera_info of its own scale; the scales."""
        frames = [key(image) for image in self.sent]
        self._graph.spin_until(lambda: min(len(self.images), len(self.infos)) >= len(frames), "every frame")
        assert [key(image) for image in self.images] == [key(info) for info in self.infos] == frames
        found = []
        for number, (sent, image, info) in enumerate(zip(self.sent, self.images, self.infos)):
            scale = image.width // 64
            assert (pixels(image)[16:-16, 16:-16] == 1000 + number).all()
            assert info == messages.scale_camera_info(self._graph.camera.info(sent), scale, sent.header)
            assert (info.width, info.height) == (image.width, image.height)
            cloud = self._graph.listener.clouds.get(key(sent))
            assert cloud is None or (cloud.width, cloud.height) == (image.width, image.height)
            found.append(scale)
        return found


def errors(graph: Graph, text: str) -> list[str]:
    """Errors logged by the node that contain a text."""
    logged = [log.msg for log in graph.listener.logs if log.name == "dsca_node" and log.level == 40]
    return [line for line in logged if text in line]


# --- networks -----------------------------------------------------------------------------------


@needs_another_scale
def test_the_scale_changes_between_two_frames_there_and_back(graph: Graph) -> None:
    graph.start_node()
    stream, parameters = Stream(graph), Parameters(graph)
    stream.until_scale(2)
    for scale in (4, 2, 4):
        answer = parameters.begin(scale=scale)
        stream.until_scale(scale)
        assert answer.result().result.successful
    found = stream.check()
    changes = [pair for pair in itertools.pairwise(found) if pair[0] != pair[1]]
    assert changes == [(2, 4), (4, 2), (2, 4)]
    graph.spin_until(lambda: graph.counter("published") == len(found), "every frame to count", 5.0)
    assert graph.node.health.counts() == dict.fromkeys(("received", "published"), len(found))
    assert node_threads() == {"dsca_worker"}


@pytest.fixture
def another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of another name, with the files of the default one."""
    folder = Path(shutil.copytree(models_folder(), tmp_path / "models"))
    manifest = yaml.safe_load((folder / MANIFEST).read_text())
    manifest["models"]["another"] = copy.deepcopy(manifest["models"]["dsca-nano"])  # else YAML writes an alias
    (folder / MANIFEST).write_text(yaml.safe_dump(manifest))
    monkeypatch.setenv("DSCA_MODELS", str(folder))
    return "another"


def test_the_model_changes_between_two_frames(graph: Graph, another_model: str) -> None:
    node = graph.start_node()
    stream = Stream(graph)
    stream.step()
    assert Parameters(graph).set(model=another_model) == (True, "")
    graph.spin_until(lambda: stream.step() and node.pipeline.upsampler.model == another_model, "the other model")
    stream.step()
    assert set(stream.check()) == {2}
    graph.spin_until(lambda: any(f"{another_model} x2 on" in log.msg for log in graph.listener.logs), "the log")


@needs_torch
def test_the_engine_changes_between_two_frames_there_and_back(graph: Graph) -> None:
    graph.start_node(engine="onnxruntime")
    stream, parameters = Stream(graph), Parameters(graph)
    stream.step()
    for engine, name in (("torch", "torch"), ("onnxruntime", "ONNX Runtime")):
        assert parameters.set(engine=engine) == (True, "")
        graph.spin_until(lambda n=name: stream.step() and n in graph.node.pipeline.upsampler.engine, name)
        graph.status(lambda v, n=name: n in v["engine"], f"of {name}")
        for _ in range(3):
            stream.step()
    assert set(stream.check()) == {2}


@needs_another_scale
def test_of_changes_in_a_row_the_last_one_holds(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Upsampler] = []
    closed: list[Upsampler] = []

    class Watched(Upsampler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr(node_module, "Upsampler", Watched)
    node = graph.start_node()
    stream, parameters = Stream(graph), Parameters(graph)
    stream.step()
    for scale in (4, 2, 4, 2, 4):
        assert parameters.set(scale=scale) == (True, "")
    stream.until_scale(4)
    graph.spin_until(lambda: stream.step() and node_threads() == {"dsca_worker"}, "all changes to be through")
    assert node.pipeline.upsampler.scale == 4
    # Every network but the one that runs is closed, once.
    assert len(closed) == len(made) - 1 and set(closed) == set(made) - {node.pipeline.upsampler}
    stream.check()


# --- loading ------------------------------------------------------------------------------------


@needs_another_scale
@pytest.mark.parametrize("error", [EngineError("out of memory"), OSError("the disk is gone")])
def test_a_network_that_does_not_load_leaves_the_one_that_runs(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    graph.start_node()
    stream, parameters = Stream(graph), Parameters(graph)
    stream.step()

    def broken(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(node_module, "Upsampler", broken)
        assert parameters.set(scale=4) == (True, "")
        status = graph.status(lambda v: v["state"] == "ERROR", "of ERROR")
    assert status.level == DiagnosticStatus.ERROR
    assert f"x4 cannot be loaded ({'' if isinstance(error, EngineError) else 'OSError: '}{error})" in status.message
    graph.spin_until(lambda: errors(graph, str(error)), "the reason")
    for _ in range(3):
        assert stream.step().width == 128
    assert graph.status(lambda v: v["published"] == "4", "after").level == DiagnosticStatus.ERROR
    # What is asked for next is loaded, and all is well.
    assert parameters.set(threads=1) == (True, "")
    stream.until_scale(4)
    graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    stream.check()
    assert len(errors(graph, str(error))) == 1


class Gate:
    """A wait in the middle of something."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(TIMEOUT), "the test forgot to open the gate"


class Gated(Upsampler):
    """An upsampler that waits at gates, where there are any."""

    loading: Gate | None = None
    closing: Gate | None = None
    closed = 0

    def __init__(self, *args: object, **kwargs: object) -> None:
        if Gated.loading is not None:
            Gated.loading()
        super().__init__(*args, **kwargs)

    def close(self) -> None:
        if Gated.closing is not None:
            Gated.closing()
        Gated.closed += 1
        super().close()


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> type[Gated]:
    monkeypatch.setattr(node_module, "Upsampler", Gated)
    for name, value in (("loading", None), ("closing", None), ("closed", 0)):
        monkeypatch.setattr(Gated, name, value)
    return Gated


@needs_another_scale
def test_an_old_network_that_does_not_close_is_no_reason_against_the_new_one(
    graph: Graph, gated: type[Gated], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.start_node()
    stream = Stream(graph)

    def broken(_: Gated) -> None:
        raise RuntimeError("the GPU is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Gated, "close", broken)
        assert Parameters(graph).set(scale=4) == (True, "")
        stream.until_scale(4)
        graph.spin_until(lambda: graph.listener.warnings("did not close"), "the warning")
    assert graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING").level == DiagnosticStatus.OK
    stream.check()


@needs_another_scale
def test_frames_go_on_while_one_network_is_loaded_and_another_closed(graph: Graph, gated: type[Gated]) -> None:
    graph.start_node()
    stream, parameters = Stream(graph), Parameters(graph)
    gated.loading, gated.closing = Gate(), Gate()
    assert parameters.set(scale=4) == (True, "")
    assert gated.loading.reached.wait(TIMEOUT)
    for _ in range(3):
        assert stream.step().width == 128
    gated.loading.open.set()
    assert gated.closing.reached.wait(TIMEOUT)
    for _ in range(3):
        assert stream.step().width == 256
    assert gated.closed == 0
    gated.closing.open.set()
    graph.spin_until(lambda: gated.closed == 1, "the old network to be closed")
    assert stream.check() == 3 * [2] + 3 * [4]


@needs_another_scale
def test_a_node_closed_while_it_loads_a_network_leaves_at_once_and_frees_both(graph: Graph, gated: type[Gated]) -> None:
    graph.start_node()
    graph.connect(IMAGE)
    gated.loading = Gate()
    assert Parameters(graph).set(scale=4) == (True, "")
    assert gated.loading.reached.wait(TIMEOUT)
    node, graph.node = graph.node, None
    graph.executor.remove_node(node)
    started = time.monotonic()
    node.close()
    assert time.monotonic() - started < 4.0
    assert node_threads() == {"dsca_switch"} and gated.closed == 1
    gated.loading.open.set()
    graph.spin_until(lambda: not node_threads(), "the loading to end")
    assert gated.closed == 2


@needs_another_scale
def test_a_node_cleaned_up_while_it_loads_a_network_comes_back_with_the_one_asked_for(
    graph: Graph, gated: type[Gated]
) -> None:
    graph.start_node()
    stream, parameters, lifecycle = Stream(graph), Parameters(graph), Lifecycle(graph)
    gated.loading = Gate()
    assert parameters.set(scale=4) == (True, "")
    assert gated.loading.reached.wait(TIMEOUT)
    lifecycle.changes(("deactivate", "cleanup"))
    assert parameters.set(scale=2) == (True, "")
    gated.loading.open.set()
    lifecycle.changes(("configure", "activate"))
    graph.spin_until(lambda: all(map(graph.connected, (*INPUTS, *OUTPUTS))), "the topics to connect")
    graph.spin_until(lambda: node_threads() == {"dsca_worker"}, "the loading to end")
    assert stream.step().width == 128
    assert parameters.set(scale=4) == (True, "")
    stream.until_scale(4)
    stream.check()


# --- everything else counts at the very next frame ----------------------------------------------


def test_what_needs_no_other_network_counts_at_the_next_frame(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    parameters, listener = Parameters(graph), graph.listener
    depth = np.full((48, 64), 1000, np.uint16)
    depth[:, 32:], depth[10:18, 6:16] = 4000, 0

    def frame(**changes: object) -> tuple[Image, np.ndarray, np.ndarray]:
        """The image of the first frame after a change, its pixels and its points."""
        assert not changes or parameters.set(**changes) == (True, "")
        image = graph.camera.image(depth)
        result = graph.exchange(image, graph.camera.info(image))
        graph.spin_until(lambda: key(image) in listener.clouds, "points")
        return result, pixels(result), xyz(listener.clouds[key(image)])

    _, plain, points = frame()
    assert points.shape == (96, 128, 3) and plain[16:-16, -40:-16].all() and not plain[26:30, 18:26].any()
    assert not frame(max_depth=2.0)[1][:, -40:].any()
    assert not frame(max_depth=10.0, min_depth=2.0)[1][:, 44:56].any()
    assert (frame(min_depth=0.1)[1] == plain).all()
    assert frame(fill_holes=8)[1][26:30, 18:26].all()
    assert frame(fill_holes="none", output_encoding="32FC1")[0].encoding == "32FC1"
    assert frame(output_encoding="passthrough")[0].encoding == "16UC1"
    assert frame(points_stride=3)[2].shape == (32, 43, 3)
    assert frame(points_stride=2, points_organized=False)[2].shape == (1, (plain[::2, ::2] > 0).sum(), 3)
    assert frame(points_stride=1, points_organized=True)[2].shape == (96, 128, 3)
    assert (frame(depth_unit=0.002)[1][16:-16, 44:52] == 2000).all()
    assert (frame(depth_unit=0.001)[1] == plain).all()


REFUSED = [
    ({"model": ""}, "there is no model"),
    ({"model": "dsca-small-paper"}, "levels"),
    ({"scale": 16}, "scale"),
    ({"scale": "4"}, as_told(Parameter.Type.INTEGER)),
    ({"engine": "onnx"}, "one of: auto"),
    ({"threads": -1}, "threads"),
    ({"points_stride": 0}, "points_stride"),
    ({"points_stride": 17}, "points_stride"),
    ({"points_organized": 1}, as_told(Parameter.Type.BOOL)),
    ({"depth_transport": "theora"}, "'theora'; it must be one of: raw, compressedDepth"),
    ({"compressed_format": "jpg"}, "'jpg'; it must be one of: png, rvl"),
    ({"fill_holes": [1, 2]}, "fill_holes"),
    ({"no_such_parameter": 1}, "undeclared"),
    # A good change beside it is not made either.
    ({"max_depth": 2.0, "scale": 3}, "2, 4 or 8"),
    ({"scale": 4, "fill_holes": "most"}, "fill_holes is 'most'"),
]


def test_what_is_refused_changes_nothing_of_what_runs(graph: Graph) -> None:
    node = graph.start_node()
    graph.connect(IMAGE)
    parameters = Parameters(graph)
    depth = scene()
    before = pixels(graph.exchange(graph.camera.image(depth)))
    told, settings, network = parameters.values(), node.settings, node.pipeline.upsampler
    for changes, words in REFUSED:
        successful, reason = parameters.set(**changes)
        assert not successful and words in reason, (changes, reason)
    for name in ("fill_holes", "scale"):
        assert not parameters.delete(name)[0], name
    assert parameters.values() == told
    assert (node.settings, node.pipeline.settings, node.pipeline.upsampler) == (settings, settings, network)
    assert node_threads() == {"dsca_worker"}
    np.testing.assert_array_equal(pixels(graph.exchange(graph.camera.image(depth))), before)


# --- a params file ------------------------------------------------------------------------------


def nested(parameters: dict[str, object]) -> dict[str, object]:
    """Names with dots as YAML has them, as `ros2 param dump` writes them."""
    tree: dict[str, object] = {}
    for name, value in sorted(parameters.items()):
        *path, last = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree


def test_a_node_is_started_again_from_the_parameters_of_one_that_runs(graph: Graph, tmp_path: Path) -> None:
    name = "qos_overrides./depth_sr/points.publisher.depth"
    graph.start_node(lazy=False, **{name: 3})
    parameters = Parameters(graph)
    scale = max(scales())
    changes = {"scale": scale, "max_depth": 7.5, "fill_holes": "5", "points_stride": 2, "output_encoding": "32FC1"}
    assert parameters.set(engine="onnxruntime", lazy=True, compressed_format="rvl", **changes) == (True, "")
    before = parameters.values()
    assert before[name] == 3 and before["scale"] == scale and before["fill_holes"] == "5"
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": nested(before)}}))
    arguments = ["-m", NODE, "--ros-args", "-r", "__node:=again", "--params-file", str(file)]
    process = graph.run(arguments)
    # It subscribes as the one before did, and so has every parameter of that one.
    graph.listener.subscribe(IMAGE)
    again = Parameters(graph, "again")
    after: dict[str, object] = {}

    def equal() -> bool:
        assert process.popen.poll() is None, process.output()
        after.update(again.values())
        return after.keys() >= before.keys()

    graph.spin_until(equal, "every parameter")
    assert after == before
    assert {name: type(value) for name, value in after.items()} == {n: type(v) for n, v in before.items()}


# --- often --------------------------------------------------------------------------------------


ANOTHER = next((scale for scale in scales() if scale != 2), 2)
#: Every kind of change that there is; the last one is refused.
KINDS: list[dict[str, object]] = [
    {"scale": ANOTHER},
    {"max_depth": 4.0},
    {"points_stride": 2},
    {"scale": 2},
    {"fill_holes": 6},
    {"output_encoding": "32FC1"},
    {"points_organized": False},
    {"threads": 1},
    {"min_depth": 0.5},
    {"depth_transport": "compressedDepth"},
    {"depth_transport": "raw"},
    {"engine": "onnxruntime"},
    {"output_encoding": "passthrough"},
    {"publish_points": False},
    {"compressed_format": "rvl"},
    {"threads": 0},
    {"max_depth": 10.0, "min_depth": 0.1},
    {"points_stride": 1, "points_organized": True},
    {"engine": "auto"},
    {"publish_points": True},
    {"fill_holes": "none"},
    {"compressed_format": "png"},
    {"lazy": False},
    {"lazy": True},
    {"max_depth": 99.0},
]
#: Changes that settle what is allocated once, those that are measured, and what they may add, bytes: each of the 48
#: networks that are loaded meanwhile takes 5 MB, so a leak is 240 MB; OpenVINO keeps idle threads, and caches of 35 MB.
#: What every change of one kind left open would be CHANGES / len(KINDS) files, twice what DDS may open by itself.
SETTLE, CHANGES = 100, 200
ALLOWED, IDLE, OPENED = 64 * 2**20, 4, 4


def changes(count: int) -> list[dict[str, object]]:
    """Every kind of change, again and again."""
    return [KINDS[index % len(KINDS)] for index in range(count)]


@pytest.mark.once
def test_two_hundred_changes_under_load_leave_the_node_as_it_was(graph: Graph) -> None:
    # Networks are loaded in threads that end: what each leaves in an arena of its own is no leak, but looks like one.
    process = graph.start(NODE, {"MALLOC_ARENA_MAX": "1"})
    camera, listener = graph.camera, graph.listener
    parameters = Parameters(graph)
    listener.subscribe(*OUTPUTS)
    depths = [scene(index=index) for index in range(4)]
    sent = 0.0

    def load() -> None:
        """A frame every 10 ms, whatever the node does."""
        nonlocal sent
        if time.monotonic() - sent > 0.01:
            sent = time.monotonic()
            image = camera.image(depths[int(100 * sent) % 4])
            camera.publish(image, camera.info(image))

    def work() -> None:
        """Something comes out."""
        for seen in (listener.images, listener.infos, listener.clouds):  # this test's own memory is not the point
            seen.clear()
        graph.spin_until(lambda: load() or listener.images, "results")

    def change(wanted: dict[str, object]) -> bool:
        answer = parameters.begin(**wanted)

        def done() -> bool:
            load()
            assert process.popen.poll() is None, process.output()
            return answer.done()

        graph.spin_until(done, str(wanted))
        return answer.result().result.successful

    work()
    before, refused = None, 0
    for index, wanted in enumerate(changes(SETTLE + CHANGES)):
        if index == SETTLE:
            before = Usage(process.popen.pid)
        refused += not change(wanted)
        if wanted.keys() & {"scale", "engine", "threads"} or index % 5 == 0:
            work()
    work()
    after = Usage(process.popen.pid)
    told = f"{before}; after {CHANGES} changes {after}"
    print(told)
    assert refused == (SETTLE + CHANGES) // len(KINDS)
    assert after.memory - before.memory < ALLOWED, told

    def no_more() -> bool:
        """A thread that ends, and a file that is being read this moment (models are), are none that stay."""
        load()
        now = Usage(process.popen.pid)
        return now.threads <= before.threads + IDLE and now.files <= before.files + OPENED

    graph.spin_until(no_more, f"threads to end and files to be closed: {told}")
    assert not errors(graph, "")
    status = graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    assert status.level == DiagnosticStatus.OK and "engine_error" not in values(status)
    assert "Traceback" not in process.output()
