import math

import numpy as np
import pytest

from dsca_ros.depth.holes import fill_holes, hole_size, keep_filled


def frame_with_holes() -> np.ndarray:
    """Rows of their own depth, with holes of 1x1, 3x20 and 12x12 pixels and a strip of 2 on the left."""
    depth = np.repeat(np.arange(1000, 1060, dtype=np.uint16)[:, None], 80, axis=1)
    depth[5, 40] = 0
    depth[10:13, 30:50] = 0
    depth[30:42, 30:42] = 0
    depth[:, :2] = 0
    return depth


@pytest.mark.parametrize(
    ("size", "left"),
    [(0, 1 + 60 + 144 + 120), (1, 60 + 144 + 120), (2, 60 + 144), (3, 144), (11, 144), (12, 0), (math.inf, 0)],
)
def test_whole_holes_up_to_a_size_are_filled(size, left):
    depth = frame_with_holes()
    filled = fill_holes(depth, depth > 0, size)
    assert filled.dtype == depth.dtype
    assert np.count_nonzero(filled == 0) == left
    np.testing.assert_array_equal(filled[depth > 0], depth[depth > 0])


def test_holes_take_the_nearest_measured_depth():
    depth = frame_with_holes()
    filled = fill_holes(depth, depth > 0, 3)
    assert filled[10, 40] == 1009 and filled[12, 40] == 1013
    assert (filled[20, :2] == 1020).all()


def test_nothing_comes_out_that_was_not_measured(rng):
    depth = rng.integers(300, 9000, (40, 50)).astype(np.float32) / 1000.0
    valid = rng.random(depth.shape) < 0.4
    filled = fill_holes(np.where(valid, depth, np.nan), valid, 3)
    assert set(np.unique(filled)) <= {0.0, *depth[valid].tolist()}


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 2)])
@pytest.mark.parametrize("size", [0, 1, 2, math.inf])
def test_frames_without_a_measurement_stay_empty(shape, size):
    assert not fill_holes(np.full(shape, np.nan, np.float32), np.zeros(shape, bool), size).any()


def test_one_measurement_fills_all_when_asked():
    depth = np.zeros((5, 6), np.uint16)
    depth[2, 3] = 777
    assert (fill_holes(depth, depth > 0, math.inf) == 777).all()


@pytest.mark.parametrize(("given", "size"), [("none", 0), ("all", math.inf), (8, 8), ("8", 8), (2.5, 2.5), (0, 0)])
def test_hole_sizes_are_words_or_numbers(given, size):
    assert hole_size(given) == size


@pytest.mark.parametrize("given", [-1, "-3", "some", "", None, True, math.inf, math.nan, "nan", [8]])
def test_other_hole_sizes_are_refused_by_name(given):
    with pytest.raises(ValueError, match=r"fill_holes is .*; it must be none, all or a number of pixels"):
        hole_size(given)


def test_what_was_filled_stays_filled_and_what_a_network_refuses_elsewhere_stays_refused():
    filled = np.array([[7, 7, 7, 7, 7, 7, 0]], np.uint16)  # a larger hole is left
    valid = np.array([[True, True, True, True, False, True, False]])
    result = np.full((2, 14), 9, np.uint16)
    result[:, 12:] = 0
    result[0, 0] = result[0, 5] = result[0, 7] = result[1, 9] = 0
    expected = result.copy()
    expected[0, 7] = expected[1, 9] = 7  # the filled pixel, and the one beside it
    np.testing.assert_array_equal(keep_filled(result, filled, valid), expected)
    assert keep_filled(result, filled, valid).dtype == np.uint16
    whole = np.full_like(filled, 7)  # with none left, none comes out
    assert (keep_filled(result, whole, valid) > 0).all()


def test_nothing_is_kept_where_nothing_was_filled_and_holes_are_left():
    depth = np.array([[0.0, 2.0], [2.0, 2.0]], np.float32)
    result = np.zeros((4, 4), np.float32)
    assert not keep_filled(result, depth, depth > 0).any()
