"""The whole algorithm in torch: holes, domain, guard, validity."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.depth import resample  # noqa: E402
from dsca_ros.depth.camera import Intrinsics  # noqa: E402
from dsca_ros.network.camera_graph import CameraGraph, fill_holes, result_validity  # noqa: E402

RANGE = (0.1, 10.0)


@torch.no_grad()
def run(
    graph: CameraGraph, depth: np.ndarray, depth_range: tuple[float, float] = RANGE
) -> np.ndarray:
    return graph(torch.from_numpy(depth)[None, None], torch.tensor(depth_range))[0, 0].numpy()


def filled(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = (torch.from_numpy(a.astype(np.float32))[None, None] for a in (values, valid))
    return tuple(image[0, 0].numpy() for image in fill_holes(*images))


# --- holes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (9, 8), (17, 23), (64, 96)], ids=str)
def test_holes_are_filled_and_valid_pixels_left_alone(size, rng):
    values, valid = rng.uniform(0.5, 2.0, size).astype(np.float32), rng.random(size) < 0.4
    valid[0, 0] = True
    result, mean = filled(values * valid, valid)
    np.testing.assert_array_equal(result[valid], values[valid])
    low, high = 0.9999 * values[valid].min(), 1.0001 * values[valid].max()
    for image in (result, mean):
        assert image.shape == size
        assert (image >= low).all() and (image <= high).all()


@pytest.mark.parametrize("size", [(9, 8), (60, 80), (130, 150), (240, 320)], ids=str)
def test_a_constant_fills_a_hole_of_any_size(size):
    valid = np.zeros(size, bool)
    valid[:3, :2] = True
    result, mean = filled(2.0 * valid, valid)
    np.testing.assert_allclose(result, 2.0, rtol=1e-5)
    np.testing.assert_allclose(mean, 2.0, rtol=1e-5)


def test_a_hole_takes_the_values_around_it():
    values = np.ones((40, 60), np.float32)
    values[:, 30:] = 2.0
    valid = np.ones((40, 60), bool)
    valid[18:21, 8:11] = valid[18:21, 48:51] = False
    result, _ = filled(values * valid, valid)
    np.testing.assert_allclose(result[18:21, 8:11], 1.0, rtol=1e-5)
    np.testing.assert_allclose(result[18:21, 48:51], 2.0, rtol=1e-5)


def test_nothing_valid_fills_with_zero():
    for image in filled(np.zeros((20, 30)), np.zeros((20, 30))):
        assert not image.any()


# --- guard --------------------------------------------------------------------------------------


def neighbourhood(depth: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest valid depth of the 3x3 input pixels around each output pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(depth, 1), (3, 3))
    low = np.where(windows > 0, windows, np.inf).min(axis=(2, 3))
    return tuple(resample.nearest(image, scale) for image in (low, windows.max(axis=(2, 3))))


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("size", [(24, 32), (17, 23), (9, 8)], ids=str)
def test_no_network_can_leave_the_range_of_the_valid_inputs_around(
    tiny_network, depth_image, scale, size
):
    depth = depth_image(*size)
    result = run(CameraGraph(tiny_network(scale, strength=1e3)), depth)
    low, high = neighbourhood(depth, scale)
    valid = result > 0
    assert np.isfinite(result).all() and valid.mean() > 0.6
    assert (result >= 0.99999 * low)[valid].all()
    assert (result <= 1.00001 * high)[valid].all()
    # It did try: most pixels are at a bound.
    at_bound = np.isclose(result, low, rtol=1e-5) | np.isclose(result, high, rtol=1e-5)
    assert at_bound[valid].mean() > 0.8


def test_within_the_guard_the_network_decides(tiny_network, depth_image):
    depth = depth_image(24, 32)
    one, other = (run(CameraGraph(tiny_network(2, seed=seed)), depth) for seed in (0, 1))
    assert (np.abs(one - other) > 1e-3).mean() > 0.3
    np.testing.assert_array_equal(one > 0, other > 0)  # validity is none of its business


@pytest.mark.parametrize("scale", [2, 4])
def test_without_residuals_a_plane_stays_that_plane(tiny_network, scale):
    camera = Intrinsics(40, 30, 35.0, 36.0, 18.3, 15.2)
    normal = np.array([0.25, -0.4, 1.0])
    x, y = camera.rays()
    depth = (2.0 / (normal[0] * x[None, :] + normal[1] * y[:, None] + 1.0)).astype(np.float32)
    result = run(CameraGraph(tiny_network(scale, strength=0.0)), depth)
    points = camera.scaled(scale).back_project(result)[scale:-scale, scale:-scale]
    assert np.abs(points @ normal - 2.0).max() < 1e-5


# --- validity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_result_is_valid_where_half_of_its_bilinear_support_is(tiny_network, depth_image, scale):
    depth = depth_image(17, 23)
    result = run(CameraGraph(tiny_network(scale)), depth)
    np.testing.assert_array_equal(result > 0, resample.validity(depth, scale))


def test_the_valid_area_of_one_pixel():
    valid = torch.zeros(1, 1, 5, 5)
    valid[..., 2, 2] = 1.0
    found = result_validity(valid, 4)[0, 0]
    # Weights (1 - |dx|)(1 - |dy|) at offsets of 1/8 and 3/8 of a pixel: 49/64, 35/64, 25/64.
    expected = torch.zeros(20, 20, dtype=torch.bool)
    expected[8:12, 8:12] = True
    expected[[8, 8, 11, 11], [8, 11, 8, 11]] = False
    assert torch.equal(found, expected)


@pytest.mark.parametrize("invalid", [0.0, np.nan, np.inf, -np.inf, -1.0, 0.05, 10.5, 65.535])
def test_what_is_no_depth_or_out_of_range_counts_as_a_hole(tiny_network, depth_image, invalid):
    graph = CameraGraph(tiny_network(2))
    depth = depth_image(17, 23)
    spoilt = np.where(depth > 0, depth, np.float32(invalid))
    np.testing.assert_array_equal(run(graph, spoilt), run(graph, depth))


def test_a_range_from_zero_does_not_make_zero_valid(tiny_network, depth_image):
    graph = CameraGraph(tiny_network(2))
    depth = depth_image(17, 23)
    np.testing.assert_array_equal(run(graph, depth, (0.0, 10.0)), run(graph, depth))


@pytest.mark.parametrize("invalid", [0.0, np.nan, np.inf, 65.535])
def test_nothing_valid_in_nothing_valid_out(tiny_network, invalid):
    result = run(CameraGraph(tiny_network(4)), np.full((9, 8), invalid, np.float32))
    assert result.shape == (36, 32) and not result.any()


def test_one_valid_pixel_spreads_only_its_own_depth(tiny_network):
    depth = np.zeros((12, 12), np.float32)
    depth[5, 6] = 1.7
    result = run(CameraGraph(tiny_network(2, strength=1e3)), depth)
    assert (result > 0).sum() == 4
    np.testing.assert_allclose(result[10:12, 12:14], 1.7, rtol=1e-6)
