"""What goes wrong on a robot, over real DDS: it is told, frames go on where they can, and all is well after."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clients import AROUND, Lifecycle, Parameters, Usage, node_threads
from diagnostic_msgs.msg import DiagnosticStatus
from ros_graph import OUTPUTS, TIMEOUT, Camera, Graph, Process, key, scene, values
from sensor_msgs.msg import Image

from dsca_ros.ros import node as node_module
from dsca_ros.ros import pipeline as pipeline_module
from dsca_ros.upsampler import Upsampler

IMAGE = OUTPUTS[0]
NODE, CAMERA = "dsca_ros.ros.node", "dsca_ros.ros.synthetic_camera"
#: A camera that costs little.
SMALL = {"width": 64, "height": 48, "frames": 2, "rate": 30.0}
#: Of the watchdog in these tests, seconds: a frame takes a hundredth of it.
SHORT = 0.5


class Hanging(Upsampler):
    """An upsampler that waits at a gate before each frame, and takes no notice of anything else."""

    made: list[Hanging]

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self.gate, self.waits, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.gate.set()
        type(self).made.append(self)

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        if not self.gate.is_set():
            self.waits.set()
            self.gate.wait()
        return super().__call__(depth)

    def close(self) -> None:
        super().close()
        self.closed.set()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Hanging]]:
    """The node's upsamplers, in the order in which they were made."""
    Hanging.made = []
    monkeypatch.setattr(node_module, "Upsampler", Hanging)
    yield Hanging.made
    for upsampler in Hanging.made:
        upsampler.gate.set()


def hang(graph: Graph, upsampler: Hanging) -> Image:
    """A node that works, until its engine hangs on the frame that is given."""
    graph.connect()
    graph.good_frame()
    upsampler.gate.clear()
    image = graph.camera.image()
    graph.send(image)
    assert upsampler.waits.wait(TIMEOUT)
    return image


def logged(graph: Graph, level: int, text: str) -> list[str]:
    return [
        log.msg for log in graph.listener.logs if log.name == "dsca_node" and log.level == level and text in log.msg
    ]


# --- the engine ---------------------------------------------------------------------------------


def test_an_engine_that_hangs_is_told_of_frames_are_dropped_and_it_recovers(
    graph: Graph, hanging: list[Hanging]
) -> None:
    graph.start_node(engine_timeout=SHORT)
    late = hang(graph, hanging[0])
    status = graph.status(lambda v: v["state"] == "ERROR", "of ERROR")
    assert status.level == DiagnosticStatus.ERROR and "has not answered for" in status.message
    assert values(status)["dropped_engine_timeout"] == "1"
    for number in range(3):
        graph.send(graph.camera.image())
        assert graph.counter("dropped_busy") == number  # the newest waits, the others are dropped
    newest = graph.camera.image()
    graph.send(newest)
    hanging[0].gate.set()
    graph.spin_until(lambda: key(newest) in graph.listener.images, "the newest frame")
    graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    graph.good_frame()
    assert key(late) not in graph.listener.images  # it is of long ago
    assert graph.counter("dropped_engine_timeout") == 1 and not graph.counter("dropped_forgotten")
    graph.spin_until(lambda: logged(graph, 20, "the engine answers again"), "the end of it in the log")
    assert len(logged(graph, 40, "has not answered")) == 1


def test_without_a_timeout_an_engine_may_take_as_long_as_it_likes(graph: Graph, hanging: list[Hanging]) -> None:
    node = graph.start_node(engine_timeout=0.0)
    image = hang(graph, hanging[0])
    assert node.pipeline._call is not None and node.pipeline.overdue() is None
    node.pipeline._call = pipeline_module.Call(node.pipeline._call.frame, -1e9, first=False)  # since ever
    assert node.pipeline.overdue() is None
    hanging[0].gate.set()
    graph.spin_until(lambda: key(image) in graph.listener.images, "the frame")


def test_the_first_frame_of_a_size_has_longer(graph: Graph, hanging: list[Hanging]) -> None:
    node = graph.start_node(engine_timeout=SHORT)
    graph.connect()
    graph.good_frame()
    hanging[0].gate.clear()
    image = graph.camera.image(scene(40, 30))
    graph.send(image)
    assert hanging[0].waits.wait(TIMEOUT)
    call = node.pipeline._call
    assert call.first
    node.pipeline._call = pipeline_module.Call(call.frame, time.monotonic() - 100 * SHORT, first=True)
    assert node.pipeline.overdue() is None
    node.pipeline._call = pipeline_module.Call(call.frame, time.monotonic() - 2 * pipeline_module.FIRST_WITHIN, True)
    assert node.pipeline.overdue() > pipeline_module.FIRST_WITHIN
    hanging[0].gate.set()
    graph.spin_until(lambda: graph.counter("dropped_engine_timeout") == 1, "the frame to be given up")


@pytest.mark.parametrize("change", [{"engine": "onnxruntime"}, {"engine": "auto"}, {"threads": 1}])
def test_an_engine_that_hangs_for_ever_is_left_behind_on_request(
    graph: Graph, hanging: list[Hanging], change: dict[str, object]
) -> None:
    """Also by `engine` as it was: to ask for it again is to ask for a new one."""
    graph.start_node(engine_timeout=SHORT, engine="auto")
    parameters = Parameters(graph)
    late = hang(graph, hanging[0])
    graph.status(lambda v: v["state"] == "ERROR", "of ERROR")
    assert parameters.set(**change) == (True, "")
    graph.spin_until(lambda: len(hanging) == 2 and graph.node.pipeline.upsampler is hanging[1], "a new engine")
    graph.good_frame()
    graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    # Should the old one ever come back, it goes without a word.
    published = graph.counter("published")
    hanging[0].gate.set()
    assert hanging[0].closed.wait(TIMEOUT)
    graph.good_frame()
    assert graph.counter("published") == published + 1 and key(late) not in graph.listener.images
    graph.spin_until(lambda: node_threads() == {"dsca_worker"}, "one worker")


def test_an_engine_that_hangs_is_left_behind_by_the_lifecycle(graph: Graph, hanging: list[Hanging]) -> None:
    graph.start_node(engine_timeout=SHORT)
    lifecycle = Lifecycle(graph)
    late = hang(graph, hanging[0])
    lifecycle.changes(AROUND)
    graph.connect()
    graph.good_frame()
    graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    hanging[0].gate.set()
    assert hanging[0].closed.wait(TIMEOUT)
    graph.good_frame()
    assert key(late) not in graph.listener.images


def test_a_change_asked_for_before_it_hangs_does_not_hold_up_activation(graph: Graph, hanging: list[Hanging]) -> None:
    """Activation waits for a change of networks under way, which would wait for the frame that hangs."""
    graph.start_node(engine_timeout=SHORT)
    lifecycle, parameters = Lifecycle(graph), Parameters(graph)
    hang(graph, hanging[0])
    assert parameters.set(threads=1) == (True, "")
    lifecycle.changes(("deactivate", "activate"))
    assert graph.node.pipeline.upsampler is hanging[1]
    graph.connect()
    graph.good_frame()


def test_of_many_frames_for_a_slow_engine_the_newest_are_taken_and_no_more_than_one_waits(
    graph: Graph, hanging: list[Hanging]
) -> None:
    """Ten frames come in the time of one: by count, so that the machine's speed is no matter."""
    graph.start_node()
    graph.connect()
    graph.good_frame()
    came: list[Image] = []
    graph.tester.create_subscription(Image, IMAGE, came.append, 100)
    graph.spin_until(lambda: graph.connected(IMAGE), "the second listener")
    upsampler, newest = hanging[0], []
    for _ in range(8):
        upsampler.gate.clear()
        upsampler.waits.clear()
        if not newest:
            graph.send(graph.camera.image())
        assert upsampler.waits.wait(TIMEOUT)
        for _ in range(10):
            image = graph.camera.image()
            graph.send(image)
        newest.append(key(image))
        upsampler.waits.clear()
        upsampler.gate.set()
        # The one that waits is the last that came: it is at most one frame's work late.
        graph.spin_until(lambda: newest[-1] in graph.listener.images, "the newest frame")
        upsampler.gate.clear()
        graph.send(graph.camera.image())
    upsampler.gate.set()
    graph.good_frame()
    answered = [key(image) for image in came]
    assert set(newest) <= set(answered) and answered == sorted(answered)
    assert graph.counter("dropped_busy") == 8 * 9


# --- cameras ------------------------------------------------------------------------------------


def test_two_cameras_on_one_topic_are_told_of_and_keep_their_own_intrinsics(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    graph.good_frame()
    other = Camera(graph.tester)
    other._count = 1000  # stamps of its own
    for publisher in (other.image_publisher, other.info_publisher):
        graph.spin_until(lambda p=publisher: p.get_subscription_count() == 1, "the second camera")
    seen = len(graph.listener.status)

    def told() -> list[DiagnosticStatus]:
        since = graph.listener.status[seen:]
        return [status for status in since if values(status)["state"] == "RUNNING" and "2 cameras" in status.message]

    graph.spin_until(told, "diagnostics of two cameras")
    assert told()[0].level == DiagnosticStatus.WARN
    graph.spin_until(lambda: graph.listener.warnings("2 cameras publish on /depth/image_raw"), "the warning")
    sent = []
    for index in range(6):
        camera, size, frame = ((graph.camera, (64, 48), "left"), (other, (40, 30), "right"))[index % 2]
        image = camera.image(scene(*size, index=index))
        image.header.frame_id = frame
        info = camera.info(image)
        received = graph.counter("received")
        camera.info_publisher.publish(info)
        graph.spin_until(lambda i=info: graph.node.infos.get(key(i)) == i, "camera_info")
        camera.image_publisher.publish(image)
        graph.spin_until(lambda n=received: graph.counter("received") == n + 1, "the image")
        graph.spin_until(lambda i=image: key(i) in graph.listener.infos, "the results")
        sent.append((key(image), size, frame))
    for stamp, (width, height), frame in sent:
        image, info = graph.listener.images[stamp], graph.listener.infos[stamp]
        assert (image.width, image.height) == (info.width, info.height) == (2 * width, 2 * height)
        assert image.header.frame_id == info.header.frame_id == frame
    graph.tester.destroy_publisher(other.image_publisher)
    graph.tester.destroy_publisher(other.info_publisher)
    graph.status(lambda v: graph.listener.status[-1].message == "RUNNING", "of one camera again")


def test_of_two_cameras_a_late_info_is_not_taken_for_the_others_image(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    left, right = graph.camera.image(), graph.camera.image()
    left.header.frame_id, right.header.frame_id = "left", "right"
    infos = [graph.camera.info(left), graph.camera.info(right)]
    infos[1].k[0] = infos[1].p[0] = 99.0
    for info in infos:
        graph.camera.info_publisher.publish(info)
    graph.spin_until(lambda: len(graph.node.infos) == 2, "both infos")
    image = graph.camera.image()
    image.header.frame_id = "left"
    graph.exchange(image)
    graph.spin_until(lambda: key(image) in graph.listener.infos, "camera_info")
    assert graph.listener.infos[key(image)].k[0] == 2 * infos[0].k[0]


def test_a_camera_that_is_killed_is_told_of_and_its_successor_is_taken(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsca_ros.ros.diagnostics.STALE_AFTER", 0.3)
    graph.start_node()
    graph.listener.subscribe(IMAGE)
    for _ in range(2):
        camera = graph.start(CAMERA, **SMALL)
        seen = len(graph.listener.images)
        graph.spin_until(lambda n=seen: len(graph.listener.images) > n + 2, "frames")
        camera.kill()
        status = graph.status(lambda v: v["state"] == "STALE", "of STALE")
        assert "is the camera running?" in status.message
    graph.exchange(graph.camera.image())  # and this one's, of another size


# --- processes ----------------------------------------------------------------------------------


def until_answered(graph: Graph, *processes: Process) -> None:
    """Until a result has come that was not there before."""
    seen = len(graph.listener.images)

    def answered() -> bool:
        for process in processes:
            assert process.popen.poll() is None, process.output()
        return len(graph.listener.images) > seen

    graph.spin_until(answered, "results")


def test_a_node_that_is_killed_again_and_again_comes_back_each_time(graph: Graph, tmp_path: Path) -> None:
    """Every other time in the middle of its start. $DSCA_KILLS says how often; make soak does it under load."""
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    graph.start(CAMERA, **SMALL)
    graph.listener.subscribe(*OUTPUTS)
    for number in range(int(os.environ.get("DSCA_KILLS", "3"))):
        if number % 2:
            half_started = graph.start(NODE, env)
            graph.spin_until(lambda p=half_started: "dsca_" in p.output(), "its first line")
            half_started.kill()
        node = graph.start(NODE, env)
        until_answered(graph, node)
        node.popen.kill()
        node.popen.wait()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_node_and_a_camera_that_were_stopped_go_on(graph: Graph) -> None:
    """SIGSTOP is a processor that is taken away, and more so."""
    camera, node = graph.start(CAMERA, **SMALL), graph.start(NODE)
    graph.listener.subscribe(IMAGE)
    until_answered(graph, camera, node)
    for process in (node, camera, node):
        process.popen.send_signal(signal.SIGSTOP)
        graph.spin_until(lambda p=process: stopped(p), "it to stop")
        # What it sent before may still come; then there is nothing.
        quiet(graph)
        process.popen.send_signal(signal.SIGCONT)
        until_answered(graph, camera, node)
    before = Usage(node.popen.pid)
    until_answered(graph, camera, node)
    assert Usage(node.popen.pid).threads == before.threads


def stopped(process: Process) -> bool:
    stat = Path(f"/proc/{process.popen.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def quiet(graph: Graph) -> None:
    """Until no more results come for half a second."""
    deadline, seen = time.monotonic() + TIMEOUT, -1
    while seen != len(graph.listener.images):
        assert time.monotonic() < deadline
        seen, until = len(graph.listener.images), time.monotonic() + 0.5
        graph.spin_until(lambda t=until: time.monotonic() > t)


#: The node, which signals itself when a function of it is called for the n-th time.
SIGNALLED_IN = """
import os, signal, sys
from dsca_ros.ros import node, pipeline, messages, diagnostics, camera_infos
from dsca_ros.engine import factory

real, calls = {function}, 0

def signalled(*args, **kwargs):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGTERM)
    return real(*args, **kwargs)

{function} = signalled
node.main(sys.argv)
"""


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("node.parameters.declare", 1),
        ("factory.find_model", 1),
        ("node.Pipeline", 1),
        ("node.DscaNode._subscription", 2),
        ("pipeline.messages.decode", 3),
        ("pipeline.messages.encode_depth", 3),
        ("camera_infos.CameraInfos.add", 2),
        ("node.DscaNode._free", 1),
    ],
)
def test_sigterm_at_any_point_of_its_life_ends_the_node_in_order(graph: Graph, function: str, call: int) -> None:
    node = graph.run(["-c", SIGNALLED_IN.format(function=function, call=call)])
    graph.listener.subscribe(*OUTPUTS)
    sent = 0.0

    def ended() -> bool:
        nonlocal sent
        if time.monotonic() - sent > 0.1:
            sent = time.monotonic()
            image = graph.camera.image()
            graph.camera.publish(image, graph.camera.info(image))
            if function.endswith("_free") and graph.listener.images:
                node.popen.send_signal(signal.SIGTERM)  # and the second one while it cleans up
        return node.popen.poll() is not None

    graph.spin_until(ended, "its end")
    assert node.popen.returncode == 0, node.output()
    assert "Traceback" not in node.output(), node.output()
