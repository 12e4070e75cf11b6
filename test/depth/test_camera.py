"""Geometry, and the tie between the camera_info rule and the grids that depth is enlarged on."""

import numpy as np
import pytest

from dsca_ros.depth import resample, units
from dsca_ros.depth.camera import ROWS, Intrinsics, _has_long_runs, scale_principal_point

NORMAL, OFFSET = np.array([0.25, -0.4, 1.0]), 2.0  # the plane NORMAL . P = OFFSET


def plane_depth(camera: Intrinsics) -> np.ndarray:
    """Exact depth of the plane: its inverse is linear in the pixel."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    return (OFFSET / (NORMAL[0] * x + NORMAL[1] * y + NORMAL[2])).astype(np.float32)


def distance_from_plane(points: np.ndarray) -> np.ndarray:
    return np.abs(points @ NORMAL - OFFSET) / np.linalg.norm(NORMAL)


def interior(image: np.ndarray, scale: int) -> np.ndarray:
    """Without the border, where an enlargement has no neighbour on one side."""
    return image[scale:-scale, scale:-scale]


def test_half_pixel_rule():
    scaled = Intrinsics(640, 480, 600.0, 610.0, 319.5, 241.25).scaled(2)
    assert scaled == Intrinsics(1280, 960, 1200.0, 1220.0, 639.5, 483.0)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_corners_of_the_image_stay_corners(camera, scale):
    # The outer edge of the first pixel, -1/2, and of the last one are the same points in both.
    assert scale_principal_point(-0.5, scale) == -0.5
    assert scale_principal_point(camera.width - 0.5, scale) == camera.width * scale - 0.5


def test_scaling_twice_is_scaling_by_the_product(camera):
    assert camera.scaled(2).scaled(4) == camera.scaled(8)


def test_field_of_view():
    camera = Intrinsics.from_fov(321, 201, 90.0)
    assert camera.fx == pytest.approx(160.5) and camera.fy == camera.fx
    assert (camera.cx, camera.cy) == (160.0, 100.0)


def test_back_projection_of_one_pixel(camera):
    depth = np.zeros((30, 40), np.float32)
    depth[20, 7] = 2.0
    points = camera.back_project(depth)
    assert points[20, 7] == pytest.approx([(7 - 18.3) * 2 / 35, (20 - 15.2) * 2 / 36, 2.0])


@pytest.mark.parametrize("invalid", [0.0, -1.0, np.nan])
def test_invalid_pixels_have_no_point(camera, invalid):
    depth = np.ones((30, 40), np.float32)
    depth[3, 4] = invalid
    points = camera.back_project(depth)
    assert np.isnan(points[3, 4]).all()
    assert np.isfinite(points).all(axis=2).sum() == depth.size - 1


def test_back_projection_fills_a_given_buffer(camera):
    depth = plane_depth(camera)
    buffer = np.empty((30, 40, 3), np.float32)
    assert camera.back_project(depth, buffer) is buffer
    np.testing.assert_array_equal(buffer, camera.back_project(depth))


@pytest.mark.parametrize("scattered", [0.01, 0.3])
@pytest.mark.parametrize("invalid", [0, 65535, np.nan, -1.0, np.inf])
def test_valid_points_are_those_of_the_organised_ones_bit_for_bit(rng, invalid, scattered):
    """Blocks of rows without a hole, with few large and with many small ones, and with nothing else."""
    camera = Intrinsics(97, 5 * ROWS + 3, 80.0, 81.0, 47.3, 38.9)
    depth = rng.integers(1, 65535, (camera.height, camera.width)).astype(np.uint16)
    if invalid not in (0, 65535):
        depth = depth.astype(np.float32) / 1000
    blocks = [slice(ROWS * block, ROWS * (block + 1)) for block in range(6)]
    depth[blocks[1], 20:60] = depth[blocks[5], 50:] = invalid
    holes = rng.random(depth.shape) < scattered
    holes[blocks[0]] = False
    depth[holes] = invalid
    depth[blocks[3]] = invalid
    depth[blocks[4]][:, 1:] = invalid
    assert _has_long_runs(units.is_valid(depth)) == (scattered < 0.1), "each way of picking is to be taken once"
    for stride in (1, 2, 3):
        organised = camera.back_project(depth, stride=stride)
        z = units.to_metres(depth)[::stride, ::stride]
        x, y = (ray[::stride] for ray in camera.rays())
        by_hand = np.stack([z * x, z * y[:, None], z], axis=-1)
        np.testing.assert_array_equal(organised, np.where(z[..., None] > 0, by_hand, np.nan))
        points = camera.back_project_valid(depth, stride, lambda count: np.empty((count, 3), np.float32))
        assert points.tobytes() == by_hand[z > 0].tobytes() and len(points)


def test_an_image_of_another_size_is_refused(camera):
    with pytest.raises(ValueError, match=r"30x40.*40x30"):
        camera.back_project(np.ones((40, 30), np.float32))


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_the_scaled_camera_sees_the_same_plane(camera, scale):
    larger = camera.scaled(scale)
    points = larger.back_project(plane_depth(larger))
    assert distance_from_plane(points).max() < 1e-5


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_enlarged_points_lie_on_the_plane_of_the_input(camera, scale):
    enlarged = 1.0 / resample.bilinear(1.0 / plane_depth(camera), scale)
    points = interior(camera.scaled(scale).back_project(enlarged), scale)
    assert distance_from_plane(points).max() < 1e-5


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_without_the_half_pixel_they_would_not(camera, scale):
    """The rule of tools that leave the half pixel out: shows that the tests above can fail."""
    wrong = Intrinsics(
        camera.width * scale, camera.height * scale, camera.fx * scale, camera.fy * scale,
        camera.cx * scale, camera.cy * scale,
    )  # fmt: skip
    enlarged = 1.0 / resample.bilinear(1.0 / plane_depth(camera), scale)
    points = interior(wrong.back_project(enlarged), scale)
    assert distance_from_plane(points).min() > 1e-3


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_the_networks_grid_is_that_of_the_scaled_camera(camera, scale):
    torch = pytest.importorskip("torch")
    from dsca_ros.network.dsca import accumulate, enlarge

    inverse = torch.from_numpy(1.0 / plane_depth(camera))[None, None]
    exact = 1.0 / plane_depth(camera.scaled(scale))
    directly = enlarge(inverse, scale)[0, 0].numpy()
    np.testing.assert_allclose(interior(directly, scale), interior(exact, scale), rtol=1e-5)

    height, width = inverse.shape[-2:]
    factors = [2**k for k in range(1, scale.bit_length())]
    nothing = [torch.zeros(1, 1, height * f, width * f) for f in factors]
    by_stages = accumulate(inverse, nothing, (2,) * len(factors))[-1][0, 0].numpy()
    np.testing.assert_allclose(interior(by_stages, scale), interior(exact, scale), rtol=1e-5)
