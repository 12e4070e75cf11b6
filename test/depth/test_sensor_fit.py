"""What is planted in frames is what is measured of them."""

import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.filters import blur
from dsca_ros.depth.sensor_fit import (
    DEPTH,
    INVERSE_DEPTH,
    LAGS,
    WINDOW,
    Quantisation,
    autocorrelation,
    fit_sensor,
    hole_figures,
    noise_at,
    noise_growth,
    noise_points,
    quantisation,
    smooth_surfaces,
    stray_pixels,
)
from dsca_ros.depth.sensors import StereoSensor

SHAPE = (240, 320)


def wall(near: float, far: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """A slanted plane, near on the left: inverse depth is linear."""
    inverse = np.linspace(1.0 / near, 1.0 / far, shape[1])
    return np.broadcast_to(1.0 / inverse, shape).astype(np.float32)


def noisy(depth: np.ndarray, sigma: np.ndarray | float, rng: np.random.Generator) -> np.ndarray:
    return (depth + sigma * rng.standard_normal(depth.shape)).astype(np.float32)


def block(shadow_left: int = 0, shadow_right: int = 0) -> np.ndarray:
    """A near block before a far wall, with holes of these widths beside it."""
    depth = np.full(SHAPE, 3.0, np.float32)
    depth[60:180, 120 - shadow_left : 200 + shadow_right] = 0.0
    depth[60:180, 120:200] = 1.0
    return depth


# --- noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_planted_noise_is_found_at_every_depth(power, rng):
    depth = wall(0.8, 3.0)
    points = noise_points(*smooth_surfaces(noisy(depth, 0.003 * depth**power, rng)))
    assert len(points) >= 4
    for point in points:
        assert point.deviation == pytest.approx(0.003 * point.depth**power, rel=0.1)
        assert noise_at(points, point.depth) == pytest.approx(point.deviation)
    assert noise_growth(points) == pytest.approx(power, abs=0.15)


def test_noise_is_found_among_furniture_holes_and_outliers(rng):
    depth = noisy(wall(1.5, 1.6), 0.004, rng)
    depth[40:90, 40:120] = noisy(wall(0.9, 0.95, (50, 80)), 0.004, rng)
    depth[rng.random(SHAPE) < 0.0005] = 0.0
    depth[rng.random(SHAPE) < 0.0005] *= 1.4
    found, residual = smooth_surfaces(depth)
    assert 0.3 * depth.size < residual.size < depth.size
    assert np.median(np.sqrt(np.square(residual).mean(axis=(1, 2))) * found**2) == pytest.approx(0.004, rel=0.1)


def test_a_plane_at_any_slant_is_no_noise():
    depth, residual = smooth_surfaces(wall(0.7, 2.0))
    assert depth.size == (SHAPE[0] // WINDOW) * (SHAPE[1] // WINDOW)
    assert np.abs(residual * depth[:, None, None] ** 2).max() < 1e-6


def test_noise_is_not_told_where_it_was_not_seen(rng):
    points = noise_points(*smooth_surfaces(noisy(wall(1.0, 1.1), 0.002, rng)))
    assert noise_at(points, 1.05) == pytest.approx(0.002, rel=0.1)
    assert noise_at(points, 2.0) is None and noise_at(points, 0.5) is None and noise_at([], 1.0) is None
    assert noise_growth(points) is None  # at one depth


def test_white_noise_is_correlated_with_nothing(rng):
    _, residual = smooth_surfaces(noisy(wall(1.0, 1.5), 0.002, rng))
    for lags in autocorrelation(residual):
        assert lags.shape == (LAGS,) and np.abs(lags).max() < 0.08


def test_planted_correlation_is_found_along_the_axis_it_has(rng):
    # A mean of three along rows shares two, then one of its pixels with those beside it.
    white = rng.standard_normal((SHAPE[0], SHAPE[1] + 2))
    along = (white[:, :-2] + white[:, 1:-1] + white[:, 2:]) / np.sqrt(3.0)
    for turned in (False, True):
        depth = (1.5 + 0.003 * along).astype(np.float32)
        lags = autocorrelation(smooth_surfaces(depth.T if turned else depth)[1])
        with_it, across = lags[::-1] if turned else lags
        np.testing.assert_allclose(with_it[:3], [2 / 3, 1 / 3, 0.0], atol=0.07)
        assert abs(across[0]) < 0.07


def test_wide_correlation_reads_lower_than_it_is_and_keeps_its_order(rng):
    found = []
    for radius in (1, 2):
        noise = blur(rng.standard_normal(SHAPE), radius)
        rows, _ = autocorrelation(smooth_surfaces((1.5 + 0.003 * noise / noise.std()).astype(np.float32))[1])
        found.append(rows[1])
    assert 0.2 < found[0] < 1 / 3 + 0.02 and found[0] + 0.05 < found[1] < 0.6


# --- quantisation -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1 / 8 / 43, 1 / 32 / 19.2])
@pytest.mark.parametrize("grid", [1e-3, 1e-4])
def test_planted_steps_of_disparity_are_found(step, grid, rng):
    inverse = 1.0 / noisy(wall(0.6, 4.0), 0.01, rng)
    depth = np.rint(1.0 / (np.rint(inverse / step) * step) / grid) * grid
    found = quantisation([depth.astype(np.float32)])
    assert found.domain == INVERSE_DEPTH and found.step == pytest.approx(step, rel=0.03)


@pytest.mark.parametrize("step", [1e-4, 1e-3, 5e-3])
def test_planted_steps_of_depth_are_found(step, rng):
    depth = np.rint(noisy(wall(0.9, 1.3), 0.01, rng) / step) * step
    found = quantisation([depth.astype(np.float32)])
    assert found == Quantisation(DEPTH, pytest.approx(step, rel=0.01))


def test_levels_that_hardly_anyone_saw_are_no_steps(rng):
    assert quantisation([noisy(wall(0.5, 9.0, (40, 50)), 0.1, rng)]) is None


# --- holes and stray pixels ---------------------------------------------------------------------


def test_a_shadow_is_found_on_its_side():
    left, right = hole_figures([block(shadow_left=8)]), hole_figures([block(shadow_right=8)])
    assert (left.left_width, left.right_width, left.width) == (8.0, 0.0, 8.0)
    assert (right.left_width, right.right_width, right.width) == (0.0, 8.0, 8.0)
    assert left.share == pytest.approx(120 * 8 / (SHAPE[0] * SHAPE[1]))


def test_holes_beside_steps_and_elsewhere_are_told_apart():
    depth = block(shadow_left=2)
    depth[:20, :50] = 0.0
    found = hole_figures([depth])
    # Columns and rows within 3 pixels of the two sides of each border: 3 + 1 + 1 + 3 of them, and 2 of the hole.
    assert found.elsewhere == pytest.approx(1000 / depth.size, rel=0.05)
    beside = (120 * (8 + 10) + 80 * 16) / 120
    assert found.beside_steps == pytest.approx(2 / beside, rel=0.15)


def test_a_hole_in_a_slanted_surface_is_beside_no_step():
    depth = wall(1.0, 3.0).copy()
    depth[:, 150:170] = 0.0
    found = hole_figures([depth])
    assert found.beside_steps is None and found.width is None and found.left_width is None
    assert found.elsewhere == found.share == pytest.approx(20 / SHAPE[1])


def test_frames_of_any_size_are_added_up():
    both = hole_figures([block(shadow_left=8), np.zeros((10, 10), np.float32)])
    one = hole_figures([block(shadow_left=8)])
    assert both.left_width == one.left_width
    assert both.share == pytest.approx((120 * 8 + 100) / (SHAPE[0] * SHAPE[1] + 100))


def test_outliers_and_mixed_pixels_are_told_apart():
    depth = block()
    for column in (20, 40, 60):
        depth[20, column] = 1.5  # nearer than the wall around them
    for row in (80, 100):
        depth[row, 119] = 2.0  # between the wall and the block
    depth[200, 100] = 3.02  # noise
    outliers, mixed = stray_pixels([depth])
    assert outliers == pytest.approx(3 / depth.size) and mixed == pytest.approx(2 / depth.size)


# --- all of it ----------------------------------------------------------------------------------


def test_a_stereo_model_is_found_in_its_frames(rng):
    sensor = StereoSensor(outliers=0.0, smear=0.0, rim=0)
    camera = Intrinsics(SHAPE[1], SHAPE[0], 384.0, 384.0, 160.0, 120.0)
    scene = np.minimum(wall(3.0, 3.5), np.where(block() < 2.0, block(), 9.0)).astype(np.float32)
    walls = [sensor.measure(wall(z, 1.1 * z), camera, rng) for z in (0.8, 1.2, 1.8, 2.7)]
    found = fit_sensor([sensor.measure(scene, camera, rng)], walls)
    assert found.steps == Quantisation(INVERSE_DEPTH, pytest.approx(sensor.step / 19.2, rel=0.03))
    # The share of the error that the fitted surface takes away grows with how far it is correlated.
    whole = np.hypot(sensor.noise_px, sensor.step / np.sqrt(12.0)) / 19.2
    assert 0.8 * whole < noise_at(found.noise, 1.9) / 1.9**2 < whole
    assert found.growth == pytest.approx(2.0, abs=0.3)
    assert found.holes.left_width > 5.0 > 2.0 > found.holes.right_width
    figures = found.plain()
    assert figures["depth_m"] == pytest.approx(found.depth, abs=1e-3) and figures["step_mm"] is None
    assert figures["hole_left_px"] == pytest.approx(found.holes.left_width, abs=0.01)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [np.zeros(SHAPE, np.float32)],
        [np.ones((1, 1), np.float32)],
        [np.zeros((1, 1), np.float32)],
        [np.full(SHAPE, 1.25, np.float32)],
        [np.full((14, 300), 2.0, np.float32)],
    ],
    ids=["none", "invalid", "pixel", "hole", "constant", "low"],
)
def test_degenerate_frames_give_what_there_is_and_no_more(frames):
    with np.errstate(all="raise"):
        found = fit_sensor(frames).plain()
    constant = len(frames) and frames[0].shape == SHAPE and frames[0].any()
    assert found["windows"] == ((SHAPE[0] // WINDOW) * (SHAPE[1] // WINDOW) if constant else 0)
    assert found["depth_m"] == (1.25 if constant else None)
    assert [point["noise_mm"] for point in found["noise"]] == ([0.0] if constant else [])
    assert found["autocorrelation_rows"] == found["autocorrelation_columns"] == []
    assert found["noise_growth"] is found["step_domain"] is found["hole_width_px"] is None
    empty = not frames or not frames[0].any()
    assert found["outliers_pct"] == (None if empty else 0.0)
    assert found["holes_pct"] == (None if not frames else 100.0 if empty else 0.0)
