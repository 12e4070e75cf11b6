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

from dsca_ros.depth.camera import Intrinsics, scale_principal_point
from dsca_ros.depth.compressed import MAX_PIXELS, CompressedDepthError, decode_compressed_depth, encode_compressed_depth

#: Depth encodings taken, and the dtype of a pixel.
DEPTH_ENCODINGS: dict[str, np.dtype] = {
    "16UC1": np.dtype(np.uint16),
    "mono16": np.dtype(np.uint16),
    "32FC1": np.dtype(np.float32),
}
#: Larger images are taken for corrupt messages.
MAX_SIDE = 16384
#: Focal lengths of a real camera lie between, pixels, and nothing else in a camera_info is as large: with these
#: bounds every point computed from it is finite.
LEAST_FOCAL, LARGEST_VALUE = 1e-3, 1e9

_POINT_FIELDS = [
    PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, name in enumerate("xyz")
]


class BadMessage(ValueError):
    """A message that cannot be used.

    Attributes:
        cause: a short fixed key, what diagnostics count by.
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


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
    dtype = DEPTH_ENCODINGS.get(message.encoding)
    if dtype is None:
        accepted = ", ".join(DEPTH_ENCODINGS)
        raise BadMessage("unknown_encoding", f"depth encoding {message.encoding!r} is unknown; accepted: {accepted}")
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise BadMessage("empty_image", f"depth image of {width}x{height} has no pixels")
    if height > MAX_SIDE or width > MAX_SIDE:
        raise BadMessage("too_large", f"depth image of {width}x{height} is larger than {MAX_SIDE} pixels a side")
    if height * width > max_pixels:
        raise BadMessage("too_large", f"depth image of {width}x{height} has more than {max_pixels} pixels: max_pixels")
    if step < width * dtype.itemsize:
        need = width * dtype.itemsize
        raise BadMessage("bad_step", f"depth image has step {step}, a row of {width} pixels needs {need} bytes")
    if len(message.data) < step * height:
        have, need = len(message.data), step * height
        raise BadMessage("short_data", f"depth image has {have} bytes of data, step x height is {need}")
    order = dtype.newbyteorder(">" if message.is_bigendian else "<")
    view = np.ndarray((height, width), order, message.data, strides=(step, dtype.itemsize))
    view.flags.writeable = False
    return view if order.isnative else view.astype(dtype)


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
    message = Image(header=header, height=depth.shape[0], width=depth.shape[1], encoding=encoding)
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = depth.shape[1] * depth.itemsize
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
    message = CompressedImage(header=header, format=coding)
    message.data = array("B", data)
    return message


def to_bytes(values: np.ndarray) -> array:
    """The array's bytes as rclpy takes them fastest: anything but array('B') is checked byte by byte."""
    data = array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


def image_size(info: CameraInfo) -> tuple[int, int]:
    """(width, height) of the image that a camera_info goes with: the sensor's region of interest, binned."""
    width, height = info.roi.width or info.width, info.roi.height or info.height
    return width // max(1, info.binning_x), height // max(1, info.binning_y)


def check_camera_info(info: CameraInfo, width: int, height: int) -> None:
    """Holds a camera_info to the image it goes with, and to what a camera can be.

    Raises:
        BadMessage: if it describes another image, or no camera.
    """
    described = image_size(info)
    if described != (width, height):
        raise BadMessage(
            "camera_info_size",
            f"camera_info is for {described[0]}x{described[1]}, the image is {width}x{height}; "
            "is it of the same stream and profile?",
        )
    values = (*info.k, *info.d, *info.r, *info.p)
    focal = (info.k[0], info.k[4], info.p[0], info.p[5])
    # A comparison with NaN is false.
    if not all(abs(v) <= LARGEST_VALUE for v in values) or any(0 < f < LEAST_FOCAL for f in focal):
        raise BadMessage("camera_info_values", "camera_info holds numbers that no camera has: NaN, infinite or absurd")


def scale_camera_info(info: CameraInfo, scale: int, header: Header) -> CameraInfo:
    """The camera_info of an image ``scale`` times larger per side.

    Binning and region of interest are folded in first and published as zero; distortion and
    rectification do not change with size. A camera_info without calibration (K zero) stays without.
    """
    binning_x, binning_y = max(1, info.binning_x), max(1, info.binning_y)
    roi = info.roi
    scaled = CameraInfo(header=header, distortion_model=info.distortion_model, d=info.d, r=info.r)
    width, height = image_size(info)
    scaled.width, scaled.height = width * scale, height * scale
    k, p = np.array(info.k, np.float64), np.array(info.p, np.float64)

    def per_axis(f: float, c: float, offset: int, binning: int) -> tuple[float, float]:
        # Full-sensor pixels to those of the cropped, binned image, then to the larger one.
        c = (c - offset + 0.5) / binning - 0.5
        return f / binning * scale, scale_principal_point(c, scale)

    if is_calibrated(info):
        k[0], k[2] = per_axis(k[0], k[2], roi.x_offset, binning_x)
        k[4], k[5] = per_axis(k[4], k[5], roi.y_offset, binning_y)
        k[1] *= scale / binning_x
    if p[0] > 0 and p[5] > 0:
        p[0], p[2] = per_axis(p[0], p[2], roi.x_offset, binning_x)
        p[5], p[6] = per_axis(p[5], p[6], roi.y_offset, binning_y)
        p[1] *= scale / binning_x
        p[3] *= scale / binning_x
        p[7] *= scale / binning_y
    scaled.k, scaled.p = k, p
    return scaled


def is_calibrated(info: CameraInfo) -> bool:
    """Whether K holds focal lengths; drivers send zeros where there is no calibration."""
    values = (info.k[0], info.k[4], info.k[2], info.k[5])
    return info.k[0] > 0 and info.k[4] > 0 and all(math.isfinite(v) for v in values)


def to_intrinsics(info: CameraInfo) -> Intrinsics:
    """The pinhole camera of a calibrated camera_info whose binning and region are zero.

    Depth images are rectified, so P speaks for them; K does where a driver leaves P empty.
    """
    k, p = info.k, info.p
    if p[0] > 0 and p[5] > 0:
        return Intrinsics(info.width, info.height, p[0], p[5], p[2], p[6])
    return Intrinsics(info.width, info.height, k[0], k[4], k[2], k[5])


def to_camera_info(camera: Intrinsics, header: Header) -> CameraInfo:
    """A camera_info without distortion."""
    info = CameraInfo(header=header, width=camera.width, height=camera.height, distortion_model="plumb_bob")
    info.d = [0.0] * 5
    info.k = [camera.fx, 0.0, camera.cx, 0.0, camera.fy, camera.cy, 0.0, 0.0, 1.0]
    info.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    info.p = [camera.fx, 0.0, camera.cx, 0.0, 0.0, camera.fy, camera.cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


class PointsBuffer:
    """Memory for the points of one size: what is written into it is what a message carries, without a copy.

    Attributes:
        points: [H, W, 3] float32 metres, NaN invalid, to be written by `Intrinsics.back_project`.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._data = array("B", bytes(12 * shape[0] * shape[1]))
        self.points = np.frombuffer(self._data, np.float32).reshape(*shape, 3)

    def message(self, header: Header, organized: bool = True) -> PointCloud2:
        """A cloud of x, y, z; valid until the next points are written.

        Args:
            header: taken as it is.
            organized: as an image, invalid points NaN; else the valid ones alone, in one row.
        """
        height, width = self.shape
        data = self._data
        if not organized:
            # Rows of 12 bytes: numpy selects those four times as fast as rows of three floats.
            whole = self.points.view("V12").reshape(-1)
            valid = whole[~np.isnan(self.points[..., 2]).ravel()]
            height, width, data = 1, len(valid), to_bytes(valid.view(np.uint8))
        cloud = PointCloud2(header=header, height=height, width=width, fields=_POINT_FIELDS)
        cloud.is_bigendian = sys.byteorder == "big"
        cloud.point_step, cloud.row_step, cloud.is_dense = 12, 12 * width, not organized
        cloud.data = data
        return cloud
