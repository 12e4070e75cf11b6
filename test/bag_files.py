"""Small bags for tests: what cameras and robots record, and ways to damage it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.compressed import encode_compressed_depth
from dsca_ros.depth.synthetic import SyntheticStream
from dsca_ros.depth.units import like
from dsca_ros.replay.ros1 import qos

WIDTH, HEIGHT, FRAMES = 32, 24, 6
START = 1_700_000_000_000_000_000
PERIOD = 100_000_000
IMAGE_TOPIC = "/camera/camera/depth/image_rect_raw"
INFO_TOPIC = "/camera/camera/depth/camera_info"
RESULT_TOPIC = "/camera/camera/depth_sr/image_raw"
RESULT_INFO = "/camera/camera/depth_sr/camera_info"
RESULT_POINTS = "/camera/camera/depth_sr/points"
CUSTOM = "robot_msgs/msg/Battery"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO = "sensor_msgs/msg/CameraInfo"

LATCHED = qos(QosDurability.TRANSIENT_LOCAL, 1)


@lru_cache(maxsize=2)
def store(ros1: bool = False):
    types = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
    types.register(get_types_from_msg("float32 volts\nstring name\n", CUSTOM))
    if ros1:
        types.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms\n", "tf2_msgs/msg/TFMessage"))
    return types


@lru_cache(maxsize=32)
def depth(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """[height, width] float32 metres of a room, 0 invalid."""
    stream = SyntheticStream(Intrinsics.from_fov(width, height, 70.0), "stereo", frames=8, seed=7)
    return stream.measured(index).copy()


def header(time: int, frame_id: str = "depth_frame", ros1: bool = False):
    types = store(ros1).types
    stamp = types["builtin_interfaces/msg/Time"](time // 10**9, time % 10**9)
    sequence = (0,) if ros1 else ()
    return types["std_msgs/msg/Header"](*sequence, stamp, frame_id)


def image(pixels: np.ndarray, time: int, ros1: bool = False, padding: int = 0):
    encoding = "16UC1" if pixels.dtype == np.uint16 else "32FC1"
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)))
    kind = store(ros1).types[IMAGE]
    head = header(time, ros1=ros1)
    return kind(head, *pixels.shape, encoding, 0, rows.shape[1], rows.reshape(-1))


def info(width: int, height: int, time: int, ros1: bool = False):
    types = store(ros1).types
    k = np.array([0.7 * width, 0, 0.48 * width, 0, 0.72 * width, 0.53 * height, 0, 0, 1.0])
    p = np.array([k[0], 0, k[2], 0, 0, k[4], k[5], 0, 0, 0, 1.0, 0])
    region = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    head = header(time, ros1=ros1)
    return types[INFO](head, height, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), p, 0, 0, region)


def transform(ros1: bool = False):
    types = store(ros1).types
    vector, turn = types["geometry_msgs/msg/Vector3"], types["geometry_msgs/msg/Quaternion"]
    moved = types["geometry_msgs/msg/Transform"](vector(1.0, 2.0, 3.0), turn(0.0, 0.0, 0.0, 1.0))
    one = types["geometry_msgs/msg/TransformStamped"](header(START, "map", ros1), "depth_frame", moved)
    return types["tf2_msgs/msg/TFMessage"]([one])


def make_bag(
    path: Path,
    frames: int = FRAMES,
    dtype: type = np.uint16,
    width: int = WIDTH,
    height: int = HEIGHT,
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
    compressed: bool = False,
    with_info: bool = True,
    resized_from: int | None = None,
    profile: list[Qos] | None = None,
) -> Path:
    """A ROS 2 bag of a camera, static transforms, and messages of a type that nobody here knows."""
    types = store()
    writer = Writer(path, version=8, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        statics = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=types,
                                        offered_qos_profiles=LATCHED)  # fmt: skip
        battery = writer.add_connection("/battery", CUSTOM, typestore=types)
        name = IMAGE_TOPIC + ("/compressedDepth" if compressed else "")
        kind = COMPRESSED if compressed else IMAGE
        images = writer.add_connection(name, kind, typestore=types, offered_qos_profiles=profile or [])
        infos = writer.add_connection(INFO_TOPIC, INFO, typestore=types)
        writer.write(statics, START, types.serialize_cdr(transform(), "tf2_msgs/msg/TFMessage"))
        for index in range(frames):
            time = START + index * PERIOD
            size = (width, height)
            if resized_from is not None and index >= resized_from:
                size = (width // 2, height // 2)
            pixels = like(depth(index % 8, *size), dtype)
            if compressed:
                data, coding = encode_compressed_depth(pixels, "16UC1" if dtype == np.uint16 else "32FC1")
                message = types.types[COMPRESSED](header(time), coding, np.frombuffer(data, np.uint8))
            else:
                message = image(pixels, time, padding=6)
            writer.write(images, time, types.serialize_cdr(message, kind))
            if with_info:
                writer.write(infos, time + 1000, types.serialize_cdr(info(*size, time), INFO))
            volts = types.types[CUSTOM](12.5 + index, "main")
            writer.write(battery, time + 2000, types.serialize_cdr(volts, CUSTOM))
    return path


def make_ros1_bag(
    path: Path,
    frames: int = FRAMES,
    width: int = WIDTH,
    height: int = HEIGHT,
    compression: Writer1.CompressionFormat | None = None,
) -> Path:
    """A ROS 1 bag of the same."""
    types = store(ros1=True)
    writer = Writer1(path)
    if compression is not None:
        writer.set_compression(compression)
    with writer:
        statics = writer.add_connection("/tf_static", "tf2_msgs/msg/TFMessage", typestore=types, latching=1)
        battery = writer.add_connection("/battery", CUSTOM, typestore=types)
        images = writer.add_connection(IMAGE_TOPIC, IMAGE, typestore=types)
        infos = writer.add_connection(INFO_TOPIC, INFO, typestore=types)
        writer.write(statics, START, types.serialize_ros1(transform(True), "tf2_msgs/msg/TFMessage"))
        for index in range(frames):
            time = START + index * PERIOD
            pixels = like(depth(index % 8, width, height), np.uint16)
            writer.write(images, time, types.serialize_ros1(image(pixels, time, True, 6), IMAGE))
            writer.write(infos, time + 1000, types.serialize_ros1(info(width, height, time, True), INFO))
            volts = types.types[CUSTOM](12.5 + index, "main")
            writer.write(battery, time + 2000, types.serialize_ros1(volts, CUSTOM))
    return path


def read(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Topic, time and bytes of every message, by the library's own reader."""
    with AnyReader([path], default_typestore=store()) as reader:
        for connection, time, data in reader.messages():
            yield connection.topic, time, bytes(data)


def of_topic(path: Path, topic: str) -> list[tuple[int, bytes]]:
    return [(time, data) for name, time, data in read(path) if name == topic]


def decoded(path: Path, topic: str, msgtype: str) -> list:
    return [store().deserialize_cdr(data, msgtype) for _, data in of_topic(path, topic)]


def pixels_of(message) -> np.ndarray:
    dtype = np.dtype("<u2" if message.encoding == "16UC1" else "<f4")
    assert message.step == message.width * dtype.itemsize
    return message.data.view(dtype).reshape(message.height, message.width)


def connections(path: Path) -> dict[str, object]:
    with AnyReader([path], default_typestore=store()) as reader:
        return {c.topic: c for c in reader.connections}
