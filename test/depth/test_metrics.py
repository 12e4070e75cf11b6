import numpy as np
import pytest

from dsca_ros.depth.metrics import ErrorSum, flying


def step(height: int = 9, width: int = 12, near: float = 1.0, far: float = 3.0) -> np.ndarray:
    """Near on the left, far from column 6 on."""
    truth = np.full((height, width), near, np.float32)
    truth[:, 6:] = far
    return truth


def test_exact_depth_does_not_fly():
    assert not flying(step(), step(), 2).any()


def test_a_point_between_two_surfaces_flies():
    result = step()
    result[4, 6] = 2.0
    mask = flying(result, step(), 2)
    assert mask[4, 6] and mask.sum() == 1


@pytest.mark.parametrize(("column", "flies"), [(6, False), (7, False), (8, True), (9, True)])
def test_depth_of_a_surface_within_one_input_pixel_does_not_fly(column, flies):
    result = step()
    result[4, column] = 1.0  # the near surface ends at column 5
    assert flying(result, step(), 2)[4, column] == flies


def test_rows_and_columns_are_alike(rng):
    truth = np.where(rng.random((14, 18)) < 0.5, 1.0, 3.0).astype(np.float32)
    result = rng.choice([1.0, 2.0, 3.0], truth.shape).astype(np.float32)
    mask = flying(result, truth, 1)
    assert mask.any()
    np.testing.assert_array_equal(flying(result.T, truth.T, 1), mask.T)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(truth, 1, mode="edge"), (3, 3))
    nearest = np.abs(windows - result[:, :, None, None]).min(axis=(2, 3))
    np.testing.assert_array_equal(mask, nearest > 0.03)


@pytest.mark.parametrize(
    ("truth", "error", "flies"),
    [(1.0, 0.019, False), (1.0, 0.021, True), (5.0, 0.049, False), (5.0, 0.052, True)],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_tolerance_is_2_cm_or_1_per_cent(truth, error, flies, sign):
    image = np.full((5, 5), truth, np.float32)
    assert flying(image + np.float32(sign * error), image, 2).all() == flies


def test_invalid_pixels_do_not_fly_at_any_border():
    result = np.zeros((6, 6), np.float32)
    assert not flying(result, np.ones((6, 6), np.float32), 4).any()


def test_the_border_has_no_surface_beyond_it():
    result = step()
    result[0, 0] = 2.0
    assert flying(result, step(), 4)[0, 0]


def test_figures_of_a_hand_made_case():
    truth = np.full((2, 4), 2.0, np.float32)
    result = truth + np.array([[0.003, -0.004, 0, 0], [0, 0, 0.5, 0]], np.float32)
    result[1, 3] = 0.0
    total = ErrorSum()
    total.add(result, truth, 2)
    assert total.mae_mm == pytest.approx((3 + 4 + 500) / 7, rel=1e-4)
    assert total.rmse_mm == pytest.approx(np.sqrt((9 + 16 + 500**2) / 7), rel=1e-4)
    assert total.flying_pct == pytest.approx(100 / 7)
    assert total.valid_pct == pytest.approx(100 * 7 / 8)


def test_only_the_compared_pixels_make_the_error():
    truth = np.ones((2, 2), np.float32)
    result = np.array([[1.01, 1.0], [1.0, 9.0]], np.float32)
    total = ErrorSum()
    total.add(result, truth, 2, where=np.array([[True, True], [True, False]]))
    assert total.mae_mm == pytest.approx(10 / 3, rel=1e-4)
    assert total.flying_pct == 25.0  # flying and valid pixels are each method's own


def test_frames_add_up_by_pixels():
    total = ErrorSum()
    truth = np.ones((1, 3), np.float32)
    total.add(truth + np.float32(0.004), truth, 2)
    total.add(np.array([[1.0, 0, 0]], np.float32), truth, 2)
    assert total.mae_mm == pytest.approx(3.0, rel=1e-3)
    assert total.valid_pct == pytest.approx(100 * 4 / 6)


def test_nothing_compared_is_no_error():
    total = ErrorSum()
    total.add(np.zeros((3, 3), np.float32), np.ones((3, 3), np.float32), 2)
    assert total.figures() == {"rmse_mm": 0.0, "mae_mm": 0.0, "flying_pct": 0.0, "valid_pct": 0.0}
