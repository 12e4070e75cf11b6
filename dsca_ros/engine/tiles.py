"""Large images a tile at a time, so that the memory they need on a CPU has a bound.

What a network takes from all of an image it takes from the tile then: results differ a little from those of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

#: Tiles start at multiples of so many pixels: the coarsest grid that the graphs pool on.
GRID = 64
#: Pixels of a tile at its seams that are computed and not used: about as far as a result looks.
MARGIN = 64
#: Pixels of a tile times the scale: 1024x1024 at x8, 2048x1024 at x4, 2048x2048 at x2.
LARGEST = 2**23


def in_tiles(infer: Callable[[np.ndarray], np.ndarray], image: np.ndarray, scale: int) -> np.ndarray:
    """The result of an image of any size, of tiles of one size if it is large.

    Args:
        infer: an image [h, w] to [scale * h, scale * w].
        image: [H, W].

    Returns:
        [scale * H, scale * W], of ``infer``'s dtype.
    """
    if image.ndim != 2 or image.size * scale <= LARGEST:
        return infer(image)
    most = LARGEST // scale
    # A side that is short stays whole.
    limit = max(math.isqrt(most), most // max(1, min(image.shape)))
    (tops, height), (lefts, width) = (_split(length, limit) for length in image.shape)
    result = None
    for top, row, rows in _seams(tops, height):
        for left, column, columns in _seams(lefts, width):
            tile = infer(image[top : top + height, left : left + width])
            if result is None:
                result = np.empty((image.shape[0] * scale, image.shape[1] * scale), tile.dtype)
            inner = tile[(row - top) * scale : (rows - top) * scale, (column - left) * scale : (columns - left) * scale]
            result[row * scale : rows * scale, column * scale : columns * scale] = inner
    assert result is not None
    return result


def _split(length: int, most: int) -> tuple[list[int], int]:
    """Where tiles of one length start, and that length: few, of at most so many pixels."""
    if length <= most:
        return [0], length
    # Starts and length are brought to the grid.
    overlap, most = 2 * MARGIN + GRID, most - GRID + 1
    count = 1 + math.ceil((length - most) / (most - overlap))
    last = (length - math.ceil((length + overlap * (count - 1)) / count)) // GRID
    return [GRID * (index * last // (count - 1)) for index in range(count)], length - GRID * last


def _seams(starts: list[int], side: int) -> list[tuple[int, int, int]]:
    """For every tile, where it starts, and from where to where its result is used."""
    middles = [(before + side + after) // 2 for before, after in pairwise(starts)]
    return list(zip(starts, [0, *middles], [*middles, starts[-1] + side]))
