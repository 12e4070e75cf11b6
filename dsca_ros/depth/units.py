"""Units and validity of depth, in one place.

Two codings travel through this package, those of REP 118:

* ``uint16`` millimetres, 0 is invalid (ROS encodings ``16UC1`` and ``mono16``);
* ``float32`` metres, non-finite is invalid (ROS encoding ``32FC1``). Drivers also send
  0 and negative values for invalid, so those count as invalid too.

Inside the package invalid is 0 in both; NaN appears only where a message asks for it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

MM_PER_M = 1000.0
#: Metres a step of ``uint16``.
MILLIMETRE = 1.0 / MM_PER_M
#: Largest depth a uint16 can hold as a measurement: 65535 is a common "no reading".
MAX_UINT16_MM = 65534
#: Between that and "no reading", metres: a bound that rounding does not move to the wrong side.
FARTHEST_UINT16 = (MAX_UINT16_MM + 0.5) / MM_PER_M
_INFINITY_BITS = np.float32(np.inf).view(np.uint32)
_NAN_BITS = np.float32(np.nan).view(np.uint32)


def to_metres(depth: np.ndarray, unit: float = MILLIMETRE) -> np.ndarray:
    """Depth of either coding as float32 metres, every invalid pixel 0.

    Args:
        depth: [H, W], ``uint16`` millimetres or ``float32``/``float64`` metres.
        unit: metres a step of ``uint16``, for cameras that do not send millimetres.

    Returns:
        [H, W] ``float32`` metres; 0 where the input is 0, 65535, negative or non-finite.

    Raises:
        TypeError: for any other dtype.
    """
    if depth.dtype == np.uint16:
        metres = depth.astype(np.float32)
        metres *= np.float32(unit)
        metres[~is_valid(depth)] = 0.0
        return metres
    if depth.dtype in (np.float32, np.float64):
        metres = depth.astype(np.float32)
        metres[~is_valid(metres)] = 0.0
        return metres
    raise TypeError(f"depth must be uint16 millimetres or float metres, not {depth.dtype}")


def is_millimetre(unit: float) -> bool:
    """Whether a step of so many metres is one of the package's own ``uint16``."""
    return math.isclose(unit, MILLIMETRE)


@lru_cache(maxsize=1)
def _metres_of_millimetres() -> np.ndarray:
    """[65536] float32: metres of every uint16, NaN where it is no measurement. A look-up is half of a conversion."""
    table = to_metres(np.arange(1 << 16, dtype=np.uint16))
    table[table == 0] = np.nan
    table.flags.writeable = False
    return table


def to_metres_or_nan(depth: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """As `to_metres`, but NaN where invalid, and into ``out`` (float32 of the same shape) if it is given."""
    if out is None:
        out = np.empty(depth.shape, np.float32)
    if depth.dtype == np.uint16:
        # Without clipping take() goes by way of another array; no index is out of bounds.
        return np.take(_metres_of_millimetres(), depth, out=out, mode="clip")
    metres = depth.astype(np.float32, copy=False)
    # The bits of 0 or NaN, and a maximum that NaN wins: with scattered holes much faster than to pick them.
    nan_or_zero = np.multiply(~is_valid(metres), _NAN_BITS, dtype=np.uint32).view(np.float32)
    return np.maximum(metres, nan_or_zero, out=out)


def valid_to_metres(depth: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Values of either coding as float32 metres into ``out``, all of them taken for measurements, which is faster."""
    if depth.dtype == np.uint16:
        return np.multiply(depth, np.float32(1.0 / MM_PER_M), out=out, dtype=np.float32)
    out[...] = depth
    return out


def to_millimetres(metres: np.ndarray) -> np.ndarray:
    """Metres as uint16 millimetres, rounded half up; 0 where invalid or beyond 65.534 m.

    Args:
        metres: [H, W] float, 0 or non-finite where invalid.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = metres * np.float32(MM_PER_M)
        scaled += np.float32(0.5)
        # False for NaN too; out-of-range values must not wrap around into believable depth.
        keep = (scaled >= 1.0) & (scaled < MAX_UINT16_MM + 1)
        if not keep.all():
            scaled = np.where(keep, scaled, np.float32(0.0))
        return scaled.astype(np.uint16)


def like(metres: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Metres (0 invalid) in the coding that ``dtype`` stands for: uint16 mm or float32 m."""
    return to_millimetres(metres) if np.dtype(dtype) == np.uint16 else metres.astype(np.float32, copy=False)


def is_valid(depth: np.ndarray) -> np.ndarray:
    """[H, W] bool: where ``depth``, of either coding, holds a measurement."""
    if depth.dtype == np.uint16:
        return depth - np.uint16(1) < MAX_UINT16_MM  # 0 becomes the largest there is
    if depth.dtype == np.float32:
        # The bits of positive numbers are in the numbers' order: above 0 come those to below infinity, then all else.
        return depth.view(np.uint32) - np.uint32(1) < _INFINITY_BITS - np.uint32(1)
    # A comparison with NaN is false, so this one test covers NaN, both infinities and <= 0.
    with np.errstate(invalid="ignore"):
        return (depth > 0) & (depth < np.inf)


def in_range(depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
    """[H, W] bool: where ``depth``, of either coding, holds a measurement within a range in metres."""
    near, far = (bound * MM_PER_M for bound in depth_range) if depth.dtype == np.uint16 else depth_range
    with np.errstate(invalid="ignore"):
        return is_valid(depth) & (depth >= near) & (depth <= far)
