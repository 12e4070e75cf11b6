"""The kinds of scenes: what every one of them promises, and what sets each of them apart."""

import hashlib

import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import edges
from dsca_ros.depth.scenes import KINDS, Scene
from dsca_ros.depth.solids import Solid, gap, render, rod, rotation_y, rotation_z, tilt, vector

CAMERA = Intrinsics.from_fov(64, 48, 70.0)
SEEDS = (*range(4), 1_000_030)
PHASES = (0.0, 0.4)

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def views() -> dict[str, np.ndarray]:
    """[N, 48, 64] depth of some views of every kind."""
    scenes = {kind: [Scene.of_kind(kind, seed) for seed in SEEDS] for kind in KINDS}
    return {kind: np.stack([s.render(CAMERA, p) for s in some for p in PHASES]) for kind, some in scenes.items()}


@pytest.mark.parametrize(
    ("seed", "digest"), [(0, "1bffca0a533c90b7"), (7, "c4bb118b8ef2cd80"), (1_000_030, "b1aaf58577b9cc29")]
)
def test_rooms_are_what_they_always_were(seed, digest):
    """Figures and shipped results are measured on them."""
    depth = Scene.of_kind("room", seed).render(CAMERA, 0.3)
    np.testing.assert_array_equal(depth, Scene.random(seed).render(CAMERA, 0.3))
    assert hashlib.sha256(depth.tobytes()).hexdigest()[:16] == digest


@every_kind
def test_the_same_seed_is_the_same_scene(kind):
    first, again = (Scene.of_kind(kind, 3).render(CAMERA, 0.3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, Scene.of_kind(kind, 4).render(CAMERA, 0.3))


def test_an_unknown_kind_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="'cave'") as error:
        Scene.of_kind("cave", 0)
    assert all(kind in str(error.value) for kind in KINDS)


def test_kinds_differ():
    assert len({Scene.of_kind(kind, 1).render(CAMERA, 0.0).tobytes() for kind in KINDS}) == len(KINDS)


@every_kind
def test_depth_is_everywhere_and_nothing_touches_the_camera(kind, views):
    depth = views[kind]
    assert depth.dtype == np.float32 and np.isfinite(depth).all()
    assert depth.min() > 0.15


@every_kind
@pytest.mark.parametrize("seed", range(3))
def test_no_solid_comes_near_the_path(kind, seed):
    scene = Scene.of_kind(kind, seed)
    clear = {"clutter": 0.2, "room": 0.2, "foliage": 0.4, "outdoors": 0.9, "curved": 0.4}[kind]
    for phase in np.arange(0, 1, 0.125):
        position = scene.pose(phase).position
        assert (position > 0.1).all() and (position < scene.room - 0.1).all()
        assert min(gap(solid, position) for solid in scene.solids) > clear


@every_kind
def test_the_path_is_closed(kind):
    scene = Scene.of_kind(kind, 5)
    first, last = scene.pose(0.0), scene.pose(1.0)
    np.testing.assert_allclose(first.position, last.position, atol=1e-9)
    np.testing.assert_allclose(first.rotation, last.rotation, atol=1e-9)
    distance = [np.linalg.norm(scene.pose(k / 60).position - scene.stand) for k in range(60)]
    assert 0.9 * scene.radius < max(distance) < 1.1 * scene.radius


@pytest.mark.parametrize(
    ("kind", "median", "farthest"),
    [
        ("room", (1.0, 4.0), (3.0, 12.0)),
        ("clutter", (0.5, 1.5), (1.0, 4.5)),
        ("foliage", (1.0, 5.0), (3.0, 11.0)),
        ("outdoors", (2.5, 20.0), (35.0, 110.0)),
        ("curved", (1.0, 4.0), (3.0, 11.0)),
    ],
)
def test_each_kind_has_its_range(kind, median, farthest, views):
    assert median[0] < np.median(views[kind]) < median[1]
    assert farthest[0] < views[kind].max() < farthest[1]


@every_kind
def test_views_have_edges_and_surfaces(kind):
    camera = Intrinsics.from_fov(320, 240, 45.0)
    shares = [edges(Scene.of_kind(kind, seed).render(camera, 0.3 * seed)).mean() for seed in range(3)]
    assert min(shares) > 0.01
    assert max(shares) < 0.5


def test_leaves_and_wires_are_thin():
    for kind, thin in (("foliage", 0.01), ("clutter", 0.005)):
        counts = [sum(bool(s.half.min() <= thin) for s in Scene.of_kind(kind, seed).solids) for seed in SEEDS]
        assert np.mean(counts) > 40


@pytest.mark.parametrize("way", [(1, 2, 3), (-1, 0.5, -2), (0, 0, 1), (0, 0, -1), (1, 0, 0)])
def test_tilt_takes_the_vertical_to_the_direction(way):
    direction = vector(*way) / np.linalg.norm(way)
    np.testing.assert_allclose(tilt(direction) @ [0, 0, 1], direction, atol=1e-12)


def test_a_rod_goes_from_one_point_to_the_other():
    start, end = vector(1, 2, 3), vector(2, 1, 5)
    bar = rod(start, end, 0.1)
    ends = [bar.centre + side * bar.rotation @ vector(0, 0, bar.half[2]) for side in (-1, 1)]
    np.testing.assert_allclose(ends, [start, end], atol=1e-12)
    np.testing.assert_allclose(bar.half[:2], 0.1)


def test_gap_is_the_distance_from_the_box_around_a_solid():
    box = Solid("box", vector(1, 0, 0), vector(0.5, 0.2, 0.2), rotation_z(np.pi / 2))
    assert gap(box, vector(3, 0, 0)) == pytest.approx(1.8)
    assert gap(box, vector(1, 0.4, 0)) == 0.0
    assert gap(box, vector(1.2 + 0.3, 0.5 + 0.4, 0)) == pytest.approx(0.5)


def test_windows_cut_nothing_off():
    """Many solids at once and each alone show the same: a window is as large as what it shows."""
    scene = Scene.foliage(1)
    pose, everything = scene.pose(0.1), np.stack([s.centre for s in scene.solids])
    some = scene.solids[:: max(len(everything) // 60, 1)]
    together = render(scene.room, some, pose, CAMERA)
    # A solid that reaches behind the camera is looked for in the whole image.
    hidden = Solid("box", pose.position - pose.rotation @ vector(0, 0, 0.04), np.full(3, 0.001), rotation_y(0.3))
    np.testing.assert_array_equal(render(scene.room, [*some, hidden], pose, CAMERA), together)
    alone = np.minimum.reduce([render(scene.room, [solid], pose, CAMERA) for solid in some])
    np.testing.assert_array_equal(alone, together)
