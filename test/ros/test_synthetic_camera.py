"""The synthetic camera over DDS: the frames of its stream, as a driver would publish them."""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_graph import Graph, key, pixels
from sensor_msgs.msg import CameraInfo, Image

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.synthetic import SyntheticStream
from dsca_ros.depth.units import like
from dsca_ros.ros import messages

MODULE = "dsca_ros.ros.synthetic_camera"
FRAMES = 3


@pytest.mark.parametrize(
    ("encoding", "sensor", "reliability"),
    [
        ("16UC1", "stereo", ReliabilityPolicy.RELIABLE),
        ("32FC1", "tof", ReliabilityPolicy.BEST_EFFORT),
    ],
)
def test_frames_are_the_streams_in_a_loop(
    graph: Graph, encoding: str, sensor: str, reliability: ReliabilityPolicy
) -> None:
    images: list[Image] = []
    infos: dict[tuple[int, int], CameraInfo] = {}
    qos = QoSProfile(depth=100, reliability=reliability)
    graph.tester.create_subscription(Image, "depth/image_raw", images.append, qos)
    graph.tester.create_subscription(CameraInfo, "depth/camera_info", lambda info: infos.update({key(info): info}), qos)
    graph.start(
        MODULE,
        width=40,
        height=30,
        horizontal_fov=60.0,
        rate=50.0,
        sensor=sensor,
        encoding=encoding,
        seed=5,
        frames=FRAMES,
        frame_id="a_frame",
    )
    graph.spin_until(lambda: len(images) > 2 * FRAMES and key(images[-1]) in infos, "two laps")

    camera = Intrinsics.from_fov(40, 30, 60.0)
    stream = SyntheticStream(camera, sensor, FRAMES, seed=5)
    dtype = messages.DEPTH_ENCODINGS[encoding]
    lap = [like(stream.measured(i), dtype) for i in range(FRAMES)]
    if encoding == "32FC1":
        lap = [np.where(depth == 0, np.float32(np.nan), depth) for depth in lap]
    assert not np.array_equal(lap[0], lap[1], equal_nan=True)

    def index_of(image: Image) -> int:
        (index,) = (i for i in range(FRAMES) if np.array_equal(pixels(image), lap[i], equal_nan=True))
        return index

    seen = [index_of(image) for image in images]
    if reliability == ReliabilityPolicy.RELIABLE:
        assert seen == [(seen[0] + i) % FRAMES for i in range(len(seen))]
    assert set(seen) == set(range(FRAMES))

    for image in images:
        assert (image.width, image.height, image.encoding) == (40, 30, encoding)
        assert image.header.frame_id == "a_frame"
    stamps = [key(image) for image in images]
    assert stamps == sorted(set(stamps))
    both = [image for image in images if key(image) in infos]
    assert len(both) >= FRAMES
    for image in both:
        info = infos[key(image)]
        assert info.header == image.header
        messages.check_camera_info(info, image.width, image.height)
        assert messages.to_intrinsics(info) == camera
        assert (info.k[0], info.k[2], info.k[4], info.k[5]) == (
            camera.fx,
            camera.cx,
            camera.fy,
            camera.cy,
        )
        assert not any(info.d)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"sensor": "sonar"}, ["'sonar'", "stereo", "kinect_v1", "tof", "ideal"]),
        ({"encoding": "rgb8"}, ["'rgb8'", "16UC1", "32FC1"]),
        ({"width": 4}, ["4x240", "8x8"]),
        ({"height": -1}, ["320x-1"]),
        ({"width": 100_000}, ["100000x240", "4096"]),
        ({"rate": 0.0}, ["0.0 Hz"]),
        ({"rate": ".nan"}, ["nan Hz"]),
        ({"frames": 0}, ["frames is 0"]),
        ({"frames": 601}, ["600"]),
        ({"horizontal_fov": 0.0}, ["fov"]),
        ({"horizontal_fov": 180.0}, ["fov"]),
        ({"rate": 30}, ["rate", "DOUBLE"]),
        ({"width": "wide"}, ["width", "INTEGER"]),
    ],
)
def test_a_bad_parameter_ends_the_camera_in_one_line(
    graph: Graph, parameters: dict[str, object], words: list[str]
) -> None:
    # A camera that takes the value by mistake is done rendering soon, and found out.
    process = graph.start(MODULE, **{"frames": 1, **parameters})
    assert process.wait(10.0) == 1, process.output()
    lines = process.output().strip().splitlines()
    assert len(lines) == 1, process.output()
    assert lines[0].startswith("synthetic_camera: ")
    assert all(word in lines[0] for word in words), lines[0]
