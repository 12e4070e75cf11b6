"""Bicubic resizing by MATLAB's rule."""

from fractions import Fraction

import numpy as np
import pytest

from dsca_ros.depth.imresize import imresize, resize_weights, to_uint8

FACTORS = [Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(2), Fraction(4), Fraction(8)]
by_factor = pytest.mark.parametrize("factor", FACTORS, ids=str)


@by_factor
@pytest.mark.parametrize("size", [1, 2, 5, 16, 33])
def test_every_row_of_weights_sums_to_one(factor, size):
    weights = resize_weights(size, factor)
    assert weights.shape == (-(-size * factor.numerator // factor.denominator), size)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)


def test_weights_of_halving_by_hand():
    # Output 2 lies at 4.5. The kernel, twice as wide, takes pixels 1 to 8 at distances of 0.25, 0.75, 1.25, 1.75
    # half pixels; k(0.25) = 0.8671875, k(0.75) = 0.2265625, k(1.25) = -0.0703125, k(1.75) = -0.0234375; sum of both
    # sides: 2.
    half = np.array([-0.0234375, -0.0703125, 0.2265625, 0.8671875]) / 2.0
    np.testing.assert_allclose(resize_weights(10, Fraction(1, 2))[2], [0, *half, *half[::-1], 0], atol=1e-12)


def test_weights_of_doubling_by_hand():
    # Output 4 lies at 1.75, output 5 at 2.25: distances of 1.75, 0.75, 0.25, 1.25 to the four pixels around.
    weights = resize_weights(5, Fraction(2))
    near = [-0.0234375, 0.2265625, 0.8671875, -0.0703125]
    np.testing.assert_allclose(weights[4], [*near, 0], atol=1e-12)
    np.testing.assert_allclose(weights[5], [0, *near[::-1]], atol=1e-12)


def test_borders_are_mirrored_with_the_edge_pixel_repeated():
    # Output 0 of doubling lies at -0.25: pixels -2, -1, 0, 1 are pixels 1, 0, 0, 1.
    np.testing.assert_allclose(
        resize_weights(4, Fraction(2))[0], [0.2265625 + 0.8671875, -0.0234375 - 0.0703125, 0, 0], atol=1e-12
    )


@by_factor
def test_a_mirrored_image_is_resized_to_the_mirrored_result_and_borders_are_a_mirrors(factor, rng):
    image = rng.uniform(0, 255, (16, 24))
    result = imresize(image, factor)
    np.testing.assert_allclose(imresize(image[::-1, ::-1], factor), result[::-1, ::-1], atol=1e-9)
    # Its own mirror images around it change nothing.
    around = np.pad(image, ((16, 16), (24, 24)), mode="symmetric")
    rows, columns = result.shape
    inner = imresize(around, factor)[rows : 2 * rows, columns : 2 * columns]
    np.testing.assert_allclose(inner, result, atol=1e-9)


@by_factor
def test_a_constant_stays_constant(factor):
    np.testing.assert_allclose(imresize(np.full((16, 24), 77.0), factor), 77.0, rtol=1e-12)


@by_factor
def test_a_ramp_keeps_its_position_by_the_half_pixel_rule(factor):
    rows, columns = np.mgrid[:80, :96].astype(float)
    result = imresize(3.0 * columns - 2.0 * rows, factor)
    y, x = np.mgrid[: result.shape[0], : result.shape[1]]
    expected = 3.0 * ((x + 0.5) / float(factor) - 0.5) - 2.0 * ((y + 0.5) / float(factor) - 0.5)
    margin = int(np.ceil(3 * max(1, factor)))  # there the mirrored border bends the ramp
    inner = slice(margin, -margin)
    assert result[inner, inner].size > 4
    np.testing.assert_allclose(result[inner, inner], expected[inner, inner], atol=1e-9)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_sizes_of_shrinking_round_up_and_of_enlarging_are_exact(scale):
    assert imresize(np.zeros((1080, 40)), Fraction(1, scale)).shape == (1080 // scale, 40 // scale)
    assert imresize(np.zeros((17, 9)), Fraction(1, scale)).shape == (-(-17 // scale), -(-9 // scale))
    assert imresize(np.zeros((17, 9)), scale).shape == (17 * scale, 9 * scale)


def test_shrinking_averages_what_a_result_stands_for():
    """Without a widened kernel a pattern finer than the result would alias into it."""
    stripes = np.tile([0.0, 255.0], (32, 16))
    np.testing.assert_allclose(imresize(stripes, Fraction(1, 4))[2:-2, 2:-2], 127.5, atol=1e-9)


def test_both_axes_and_any_leading_ones_are_resized_alike(rng):
    images = rng.uniform(0, 255, (3, 8, 12))
    result = imresize(images, Fraction(1, 2))
    assert result.shape == (3, 4, 6) and result.dtype == np.float64
    for image, expected in zip(images, result, strict=True):
        np.testing.assert_allclose(imresize(image.T, Fraction(1, 2)).T, expected, atol=1e-10)


def test_uint8_in_gives_unrounded_values_beyond_the_range_out():
    edge = np.zeros((8, 8), np.uint8)
    edge[:, 4:] = 255
    result = imresize(edge, 2)
    assert result.min() < -1 and result.max() > 256


def test_to_uint8_rounds_half_up_and_clips():
    values = np.array([-3.0, -0.4, 0.49, 0.5, 1.5, 2.5, 253.5, 254.5, 255.4, 300.0])
    result = to_uint8(values)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, [0, 0, 0, 1, 2, 3, 254, 255, 255, 255])
