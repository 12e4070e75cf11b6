"""The renderer against closed forms: everything that is measured rests on its depth being exact."""

import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.scenes import CLEARANCE, Pose, Scene, Solid, render, rotation_y, rotation_z

ROOM = np.array([4.0, 4.0, 3.0])
#: At (1, 2, 1.5) and looking along +x: the wall ahead is 3 m away, the sides 2 m, the floor 1.5 m.
AHEAD = Pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([1.0, 2.0, 1.5]))
CAMERA = Intrinsics.from_fov(61, 61, 90.0)
CENTRE = np.array([3.0, 2.0, 1.5])  # 2 m ahead of the camera


def ray_grid(camera: Intrinsics = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    x, y = camera.rays()
    return np.meshgrid(x.astype(np.float64), y.astype(np.float64))


def solid(shape: str, half: tuple[float, ...], rotation: np.ndarray | None = None) -> Solid:
    return Solid(shape, CENTRE, np.array(half), np.eye(3) if rotation is None else rotation)


def at_centre(*solids: Solid) -> float:
    return float(render(ROOM, list(solids), AHEAD, CAMERA)[30, 30])


def test_an_empty_room_is_five_planes():
    x, y = ray_grid()
    with np.errstate(divide="ignore"):
        expected = np.minimum(3.0, np.minimum(2.0 / np.abs(x), 1.5 / np.abs(y)))
    np.testing.assert_allclose(render(ROOM, [], AHEAD, CAMERA), expected, rtol=1e-5)


def test_a_sphere_everywhere():
    x, y = ray_grid()
    radius = 0.7
    # |t (x, y, 1) - (0, 0, 2)| = radius, the nearer t.
    a = x * x + y * y + 1.0
    inside = 4.0 - a * (4.0 - radius**2)
    expected = (2.0 - np.sqrt(np.maximum(inside, 0.0))) / a
    depth = render(ROOM, [solid("ellipsoid", (radius,) * 3)], AHEAD, CAMERA)
    hit, miss = inside > 1e-3, inside < -1e-3
    np.testing.assert_allclose(depth[hit], expected[hit], rtol=1e-5)
    np.testing.assert_array_equal(depth[miss], render(ROOM, [], AHEAD, CAMERA)[miss])


def test_a_sphere_looks_the_same_however_it_is_turned():
    turned = solid("ellipsoid", (0.5,) * 3, rotation_z(0.7) @ rotation_y(0.4))
    plain = render(ROOM, [solid("ellipsoid", (0.5,) * 3)], AHEAD, CAMERA)
    np.testing.assert_allclose(render(ROOM, [turned], AHEAD, CAMERA), plain, rtol=1e-4)


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (solid("ellipsoid", (0.4, 0.3, 0.2)), 1.6),
        (solid("box", (0.2, 0.3, 0.4)), 1.8),
        (solid("cylinder", (0.25, 0.25, 0.5)), 1.75),
        # Halfway up a cone is half its base's radius.
        (solid("cone", (0.4, 0.4, 0.5)), 1.8),
        # Turned a quarter, half extents change places.
        (solid("box", (0.2, 0.3, 0.4), rotation_z(np.pi / 2)), 1.7),
        (solid("box", (0.2, 0.3, 0.4), rotation_y(np.pi / 2)), 1.6),
        # The face of a box turned by 30 degrees is cut at half / cos.
        (solid("box", (0.2, 2.0, 0.4), rotation_z(np.pi / 6)), 2.0 - 0.2 / np.cos(np.pi / 6)),
        # Lying towards the camera: a cylinder shows its cap, a cone its tip or its base.
        (solid("cylinder", (0.1, 0.1, 0.5), rotation_y(np.pi / 2)), 1.5),
        (solid("cone", (0.3, 0.3, 0.5), rotation_y(-np.pi / 2)), 1.5),
        (solid("cone", (0.3, 0.3, 0.5), rotation_y(np.pi / 2)), 1.5),
    ],
    ids=lambda value: value.shape if isinstance(value, Solid) else f"{value:.2f}",
)
def test_depth_of_the_centre_ray(thing, expected):
    assert at_centre(thing) == pytest.approx(expected, rel=2e-5)


INSIDE = {
    "box": lambda x, y, z: np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z)) <= 1,
    "ellipsoid": lambda x, y, z: x * x + y * y + z * z <= 1,
    "cylinder": lambda x, y, z: (x * x + y * y <= 1) & (np.abs(z) <= 1),
    "cone": lambda x, y, z: (np.hypot(x, y) <= (1 - z) / 2) & (np.abs(z) <= 1),
}


@pytest.mark.parametrize("shape", INSIDE)
@pytest.mark.parametrize("tilt", [0.0, 0.9, 2.5])
def test_every_pixel_of_a_solid_is_where_a_walk_along_its_ray_first_gets_inside(shape, tilt):
    camera = Intrinsics.from_fov(24, 24, 50.0)
    thing = solid(shape, (0.6, 0.5, 0.7), rotation_z(0.5) @ rotation_y(tilt))
    x, y = (image.ravel() for image in ray_grid(camera))
    world = np.stack([x, y, np.ones_like(x)], axis=1) @ AHEAD.rotation.T
    directions = world @ thing.rotation / thing.half
    origin = (AHEAD.position - thing.centre) @ thing.rotation / thing.half
    steps = np.arange(1.0, 3.0, 0.001)
    inside = INSIDE[shape](*(origin[k] + directions[:, k, None] * steps for k in range(3)))
    expected = np.where(inside.any(axis=1), steps[inside.argmax(axis=1)], 3.0)
    wall = render(ROOM, [], AHEAD, camera)
    depth = np.where(wall < 3.0, 3.0, render(ROOM, [thing], AHEAD, camera)).ravel()
    expected[wall.ravel() < 3.0] = 3.0
    assert 0.15 < (depth < 3.0).mean() < 0.8
    # A walk may step over a rim.
    assert (np.abs(depth - expected) < 0.0011).mean() > 0.98


def test_the_nearest_surface_wins():
    behind = Solid("box", CENTRE + np.array([0.5, 0, 0]), np.array([0.2, 0.2, 0.2]))
    in_front = Solid("cylinder", CENTRE - np.array([0.5, 0, 0]), np.array([0.1, 0.1, 0.3]))
    assert at_centre(behind, in_front) == at_centre(in_front, behind) == pytest.approx(1.4)


def test_what_is_behind_the_camera_is_not_seen():
    behind = Solid("box", np.array([0.4, 2.0, 1.5]), np.array([0.2, 0.2, 0.2]))
    np.testing.assert_array_equal(render(ROOM, [behind], AHEAD, CAMERA), render(ROOM, [], AHEAD, CAMERA))


def test_a_solid_that_reaches_behind_the_camera_is_seen():
    # A beam above the camera, from behind it to the far wall: 1 m up to its lower face.
    beam = Solid("box", np.array([2.0, 2.0, 2.7]), np.array([2.0, 0.2, 0.2]))
    x, y = ray_grid()
    depth = render(ROOM, [beam], AHEAD, CAMERA)
    below = (y < -1.0 / 2.9) & (np.abs(x) < -0.15 * y)
    assert below.sum() > 20
    np.testing.assert_allclose(depth[below], 1.0 / -y[below], rtol=1e-5)


@pytest.mark.parametrize("seed", [0, 5, 1_000_000])
def test_the_same_seed_is_the_same_scene(seed):
    camera = Intrinsics.from_fov(48, 36, 70.0)
    first, again = (Scene.random(seed).render(camera, 0.3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, Scene.random(seed + 1).render(camera, 0.3))


@pytest.mark.parametrize("seed", range(6))
def test_every_pixel_shows_a_point_in_the_room(seed):
    scene, camera = Scene.random(seed), Intrinsics.from_fov(64, 48, 75.0)
    for phase in (0.0, 0.4, 0.8):
        depth, pose = scene.render(camera, phase), scene.pose(phase)
        assert depth.dtype == np.float32 and np.isfinite(depth).all()
        assert depth.min() > 0.05
        world = camera.back_project(depth) @ pose.rotation.T + pose.position
        assert (world > -1e-4).all() and (world < scene.room + 1e-4).all()


@pytest.mark.parametrize("seed", [3, 1_000_000])
def test_low_resolution_is_high_resolution_where_rays_coincide(seed):
    # At an odd scale the middle one of scale x scale pixels lies on the ray of the small image's.
    scene, camera = Scene.random(seed), Intrinsics.from_fov(80, 60, 60.0)
    low, high = scene.render(camera, 0.2), scene.render(camera.scaled(3), 0.2)[1::3, 1::3]
    same = np.isclose(low, high, rtol=1e-4)
    assert same.mean() > 0.998  # rounding may move a silhouette across a ray, here and there


def test_the_path_is_closed_smooth_and_clear():
    scene = Scene.random(11)
    first, last = scene.pose(0.0), scene.pose(1.0)
    np.testing.assert_allclose(first.position, last.position, atol=1e-9)
    np.testing.assert_allclose(first.rotation, last.rotation, atol=1e-9)
    positions = np.array([scene.pose(k / 360).position for k in range(361)])
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1).max() < 0.01
    assert np.linalg.norm(positions[:, :2] - scene.stand[:2], axis=1).max() < CLEARANCE


@pytest.mark.parametrize("seed", [2, 9])
def test_poses_are_rotations(seed):
    for phase in (0.0, 0.3, 0.77):
        rotation = Scene.random(seed).pose(phase).rotation
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-9)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
        assert rotation[2, 1] < 0  # the image's down is downwards in the world
