"""Small image filters in numpy, borders replicated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def _separable(image: np.ndarray, radius: int, combine: Callable[..., np.ndarray]) -> np.ndarray:
    """``combine`` over a square window of side 2 * radius + 1, one axis after the other."""
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius, radius)
        padded = np.pad(image, pad, mode="edge")
        size = image.shape[axis]
        shifted = [padded[i : i + size] if axis == 0 else padded[:, i : i + size] for i in range(2 * radius + 1)]
        image = shifted[0]
        for other in shifted[1:]:
            image = combine(image, other)
    return image


def maximum(image: np.ndarray, radius: int = 1) -> np.ndarray:
    """Largest value within ``radius`` pixels along each axis."""
    return _separable(image, radius, np.maximum)


def minimum(image: np.ndarray, radius: int = 1) -> np.ndarray:
    """Smallest value within ``radius`` pixels along each axis."""
    return _separable(image, radius, np.minimum)


def blur(image: np.ndarray, radius: int = 1) -> np.ndarray:
    """Mean over a square window of side 2 * radius + 1."""
    return _separable(image, radius, np.add) / np.float32((2 * radius + 1) ** 2)


def smooth_noise(shape: tuple[int, int], radius: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit variance, correlated over about 2 * radius + 1 pixels; float32."""
    if radius <= 2:
        padded = rng.standard_normal((shape[0] + 2 * radius, shape[1] + 2 * radius), np.float32)
        return blur(padded, radius)[radius : radius + shape[0], radius : radius + shape[1]] * np.float32(2 * radius + 1)
    # Coarse noise, enlarged linearly: the same look for a fraction of the random numbers.
    coarse_shape = (shape[0] // radius + 3, shape[1] // radius + 3)
    coarse = rng.standard_normal(coarse_shape, np.float32)
    offset = rng.uniform(0.0, 1.0, 2)
    rows = _linear_weights(shape[0], coarse_shape[0], radius, float(offset[0]))
    columns = _linear_weights(shape[1], coarse_shape[1], radius, float(offset[1]))
    smooth = rows @ coarse @ columns.T
    # Linear interpolation averages neighbours: 2/3 of the variance is left along each axis.
    return smooth * np.float32(1.5)


def _linear_weights(size: int, coarse: int, radius: int, offset: float) -> np.ndarray:
    position = np.arange(size) / radius + offset
    left = position.astype(np.int64)
    weight = (position - left).astype(np.float32)
    matrix = np.zeros((size, coarse), np.float32)
    matrix[np.arange(size), left] = 1.0 - weight
    matrix[np.arange(size), left + 1] += weight
    return matrix
