"""Procedural disparity maps."""

import numpy as np
import pytest

from dsca_ros.training import disparity_scenes
from dsca_ros.training.disparity_scenes import STEPS, disparity_scene, outline, ripple, surface

KINDS = ["ellipse", "polygon", "stick", "sticks", "cone", "ring", "grid"]
SIZE = 96


def centred(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:size, :size].astype(np.float32) - 0.5 * size
    return x, y


def scene(seed: int, size: int = SIZE) -> np.ndarray:
    return disparity_scene(np.random.default_rng(seed), size)


@pytest.fixture(scope="module")
def scenes():
    return [scene(seed) for seed in range(40)]


def test_a_scene_is_a_square_of_uint8_whatever_its_size():
    for size in (16, 65):
        found = scene(1, size)
        assert found.shape == (size, size) and found.dtype == np.uint8


def test_a_scene_is_a_function_of_its_random_numbers(scenes):
    np.testing.assert_array_equal(scenes[3], scene(3))
    assert len({found.tobytes() for found in scenes}) == len(scenes)


def step_of(image: np.ndarray) -> int:
    """The largest step of which all levels are whole multiples; what is beyond the range is 255."""
    return int(np.gcd.reduce(image[image < 255].astype(int)))


def test_levels_are_whole_multiples_of_a_step():
    found = [step_of(scene(seed, 48)) for seed in range(120)]
    for step in STEPS:
        assert step in found
    assert found.count(1) > 0.4 * len(found)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_makes_staircases(monkeypatch, step):
    monkeypatch.setattr(disparity_scenes, "STEP_SHARES", tuple(float(known == step) for known in STEPS))
    for seed in range(5):
        image = scene(seed, 48)
        assert (image[image < 255] % step == 0).all()


def test_scenes_have_edges_and_smooth_parts(scenes):
    steps = [np.abs(np.diff(image.astype(int), axis=1)) for image in scenes]
    assert np.mean([(step >= 5).any() for step in steps]) > 0.9
    assert np.mean([(step == 0).mean() for step in steps]) > 0.5
    assert len({int(image.mean()) for image in scenes}) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_outline_is_drawn(monkeypatch, kind):
    assert len(disparity_scenes.SHAPE_SHARES) == len(KINDS)
    assert disparity_scenes.SHAPE_SHARES[KINDS.index(kind)] > 0
    monkeypatch.setattr(disparity_scenes, "SHAPE_SHARES", tuple(float(known == kind) for known in KINDS))
    x, y = centred()
    shares = []
    for seed in range(30):
        inside, relief = outline(np.random.default_rng(seed), x, y, SIZE, np.zeros_like(x))
        assert inside.shape == relief.shape == (SIZE, SIZE) and inside.dtype == bool
        assert np.isfinite(relief).all() and relief.min() >= 0 and relief.max() <= 1
        shares.append(inside.mean())
    assert np.mean([0 < share < 1 for share in shares]) > 0.7
    # A scene of nothing else has it, too.
    assert any(np.ptp(scene(seed, 48)) > 0 for seed in range(3))


def test_outlines_differ_in_what_makes_them(monkeypatch):
    """A ring has a hole in its middle, a grid has many, an ellipse none."""
    x, y = centred()
    holes = {}
    for kind in ("ellipse", "ring", "grid"):
        monkeypatch.setattr(disparity_scenes, "SHAPE_SHARES", tuple(float(known == kind) for known in KINDS))
        found = [outline(np.random.default_rng(seed), x, y, SIZE, np.zeros_like(x))[0] for seed in range(20)]
        # Pixels outside that have the object on both sides of them in their row.
        holes[kind] = np.mean(
            [
                (~f & np.logical_or.accumulate(f, axis=1) & np.logical_or.accumulate(f[:, ::-1], axis=1)[:, ::-1]).any()
                for f in found
            ]
        )
    assert holes["ellipse"] == 0 and holes["ring"] > 0.8 and holes["grid"] > 0.5


def test_roughness_moves_an_outline(monkeypatch):
    x, y = centred()
    rough = ripple(np.random.default_rng(1), x, y, SIZE)
    assert 0.3 < rough.std() < 2
    plain, _ = outline(np.random.default_rng(2), x, y, SIZE, np.zeros_like(x))
    rougher, _ = outline(np.random.default_rng(2), x, y, SIZE, 1.5 * rough)
    changed = plain != rougher
    assert changed.any() and changed.mean() < 0.3


def test_surfaces_are_flat_slanted_or_curved():
    x, y = centred()
    kinds = set()
    for seed in range(60):
        found = surface(np.random.default_rng(seed), x, y, 0.1, SIZE)
        second = np.abs(np.diff(found, 2, axis=1)).max() + np.abs(np.diff(found, 2, axis=0)).max()
        kinds.add("flat" if not found.any() else "slanted" if second < 1e-3 else "curved")
    assert kinds == {"flat", "slanted", "curved"}
