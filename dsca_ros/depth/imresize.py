"""Bicubic resizing as MATLAB's ``imresize`` does it: the degradation of the benchmark, and its baseline."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np

from dsca_ros.depth.resample import cubic


@functools.lru_cache(maxsize=64)
def resize_weights(size: int, factor: Fraction) -> np.ndarray:
    """[round up(size * factor), size] float64 weights of one axis.

    Output pixel i lies at (i + 1/2) / factor - 1/2. When shrinking, the kernel is widened by
    1 / factor, so that it covers what one output pixel stands for (antialiasing). Borders are
    mirrored with the edge pixel repeated, and every row sums to one.
    """
    outputs = -(-size * factor.numerator // factor.denominator)
    stretch = min(1.0, float(factor))
    position = (np.arange(outputs) + 0.5) / float(factor) - 0.5
    reach = 2.0 / stretch
    first = np.floor(position - reach).astype(int)
    taps = first[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weight = cubic((position[:, None] - taps) * stretch)
    weight /= weight.sum(axis=1, keepdims=True)
    mirrored = np.mod(taps, 2 * size)
    mirrored = np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)
    matrix = np.zeros((outputs, size))
    np.add.at(matrix, (np.arange(outputs)[:, None], mirrored), weight)
    return matrix


def imresize(image: np.ndarray, factor: Fraction | int) -> np.ndarray:
    """Resizes [..., H, W] by ``factor`` along both axes: float64, neither clipped nor rounded."""
    factor = Fraction(factor)
    rows = resize_weights(image.shape[-2], factor)
    columns = resize_weights(image.shape[-1], factor)
    return rows @ image @ columns.T


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Clips to 0-255 and rounds half up, as MATLAB does when it stores an image."""
    return np.floor(np.clip(image, 0.0, 255.0) + 0.5).astype(np.uint8)
