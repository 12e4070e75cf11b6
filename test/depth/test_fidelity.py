"""Measures of depth where no exact depth is known, against hand-made cases and plain loops."""

import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import (
    PLANE_RIM,
    best_choice,
    block_mean,
    consistency,
    decimate,
    edges,
    find_planes,
    hallucinated,
    lost,
    near,
    spread,
    warp,
)
from dsca_ros.depth.resample import bilinear, naive_bilinear, nearest

#: 1 / Z = a * u + b * v + c: a wall at 1.2 to 2.5 m.
SLANT = (0.004, -0.002, 0.5)


def wall(height: int, width: int, scale: float = 1.0, plane: tuple[float, float, float] = SLANT) -> np.ndarray:
    """Exact depth of a plane; ``scale`` > 1 looks at the same one with more pixels, < 1 with fewer."""
    v, u = np.mgrid[:height, :width]
    a, b, c = plane
    return (1.0 / (a * ((u + 0.5) / scale - 0.5) + b * ((v + 0.5) / scale - 0.5) + c)).astype(np.float32)


# --- edges and what is near ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "edge"),
    [
        (1.0, 1.049, False),  # 5 cm up to 2.5 m
        (1.0, 1.051, True),
        (2.4, 2.451, True),
        (6.0, 6.115, False),  # 2 % beyond
        (6.0, 6.125, True),
        (1.0, 0.0, False),  # a hole is no surface
        (0.0, 0.0, False),
    ],
)
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_step_over_5_cm_or_2_per_cent_is_an_edge(first, second, edge, swap, axis):
    pair = (second, first) if swap else (first, second)
    depth = np.array([[pair[0]] * 3 + [pair[1]] * 3], np.float32).repeat(2, axis=0)
    expected = np.zeros((2, 6), bool)
    expected[:, 2:4] = edge
    found = edges(depth if axis == 1 else depth.T)
    np.testing.assert_array_equal(found if axis == 1 else found.T, expected)


def test_a_hole_between_two_surfaces_hides_the_edge():
    assert not edges(np.array([[1.0, 1.0, 0.0, 3.0, 3.0]], np.float32)).any()


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_near_reaches_along_both_axes(reach, rng):
    mask = rng.random((9, 13)) < 0.05
    mask[0, 0] = mask[8, 12] = True
    expected = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        rows = slice(max(row - reach, 0), row + reach + 1)
        expected[rows, max(column - reach, 0) : column + reach + 1] = True
    before = mask.copy()
    np.testing.assert_array_equal(near(mask, reach), expected)
    np.testing.assert_array_equal(mask, before)  # the argument is left alone


def test_near_with_a_reach_beyond_the_image():
    mask = np.zeros((2, 3), bool)
    assert not near(mask, 5).any()
    mask[0, 2] = True
    assert near(mask, 5).all()


# --- what is invented, what is lost -------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4])
def test_around_one_valid_pixel_more_than_one_input_pixel_away_is_invented(scale):
    source = np.zeros((7, 9), np.float32)
    source[3, 4] = 2.0
    invented = hallucinated(np.full((7 * scale, 9 * scale), 2.0, np.float32), source, scale)
    expected = np.ones_like(invented)
    expected[2 * scale : 5 * scale, 3 * scale : 6 * scale] = False
    np.testing.assert_array_equal(invented, expected)
    assert not hallucinated(np.zeros((7 * scale, 9 * scale), np.float32), source, scale).any()


@pytest.mark.parametrize("scale", [2, 4])
def test_around_a_hole_more_than_one_input_pixel_away_is_lost(scale):
    source = np.full((7, 9), 2.0, np.float32)
    source[3, 4] = 0.0
    gone = lost(np.zeros((7 * scale, 9 * scale), np.float32), source, scale)
    expected = np.ones_like(gone)
    expected[2 * scale : 5 * scale, 3 * scale : 6 * scale] = False
    np.testing.assert_array_equal(gone, expected)
    assert not lost(np.ones((7 * scale, 9 * scale), np.float32), source, scale).any()


def test_beyond_the_border_is_neither_valid_nor_a_hole():
    source = np.full((4, 4), 2.0, np.float32)
    assert lost(np.zeros((8, 8), np.float32), source, 2).all()  # the border's pixels as well
    source[:] = 0.0
    assert hallucinated(np.ones((8, 8), np.float32), source, 2).all()
    source[0, 0] = 2.0
    expected = np.ones((8, 8), bool)
    expected[:4, :4] = False
    np.testing.assert_array_equal(hallucinated(np.ones((8, 8), np.float32), source, 2), expected)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_careful_methods_neither_invent_nor_lose(scale, depth_image):
    source = depth_image(24, 32)
    for method in (nearest, bilinear):
        result = method(source, scale)
        assert not hallucinated(result, source, scale).any()
        assert not lost(result, source, scale).any()


# --- decimation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_decimation_is_the_lower_median_of_the_valid_pixels(factor, rng):
    depth = rng.uniform(0.5, 5.0, (4 * factor + 1, 5 * factor + factor - 1)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.5] = 0.0
    depth[:factor, :factor] = 0.0  # a block without any
    expected = np.zeros((4, 5), np.float32)
    for row, column in np.ndindex(4, 5):
        block = depth[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        valid = sorted(block[block > 0])
        if valid:
            expected[row, column] = valid[(len(valid) - 1) // 2]
    counts = {int((block > 0).sum()) for block in np.split(depth[:factor, : 5 * factor], 5, axis=1)}
    assert 0 in counts and len(counts) > 1
    result = decimate(depth, factor)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


def test_decimation_takes_values_that_were_measured():
    block = np.array([[1.0, 4.0], [2.0, 3.0]], np.float32)
    assert decimate(block, 2).tolist() == [[2.0]]
    assert decimate(np.where(block == 1.0, 0.0, block), 2).tolist() == [[3.0]]
    assert decimate(np.where(block < 3.0, 0.0, block), 2).tolist() == [[3.0]]
    assert decimate(np.where(block < 4.0, 0.0, block), 2).tolist() == [[4.0]]


@pytest.mark.parametrize("factor", [3, 5])
def test_a_slanted_plane_decimated_lies_on_itself(factor):
    # The median of an odd block of a plane is its middle, at (i + 1/2) * factor - 1/2.
    small = decimate(wall(8 * factor, 9 * factor), factor)
    np.testing.assert_allclose(small, wall(8, 9, 1.0 / factor), rtol=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_even_block_is_at_most_half_a_pixel_off(factor, axis):
    plane = (0.004, 0.0, 0.5) if axis == 1 else (0.0, 0.004, 0.5)
    small = decimate(wall(6 * factor, 6 * factor, plane=plane), factor)
    inverse = 1.0 / small - 1.0 / wall(6, 6, 1.0 / factor, plane)
    np.testing.assert_allclose(np.abs(inverse), 0.5 * 0.004, rtol=1e-2)


def test_mean_of_the_valid_pixels_of_a_block():
    depth = np.array([[1.0, 2.0, 0.0, 0.0, 9.0], [0.0, 6.0, 0.0, 0.0, 9.0], [9.0] * 5], np.float32)
    assert block_mean(depth, 2).tolist() == [[3.0, 0.0]]


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_nearest_agrees_with_its_input(scale, depth_image):
    source = depth_image(15, 22)
    np.testing.assert_array_equal(block_mean(nearest(source, scale), scale), source)
    assert consistency(nearest(source, scale), source, scale) == (0.0, int((source > 0).sum()))


def test_consistency_is_a_sum_over_what_both_have():
    source = np.array([[1.0, 2.0], [0.0, 4.0]], np.float32)
    result = nearest(source, 2)
    result[0, 0] = 1.4  # the mean of the block is 0.1 larger
    result[:2, 2:] = 0.0  # nothing left to compare
    result[2:, :2] = 7.0  # invented
    result[3, 3] = 0.0  # the rest still says 4
    total, count = consistency(result, source, 2)
    assert total == pytest.approx(0.1, rel=1e-5) and count == 2


# --- what could be chosen ------------------------------------------------------------------------


def test_the_best_choice_is_the_nearest_to_the_truth_within_one_input_pixel():
    source = np.array([[1.0, 2.0, 3.0, 0.0, 9.0]], np.float32)
    truth = np.full((2, 10), 2.1, np.float32)
    expected = [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 9.0, 9.0]  # the last has no valid neighbour
    np.testing.assert_array_equal(best_choice(source, truth), [expected, expected])
    truth[:, 0] = 1.4
    assert best_choice(source, truth)[0, 0] == 1.0


# --- planes -------------------------------------------------------------------------------------


def test_a_slanted_wall_is_found_with_its_coefficients():
    planes = find_planes(wall(60, 80))
    assert [(p.rows, p.columns) for p in planes] == [
        (slice(top, top + 40), slice(left, left + 40)) for top in (0, 20) for left in (0, 20, 40)
    ]
    for plane in planes:
        np.testing.assert_allclose(plane.coefficients, SLANT, rtol=1e-4)
        assert plane.residual < 1e-6


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_exact_enlargement_of_a_plane_is_no_distance_from_it(scale):
    planes = find_planes(wall(40, 60))
    assert len(planes) == 2
    large = wall(40 * scale, 60 * scale, scale)
    for plane in planes:
        distances = plane.distances(large, scale)
        assert distances.size == ((40 - 2 * PLANE_RIM) * scale) ** 2
        assert np.abs(distances).max() < 1e-5


def test_distances_are_signed_and_of_the_valid_pixels_within_the_rim_of_the_window():
    depth = wall(40, 60)
    second = find_planes(depth)[1]
    large = wall(80, 120, 2.0)
    large[:, :44] = 99.0  # left of the window, and in it as far as a result may take from there
    large[9, 50] = 0.0
    large[11, 60] += np.float32(0.25)
    large[12, 70] -= np.float32(0.5)
    distances = second.distances(large, 2)
    assert distances.size == 72 * 72 - 1
    assert distances.max() == pytest.approx(0.25, abs=1e-5)
    assert distances.min() == pytest.approx(-0.5, abs=1e-5)
    assert (np.abs(distances) > 1e-4).sum() == 2


def test_the_residual_of_a_noisy_wall_is_its_noise(rng):
    depth = wall(40, 40) + rng.normal(0.0, 0.005, (40, 40)).astype(np.float32)
    (plane,) = find_planes(depth)
    assert plane.residual == pytest.approx(0.005, rel=0.05)
    own = plane.distances(depth, 1)  # but for the rim
    assert plane.residual == pytest.approx(float(np.sqrt(np.square(own).mean())), rel=0.05)


def test_a_few_outliers_and_holes_leave_a_plane_where_it_is(rng):
    depth = wall(40, 40) + rng.normal(0.0, 0.002, (40, 40)).astype(np.float32)
    depth.flat[rng.choice(1600, 140, replace=False)] = 0.0
    depth.flat[np.flatnonzero(depth)[::40]] += np.float32(0.05)
    (plane,) = find_planes(depth)
    exact = wall(40, 40)
    assert np.abs(plane.distances(exact, 1)).max() < 0.003


def sphere(size: int) -> np.ndarray:
    """A ball of 1 m at 1.3 m that fills the image."""
    v, u = (np.mgrid[:size, :size] - (size - 1) / 2) / (0.7 * size)
    length = np.sqrt(u**2 + v**2 + 1.0)
    along = 1.3 / length  # to the point of the ray that is nearest to the centre
    return ((along - np.sqrt(1.0 - 1.3**2 + along**2)) / length).astype(np.float32)


def half_and_half(size: int) -> np.ndarray:
    depth = np.full((size, size), 2.0, np.float32)
    depth[:, size // 2 :] = 1.0
    return depth


def with_outliers(share: int) -> np.ndarray:
    """A wall of which every ``share``-th pixel is something else, at either side."""
    depth = wall(40, 40)
    depth.flat[::share] += np.where(np.arange(depth.flat[::share].size) % 2, 0.3, -0.3)
    return depth


def with_corner(side: int) -> np.ndarray:
    """A wall with a corner of something nearer in the window."""
    depth = wall(40, 40)
    depth[:side, :side] -= np.float32(0.5)
    return depth


@pytest.mark.parametrize(
    "depth",
    [
        sphere(40),
        with_outliers(11),
        with_corner(6),
        half_and_half(40),
        np.random.default_rng(3).uniform(1.0, 3.0, (40, 40)).astype(np.float32),
        np.where(np.arange(1600).reshape(40, 40) % 8 == 0, 0.0, wall(40, 40)).astype(np.float32),
        np.zeros((40, 40), np.float32),
        wall(39, 200),
    ],
    ids=["sphere", "outliers", "corner", "step", "noise", "an eighth is missing", "nothing", "smaller than a window"],
)
def test_what_is_no_plane(depth):
    assert find_planes(depth) == []


def test_bilinear_is_nearer_to_a_noisy_plane_than_its_input(rng):
    depth = wall(60, 60) + rng.normal(0.0, 0.005, (60, 60)).astype(np.float32)
    for plane in find_planes(depth):
        enlarged = plane.distances(bilinear(depth, 2), 2)
        own = plane.distances(depth, 1)
        # Weights of 3/4 and 1/4 twice: 10/16 of the variance along each axis.
        assert np.square(enlarged).mean() == pytest.approx((10 / 16) ** 2 * np.square(own).mean(), rel=0.1)


# --- another view -------------------------------------------------------------------------------


def shift(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    motion = np.eye(4)
    motion[:3, 3] = x, y, z
    return motion


def test_no_motion_changes_nothing(camera, depth_image):
    depth = depth_image(30, 40)
    np.testing.assert_array_equal(warp(depth, camera, np.eye(4)), depth)


def test_a_wall_moves_sideways_by_whole_pixels(camera, rng):
    depth = np.full((30, 40), 1.5, np.float32)
    depth[rng.random(depth.shape) < 0.3] = 0.0
    result = warp(depth, camera, shift(x=3 * 1.5 / camera.fx, y=-2 * 1.5 / camera.fy))
    expected = np.zeros_like(depth)
    expected[:-2, 3:] = depth[2:, :-3]
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_the_nearer_of_two_surfaces_hides_the_other():
    camera = Intrinsics(8, 1, 8.0, 8.0, 3.5, 0.0)
    depth = np.array([[4, 4, 4, 1, 4, 4, 4, 4]], np.float32)
    # 4 m moves by one pixel, 1 m by four; nothing comes from the left, nothing is behind the pole.
    result = warp(depth, camera, shift(x=0.5))
    assert result.tolist() == [[0, 4, 4, 4, 0, 4, 4, 1]]
    back = warp(depth, camera, shift(x=-0.375))  # by 3/4 and by three: both are rounded to the nearest
    assert back.tolist() == [[1, 4, 0, 4, 4, 4, 4, 0]]


def test_what_ends_up_behind_the_camera_is_not_seen():
    camera = Intrinsics(5, 1, 5.0, 5.0, 2.0, 0.0)
    depth = np.array([[0, 1, 3, 1, 2]], np.float32)
    assert warp(depth, camera, shift(z=-2.0)).tolist() == [[0, 0, 1, 0, 0]]


def test_a_turn_and_a_step_equal_a_loop(camera, depth_image):
    depth = depth_image(30, 40)
    angle = 0.1
    motion = shift(0.05, -0.03, 0.2)
    motion[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    expected = np.full((30, 40), np.inf)
    for v, u in np.argwhere(depth > 0):
        z = float(depth[v, u])
        x, y, z, _ = motion @ [(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z, 1.0]
        column, row = round(x / z * camera.fx + camera.cx), round(y / z * camera.fy + camera.cy)
        if z > 0 and 0 <= row < 30 and 0 <= column < 40:
            expected[row, column] = min(expected[row, column], z)
    result = warp(depth, camera, motion)
    assert (result > 0).sum() > 500
    np.testing.assert_allclose(result, np.where(np.isfinite(expected), expected, 0.0), rtol=1e-5)


def test_nothing_seen_gives_nothing(camera):
    assert not warp(np.zeros((30, 40), np.float32), camera, shift(1.0)).any()


# --- spread -------------------------------------------------------------------------------------


def test_the_spread_of_normal_noise_is_its_sigma(rng):
    values = rng.normal(5.0, 0.02, 50_000)
    assert spread(values) == pytest.approx(0.02, rel=0.02)
    assert spread(values - 7.0) == pytest.approx(spread(values), rel=1e-9)
    values[:500] = 1e6  # one in a hundred
    assert spread(values) == pytest.approx(0.02, rel=0.05)


def test_the_spread_of_a_constant_and_of_nothing():
    assert spread(np.full(10, 3.0)) == 0.0
    assert np.isnan(spread(np.zeros(0)))


# --- naive methods, as these measures see them --------------------------------------------------


def test_zeros_in_the_mean_pull_a_surface_towards_the_camera():
    source = np.full((8, 8), 2.0, np.float32)
    source[:, :4] = 0.0
    careful, naive = (method(source, 2) for method in (bilinear, naive_bilinear))
    assert not edges(careful).any()
    assert edges(naive)[:, 7:9].all()
    assert consistency(naive, source, 2)[0] > consistency(careful, source, 2)[0] == 0.0
