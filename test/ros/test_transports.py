"""Ways in and out: compressed depth, camera infos, drivers that restart, and nodes beside each other."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import rclpy
from clients import Parameters
from ros_graph import INPUTS, OUTPUTS, Camera, Graph, key, pixels, scene, values, xyz
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from dsca_ros.depth import units
from dsca_ros.depth.compressed import decode_compressed_depth, encode_compressed_depth
from dsca_ros.ros import diagnostics, messages
from dsca_ros.ros.node import DscaNode
from dsca_ros.upsampler import Upsampler

IMAGE, INFO, POINTS = OUTPUTS
IN, OUT = "/depth/image_raw/compressedDepth", "/depth_sr/image_raw/compressedDepth"


class CompressedCamera:
    """A driver's other image topic."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._publisher = graph.tester.create_publisher(CompressedImage, IN, 10)

    def connect(self) -> None:
        """Waits until the node has changed over to this topic."""
        left = self._graph.camera.image_publisher
        self._graph.spin_until(lambda: left.get_subscription_count() == 0, "the raw image to be let go of")
        topics = (IN, "/depth/camera_info")
        self._graph.spin_until(lambda: all(map(self._graph.connected, topics)), "the compressed image")

    def message(self, data: bytes, coding: str) -> CompressedImage:
        message = CompressedImage(header=self._graph.camera.header(), format=coding)
        message.data = messages.to_bytes(np.frombuffer(data, np.uint8))
        return message

    def send(self, message: CompressedImage, info: CameraInfo | None = None) -> None:
        """Publishes a frame and waits until the node has it."""
        graph, received = self._graph, self._graph.counter("received")
        if info is not None:
            graph.camera.info_publisher.publish(info)
            graph.spin_until(lambda: graph.node.infos.get(key(info)) == info, "camera_info to arrive")
        self._publisher.publish(message)
        graph.spin_until(lambda: graph.counter("received") == received + 1, "the image to arrive")

    def exchange(self, message: CompressedImage, info: CameraInfo | None = None) -> Image:
        """Publishes a frame and gives the image that answers it."""
        self.send(message, info)
        self._graph.spin_until(lambda: key(message) in self._graph.listener.images, "the result")
        return self._graph.listener.images[key(message)]


def info_of(graph: Graph, message: CompressedImage, depth: np.ndarray) -> CameraInfo:
    """The camera_info of a compressed image."""
    return graph.camera.info(Image(header=message.header, height=depth.shape[0], width=depth.shape[1]))


# --- compressed depth in ------------------------------------------------------------------------


def test_compressed_depth_gives_bit_for_bit_what_raw_gives(graph: Graph, upsampler: Upsampler) -> None:
    graph.start_node()
    graph.connect()
    camera, parameters = CompressedCamera(graph), Parameters(graph)
    depth, metres = scene(), scene(dtype=np.float32)
    raw = graph.camera.image(depth)
    raw_result = graph.exchange(raw, graph.camera.info(raw))
    graph.spin_until(lambda: key(raw) in graph.listener.clouds, "points")

    assert parameters.set(depth_transport="compressedDepth") == (True, "")
    camera.connect()
    # The last one has no codec in its format: older drivers send PNG so.
    for coding in ("16UC1; compressedDepth png", "16UC1; compressedDepth rvl", "16UC1; compressedDepth"):
        codec = "rvl" if "rvl" in coding else "png"
        message = camera.message(encode_compressed_depth(depth, "16UC1", codec, np.inf)[0], coding)
        result = camera.exchange(message, info_of(graph, message, depth))
        assert (result.encoding, result.header) == ("16UC1", message.header)
        np.testing.assert_array_equal(pixels(result), pixels(raw_result))
        graph.spin_until(lambda m=message: key(m) in graph.listener.clouds, "points")
        assert graph.listener.clouds[key(message)].data == graph.listener.clouds[key(raw)].data
        info = graph.listener.infos[key(message)]
        assert info == messages.scale_camera_info(info_of(graph, message, depth), 2, message.header)
    for codec in ("png", "rvl"):
        data, coding = encode_compressed_depth(metres, "32FC1", codec)
        message = camera.message(data, coding)
        result = camera.exchange(message, info_of(graph, message, depth))
        expected = upsampler(decode_compressed_depth(data, coding)[0])
        assert result.encoding == "32FC1"
        np.testing.assert_array_equal(pixels(result), np.where(expected == 0, np.float32(np.nan), expected))

    assert parameters.set(depth_transport="raw") == (True, "")
    graph.spin_until(lambda: all(map(graph.connected, INPUTS)), "the raw image again")
    raw = graph.camera.image(depth)
    np.testing.assert_array_equal(pixels(graph.exchange(raw, graph.camera.info(raw))), pixels(raw_result))
    graph.spin_until(lambda: graph.counter("published") == 7, "every frame to count", 5.0)
    assert graph.node.health.counts() == {"received": 7, "published": 7}


def grey(bits: type) -> bytes:
    """A PNG of some depth of bits, behind the header of compressed depth."""
    image = np.full((48, 64), 100, bits)
    return struct.pack("<iff", 0, 0.0, 0.0) + cv2.imencode(".png", image)[1].tobytes()


def test_bad_compressed_depth_is_named_counted_and_left_behind(graph: Graph) -> None:
    graph.start_node(depth_transport="compressedDepth")
    camera = CompressedCamera(graph)
    graph.listener.subscribe(*OUTPUTS)
    camera.connect()
    graph.spin_until(lambda: all(map(graph.connected, OUTPUTS)), "the results to connect")
    depth = scene()
    png, coding = encode_compressed_depth(depth, "16UC1", "png", np.inf)
    rvl, rvl_coding = encode_compressed_depth(depth, "16UC1", "rvl", np.inf)
    damaged = bytearray(png)
    damaged[len(damaged) // 2] ^= 0xFF
    bad = [
        *((b"", coding), (png[:12], coding), (png[:200], coding), (bytes(damaged), coding), (rvl, coding)),
        *((rvl[:-8], rvl_coding), (png, rvl_coding), (rvl[:20], rvl_coding), (grey(np.uint8), coding)),
        *((png, ""), (png, "jpeg"), (png, "16UC1; compressedDepth zstd"), (png, "rgb8; compressedDepth png")),
        # The announced size is not believed.
        (rvl[:12] + struct.pack("<II", 60000, 60000) + rvl[20:], rvl_coding),
        (png, "32FC1; compressedDepth png"),  # A is 0
    ]
    for number, (data, text) in enumerate(bad, 1):
        camera.send(camera.message(data, text))
        counted = f"number {number}, {text!r}, to be counted"
        graph.spin_until(lambda n=number: graph.counter("rejected_bad_compressed") == n, counted)
    graph.spin_until(lambda: graph.listener.warnings("counted in /diagnostics"), "the warning")
    assert len(graph.listener.warnings("counted in /diagnostics")) <= 3  # throttled
    good = camera.message(png, coding)
    result = camera.exchange(good, info_of(graph, good, depth))
    assert result.width == 128
    assert list(graph.listener.images) == [key(good)]
    wanted = {"rejected_bad_compressed": str(len(bad)), "published": "1", "state": "RUNNING"}
    status = graph.status(lambda v: wanted.items() <= v.items(), f"with {wanted}")
    assert "engine_error" not in values(status)


def test_infos_go_with_compressed_images_by_stamp_else_the_newest(graph: Graph) -> None:
    graph.start_node(depth_transport="compressedDepth")
    camera = CompressedCamera(graph)
    graph.listener.subscribe(*OUTPUTS)
    camera.connect()
    graph.spin_until(lambda: all(map(graph.connected, OUTPUTS)), "the results to connect")
    depth = scene()
    data, coding = encode_compressed_depth(depth, "16UC1", "rvl", np.inf)

    # None yet: the image alone.
    alone = camera.message(data, coding)
    camera.exchange(alone)
    graph.spin_until(lambda: graph.counter("no_camera_info") == 1, "the missing info to be counted")
    frames = [camera.message(data, coding) for _ in range(3)]
    for number, frame in enumerate(frames):
        info = info_of(graph, frame, depth)
        info.k[0] = info.p[0] = 50.0 + number
        graph.camera.info_publisher.publish(info)
    graph.spin_until(lambda: len(graph.node.infos) == 3, "every camera_info")
    for frame in frames:  # its own
        camera.exchange(frame)
    near = camera.message(data, coding)
    near.header.stamp.nanosec += 7
    camera.exchange(near)  # the newest
    graph.spin_until(lambda: key(near) in graph.listener.clouds, "points")
    found = {stamp: info.k[0] / 2 for stamp, info in graph.listener.infos.items()}
    assert found == {key(frames[0]): 50.0, key(frames[1]): 51.0, key(frames[2]): 52.0, key(near): 52.0}
    assert list(graph.listener.clouds) == [key(frame) for frame in (*frames, near)]


# --- compressed depth out -----------------------------------------------------------------------


def test_compressed_depth_comes_out_while_someone_listens_and_is_the_raw_result(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    real = messages.encode_compressed
    monkeypatch.setattr(messages, "encode_compressed", lambda *a: encoded.append(a[2]) or real(*a))
    graph.start_node()
    graph.connect(IMAGE, INFO)
    parameters = Parameters(graph)
    graph.good_frame()
    assert not encoded

    came: dict[tuple[int, int], CompressedImage] = {}
    listener = graph.tester.create_subscription(CompressedImage, OUT, lambda m: came.update({key(m): m}), 5)
    graph.spin_until(lambda: graph.connected(OUT), "the compressed result to connect")

    def exchange(depth: np.ndarray, **changes: object) -> tuple[Image, CompressedImage, np.ndarray]:
        """The result of a frame, the same compressed, and what that holds."""
        assert not changes or parameters.set(**changes) == (True, "")
        image = graph.camera.image(depth)
        result = graph.exchange(image, graph.camera.info(image))
        graph.spin_until(lambda: key(image) in came, "the compressed result")
        message = came[key(image)]
        assert message.header == result.header == image.header
        return result, message, decode_compressed_depth(message.data, message.format)[0]

    for codec in ("png", "rvl"):
        result, message, depth = exchange(scene(), compressed_format=codec)
        assert message.format == f"16UC1; compressedDepth {codec}"
        np.testing.assert_array_equal(depth, pixels(result))
    for codec in ("png", "rvl"):
        result, message, depth = exchange(scene(dtype=np.float32), compressed_format=codec)
        assert message.format == f"32FC1; compressedDepth {codec}"
        plain = np.nan_to_num(pixels(result))
        kept = (plain > 0.16) & (plain < 9.9)
        assert kept.any() and not depth[plain == 0].any()
        assert (np.abs(depth - plain) <= plain**2 / (10100 - plain) + 1e-4)[kept].all()
    # What is as far as the 16 bit go is not lost.
    far = np.full((48, 64), 60_000, np.uint16)
    result, _, depth = exchange(far, max_depth=65.0)
    np.testing.assert_array_equal(depth, pixels(result))
    assert (depth[16:-16, 16:-16] == 60_000).all()

    graph.tester.destroy_subscription(listener)
    publisher = next(p for p in graph.node.publishers if p.topic_name == OUT)
    graph.spin_until(lambda: publisher.get_subscription_count() == 0, "the listener to be gone")
    count = len(encoded)
    graph.good_frame()
    assert len(encoded) == count == 5


def test_a_listener_to_compressed_depth_alone_wakes_the_node(graph: Graph) -> None:
    graph.start_node()
    graph.status(lambda v: v["state"] == "IDLE", "of IDLE")
    came: list[CompressedImage] = []
    graph.tester.create_subscription(CompressedImage, OUT, came.append, 5)
    graph.spin_until(lambda: all(map(graph.connected, (*INPUTS, OUT))), "the topics to connect")
    graph.send(graph.camera.image())
    graph.spin_until(lambda: came, "the compressed result")


# --- drivers ------------------------------------------------------------------------------------


def test_a_driver_that_goes_and_comes_back_with_another_profile_is_taken_up_at_its_first_frame(
    graph: Graph, upsampler: Upsampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "STALE_AFTER", 3600.0)
    graph.start_node()
    graph.connect()
    graph.good_frame()
    profiles = [(64, 48, np.uint16), (40, 30, np.uint16), (32, 56, np.float32), (64, 48, np.uint16)]
    for width, height, dtype in profiles:
        for publisher in (graph.camera.image_publisher, graph.camera.info_publisher):
            graph.tester.destroy_publisher(publisher)
        with monkeypatch.context() as patch:
            patch.setattr(diagnostics, "STALE_AFTER", 0.0)
            graph.status(lambda v: v["state"] == "STALE", "of STALE")
        graph.camera = Camera(graph.tester)
        # Stamps of its own, by which the test tells frames apart.
        graph.camera._count = 1000 * len(graph.listener.images)
        graph.spin_until(lambda: all(map(graph.connected, INPUTS)), "the driver to be back")
        broken = graph.camera.image()
        broken.data = broken.data[:100]
        rejected = graph.counter("rejected_short_data") + 1
        graph.send(broken)
        # A good frame that follows at once may take its place in the queue: the newest wins.
        graph.spin_until(lambda n=rejected: graph.counter("rejected_short_data") == n, "the broken frame's rejection")
        depth = scene(width, height, dtype=dtype)
        image = graph.camera.image(depth)
        result = pixels(graph.exchange(image, graph.camera.info(image)))
        np.testing.assert_array_equal(np.nan_to_num(result), upsampler(depth))
        graph.spin_until(lambda i=image: key(i) in graph.listener.clouds, "points of the new profile")
        assert graph.listener.infos[key(image)].width == 2 * width
        assert graph.listener.clouds[key(image)].height == 2 * height
        graph.status(lambda v: v["state"] == "RUNNING", "of RUNNING")
    assert graph.counter("published") == 1 + len(profiles)
    assert graph.counter("rejected_short_data") == len(profiles)


# --- namespaces ---------------------------------------------------------------------------------


class Robot:
    """A camera, the node and a listener in a namespace."""

    def __init__(self, graph: Graph, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.node = DscaNode(context=graph.context, namespace=name)
        self.user = rclpy.create_node("user", namespace=name, context=graph.context)
        self.camera = Camera(self.user)
        self.came: list[Image | CameraInfo | PointCloud2] = []
        for kind, topic in zip((Image, CameraInfo, PointCloud2), OUTPUTS):
            self.user.create_subscription(kind, topic[1:], self.came.append, 5)
        for node in (self.node, self.user):
            graph.executor.add_node(node)

    def connected(self) -> bool:
        publishers = [*self.user.publishers, *self.node.publishers]
        topics = [f"/{self.name}{topic}" for topic in (*INPUTS, *OUTPUTS)]
        counts = [p.get_subscription_count() for p in publishers if p.topic_name in topics]
        return counts == [1] * len(topics)

    def send(self) -> None:
        image = self.camera.image(np.full((48, 64), self.number, np.uint16))
        self.camera.publish(image, self.camera.info(image))

    def close(self) -> None:
        self.node.close()
        self.user.destroy_node()


@pytest.fixture
def robots(graph: Graph) -> Iterator[tuple[Robot, Robot]]:
    robots = Robot(graph, "left", 1000), Robot(graph, "right", 2000)
    yield robots
    graph.executor.shutdown()
    for robot in robots:
        robot.close()


def test_two_nodes_in_two_namespaces_do_not_cross(graph: Graph, robots: tuple[Robot, Robot]) -> None:
    left, right = robots
    graph.spin_until(lambda: left.connected() and right.connected(), "both to connect")
    left_parameters = Parameters(graph, "left/dsca_node")
    assert left_parameters.set(output_encoding="32FC1", points_stride=4) == (True, "")
    assert right.node.settings.output_encoding == "passthrough"
    for count in range(1, 6):
        for robot in robots:
            robot.send()
        graph.spin_until(lambda n=3 * count: all(len(r.came) == n for r in robots), "both results")
    for robot in robots:
        metres = [np.nanmax(pixels(m).astype(float)) for m in robot.came if isinstance(m, Image)]
        assert metres == pytest.approx(5 * [robot.number / (units.MM_PER_M if robot is left else 1)], rel=1e-6)
        clouds = [xyz(m) for m in robot.came if isinstance(m, PointCloud2)]
        assert [cloud.shape[:2] for cloud in clouds] == 5 * [(24, 32) if robot is left else (96, 128)]
        counts = {"received": 5, "published": 5}
        graph.spin_until(lambda r=robot, c=counts: c.items() <= r.node.health.counts().items(), "every frame to count")
    names = {"/left/dsca_node", "/right/dsca_node"}
    graph.spin_until(lambda: {s.name.split(":")[0] for s in graph.listener.status} == names, "both in /diagnostics")
