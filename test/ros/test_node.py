"""The node over real DDS: what it publishes, when it works, and which frames it takes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from builtin_interfaces.msg import Time as Stamp
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_graph import INPUTS, OUTPUTS, Camera, Graph, key, pixels, scales, scene, xyz
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from dsca_ros.depth import units
from dsca_ros.ros import messages
from dsca_ros.upsampler import Upsampler

IMAGE, INFO, POINTS = OUTPUTS


def best_effort() -> QoSProfile:
    """What many camera drivers publish with."""
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


# --- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", scales())
def test_results_are_scale_times_larger_with_the_header_that_came(graph: Graph, scale: int) -> None:
    node = graph.start_node(scale=scale)
    graph.connect()
    image = graph.camera.image()
    image.header.frame_id = "kinect_depth_camera_link"
    info = graph.camera.info(image)
    result = graph.exchange(image, info)
    graph.spin_until(lambda: graph.listener.infos and graph.listener.clouds, "camera_info and points")
    scaled, cloud = graph.listener.infos[key(image)], graph.listener.clouds[key(image)]

    for message in (result, scaled, cloud):
        assert message.header == image.header
        assert (message.width, message.height) == (image.width * scale, image.height * scale)
    assert result.encoding == image.encoding
    assert result.step == 2 * result.width
    assert scaled == messages.scale_camera_info(info, scale, image.header)
    expected = messages.to_intrinsics(scaled).back_project(units.to_metres(pixels(result)))
    np.testing.assert_array_equal(xyz(cloud), expected)
    assert node.health.counts() == {"received": 1, "published": 1}


@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "32FC1"])
def test_the_image_is_the_upsamplers_bit_for_bit(graph: Graph, upsampler: Upsampler, encoding: str) -> None:
    graph.start_node()
    graph.connect(IMAGE)
    depth = scene(dtype=np.float32 if encoding == "32FC1" else np.uint16)
    assert (depth == 0).any() and (depth > 0).any()
    expected = upsampler(depth)
    if encoding == "32FC1":
        depth[depth == 0] = np.nan
        expected = np.where(expected == 0, np.float32(np.nan), expected)
        assert np.isnan(expected).any()
    result = graph.exchange(graph.camera.image(depth, encoding))
    assert result.encoding == encoding
    np.testing.assert_array_equal(pixels(result), expected)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("16UC1", "32FC1"),
        ("mono16", "32FC1"),
        ("mono16", "16UC1"),
        ("32FC1", "16UC1"),
        ("32FC1", "32FC1"),
    ],
)
def test_the_result_has_the_encoding_asked_for(graph: Graph, upsampler: Upsampler, given: str, asked: str) -> None:
    graph.start_node(output_encoding=asked)
    graph.connect(IMAGE)
    depth = scene(dtype=np.float32 if given == "32FC1" else np.uint16)
    # In metres the result keeps what millimetres would round off.
    metric = "32FC1" in (given, asked)
    expected = upsampler(units.to_metres(depth) if metric else depth)
    if asked == "32FC1":
        expected = np.where(expected == 0, np.float32(np.nan), expected)
    elif metric:
        expected = units.to_millimetres(expected)
    result = graph.exchange(graph.camera.image(depth, given))
    assert result.encoding == asked
    np.testing.assert_array_equal(pixels(result), expected)


def test_points_of_a_metric_image_are_the_same_as_of_millimetres(graph: Graph) -> None:
    graph.start_node(output_encoding="32FC1")
    graph.connect()
    image = graph.good_frame()
    cloud, result = graph.listener.clouds[key(image)], graph.listener.images[key(image)]
    np.testing.assert_array_equal(xyz(cloud)[..., 2], pixels(result))
    assert np.isnan(xyz(cloud)[np.isnan(pixels(result))]).all()


def test_padded_and_big_endian_frames_give_what_plain_ones_give(graph: Graph) -> None:
    graph.start_node()
    graph.connect(IMAGE)
    depth = scene()
    plain = pixels(graph.exchange(graph.camera.image(depth)))
    for order, padding in (("<", 6), (">", 0), (">", 5)):
        image = graph.camera.image(depth)
        rows = [row.astype(f"{order}u2").tobytes() + b"\xff" * padding for row in depth]
        image.step, image.is_bigendian = len(rows[0]), int(order == ">")
        image.data = messages.to_bytes(np.frombuffer(b"".join(rows), np.uint8))
        result = graph.exchange(image)
        assert result.step == 2 * result.width and not result.is_bigendian
        np.testing.assert_array_equal(pixels(result), plain)


def test_the_size_may_change_in_mid_stream(graph: Graph, upsampler: Upsampler) -> None:
    graph.start_node()
    graph.connect()
    for width, height in ((64, 48), (48, 64), (17, 13), (1, 1), (64, 48)):
        depth = scene(width, height) if width > 1 else np.full((1, 1), 1500, np.uint16)
        image = graph.camera.image(depth)
        result = graph.exchange(image, graph.camera.info(image))
        np.testing.assert_array_equal(pixels(result), upsampler(depth))
        stamp = key(image)
        graph.spin_until(lambda s=stamp: s in graph.listener.clouds, "points of the new size")
        assert graph.listener.infos[stamp].width == 2 * width
        assert graph.listener.clouds[stamp].height == 2 * height
    assert graph.counter("published") == 5


def test_any_stamp_is_kept(graph: Graph) -> None:
    graph.start_node()
    graph.connect(IMAGE)
    # Clocks that are not set, jump back or break.
    stamps = ((0, 0), (2**31 - 1, 999_999_999), (-1, 0), (7, 2**32 - 1), (5, 0))
    for count, (sec, nanosec) in enumerate(stamps, 1):
        image = graph.camera.image()
        image.header.stamp.sec, image.header.stamp.nanosec = sec, nanosec
        assert graph.exchange(image).header == image.header
        graph.spin_until(lambda n=count: graph.counter("published") == n, f"{sec} s to count", 5.0)
    assert graph.counter("engine_error") == 0


# --- lazy ---------------------------------------------------------------------------------------


def test_the_camera_is_subscribed_to_only_while_someone_listens(graph: Graph) -> None:
    graph.start_node()
    graph.status(lambda v: v["state"] == "IDLE")
    graph.spin_until(lambda: graph.connected("/diagnostics"))
    publishers = graph.camera.image_publisher, graph.camera.info_publisher
    assert [p.get_subscription_count() for p in publishers] == [0, 0]
    for topic in OUTPUTS:
        (subscription,) = graph.listener.subscribe(topic)
        graph.spin_until(lambda: [p.get_subscription_count() for p in publishers] == [1, 1], topic)
        graph.spin_until(lambda: all(map(graph.connected, INPUTS)))
        published = graph.counter("published")
        image = graph.camera.image()
        graph.send(image, graph.camera.info(image))
        graph.spin_until(lambda n=published: graph.counter("published") == n + 1, f"{topic}'s frame")
        graph.tester.destroy_subscription(subscription)
        graph.spin_until(lambda: [p.get_subscription_count() for p in publishers] == [0, 0], "to let go")
    graph.status(lambda v: v["state"] == "IDLE")


def test_a_listener_to_points_that_are_switched_off_wakes_nobody(graph: Graph) -> None:
    node = graph.start_node(publish_points=False)
    graph.listener.subscribe(POINTS)
    graph.spin_until(lambda: node.count_subscribers(POINTS) == 1 and graph.connected(POINTS))
    graph.status(lambda v: v["state"] == "IDLE")
    assert graph.camera.image_publisher.get_subscription_count() == 0


def test_a_node_that_is_not_lazy_works_for_nobody(graph: Graph) -> None:
    graph.start_node(lazy=False)
    graph.spin_until(lambda: all(map(graph.connected, INPUTS)))
    graph.send(graph.camera.image())
    graph.spin_until(lambda: graph.counter("published") == 1, "a frame nobody listens to")


def test_no_points_while_they_are_off_or_nobody_listens(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = messages.PointsBuffer.cloud
    monkeypatch.setattr(messages.PointsBuffer, "cloud", lambda *a: made.append(a) or real(*a))
    node = graph.start_node(publish_points=False)
    graph.connect()
    image = graph.camera.image()
    graph.exchange(image, graph.camera.info(image))
    assert node.set_parameters([Parameter("publish_points", value=True)])[0].successful
    with_points = graph.good_frame()
    # Points are reliable and in order, so those of the first frame would be here.
    assert list(graph.listener.clouds) == [key(with_points)]
    assert len(made) == 1


def test_no_points_are_computed_without_a_listener(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages.PointsBuffer, "cloud", lambda *_: pytest.fail("points for nobody"))
    graph.start_node()
    graph.connect(IMAGE, INFO)
    graph.good_frame()
    graph.spin_until(lambda: graph.counter("published") == 1)
    assert graph.counter("engine_error") == 0


# --- the newest frame ---------------------------------------------------------------------------


class Gate:
    """An upsampler that waits at a gate before every frame."""

    def __init__(self, upsampler: Upsampler) -> None:
        self._upsampler = upsampler
        self.depth_range = upsampler.depth_range
        self.frames = 0
        self.open = threading.Event()

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        self.frames += 1
        assert self.open.wait(60.0)
        return self._upsampler(depth)

    def __getattr__(self, name: str) -> object:
        return getattr(self._upsampler, name)

    def close(self) -> None:
        self.open.set()
        self._upsampler.close()


def test_of_the_frames_that_come_in_meanwhile_only_the_newest_is_taken(
    graph: Graph, upsampler: Upsampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = graph.start_node()
    gate = Gate(node.pipeline.upsampler)
    monkeypatch.setattr(node.pipeline, "upsampler", gate)
    graph.connect()
    depths = [scene(index=i) for i in range(5)]
    images = [graph.camera.image(depth) for depth in depths]
    graph.send(images[0], graph.camera.info(images[0]))
    graph.spin_until(lambda: gate.frames == 1, "the engine to start")
    for image in images[1:]:
        graph.send(image, graph.camera.info(image))
    assert graph.counter("dropped_busy") == 3
    gate.open.set()
    graph.spin_until(lambda: key(images[4]) in graph.listener.clouds, "the newest frame")
    for results in (graph.listener.images, graph.listener.infos, graph.listener.clouds):
        assert list(results) == [key(images[0]), key(images[4])]
    assert gate.frames == 2
    np.testing.assert_array_equal(pixels(graph.listener.images[key(images[4])]), upsampler(depths[4]))
    counts = {"received": 5, "dropped_busy": 3, "published": 2}
    assert node.health.counts() == counts
    in_message = {name: str(value) for name, value in counts.items()}
    graph.status(lambda v: in_message.items() <= v.items(), f"with {counts}")


# --- topics and QoS -----------------------------------------------------------------------------


def test_best_effort_cameras_and_reliable_listeners_both_match(graph: Graph) -> None:
    for publisher in (graph.camera.image_publisher, graph.camera.info_publisher):
        graph.tester.destroy_publisher(publisher)
    graph.camera = Camera(graph.tester, best_effort())
    graph.start_node()
    graph.listener.subscribe(INFO, POINTS, qos=QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE))
    graph.connect(IMAGE)
    graph.good_frame()


def test_a_listener_whose_qos_does_not_match_is_told_of(graph: Graph) -> None:
    graph.start_node()
    graph.listener.subscribe(IMAGE, qos=QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    graph.spin_until(lambda: graph.listener.warnings("durability"), "the warning")
    (text,) = graph.listener.warnings("durability")
    assert "depth_sr/image_raw" in text and "volatile" in text


def test_a_camera_whose_qos_does_not_match_is_told_of(graph: Graph) -> None:
    name = "qos_overrides./depth/image_raw.subscription.reliability"
    graph.tester.destroy_publisher(graph.camera.image_publisher)
    graph.camera = Camera(graph.tester, best_effort())
    graph.start_node(**{name: "reliable"})
    graph.listener.subscribe(IMAGE)
    graph.spin_until(lambda: graph.listener.warnings("reliability"), "the warning")
    assert "depth/image_raw" in graph.listener.warnings("reliability")[0]


def test_qos_of_one_topic_is_overridden_and_the_others_keep_theirs(graph: Graph) -> None:
    overridden = {
        "qos_overrides./depth_sr/image_raw.publisher.reliability": "best_effort",
        "qos_overrides./depth/image_raw.subscription.reliability": "reliable",
    }
    graph.start_node(lazy=False, **overridden)

    def reliability(topic: str) -> ReliabilityPolicy | None:
        ends = graph.tester.get_publishers_info_by_topic(topic)
        ends += graph.tester.get_subscriptions_info_by_topic(topic)
        found = [e.qos_profile.reliability for e in ends if e.node_name == "dsca_node"]
        return found[0] if found else None

    graph.spin_until(lambda: all(map(reliability, (*INPUTS, *OUTPUTS))), "the graph to be known")
    assert {topic: reliability(topic) for topic in (*INPUTS, *OUTPUTS)} == {
        "/depth/image_raw": ReliabilityPolicy.RELIABLE,
        "/depth/camera_info": ReliabilityPolicy.BEST_EFFORT,
        IMAGE: ReliabilityPolicy.BEST_EFFORT,
        INFO: ReliabilityPolicy.RELIABLE,
        POINTS: ReliabilityPolicy.RELIABLE,
    }


def test_time_that_goes_back_forgets_the_camera_infos_of_before(graph: Graph) -> None:
    node = graph.start_node()
    for second in (10, 11, 12):
        node._on_camera_info(CameraInfo(header=Header(stamp=Stamp(sec=second))))
    assert [stamp[0] for stamp in node.infos.stamps()] == [10, 11, 12]
    node._on_camera_info(CameraInfo(header=Header(stamp=Stamp(sec=3))))
    assert [stamp[0] for stamp in node.infos.stamps()] == [3]
