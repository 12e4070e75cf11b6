"""The pixels in the bytes of a depth image message, by its encoding, step and byte order; no ROS types."""

from __future__ import annotations

from array import array

import numpy as np

#: Depth encodings taken, and the dtype of a pixel.
DEPTH_ENCODINGS: dict[str, np.dtype] = {
    "16UC1": np.dtype(np.uint16),
    "mono16": np.dtype(np.uint16),
    "32FC1": np.dtype(np.float32),
}
#: Larger images are taken for corrupt messages.
MAX_SIDE = 16384
#: Characters of a message's text that a warning shows: a sender may put megabytes there, and each warning is published.
SHOWN = 80


class BadMessage(ValueError):
    """A message that cannot be used.

    Attributes:
        cause: a short fixed key, what diagnostics and reports count by.
    """

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


def shown(text: str) -> str:
    """A text of a message as warnings show it: quoted, and cut where it is long."""
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}..."


def read_pixels(
    data: bytes | memoryview | np.ndarray | array[int],
    height: int,
    width: int,
    encoding: str,
    step: int,
    is_bigendian: bool,
    max_pixels: int = MAX_SIDE**2,
) -> np.ndarray:
    """A read-only view of a depth image's pixels; a copy only where bytes must be swapped.

    Args:
        data: the message's bytes, ``step`` of them a row.
        height: rows.
        width: pixels a row.
        encoding: a key of `DEPTH_ENCODINGS`.
        step: bytes from a row to the next; rows may be padded.
        is_bigendian: the order of a pixel's bytes.
        max_pixels: larger images are refused.

    Returns:
        [height, width] ``uint16`` millimetres or ``float32`` metres.

    Raises:
        BadMessage: for an unknown encoding or a layout that contradicts itself.
    """
    dtype = DEPTH_ENCODINGS.get(encoding)
    if dtype is None:
        accepted = ", ".join(DEPTH_ENCODINGS)
        raise BadMessage("unknown_encoding", f"depth encoding {shown(encoding)} is unknown; accepted: {accepted}")
    if height == 0 or width == 0:
        raise BadMessage("empty_image", f"depth image of {width}x{height} has no pixels")
    if height > MAX_SIDE or width > MAX_SIDE:
        raise BadMessage("too_large", f"depth image of {width}x{height} is larger than {MAX_SIDE} pixels a side")
    if height * width > max_pixels:
        raise BadMessage("too_large", f"depth image of {width}x{height} has more than {max_pixels} pixels: max_pixels")
    if step < width * dtype.itemsize:
        need = width * dtype.itemsize
        raise BadMessage("bad_step", f"depth image has step {step}, a row of {width} pixels needs {need} bytes")
    if len(data) < step * height:
        have, need = len(data), step * height
        raise BadMessage("short_data", f"depth image has {have} bytes of data, step x height is {need}")
    order = dtype.newbyteorder(">" if is_bigendian else "<")
    view: np.ndarray = np.ndarray((height, width), order, data, strides=(step, dtype.itemsize))
    view.flags.writeable = False
    return view if order.isnative else view.astype(dtype)
