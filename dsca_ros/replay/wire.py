"""The few message types that a replay reads and writes, between CDR bytes and arrays."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from dsca_ros.depth import units
from dsca_ros.depth.camera_scaling import CameraNumbers
from dsca_ros.depth.compressed import CompressedDepthError, decode_compressed_depth
from dsca_ros.depth.image_layout import DEPTH_ENCODINGS, BadMessage, read_pixels

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POINTS = "sensor_msgs/msg/PointCloud2"

_FLOAT32 = 7


@lru_cache(maxsize=1)
def store() -> Typestore:
    """The types of ROS 2; those used here are the same in every distribution since Foxy."""
    return get_typestore(Stores.ROS2_JAZZY)


@dataclass(frozen=True)
class DepthFrame:
    """A depth message that was read.

    Attributes:
        depth: [H, W] ``uint16`` millimetres or ``float32`` metres; the latter also of a camera of another unit.
        encoding: a key of `DEPTH_ENCODINGS`.
        header: the message's own.
    """

    depth: np.ndarray
    encoding: str
    header: Any

    def coded(self, result: np.ndarray) -> np.ndarray:
        """A result in the coding that `encoding` stands for: what a camera of another unit gets is in millimetres."""
        return result if result.dtype == DEPTH_ENCODINGS[self.encoding] else units.like(result, np.uint16)

    @property
    def stamp(self) -> tuple[int, int]:
        """Seconds and nanoseconds."""
        return self.header.stamp.sec, self.header.stamp.nanosec


def read(data: bytes | memoryview, msgtype: str) -> Any:
    """A message.

    Raises:
        BadMessage: if the bytes are not one of this type.
    """
    try:
        return store().deserialize_cdr(data, msgtype)
    except (SerdeError, IndexError, AssertionError) as error:
        raise BadMessage("bad_bytes", f"{msgtype} cannot be read: {error}") from None


def read_depth(data: bytes | memoryview, msgtype: str) -> DepthFrame:
    """A depth message, as Image or as compressedDepth.

    Raises:
        BadMessage: if it cannot be read or is no depth.
    """
    message = read(data, msgtype)
    if msgtype == IMAGE:
        depth = read_pixels(
            np.ascontiguousarray(message.data).data,
            message.height,
            message.width,
            message.encoding,
            message.step,
            bool(message.is_bigendian),
        )
        return DepthFrame(depth, message.encoding, message.header)
    try:
        depth, encoding = decode_compressed_depth(message.data, message.format)
    except CompressedDepthError as error:
        raise BadMessage("bad_compressed", str(error)) from None
    return DepthFrame(depth, encoding, message.header)


def encoding_of(data: bytes | memoryview, msgtype: str) -> str:
    """What an Image or CompressedImage says it holds; empty where it cannot be read."""
    try:
        message = read(data, msgtype)
    except BadMessage:
        return ""
    return message.encoding if msgtype == IMAGE else message.format


def write_depth(depth: np.ndarray, frame: DepthFrame) -> memoryview:
    """An Image message as the node publishes it.

    Args:
        depth: [H, W] of the frame's dtype, 0 invalid; in ``float32`` that becomes NaN, in place.
        frame: what the result is of: its header and encoding are taken.
    """
    if depth.dtype == np.float32:
        depth[depth == 0] = np.nan
    types = store().types
    message = types[IMAGE](
        frame.header,
        depth.shape[0],
        depth.shape[1],
        frame.encoding,
        int(sys.byteorder == "big"),
        depth.shape[1] * depth.itemsize,
        np.ascontiguousarray(depth).view(np.uint8).reshape(-1),
    )
    return store().serialize_cdr(message, IMAGE)


def write_scaled_info(info: Any, scale: int) -> memoryview:
    """The camera_info of an image ``scale`` times larger per side: binning and region folded in, then zero."""
    numbers = CameraNumbers.of(info).scaled(scale)
    types = store().types
    message = types[CAMERA_INFO](
        info.header,
        numbers.size[1],
        numbers.size[0],
        info.distortion_model,
        info.d,
        numbers.k,
        info.r,
        numbers.p,
        0,
        0,
        types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )
    return store().serialize_cdr(message, CAMERA_INFO)


def write_points(depth: np.ndarray, numbers: CameraNumbers, header: Any) -> memoryview:
    """An organised PointCloud2 of x, y, z, NaN where invalid.

    Args:
        depth: [H, W] ``uint16`` millimetres or ``float32`` metres.
        numbers: of a camera of that size.
        header: taken as it is.
    """
    points = numbers.intrinsics().back_project(depth)
    types = store().types
    field = types["sensor_msgs/msg/PointField"]
    height, width = depth.shape
    message = types[POINTS](
        header,
        height,
        width,
        [field(name, 4 * place, _FLOAT32, 1) for place, name in enumerate("xyz")],
        sys.byteorder == "big",
        12,
        12 * width,
        points.view(np.uint8).reshape(-1),
        False,
    )
    return store().serialize_cdr(message, POINTS)
