"""Between ROS messages and numpy arrays, without a copy where there need be none.

The rules are those of REP 118 and REP 103; ``cv_bridge`` is not used for depth, since its release
for several distributions decodes ``16UC1`` wrongly or fails with NumPy 2.
"""

from __future__ import annotations

import math
import sys
from array import array

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.camera_scaling import CameraNumbers
from dsca_ros.depth.compressed import MAX_PIXELS, CompressedDepthError, decode_compressed_depth, encode_compressed_depth
from dsca_ros.depth.image_layout import DEPTH_ENCODINGS, MAX_SIDE, BadMessage, read_pixels

_POINT_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate("xyz")
]

#: For messages whose data is large. From Jazzy on, a message that is not told to check its fields copies the array
#: it is given; before, there was no such choice and no such copy.
_UNCOPIED: dict[str, bool] = {"check_fields": True} if "_check_fields" in Image.__slots__ else {}


def decode(message: Image | CompressedImage, max_pixels: int = MAX_SIDE**2) -> tuple[np.ndarray, str]:
    """A depth message's pixels as `decode_depth` gives them, and their encoding.

    Args:
        message: raw or compressed.
        max_pixels: larger images are refused, compressed ones by what they announce.

    Raises:
        BadMessage: if it cannot be read.
    """
    if isinstance(message, Image):
        return decode_depth(message, max_pixels), message.encoding
    try:
        return decode_compressed_depth(message.data, message.format, min(max_pixels, MAX_PIXELS))
    except CompressedDepthError as error:
        raise BadMessage("bad_compressed", str(error)) from None


def decode_depth(message: Image, max_pixels: int = MAX_SIDE**2) -> np.ndarray:
    """A read-only view of a depth message's pixels; a copy only where bytes must be swapped.

    Returns:
        [height, width] ``uint16`` millimetres or ``float32`` metres.

    Raises:
        BadMessage: for an unknown encoding or a layout that contradicts itself.
    """
    layout = message.height, message.width, message.encoding, message.step, bool(message.is_bigendian)
    return read_pixels(message.data, *layout, max_pixels)


def encode_depth(depth: np.ndarray, header: Header, encoding: str) -> Image:
    """A depth message.

    Args:
        depth: [H, W] ``uint16`` millimetres or ``float32`` metres, 0 invalid. Invalid float32 pixels
            become NaN in place, as REP 118 asks.
        header: taken as it is.
        encoding: a key of `DEPTH_ENCODINGS` that fits the dtype.
    """
    if DEPTH_ENCODINGS[encoding] != depth.dtype:
        raise TypeError(f"encoding {encoding} does not hold {depth.dtype}")
    if depth.dtype == np.float32:
        depth[depth == 0] = np.nan
    height, width = depth.shape
    message = Image(header=header, height=height, width=width, encoding=encoding, **_UNCOPIED)
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = width * depth.itemsize
    message.data = to_bytes(depth)
    return message


def encode_compressed(
    depth: np.ndarray, header: Header, encoding: str, codec: str, max_depth: float
) -> CompressedImage:
    """A compressedDepth message.

    Args:
        depth: [H, W] ``uint16`` millimetres or ``float32`` metres, 0 invalid.
        header: taken as it is.
        encoding: a key of `DEPTH_ENCODINGS` that fits the dtype.
        codec: ``png`` or ``rvl``.
        max_depth: nothing is farther, metres; metres are stored in steps that are finer for a nearer bound.
    """
    bound = math.inf if depth.dtype == np.uint16 else max_depth
    data, coding = encode_compressed_depth(depth, encoding, codec, bound)
    message = CompressedImage(header=header, format=coding, **_UNCOPIED)
    message.data = array("B", data)
    return message


def to_bytes(values: np.ndarray) -> array:
    """The array's bytes as rclpy takes them fastest: anything but array('B') is checked byte by byte."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


def image_size(info: CameraInfo) -> tuple[int, int]:
    """(width, height) of the image that a camera_info goes with: the sensor's region of interest, binned."""
    return CameraNumbers.of(info).image_size


def check_camera_info(info: CameraInfo, width: int, height: int) -> None:
    """Holds a camera_info to the image it goes with, and to what a camera can be.

    Raises:
        BadMessage: if it describes another image, or no camera.
    """
    numbers = CameraNumbers.of(info)
    numbers.check_size(width, height)
    numbers.check_plausible((*info.r, *info.d))


def scale_camera_info(info: CameraInfo, scale: int, header: Header) -> CameraInfo:
    """The camera_info of an image ``scale`` times larger per side.

    Binning and region of interest are folded in first and published as zero; distortion and
    rectification do not change with size. A camera_info without calibration (K zero) stays without.
    """
    numbers = CameraNumbers.of(info).scaled(scale)
    scaled = CameraInfo(header=header, distortion_model=info.distortion_model, d=info.d, r=info.r)
    scaled.width, scaled.height = numbers.size
    scaled.k, scaled.p = numbers.k, numbers.p
    return scaled


def is_calibrated(info: CameraInfo) -> bool:
    """Whether K holds focal lengths; drivers send zeros where there is no calibration."""
    return CameraNumbers.of(info).is_calibrated


def to_intrinsics(info: CameraInfo) -> Intrinsics:
    """The pinhole camera of a calibrated camera_info whose binning and region are zero."""
    return CameraNumbers.of(info).intrinsics()


def to_camera_info(camera: Intrinsics, header: Header) -> CameraInfo:
    """A camera_info without distortion."""
    info = CameraInfo(header=header, width=camera.width, height=camera.height, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


class PointsBuffer:
    """Memory for points, of one cloud after another: what is written into it is what a message carries, uncopied."""

    def __init__(self) -> None:
        self._data = array("B")

    def room(self, count: int) -> np.ndarray:
        """[count, 3] float32, to be written; let go of it before the next is asked for."""
        missing = 12 * count - len(self._data)
        if missing > 0:
            self._data.frombytes(bytes(missing))
        else:
            del self._data[12 * count :]
        return np.frombuffer(self._data, np.float32).reshape(count, 3)

    def cloud(
        self, camera: Intrinsics, depth: np.ndarray, header: Header, stride: int = 1, organized: bool = True
    ) -> PointCloud2:
        """A cloud of x, y, z; valid until the next one is made.

        Args:
            camera: of ``depth``.
            depth: [H, W] ``uint16`` millimetres or ``float32`` metres.
            header: taken as it is.
            stride: every so many pixels per axis become points.
            organized: as an image, invalid points NaN; else the valid ones alone, in one row.

        Raises:
            ValueError: if the image is not of the camera's size.
        """
        if organized:
            height, width = depth[::stride, ::stride].shape
            camera.back_project(depth, self.room(height * width).reshape(height, width, 3), stride)
        else:
            height, width = 1, len(camera.back_project_valid(depth, stride, self.room))
        cloud = PointCloud2(header=header, height=height, width=width, fields=_POINT_FIELDS, **_UNCOPIED)
        cloud.is_bigendian = sys.byteorder == "big"
        cloud.point_step, cloud.row_step, cloud.is_dense = 12, 12 * width, not organized
        cloud.data = self._data
        return cloud
