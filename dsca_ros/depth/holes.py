"""Filling of holes on request, before anything else sees the depth."""

from __future__ import annotations

import math

import cv2
import numpy as np


def fill_holes(depth: np.ndarray, valid: np.ndarray, size: float) -> np.ndarray:
    """Fills holes of up to ``size`` pixels with the nearest measured pixel's depth.

    Whole holes, not the rims of larger ones: a hole is filled where no square of ``size`` + 1 pixels fits into it.
    Depth is repeated and never mixed, so no value comes out that was not measured.

    Args:
        depth: [H, W] of any unit.
        valid: [H, W] bool.
        size: pixels; 0 fills nothing, infinity everything.

    Returns:
        [H, W] of the same dtype, 0 where a hole is left.
    """
    if not valid.any():
        return np.zeros_like(depth)
    if size >= max(depth.shape):
        wanted = np.ones(depth.shape, bool)
    elif size >= 1:
        # A closing, in two steps: its anchors have to be opposite, or an even side would shift it.
        side = math.floor(size) + 1
        square, first = np.ones((side, side), np.uint8), side // 2
        last = side - 1 - first
        # A hole ends where the image does.
        padded = np.pad(valid.astype(np.uint8), side, constant_values=1)
        closed = cv2.erode(cv2.dilate(padded, square, anchor=(first, first)), square, anchor=(last, last))
        wanted = closed[side:-side, side:-side] > 0
    else:
        wanted = valid
    _, label = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(int(label.max()) + 1, depth.dtype)
    of_label[label[valid]] = depth[valid]
    return np.where(wanted, of_label[label], np.zeros((), depth.dtype))


def keep_filled(result: np.ndarray, filled: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Keeps holes filled that a network, which knows where cameras see nothing, would open again.

    Args:
        result: [sH, sW], 0 invalid.
        filled: [H, W], what `fill_holes` gave and the result was made of.
        valid: [H, W] bool, what was measured.

    Returns:
        [sH, sW] of the same dtype: in pixels that were filled, and in those around, nearest interpolation stands in
        for what is invalid; everywhere, where no hole was left.
    """
    scale = result.shape[0] // filled.shape[0]
    beside = cv2.dilate((~valid & (filled > 0)).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    around = beside | (filled > 0).all()
    patch = np.where(around, filled, np.zeros((), filled.dtype)).repeat(scale, axis=0).repeat(scale, axis=1)
    return np.where(result > 0, result, patch)


def hole_size(given: str | int | float) -> float:
    """``fill_holes`` in pixels: 0 is none, infinity is all.

    Raises:
        ValueError: if it is neither a number of pixels nor one of the two words.
    """
    if given in ("none", "all"):
        return 0.0 if given == "none" else math.inf
    try:
        size = float(given)
    except (TypeError, ValueError):
        size = -1.0
    if isinstance(given, bool) or not 0.0 <= size < math.inf:
        raise ValueError(f"fill_holes is {given!r}; it must be none, all or a number of pixels")
    return size
