"""Enlarging depth without a network: what the network is measured against.

Written as a careful user would: invalid pixels take no part in an average, and a result is valid
where at least half of its bilinear support is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(distance))


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = -0.5, as image tools use it."""
    x = np.abs(distance)
    inner = (1.5 * x - 2.5) * x * x + 1.0
    outer = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1.0, inner, np.where(x < 2.0, outer, 0.0))


@functools.lru_cache(maxsize=32)
def _weights(size: int, scale: int, kernel: Callable[[np.ndarray], np.ndarray], radius: int) -> np.ndarray:
    """[scale * size, size] weights on the half-pixel grid: output i lies at (i + 1/2) / scale - 1/2."""
    position = (np.arange(size * scale) + 0.5) / scale - 0.5
    matrix = np.zeros((size * scale, size), np.float32)
    first = np.floor(position).astype(int) - radius + 1
    for tap in range(2 * radius):
        source = first + tap
        np.add.at(matrix, (np.arange(size * scale), np.clip(source, 0, size - 1)), kernel(position - source))
    return matrix


def _apply(image: np.ndarray, scale: int, kernel: Callable[[np.ndarray], np.ndarray], radius: int) -> np.ndarray:
    rows = _weights(image.shape[0], scale, kernel, radius)
    columns = _weights(image.shape[1], scale, kernel, radius)
    return rows @ image @ columns.T


def validity(depth: np.ndarray, scale: int) -> np.ndarray:
    """[sH, sW] bool: where at least half of the bilinear support is valid."""
    return _apply((depth > 0).astype(np.float32), scale, _linear, 1) >= 0.5


def nearest(depth: np.ndarray, scale: int) -> np.ndarray:
    """Every pixel repeated: [H, W] float32 metres to [sH, sW], 0 invalid."""
    return depth.repeat(scale, axis=0).repeat(scale, axis=1)


def bilinear(depth: np.ndarray, scale: int) -> np.ndarray:
    """Bilinear among the valid pixels: [H, W] float32 metres to [sH, sW], 0 invalid."""
    return _masked(depth, scale, _linear, 1)


def bicubic(depth: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic among the valid pixels: [H, W] float32 metres to [sH, sW], 0 invalid."""
    return _masked(depth, scale, cubic, 2)


def naive_bilinear(depth: np.ndarray, scale: int) -> np.ndarray:
    """Bilinear as `cv2.resize` and its like do it, the zeros of invalid pixels mixed in."""
    return _apply(depth, scale, _linear, 1)


def naive_bicubic(depth: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic, the zeros of invalid pixels mixed in; below 0 it is cut off."""
    return np.maximum(_apply(depth, scale, cubic, 2), 0.0)


def _masked(depth: np.ndarray, scale: int, kernel: Callable[[np.ndarray], np.ndarray], radius: int) -> np.ndarray:
    valid = (depth > 0).astype(np.float32)
    weight = _apply(valid, scale, kernel, radius)
    # Negative lobes can leave almost no weight beside a hole; bilinear stands in there.
    total = np.maximum(weight, 0.25)
    result = _apply(depth * valid, scale, kernel, radius) / total
    if radius > 1:
        weak = weight < 0.5
        result[weak] = bilinear(depth, scale)[weak]
    return np.where(validity(depth, scale), result, 0.0).astype(np.float32)


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "nearest": nearest,
    "bilinear": bilinear,
    "bicubic": bicubic,
}
