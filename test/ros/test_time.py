"""Clocks that jump, stamps out of order, bags that loop: what is kept of before goes, and the output goes on."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from clients import Parameters
from ros_graph import OUTPUTS, TIMEOUT, Graph, key, scene
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from dsca_ros.ros import node as node_module
from dsca_ros.upsampler import Upsampler

IMAGE, INFO, POINTS = OUTPUTS


@pytest.fixture(autouse=True)
def warned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same warning is never repeated, however long a test takes."""
    monkeypatch.setattr(node_module, "WARN_PERIOD", 3600.0)


class Bag:
    """Frames whose stamps a test sets; each has a camera_info that can be told from others'."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._clock = graph.tester.create_publisher(Clock, "/clock", 10)
        self._count = 0
        self._focal: list[float] = []
        self.images: list[Image] = []  # the listener keeps one of each stamp
        self.infos: list[CameraInfo] = []
        graph.connect()
        graph.tester.create_subscription(Image, IMAGE, self.images.append, 100)
        graph.tester.create_subscription(CameraInfo, INFO, self.infos.append, 100)
        graph.spin_until(lambda: graph.connected(IMAGE) and graph.connected(INFO), "the second listeners")

    def time(self, seconds: int) -> None:
        """Sets the clock, and waits until the node's has followed."""
        clock = self._graph.node.get_clock()
        self._clock.publish(Clock(clock=Time(sec=seconds)))
        self._graph.spin_until(lambda: clock.now().nanoseconds == seconds * 10**9, f"the clock to be at {seconds} s")

    def frame(self, seconds: int) -> tuple[Image, CameraInfo]:
        """A frame of some time, and a camera_info like no other."""
        self._count += 1
        image = self._graph.camera.image(scene(index=self._count % 4))
        image.header.stamp = Time(sec=seconds)
        info = self._graph.camera.info(image)
        info.k[0] = info.p[0] = 40.0 + self._count
        return image, info

    def play(self, image: Image, info: CameraInfo | None) -> None:
        """Sends a frame and waits until its result is there."""
        count = len(self.images)
        self._graph.send(image, info)
        self._graph.spin_until(lambda: len(self.images) == count + 1, f"the result at {image.header.stamp.sec} s")
        assert self.images[-1].header == image.header


def test_a_clock_that_goes_back_clears_what_is_kept_and_is_told_once(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = graph.start_node(use_sim_time=True)
    bag = Bag(graph)
    for second in (100, 101, 102):
        bag.time(second)
        bag.play(*bag.frame(second))
    assert [stamp[0] for stamp in node.infos.stamps()] == [100, 101, 102]
    busy, go_on, work = threading.Event(), threading.Event(), Upsampler.__call__

    def slow(upsampler: Upsampler, depth: np.ndarray) -> np.ndarray:
        busy.set()
        assert go_on.wait(TIMEOUT)
        return work(upsampler, depth)

    monkeypatch.setattr(Upsampler, "__call__", slow)
    graph.send(*bag.frame(103))  # is in work
    assert busy.wait(TIMEOUT)
    graph.send(*bag.frame(104))  # waits
    bag.time(5)
    assert not len(node.infos)
    go_on.set()
    graph.spin_until(lambda: graph.counter("dropped_forgotten") == 2, "what was before to be dropped")
    for second in (5, 6, 3, 4, 1):  # and back twice more
        bag.time(second)
        bag.play(*bag.frame(second))
    assert [image.header.stamp.sec for image in bag.images] == [100, 101, 102, 5, 6, 3, 4, 1]
    graph.spin_until(lambda: len(bag.infos) == 8, "every camera_info")
    graph.spin_until(lambda: graph.listener.warnings("went back"), "the warning")
    assert len(graph.listener.warnings("went back")) == 1


def test_a_clock_that_stands_still_stops_nothing(graph: Graph) -> None:
    graph.start_node(use_sim_time=True)
    bag = Bag(graph)
    # Before the first tick, and while the bag is paused.
    for seconds in (0, 50):
        if seconds:
            bag.time(seconds)
        bag.play(*bag.frame(seconds))
        bag.play(*bag.frame(seconds))
        for _ in range(2):
            status = graph.status(lambda v: v["state"] == "RUNNING", "of a clock that stands still")
    assert status.level == status.OK
    assert not graph.listener.warnings("went back")


def test_the_clock_may_be_exchanged_while_frames_flow(graph: Graph) -> None:
    graph.start_node()
    bag, parameters = Bag(graph), Parameters(graph)
    bag.play(*bag.frame(10))
    assert parameters.set(use_sim_time=True) == (True, "")
    bag.time(11)
    bag.play(*bag.frame(11))
    assert parameters.set(use_sim_time=False) == (True, "")
    bag.play(*bag.frame(12))
    assert [image.header.stamp.sec for image in bag.images] == [10, 11, 12]


def test_stamps_out_of_order_find_their_camera_infos(graph: Graph) -> None:
    node = graph.start_node()
    bag = Bag(graph)
    frames = {second: bag.frame(second) for second in (10, 11, 12, 13, 14)}
    for second in (10, 12, 11, 14, 13):
        graph.camera.info_publisher.publish(frames[second][1])
    graph.spin_until(lambda: len(node.infos) == 5, "every camera_info")
    for second in (13, 10, 14, 11, 12):
        bag.play(frames[second][0], None)
    graph.spin_until(lambda: len(bag.infos) == 5, "every camera_info")
    for info in bag.infos:
        assert info.k[0] == 2 * frames[info.header.stamp.sec][1].k[0]
    assert not graph.listener.warnings("went back")
    assert key(bag.images[-1]) == (12, 0)


def test_a_bag_that_loops_goes_on_and_mixes_nothing(graph: Graph) -> None:
    node = graph.start_node()
    bag = Bag(graph)
    expected = []
    for _ in range(3):
        for second in range(20):
            image, info = bag.frame(second)
            expected.append((second, 2 * info.k[0]))
            bag.play(image, info)
    graph.spin_until(lambda: len(bag.infos) == len(expected), "every camera_info")
    assert [(info.header.stamp.sec, info.k[0]) for info in bag.infos] == expected
    graph.spin_until(lambda: graph.listener.warnings("went back"), "the warning")
    assert len(graph.listener.warnings("went back")) == 1
    counts = dict.fromkeys(("received", "published"), len(expected))
    graph.spin_until(lambda: node.health.counts() == counts, f"{counts}", 5.0)
