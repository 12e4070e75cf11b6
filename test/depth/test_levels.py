"""The benchmark's figures."""

import numpy as np
import pytest

from dsca_ros.depth.levels import NOISE, score_levels


def off_by(*errors: int) -> tuple[np.ndarray, np.ndarray]:
    """A map of ten pixels, and the same with some of them off by so many levels."""
    exact = np.full((2, 5), 100, np.uint8)
    result = exact.copy().ravel()
    result[: len(errors)] = 100 + np.array(errors)
    return result.reshape(2, 5), exact


def test_figures_by_hand():
    # Mean square of 3 and -4 over ten pixels: 2.5.
    score = score_levels(*off_by(3, -4))
    assert score.psnr_db == pytest.approx(10 * np.log10(255**2 / 2.5)) == pytest.approx(44.1514, abs=1e-3)
    assert score.pe_pct == 0.0


def test_five_levels_are_an_error_and_four_are_not():
    assert score_levels(*off_by(4, -4)).pe_pct == 0.0
    assert score_levels(*off_by(5, -5, 4)).pe_pct == pytest.approx(20.0)


def test_under_noise_ten_levels_are_an_error_and_nine_are_not():
    assert score_levels(*off_by(9, -9, 5), noisy=True).pe_pct == 0.0
    assert score_levels(*off_by(10, -10, 9), noisy=True).pe_pct == pytest.approx(20.0)
    assert score_levels(*off_by(9, -9)).psnr_db == score_levels(*off_by(9, -9), noisy=True).psnr_db


def test_differences_do_not_wrap_around():
    black, white = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    for result, exact in ((black, white), (white, black)):
        score = score_levels(result, exact)
        assert score.psnr_db == pytest.approx(0.0) and score.pe_pct == 100.0


def test_identical_maps_have_a_finite_psnr_above_all_others():
    largest = np.full((1080, 1320), 9, np.uint8)
    best = score_levels(largest, largest)
    assert np.isfinite(best.psnr_db) and best.pe_pct == 0.0
    almost = largest.copy()
    almost[0, 0] += 1
    assert score_levels(almost, largest).psnr_db < best.psnr_db


def test_the_noise_is_two_per_cent_of_the_range():
    assert pytest.approx(5.1) == NOISE


@pytest.mark.parametrize(
    ("result", "exact"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)),
        (np.zeros((2, 3), np.float32), np.zeros((2, 3), np.uint8)),
        (np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.int64)),
    ],
    ids=["sizes", "result", "exact"],
)
def test_other_sizes_and_kinds_are_refused(result, exact):
    with pytest.raises(ValueError, match="two uint8 maps of one size"):
        score_levels(result, exact)
