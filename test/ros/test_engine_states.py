"""A node whose engine is slow to start, or fails: what comes out, what it says, and how it ends.

The engine is a stand-in behind everything else that a GPU's engine is behind; no GPU is tested here.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from ros_graph import INPUTS, OUTPUTS, TIMEOUT, Graph, key, pixels, scene, values
from sensor_msgs.msg import Image

from dsca_ros.engine import factory
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.factory import EngineKind
from dsca_ros.engine.starting import StartingEngine
from dsca_ros.engine.zoo import ModelFile
from dsca_ros.ros import diagnostics
from dsca_ros.upsampler import Upsampler

#: What runs meanwhile here.
STANDBY, TITLE = ("openvino", "OpenVINO") if find_spec("openvino") else ("onnxruntime", "ONNX Runtime")

pytestmark = pytest.mark.once

IMAGE = OUTPUTS[0]
NODE = "dsca_ros.ros.node"
#: What the stand-in makes of every pixel, by dtype: farther than any other engine takes for valid.
MARK = {"uint16": 12345, "float32": 12.345}
FAILURE = "the GPU fell off the bus"


class Slow:
    """An engine that is built until the workshop opens its gate."""

    description, device, precision = "the slow engine", "a GPU", "fp16"

    def __init__(self, workshop: Workshop, model: ModelFile) -> None:
        self._workshop, self.scale = workshop, model.scale
        self._stopped = False

    @property
    def progress(self) -> str:
        return self._workshop.progress

    def prepare(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        self._workshop.preparing.set()
        assert self._workshop.gate.wait(2 * TIMEOUT), "the test forgot to open the gate"
        if self._stopped:
            raise EngineError("the build was stopped")
        self._workshop.fail_in("prepare")

    def stop_preparing(self) -> None:
        self._stopped = True
        self._workshop.gate.set()

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        self._workshop.fail_in("infer")
        height, width = depth.shape
        result = np.full((self.scale * height, self.scale * width), MARK[depth.dtype.name], depth.dtype)
        if self._workshop.broken_pixel is not None:
            result[5, 6] = self._workshop.broken_pixel
        return result

    def close(self) -> None:
        self._workshop.closed += 1


class Workshop:
    """Decides how the slow engine fares."""

    def __init__(self) -> None:
        self.gate, self.preparing = threading.Event(), threading.Event()
        self.progress = "timing kernels, 40 %"
        self.errors: dict[str, EngineError] = {}
        self.broken_pixel: float | None = None
        self.closed = 0
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def fail_in(self, place: str) -> None:
        if place in self.errors:
            raise self.errors[place]


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """The engine `tensorrt` is the stand-in, and pauses pass when the test says so."""
    shop = Workshop()
    slow = EngineKind("tensorrt", lambda model, threads: Slow(shop, model), lambda: None, (), slow=True)
    monkeypatch.setattr(factory, "ENGINES", (slow, *factory.ENGINES[1:]))
    monkeypatch.setattr(factory, "StartingEngine", partial(StartingEngine, clock=shop.clock))
    monkeypatch.setattr(diagnostics, "STALE_AFTER", 3600.0)
    return shop


@pytest.fixture
def standby() -> Iterator[Upsampler]:
    """What runs meanwhile, run directly."""
    with Upsampler(engine=STANDBY) as upsampler:
        yield upsampler


def of_slow(message: Image) -> bool:
    """Whether the slow engine made this; else no pixel is of its making."""
    depth = pixels(message)
    marked = depth == depth.dtype.type(MARK[depth.dtype.name])
    assert marked.all() or not marked.any()
    return bool(marked.all())


def building(graph: Graph, shop: Workshop, calibrated: bool = False, **parameters: object) -> None:
    """A node in the middle of a build, which its first frame has begun; without camera_info it warns of that."""
    graph.start_node(engine="tensorrt", **parameters)
    graph.connect(IMAGE)
    image = graph.camera.image()
    graph.send(image, graph.camera.info(image) if calibrated else None)
    assert shop.preparing.wait(TIMEOUT)


def running(graph: Graph, shop: Workshop, **parameters: object) -> None:
    """A node whose engine has been built."""
    shop.gate.set()
    building(graph, shop, **parameters)
    graph.status(lambda v: v["state"] == "RUNNING" and v["device"] == "a GPU", "of RUNNING")
    assert of_slow(graph.exchange(graph.camera.image()))


# --- building -----------------------------------------------------------------------------------


def test_a_build_is_told_with_its_progress_until_the_engine_runs(graph: Graph, shop: Workshop) -> None:
    building(graph, shop, calibrated=True)
    status = graph.status(lambda v: v["state"] == "BUILDING", "of BUILDING")
    assert status.level == DiagnosticStatus.WARN
    assert status.message == "BUILDING: timing kernels, 40 %"
    assert TITLE in status.hardware_id
    said = values(status)
    assert (said["device"], said["precision"]) == ("CPU", "fp32")
    shop.progress = "timing kernels, 80 %"
    graph.spin_until(lambda: graph.listener.status[-1].message.endswith("80 %"), "progress")
    shop.gate.set()
    status = graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    assert (status.level, status.hardware_id) == (DiagnosticStatus.OK, "the slow engine")
    said = values(status)
    assert (said["engine"], said["device"], said["precision"]) == ("the slow engine", "a GPU", "fp16")
    for words in (f"being built (timing kernels, 80 %); meanwhile on: {TITLE}", "x2 on the slow engine"):
        graph.spin_until(lambda w=words: any(w in log.msg for log in graph.listener.logs), f"{words!r} in the log")


def test_nothing_is_built_before_the_first_frame(graph: Graph, shop: Workshop) -> None:
    graph.start_node(engine="tensorrt")
    graph.status(lambda v: v["state"] == "IDLE", "of IDLE")
    graph.connect(IMAGE)
    graph.status(lambda v: v["state"] == "WAITING", "of WAITING")
    assert not shop.preparing.is_set()


def test_no_frame_is_lost_or_doubled_at_the_switch(graph: Graph, shop: Workshop, standby: Upsampler) -> None:
    graph.start_node(engine="tensorrt")
    graph.connect(IMAGE)
    came: list[Image] = []  # the listener keeps one of each stamp
    graph.tester.create_subscription(Image, IMAGE, came.append, 100)
    graph.spin_until(lambda: graph.connected(IMAGE), "the second listener")
    depths = [scene(index=index) for index in range(4)]
    expected = [standby(depth) for depth in depths]
    sent, fast = [], 0
    while fast < 20 and len(sent) < 500:
        if len(sent) == 20:
            shop.gate.set()
        image = graph.camera.image(depths[len(sent) % 4])
        sent.append(key(image))
        fast += of_slow(graph.exchange(image))
    graph.spin_until(lambda: len(came) >= len(sent), "every frame")
    assert [key(image) for image in came] == sent
    slow = len(sent) - fast
    assert fast == 20 and slow >= 20
    assert [of_slow(image) for image in came] == slow * [False] + fast * [True]
    for index, image in enumerate(came[:slow]):
        np.testing.assert_array_equal(pixels(image), expected[index % 4])
    counts = dict.fromkeys(("received", "published", "no_camera_info"), len(sent))
    graph.spin_until(lambda: graph.node.health.counts() == counts, f"{counts}", 5.0)


def test_without_warm_start_nothing_comes_out_and_the_node_answers(graph: Graph, shop: Workshop) -> None:
    building(graph, shop, warm_start=False)
    for count in range(1, 6):
        graph.spin_until(lambda n=count: graph.counter("dropped_building") == n, "the frame to be dropped")
        graph.send(graph.camera.image())
    status = graph.status(lambda v: v["state"] == "BUILDING" and v["dropped_building"] == "6", "of BUILDING")
    assert values(status)["engine"] == "none yet"
    client = AsyncParameterClient(graph.tester, "dsca_node")
    graph.spin_until(client.services_are_ready, "parameter services")
    answer = client.set_parameters_atomically([Parameter("max_depth", value=3.0)])
    graph.spin_until(answer.done, "an answer during the build", 5.0)
    assert answer.result().result.successful
    answer = client.get_parameters(["max_depth", "warm_start"])
    graph.spin_until(answer.done, "an answer during the build", 5.0)
    max_depth, warm_start = answer.result().values
    assert (max_depth.double_value, warm_start.bool_value) == (3.0, False)
    assert not graph.listener.images and not graph.counter("engine_error") and not graph.counter("published")
    shop.gate.set()
    graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    image = graph.camera.image()
    assert of_slow(graph.exchange(image))
    assert list(graph.listener.images) == [key(image)]


def test_another_image_size_is_built_while_frames_go_on(graph: Graph, shop: Workshop, standby: Upsampler) -> None:
    running(graph, shop)
    shop.gate.clear()
    depth = scene(48, 40)
    result = graph.exchange(graph.camera.image(depth))
    np.testing.assert_array_equal(pixels(result), standby(depth))
    graph.status(lambda v: v["state"] == "BUILDING", "of BUILDING")
    shop.gate.set()
    graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    assert of_slow(graph.exchange(graph.camera.image(depth)))
    assert of_slow(graph.exchange(graph.camera.image()))


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["prepare", "infer"])
def test_a_failure_is_told_frames_go_on_and_it_recovers(
    graph: Graph, shop: Workshop, standby: Upsampler, place: str
) -> None:
    if place == "infer":
        running(graph, shop)
    shop.errors[place] = EngineError(FAILURE)
    if place == "prepare":
        building(graph, shop)
        shop.gate.set()
    for index in range(4):
        depth = scene(index=index)
        result = graph.exchange(graph.camera.image(depth))
        np.testing.assert_array_equal(pixels(result), standby(depth))
    status = graph.status(lambda v: v["state"] == "ERROR", "of ERROR")
    assert status.level == DiagnosticStatus.ERROR
    assert status.message == f"ERROR: {FAILURE}; next try in 1 s"
    assert TITLE in status.hardware_id
    assert shop.closed == 1

    shop.errors.clear()
    shop.now += 1.5
    assert not of_slow(graph.exchange(graph.camera.image()))  # begins the next try
    status = graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING again")
    # A warning still: these images come without camera_info.
    assert (status.message[:26], status.hardware_id) == ("RUNNING: no camera_info ye", "the slow engine")
    assert of_slow(graph.exchange(graph.camera.image()))
    graph.spin_until(lambda: graph.counter("published") == graph.counter("received"), "every frame to count", 5.0)
    assert not graph.counter("engine_error")


def test_a_failure_without_warm_start_stops_the_frames_until_it_recovers(graph: Graph, shop: Workshop) -> None:
    running(graph, shop, warm_start=False)
    shop.errors["infer"] = EngineError(FAILURE)
    before = list(graph.listener.images)
    graph.send(graph.camera.image())
    status = graph.status(lambda v: v["state"] == "ERROR", "of ERROR")
    assert status.message == f"ERROR: {FAILURE}; next try in 1 s"
    assert list(graph.listener.images) == before
    shop.errors.clear()
    shop.now += 1.5
    graph.send(graph.camera.image())
    graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING again")
    assert of_slow(graph.exchange(graph.camera.image()))


@pytest.mark.parametrize("warm_start", [True, False])
def test_what_an_engine_finds_not_finite_is_not_published(
    graph: Graph, shop: Workshop, standby: Upsampler, warm_start: bool
) -> None:
    running(graph, shop, warm_start=warm_start)
    shop.errors["infer"] = EngineError("the GPU's result is not finite; remedy: precision: fp32")
    before = list(graph.listener.images)
    depth = scene()
    image = graph.camera.image(depth)
    if warm_start:
        np.testing.assert_array_equal(pixels(graph.exchange(image)), standby(depth))
    else:
        graph.send(image)
    graph.status(lambda v: v["state"] == "ERROR", "of ERROR")
    assert list(graph.listener.images) == [*before, *([key(image)] if warm_start else [])]
    assert any("not finite" in status.message for status in graph.listener.status)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_is_never_published(graph: Graph, shop: Workshop, value: float) -> None:
    graph.start_node(engine="tensorrt")
    graph.connect(IMAGE)
    shop.gate.set()
    metric = partial(scene, dtype=np.float32)
    graph.exchange(graph.camera.image(metric()))
    graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    assert of_slow(graph.exchange(graph.camera.image(metric())))
    before = list(graph.listener.images)
    shop.broken_pixel = value
    graph.send(graph.camera.image(metric()))
    graph.spin_until(lambda: graph.counter("engine_error") == 1, "the frame to be given up")
    status = graph.status(lambda v: v["state"] == "ERROR", "of ERROR")
    assert "not finite" in status.message
    shop.broken_pixel = None
    image = graph.camera.image(metric())
    assert of_slow(graph.exchange(image))
    assert list(graph.listener.images) == [*before, key(image)]


# --- the end ------------------------------------------------------------------------------------

#: The node with a slow engine, as a process of its own.
NODE_WITH = """
import sys, threading
from dsca_ros.engine import factory
from dsca_ros.engine.base import EngineError
from dsca_ros.ros import node

class Slow:
    scale, description, device, precision, progress = 2, "the slow engine", "a GPU", "fp16", "timing"

    def __init__(self, model, threads):
        self.stop = threading.Event()

    def prepare(self, shape, dtype):
        print("prepares", flush=True)
        {preparing}

    def stop_preparing(self):
        self.stop.set()

    def close(self):
        print("closed", flush=True)

factory.ENGINES = (factory.EngineKind("tensorrt", Slow, lambda: None, (), slow=True),)
node.main(sys.argv)
"""


def feed(graph: Graph, done: Callable[[], object], what: str) -> None:
    """Frames now and then, best effort as they are, until something holds."""
    sent = 0.0

    def fed() -> object:
        nonlocal sent
        if time.monotonic() - sent > 0.3:
            sent = time.monotonic()
            graph.camera.publish(graph.camera.image())
        return done()

    graph.spin_until(fed, what)


def test_a_node_is_closed_at_once_in_the_middle_of_a_build(graph: Graph, shop: Workshop) -> None:
    building(graph, shop)
    node, graph.node = graph.node, None
    graph.executor.remove_node(node)
    started = time.monotonic()
    node.close()
    assert time.monotonic() - started < 3.0
    assert shop.closed == 1
    left = {thread.name for thread in threading.enumerate()}
    assert not left & {"dsca_engine_start", "dsca_worker"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_in_the_middle_of_a_build_leaves_at_once(graph: Graph, number: signal.Signals) -> None:
    preparing = "self.stop.wait(600.0); raise EngineError('stopped')"
    process = graph.run(["-c", NODE_WITH.format(preparing=preparing)])
    graph.listener.subscribe(IMAGE)
    feed(graph, lambda: "prepares" in process.output(), "the build")
    assert process.end(number) == 0, process.output()
    assert "closed" in process.output()
    assert "Traceback" not in process.output(), process.output()


def test_build_only_ends_well_when_the_engine_is_built(graph: Graph, shop: Workshop) -> None:
    graph.start_node(engine="tensorrt", build_only=True)
    # For nobody: the camera is subscribed to all the same.
    graph.spin_until(lambda: all(map(graph.connected, INPUTS)), "the camera")
    graph.send(graph.camera.image())
    assert shop.preparing.wait(TIMEOUT)
    graph.status(lambda v: v["state"] == "BUILDING" and v["engine"] == "none yet", "of BUILDING without a standby")
    shop.gate.set()
    with pytest.raises(SystemExit) as ended:
        graph.spin_until(lambda: False, "the end")
    assert ended.value.code == 0
    assert graph.counter("dropped_building") == 1 and not graph.counter("published")


def test_build_only_ends_with_an_error_when_the_engine_fails(graph: Graph, shop: Workshop) -> None:
    shop.errors["prepare"] = EngineError(FAILURE)
    shop.gate.set()
    graph.start_node(engine="tensorrt", build_only=True)
    graph.spin_until(lambda: all(map(graph.connected, INPUTS)), "the camera")
    with pytest.raises(SystemExit) as ended:
        graph.send(graph.camera.image())
        graph.spin_until(lambda: False, "the end")
    assert ended.value.code == 1


def test_build_only_as_a_process_has_nothing_to_build_for_onnxruntime(graph: Graph) -> None:
    process = graph.start(NODE, engine="onnxruntime", build_only=True)
    assert process.wait() == 0, process.output()
    assert "build_only: ready: ONNX Runtime" in process.output()


@pytest.mark.parametrize(("preparing", "status"), [("pass", 0), ("raise EngineError('no memory')", 1)])
def test_build_only_as_a_process_tells_by_its_exit_status(graph: Graph, preparing: str, status: int) -> None:
    script = NODE_WITH.format(preparing=preparing)
    process = graph.run(["-c", script, "--ros-args", "-p", "build_only:=true"])
    feed(graph, lambda: process.popen.poll() is not None, "the end of the process")
    assert process.popen.returncode == status, process.output()
    assert "Traceback" not in process.output(), process.output()
    assert ("build_only: ready" if status == 0 else "no engine: no memory") in process.output()
