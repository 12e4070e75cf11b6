"""The node's lifecycle, driven through its services: what transitions make and free, and what a failure leaves."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from clients import AROUND, Lifecycle, Parameters, Usage, node_threads
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Log
from ros_graph import INPUTS, OUTPUTS, TIMEOUT, Graph, key, pixels, scales, scene, values

from dsca_ros.engine.base import EngineError
from dsca_ros.engine.starting import BUILDING, FAILED, RUNNING
from dsca_ros.ros import node as node_module
from dsca_ros.ros import pipeline
from dsca_ros.ros.node import DscaNode
from dsca_ros.upsampler import Upsampler

IMAGE, INFO, POINTS = OUTPUTS
NODE = "dsca_ros.ros.node"


class Watched(Upsampler):
    """An upsampler that notes what becomes of it, and waits where a test tells it to."""

    made: list[Watched]

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.closed, self.busy, self.go_on = 0, threading.Event(), threading.Event()
        self.go_on.set()
        self.made.append(self)

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        self.busy.set()
        assert self.go_on.wait(TIMEOUT)
        return super().__call__(depth)

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """Every network that the node loads."""
    Watched.made = []
    monkeypatch.setattr(node_module, "Upsampler", Watched)
    return Watched.made


def errors(graph: Graph, text: str) -> list[str]:
    """Errors logged by the node that contain a text."""
    logged = [log.msg for log in graph.listener.logs if log.name == "dsca_node" and log.level == 40]
    return [line for line in logged if text in line]


def results_are_offered(graph: Graph) -> list[bool]:
    """Whether each of the results has a publisher, as the graph sees it."""
    return [graph.tester.count_publishers(topic) == 1 for topic in (*OUTPUTS, f"{IMAGE}/compressedDepth")]


def camera_is_heard(graph: Graph) -> list[bool]:
    """Whether each of the camera's topics is subscribed to."""
    publishers = graph.camera.image_publisher, graph.camera.info_publisher
    return [publisher.get_subscription_count() == 1 for publisher in publishers]


def all_is_freed(graph: Graph) -> bool:
    """Whether nothing is left of what configuring made."""
    return not any(results_are_offered(graph)) and not any(camera_is_heard(graph)) and not node_threads()


def works(graph: Graph) -> None:
    """A frame goes through, once everyone has found each other."""
    graph.spin_until(lambda: all(map(graph.connected, (*INPUTS, *OUTPUTS))), "the topics to connect")
    graph.good_frame()


# --- the states ---------------------------------------------------------------------------------


def test_it_activates_itself(graph: Graph) -> None:
    graph.start_node()
    assert Lifecycle(graph).state() == "active"


def test_each_transition_makes_and_frees_its_part(graph: Graph, made: list[Watched]) -> None:
    node = graph.start_node(autostart=False, lazy=False)
    graph.listener.subscribe(*OUTPUTS)
    lifecycle = Lifecycle(graph)
    assert lifecycle.state() == "unconfigured"
    graph.status(lambda v: v["state"] == "UNCONFIGURED", "of UNCONFIGURED")
    assert all_is_freed(graph) and not made

    assert lifecycle.change("configure")
    assert lifecycle.state() == "inactive"
    (network,) = made
    graph.spin_until(lambda: all(results_are_offered(graph)), "the publishers")
    graph.camera.publish(graph.camera.image())
    graph.status(lambda v: v["state"] == "INACTIVE" and v["engine"] == network.engine, "of INACTIVE")
    assert not any(camera_is_heard(graph))

    assert lifecycle.change("activate")
    assert lifecycle.state() == "active"
    works(graph)

    assert lifecycle.change("deactivate")
    graph.spin_until(lambda: not any(camera_is_heard(graph)), "the camera to be let go of")
    assert all(results_are_offered(graph))
    assert (len(made), network.closed, node.pipeline.upsampler) == (1, 0, network)

    assert lifecycle.change("activate")
    works(graph)
    assert (len(made), network.closed) == (1, 0)

    assert lifecycle.change("deactivate") and lifecycle.change("cleanup")
    assert lifecycle.state() == "unconfigured"
    graph.spin_until(lambda: all_is_freed(graph), "all to be freed")
    assert (len(made), network.closed) == (1, 1)
    graph.status(lambda v: v["state"] == "UNCONFIGURED" and v["engine"] == "none", "of UNCONFIGURED")
    assert len(graph.listener.images) == 2


@pytest.mark.parametrize("before", [(), ("configure",), ("configure", "activate")])
def test_shutdown_frees_all_from_every_state(graph: Graph, made: list[Watched], before: tuple[str, ...]) -> None:
    graph.start_node(autostart=False, lazy=False)
    lifecycle = Lifecycle(graph)
    lifecycle.changes(before)
    if "activate" in before:
        graph.spin_until(lambda: all(camera_is_heard(graph)), "the camera to be subscribed to")
    assert lifecycle.change("shutdown")
    assert lifecycle.state() == "finalized"
    graph.spin_until(lambda: all_is_freed(graph), "all to be freed")
    assert [network.closed for network in made] == [1] * bool(before)
    status = graph.status(lambda v: v["state"] == "FINALIZED", "of FINALIZED")
    assert "started anew" in status.message
    # It ends here, and says so to whoever still asks.
    assert not lifecycle.change("configure")
    assert Parameters(graph).set(max_depth=3.0) == (True, "")


def test_a_transition_that_the_state_does_not_allow_is_refused_and_ends_nobody(graph: Graph) -> None:
    graph.start_node(autostart=False, lazy=False)
    lifecycle = Lifecycle(graph)
    assert not lifecycle.change("activate")
    assert not lifecycle.change(Transition.TRANSITION_ACTIVATE)
    assert not lifecycle.change("fly")
    assert not lifecycle.change(99)
    assert lifecycle.state() == "unconfigured"
    lifecycle.changes(("configure", "activate"))
    assert not lifecycle.change(Transition.TRANSITION_CONFIGURE)
    assert not lifecycle.change(Transition.TRANSITION_CLEANUP)
    assert lifecycle.state() == "active"
    # From Kilted on rclpy itself refuses, and says so.
    said = ("refused a transition", "Unable to start transition")
    graph.spin_until(lambda: any(log.msg.startswith(said) for log in graph.listener.logs), "the refusal in the log")
    graph.listener.subscribe(*OUTPUTS)
    works(graph)


def test_a_frame_in_work_is_not_published_once_it_is_inactive(graph: Graph, made: list[Watched]) -> None:
    graph.start_node()
    graph.connect()
    lifecycle = Lifecycle(graph)
    first = graph.good_frame()
    (network,) = made
    network.busy.clear()
    network.go_on.clear()
    graph.send(graph.camera.image())
    assert network.busy.wait(TIMEOUT)
    graph.send(graph.camera.image())  # waits
    assert lifecycle.change("deactivate")
    network.go_on.set()
    graph.spin_until(lambda: graph.counter("dropped_forgotten") == 2, "both frames to be dropped")
    assert lifecycle.change("activate")
    works(graph)
    assert next(iter(graph.listener.images)) == key(first) and len(graph.listener.images) == 2
    assert len(graph.listener.infos) == len(graph.listener.clouds) == 2


# --- parameters meanwhile -----------------------------------------------------------------------


def test_parameters_count_from_the_next_transition_on(graph: Graph, made: list[Watched]) -> None:
    if 4 not in scales():
        pytest.skip("the default model has one scale")
    graph.start_node(autostart=False)
    graph.listener.subscribe(*OUTPUTS)
    lifecycle, parameters = Lifecycle(graph), Parameters(graph)
    depth = np.full((48, 64), 1000, np.uint16)
    depth[:, 32:] = 4000

    def far_side_and_size() -> tuple[bool, tuple[int, int]]:
        graph.spin_until(lambda: all(map(graph.connected, (*INPUTS, *OUTPUTS))), "the topics to connect")
        result = pixels(graph.exchange(graph.camera.image(depth)))
        return bool(result[:, -40:].any()), result.shape

    assert parameters.set(scale=4, max_depth=2.0) == (True, "")
    assert not made
    lifecycle.changes(("configure", "activate"))
    assert far_side_and_size() == (False, (192, 256))
    assert lifecycle.change("deactivate")
    assert parameters.set(max_depth=10.0, scale=2) == (True, "")
    assert lifecycle.change("activate")
    # The very first frame: the network that was asked for has been waited for.
    assert far_side_and_size() == (True, (96, 128))
    assert [(network.scale, network.closed) for network in made] == [(4, 1), (2, 0)]


# --- failures -----------------------------------------------------------------------------------


def test_a_model_that_is_not_there_fails_configure_and_another_works(graph: Graph) -> None:
    graph.start_node(autostart=False, model="dsca-giant")
    graph.listener.subscribe(*OUTPUTS)
    lifecycle = Lifecycle(graph)
    assert not lifecycle.change("configure")
    assert lifecycle.state() == "unconfigured"
    graph.spin_until(lambda: errors(graph, "'dsca-giant'"), "the reason")
    assert "there are: " in errors(graph, "'dsca-giant'")[0]
    assert all_is_freed(graph)
    assert Parameters(graph).set(model="dsca-nano") == (True, "")
    lifecycle.changes(("configure", "activate"))
    works(graph)


@pytest.mark.parametrize(
    ("place", "transition"),
    [("Upsampler", "configure"), ("_publisher", "configure"), ("_subscription", "activate"), ("_free", "cleanup")],
)
def test_a_transition_that_raises_frees_all_and_can_be_tried_anew(
    graph: Graph, made: list[Watched], place: str, transition: str
) -> None:
    node = graph.start_node(lazy=False)
    graph.listener.subscribe(*OUTPUTS)
    lifecycle = Lifecycle(graph)
    lifecycle.changes(AROUND[: AROUND.index(transition)])
    where = node_module if place == "Upsampler" else node
    real = getattr(where, place)

    def broken(*_: object, **__: object) -> None:
        setattr(where, place, real)  # once
        raise MemoryError("no room for it")

    setattr(where, place, broken)
    assert not lifecycle.change(transition)
    assert lifecycle.state() == "unconfigured"
    graph.spin_until(lambda: errors(graph, "no room for it"), "the reason")
    (text,) = errors(graph, "no room for it")
    assert f"on_{transition} failed, MemoryError" in text
    graph.spin_until(lambda: all_is_freed(graph), "all to be freed")
    assert all(network.closed == 1 for network in made)
    lifecycle.changes(("configure", "activate"))
    works(graph)


def test_an_engine_that_does_not_close_is_told_of_and_holds_nobody_up(
    graph: Graph, made: list[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.start_node(lazy=False)
    lifecycle = Lifecycle(graph)

    def broken(_: Watched) -> None:
        raise RuntimeError("the GPU is gone")

    monkeypatch.setattr(Watched, "close", broken)
    lifecycle.changes(("deactivate", "cleanup"))
    graph.spin_until(lambda: graph.listener.warnings("did not close, RuntimeError: the GPU is gone"), "the warning")
    graph.spin_until(lambda: all_is_freed(graph), "all to be freed")


def test_a_frame_that_hangs_does_not_hold_up_cleaning_up(
    graph: Graph, made: list[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "END_WITHIN", 0.1)
    graph.start_node()
    graph.connect()
    lifecycle = Lifecycle(graph)
    (network,) = made
    network.go_on.clear()
    graph.send(graph.camera.image())
    assert network.busy.wait(TIMEOUT)
    lifecycle.changes(("deactivate", "cleanup"))
    graph.spin_until(lambda: not any(results_are_offered(graph)), "the publishers to go")
    # The engine is in use yet: it is closed when the frame is through, which is not published by then.
    assert network.closed == 0
    network.go_on.set()
    graph.spin_until(lambda: network.closed == 1 and not node_threads(), "the engine to be closed")
    lifecycle.changes(("configure", "activate"))
    works(graph)
    assert len(graph.listener.images) == 1
    assert not graph.counter("engine_error") and not errors(graph, "")


def test_a_failure_to_configure_is_told_also_of_a_node_that_started_itself(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.start_node()
    lifecycle = Lifecycle(graph)
    lifecycle.changes(("deactivate", "cleanup"))

    def broken(*_: object, **__: object) -> None:
        raise EngineError("the GPU is gone")

    monkeypatch.setattr(node_module, "Upsampler", broken)
    assert not lifecycle.change("configure")
    graph.spin_until(lambda: errors(graph, "the GPU is gone"), "the reason")


def test_a_node_that_cannot_start_says_why_and_leaves_nothing(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no room for it")

    monkeypatch.setattr(node_module, "Upsampler", broken)
    with pytest.raises(EngineError, match="no room for it"):
        DscaNode(context=graph.context)
    graph.spin_until(lambda: "dsca_node" not in graph.tester.get_node_names(), "the node to be gone")


def test_a_qos_that_does_not_exist_ends_the_node_in_one_line(graph: Graph) -> None:
    arguments = ["-m", NODE, "--ros-args", "-p", "qos_overrides./depth_sr/image_raw.publisher.reliability:=perfect"]
    process = graph.run(arguments)
    assert process.wait() == 1, process.output()
    (line,) = process.output().strip().splitlines()
    assert line.startswith("dsca_node: ") and "`perfect`" in line


# --- what is told of the engine -----------------------------------------------------------------


def test_a_build_and_a_failure_of_the_engine_are_logged_when_they_happen_and_once(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"state": BUILDING, "note": "starting", "engine": "none yet"}
    network = type("Slow", (Upsampler,), {name: property(lambda _, n=name: said[n]) for name in said})
    monkeypatch.setattr(node_module, "Upsampler", network)
    graph.start_node()
    graph.connect(IMAGE)
    logs = graph.listener.logs

    def told(text: str) -> list[Log]:
        return [log for log in logs if log.name == "dsca_node" and text in log.msg]

    graph.status(lambda v: v["engine"] == "none yet", "twice")
    graph.status(lambda v: v["engine"] == "none yet", "twice")
    assert not told("being built")
    graph.exchange(graph.camera.image())
    graph.spin_until(lambda: told("being built (starting)"), "the build to be told of")

    said |= {"state": FAILED, "note": "out of memory; next try in 9 s"}
    graph.spin_until(lambda: told("out of memory"), "the failure to be told of")
    for seconds in (8, 7, 6):
        said["note"] = f"out of memory; next try in {seconds} s"
        graph.spin_until(lambda: graph.listener.status[-1].message.endswith(said["note"]), "the next second")
    (log,) = told("out of memory")
    assert log.level == 40 and "next try in 9 s" in log.msg

    said["note"] = "the GPU fell off the bus; next try in 9 s"
    graph.spin_until(lambda: told("fell off the bus"), "another failure to be told of")

    said |= {"state": RUNNING, "note": "", "engine": "a GPU's engine"}
    graph.spin_until(lambda: told("x2 on a GPU's engine"), "the recovery to be told of")
    assert len(told("being built")) == 1


# --- often --------------------------------------------------------------------------------------

#: Transitions that settle what is allocated once, and those that are measured.
SETTLE, MEASURED = 20, 60


@pytest.mark.once
def test_sixty_transitions_under_load_leave_the_node_as_it_was(graph: Graph) -> None:
    process = graph.start(NODE)
    camera, listener = graph.camera, graph.listener
    lifecycle = Lifecycle(graph)
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

    def change(transition: str) -> None:
        answer = lifecycle.begin(transition)

        def done() -> bool:
            load()
            assert process.popen.poll() is None, process.output()
            return answer.done()

        graph.spin_until(done, transition)
        assert answer.result().success, f"{transition}\n{process.output()}"

    def work() -> None:
        for seen in (listener.images, listener.infos, listener.clouds):
            seen.clear()
        graph.spin_until(lambda: load() or (listener.images and listener.infos and listener.clouds), "results")

    work()
    before = None
    for count in range(0, SETTLE + MEASURED, len(AROUND)):
        if count == SETTLE:
            before = Usage(process.popen.pid)
        for transition in AROUND:
            change(transition)
        work()
    after = Usage(process.popen.pid)
    told = f"{before}; after {MEASURED} transitions {after}"
    print(told)
    assert after.memory - before.memory < 4 * 2**20, told

    def no_more() -> bool:
        """What is on its way out, a file being read this moment among it, does not stay."""
        load()
        now = Usage(process.popen.pid)
        return now.threads <= before.threads and now.files <= before.files

    graph.spin_until(no_more, f"threads to end and files to be closed: {told}")
    assert not [log for log in listener.logs if log.name == "dsca_node" and log.level >= 40]
    status = graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    assert status.level == DiagnosticStatus.OK and "engine_error" not in values(status)
    assert "Traceback" not in process.output()
