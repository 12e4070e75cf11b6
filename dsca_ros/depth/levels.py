"""The benchmark's figures: PSNR and PE of maps of 0-255."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dsca_ros.depth.imresize import imresize, to_uint8

#: A pixel off by so many levels counts as an error; twice that under the benchmark's noise.
ERROR_LEVELS = 5
#: The benchmark's noise: standard deviation in levels.
NOISE = 0.02 * 255
#: PSNR of a map without any error: that of one level off in ten maps of 1080x1320 pixels.
BEST_PSNR = 10 * np.log10(255.0**2 * 10 * 1080 * 1320)


@dataclass(frozen=True)
class LevelScore:
    """Figures of one map."""

    psnr_db: float
    pe_pct: float


def shrink_map(exact: np.ndarray, scale: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """The benchmark's degradation of a whole map.

    Args:
        exact: [H, W] uint8, both multiples of the scale.
        scale: 2, 4 or 8.
        rng: adds the benchmark's noise, which falls on a stored, that is rounded, map.

    Returns:
        [H / scale, W / scale] uint8.
    """
    low = to_uint8(imresize(exact, Fraction(1, scale)))
    return low if rng is None else to_uint8(low + rng.normal(0.0, NOISE, low.shape))


def score_levels(result: np.ndarray, exact: np.ndarray, noisy: bool = False) -> LevelScore:
    """PSNR (peak 255) and the percentage of pixels in error.

    Args:
        result, exact: [H, W] uint8.
        noisy: the input had the benchmark's noise, for which PE counts from twice the error on.
    """
    if result.shape != exact.shape or result.dtype != np.uint8 or exact.dtype != np.uint8:
        raise ValueError(
            f"expected two uint8 maps of one size, not {result.dtype} {result.shape} and {exact.dtype} {exact.shape}"
        )
    error = result.astype(np.int16) - exact
    squared = float(np.square(error, dtype=np.float64).mean())
    psnr = 10 * np.log10(255.0**2 / squared) if squared else BEST_PSNR
    return LevelScore(float(psnr), 100.0 * float((np.abs(error) >= ERROR_LEVELS * (1 + noisy)).mean()))
