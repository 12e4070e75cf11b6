import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

from dsca_ros.depth.fidelity import block_mean, decimate
from dsca_ros.depth.scenes import KINDS
from dsca_ros.depth.sensors import IdealSensor, SimulatedKinectSensor
from dsca_ros.training import views
from dsca_ros.training.views import FrameShares, ViewError, ViewPool, ViewSettings, make_batch, make_lesson, shrink


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return ViewPool(ViewSettings(3, 48, 36, scale=4), tmp_path_factory.mktemp("cache"))


def test_shapes_of_a_batch(pool):
    batch = make_batch(pool, size=2, crop=24, seed=1, step=0)
    assert batch.low.shape == (2, 1, 24, 24)
    assert [t.shape for t in batch.targets] == [(2, 1, 48, 48), (2, 1, 96, 96)]
    assert all(a.dtype == np.float32 for a in (batch.low, *batch.targets))
    assert all(np.isfinite(t).all() and (t >= 0).all() for t in batch.targets)


def test_a_batch_is_a_function_of_seed_and_step(pool):
    batch, again = (make_batch(pool, 2, 24, seed=1, step=5) for _ in range(2))
    np.testing.assert_array_equal(batch.low, again.low)
    for a, b in zip(batch.targets, again.targets, strict=True):
        np.testing.assert_array_equal(a, b)
    for seed, step in ((1, 6), (2, 5)):
        assert not np.array_equal(batch.low, make_batch(pool, 2, 24, seed, step).low)


def test_a_pool_is_rendered_once(pool, tmp_path):
    settings, counts = ViewSettings(2, 16, 12), []
    first = ViewPool(settings, tmp_path, counts.append)
    assert counts == [1, 2]
    again = ViewPool(settings, tmp_path, counts.append)
    assert counts == [1, 2]
    np.testing.assert_array_equal(first.depth[1], again.depth[1])
    other = ViewPool(ViewSettings(2, 16, 12, first_seed=50), tmp_path, counts.append)
    assert counts == [1, 2, 1, 2]
    assert not np.array_equal(first.depth[0], other.depth[0])


def test_an_interrupted_pool_is_rendered_again(tmp_path):
    settings = ViewSettings(2, 16, 12)

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ViewPool(settings, tmp_path, interrupt)
    assert not list(tmp_path.iterdir())  # nothing is left lying about
    pool = ViewPool(settings, tmp_path)
    assert (pool.depth[0] > 0).all() and (pool.depth[1] > 0).all()


def test_damaged_views_are_named(tmp_path):
    settings = ViewSettings(2, 16, 12)
    ViewPool(settings, tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "x2.npy").write_bytes(b"no views")
    with pytest.raises(ViewError, match=f"{folder.name} is damaged: remove it"):
        ViewPool(settings, tmp_path)


def test_views_that_do_not_fit_on_the_disk_are_told_before_they_are_rendered(tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(views.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ViewError, match=r"3 views take 0\.0 GB, and 0\.0 GB are free; make room"):
        ViewPool(ViewSettings(3, 16, 12), tmp_path, counts.append)
    assert not counts and not list(tmp_path.iterdir())


def test_a_cache_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(ViewError, match="cannot write views"):
        ViewPool(ViewSettings(2, 16, 12), tmp_path / "cache")


def test_the_pools_views_are_those_of_the_scenes(pool):
    scene, camera, phase = pool.view(2)
    assert pool.camera(2).fx == pytest.approx(camera.fx)
    np.testing.assert_array_equal(pool.depth[2][2], scene.render(camera.scaled(4), phase))


# --- what views show ----------------------------------------------------------------------------


def settings_of(**shares: float) -> ViewSettings:
    return ViewSettings(60, 16, 12, scenes=shares)


def kinds_of(pool: ViewPool, count: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Kind and seed of the scenes of so many views."""
    seen = []
    monkeypatch.setattr(views.Scene, "of_kind", lambda kind, seed: seen.append((kind, seed)))
    for index in range(count):
        pool.view(index)
    return seen


@pytest.fixture
def unrendered(monkeypatch):
    """Makes a pool that has rendered nothing."""

    def make(settings: ViewSettings) -> ViewPool:
        made = ViewPool.__new__(ViewPool)
        made.settings = settings
        return made

    return make


def test_kinds_of_scenes_have_their_shares_and_three_views_share_a_scene(unrendered, monkeypatch):
    seen = kinds_of(unrendered(settings_of(room=2, clutter=1, foliage=0, outdoors=1)), 1800, monkeypatch)
    assert [seed for _, seed in seen] == [index // 3 for index in range(1800)]
    assert all(len(set(seen[k : k + 3])) == 1 for k in range(0, 1800, 3))
    kinds = [kind for kind, _ in seen]
    shares = {kind: kinds.count(kind) / 1800 for kind in set(kinds)}
    expected = {"room": 0.5, "clutter": 0.25, "outdoors": 0.25}
    assert shares == {kind: pytest.approx(share, abs=0.06) for kind, share in expected.items()}


def test_the_kinds_that_are_trained_on_are_those_there_are():
    assert set(views.SCENES) <= set(KINDS) and sum(views.SCENES.values()) == pytest.approx(1.0)


def test_other_shares_are_another_pool(tmp_path):
    counts = []
    for shares in ({"room": 1.0}, {"curved": 1.0}, {"room": 1.0}):
        ViewPool(ViewSettings(1, 16, 12, scenes=shares), tmp_path, counts.append)
    assert len(counts) == 2


def test_the_cache_depends_on_every_file_of_the_renderer():
    """What scenes.py is made of, in dsca_ros/depth: a file that is missing would leave stale views in use."""
    folder = Path(views.__file__).parent.parent / "depth"
    needed, waiting = set(), ["scenes"]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += re.findall(r"^from dsca_ros\.depth\.(\w+) import", (folder / f"{name}.py").read_text(), re.M)
    assert len(needed) > 5
    assert needed <= {name.removesuffix(".py") for name in views.RENDERER}


# --- lessons ------------------------------------------------------------------------------------


CROP = 24


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A pool of views as large as the crop, so that a lesson is a whole view."""
    return ViewPool(ViewSettings(2, CROP, CROP, scale=8), tmp_path_factory.mktemp("whole"))


def lesson(pool: ViewPool, seed: int, index: int = 0) -> views.Lesson:
    return make_lesson(pool, index, CROP, np.random.default_rng(seed))


def kind_of(lesson: views.Lesson) -> int:
    """By how much a frame was shrunk whose measured pixels are asked for; 0 where exact depth is asked for."""
    return 2 ** sum(lesson.measured) if any(lesson.measured) else 0


@pytest.fixture
def ideal(monkeypatch):
    monkeypatch.setattr(views, "random_sensor", lambda *_: IdealSensor())


def shrunk(frame: np.ndarray, factor: int) -> list[np.ndarray]:
    """A frame shrunk in every way there is."""
    middle = (factor // 2 - 1, factor // 2)
    left_out = [frame[row::factor, column::factor] for row in middle for column in middle]
    return [decimate(frame, factor), block_mean(frame, factor), *left_out]


@pytest.mark.parametrize("seed", range(12))
def test_shapes_of_a_lesson(pool, seed):
    found = lesson(pool, seed, index=seed % 3)
    assert found.low.shape == (CROP, CROP) and found.low.dtype == np.float32
    assert [target.shape for target in found.targets] == [(2 * CROP, 2 * CROP), (4 * CROP, 4 * CROP)]
    assert all(target.dtype == np.float32 and np.isfinite(target).all() for target in found.targets)
    assert [type(flag) for flag in found.measured] == [bool, bool]
    # What was not measured is exact: it has no hole.
    assert all((target > 0).all() for target, flag in zip(found.targets, found.measured) if not flag)


def test_lessons_are_native_decimated_and_measured(whole):
    """By three tenths natively; of the others half by all of the scale, and most of them against what was measured."""
    found = [kind_of(lesson(whole, seed)) for seed in range(400)]
    shares = {kind: found.count(kind) / 400 for kind in set(found)}
    assert set(shares) == {0, 2, 4, 8}
    assert shares[2] == pytest.approx(shares[4], abs=0.08)
    assert shares[2] + shares[4] == pytest.approx(shares[8], abs=0.12)
    assert 0.24 < shares[8] < 0.39


def test_of_a_measured_frame_every_smaller_one_is_measured_and_no_larger_one(whole):
    for seed in range(60):
        measured = lesson(whole, seed).measured
        assert measured in ([False] * 3, [True, False, False], [True, True, False], [True] * 3)


@pytest.mark.parametrize("seed", range(24))
def test_what_was_measured_is_what_the_input_was_shrunk_from(pool, ideal, seed):
    """After crop, mirroring and the size of the world; and the stage between is that frame shrunk, too."""
    found = lesson(pool, seed, index=seed % 3)
    factor = kind_of(found)
    if factor:
        frame = found.targets[factor // 4]
        assert any(np.allclose(found.low, low, rtol=1e-6) for low in shrunk(frame, factor))
        if factor == 4:
            np.testing.assert_array_equal(found.targets[0], decimate(frame, 2))
        assert (np.abs(frame * 1000 - np.rint(frame * 1000)) < 1e-2).all()  # a driver's millimetres
    for target, f in zip(found.targets, (2, 4)):
        # Inverse depth is linear on planes, so a block's mean is that of its centre: the input. Where two surfaces
        # meet it is not, and those pixels are left out.
        inverse, blocks = 1.0 / found.low, (1.0 / target).reshape(CROP, f, CROP, f)
        spread = blocks.max(axis=(1, 3)) - blocks.min(axis=(1, 3))
        smooth = spread <= np.quantile(spread, 0.5)
        error = np.abs(blocks.mean(axis=(1, 3)) - inverse) / inverse
        # A pixel that was picked lies half a pixel of the frame off its block's middle.
        allowed = 0.002 + (spread / inverse if factor == f or not any(found.measured) else 0.05)
        # Among leaves and twigs the stage between has other surfaces than what was shrunk past it.
        assert (error <= allowed)[smooth].mean() > (0.9 if factor in (0, f) else 0.7)


def test_of_a_native_lesson_the_input_is_the_view_itself(whole, ideal):
    """As the ideal camera sees it: in a world of another size, and mirrored every other time."""
    mirrored, worlds = set(), set()
    exact = whole.depth[0][0]
    for seed in range(60):
        found = lesson(whole, seed)
        world = float(np.median(found.low) / np.median(exact))
        for flip in (False, True):
            side = slice(None, None, -1 if flip else 1)
            if not any(found.measured) and np.abs(found.low[:, side] - exact * world).max() < 0.01:
                mirrored.add(flip)
                worlds.add(round(world, 3))
                for target, store in zip(found.targets, whole.depth[1:]):
                    np.testing.assert_allclose(target[:, side], store[0] * np.float32(world), rtol=2e-3)
    assert mirrored == {False, True}
    assert len(worlds) > 10 and min(worlds) >= np.exp(-0.5) - 0.01 and max(worlds) <= np.exp(0.4) + 0.01


def test_holes_of_a_measured_frame_are_asked_for(whole, monkeypatch):
    class Holes:
        """A camera that measures nothing in a band of rows."""

        def measure(self, depth, camera, rng):
            result = IdealSensor().measure(depth, camera, rng)
            result[len(depth) // 3 : 2 * len(depth) // 3] = 0.0
            return result

    monkeypatch.setattr(views, "random_sensor", lambda *_: Holes())
    asked = 0
    for seed in range(40):
        found = lesson(whole, seed)
        assert not found.low[CROP // 3 : 2 * CROP // 3].any()
        for target, measured in zip(found.targets, found.measured):
            band = target[len(target) // 3 : 2 * len(target) // 3]
            assert not band.any() if measured else (band > 0).all()
            asked += measured
    assert asked > 10


def test_measured_flags_reach_the_batch(pool):
    found = [make_batch(pool, 4, CROP, 1, step) for step in range(8)]
    for batch in found:
        assert [m.shape for m in batch.measured] == [(4,), (4,)] and batch.measured[0].dtype == np.float32
        for target, measured in zip(batch.targets, batch.measured):
            assert (target[measured == 0] > 0).all()
    flags = np.concatenate([np.stack(batch.measured) for batch in found], axis=1)
    assert {tuple(column) for column in flags.T} == {(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)}


@pytest.mark.parametrize("factor", [2, 4])
def test_frames_are_shrunk_by_medians_means_and_leaving_out(factor, rng):
    frame = rng.uniform(1.0, 2.0, (6 * factor, 8 * factor)).astype(np.float32)
    frame[rng.random(frame.shape) < 0.3] = 0.0
    ways = shrunk(frame, factor)
    found = []
    for seed in range(200):
        low = shrink(frame, factor, np.random.default_rng(seed), views.USUAL)
        assert low.shape == (6, 8)
        found.append([np.array_equal(low, way) for way in ways].index(True))
    counts = [found.count(way) for way in range(6)]
    assert counts[0] > counts[1] > max(counts[2:]) and min(counts) > 0


@pytest.mark.parametrize("way", range(3))
def test_frames_are_shrunk_in_the_ways_that_have_a_share(way, rng):
    frame = rng.uniform(1.0, 2.0, (12, 16)).astype(np.float32)
    only = FrameShares(5.0, *(float(k == way) for k in range(3)))
    for seed in range(20):
        low = shrink(frame, 2, np.random.default_rng(seed), only)
        assert any(np.array_equal(low, one) for one in shrunk(frame, 2)[way : way + 1 if way < 2 else None])


@pytest.mark.parametrize(("native", "median", "expected"), [(1, 0, 1.0), (0, 1, 0.0), (6, 2, 0.75)])
def test_a_kind_of_camera_has_its_share_of_native_frames(whole, ideal, native, median, expected):
    """A perfect camera's shrunk frames are asked for themselves, so that they can be told from native ones."""
    frames = {"exact": FrameShares(native, median, 0.0, 0.0), "stereo": FrameShares(median, native, 0.0, 0.0)}
    found = [make_lesson(whole, 0, CROP, np.random.default_rng(seed), frames) for seed in range(80)]
    share = sum(not any(lesson.measured) for lesson in found) / 80
    assert share == pytest.approx(expected, abs=0.15 if 0 < expected < 1 else 0)


@pytest.mark.parametrize(("fully", "kinds"), [(1.0, {8}), (0.0, {2, 4})])
def test_frames_are_shrunk_by_as_much_as_the_recipe_says(whole, ideal, fully, kinds):
    frames = {"exact": FrameShares(0.0, 1.0, 0.0, 0.0)}
    found = [make_lesson(whole, 0, CROP, np.random.default_rng(seed), frames, fully) for seed in range(20)]
    assert {kind_of(lesson) for lesson in found} == kinds


def test_every_random_camera_is_of_a_kind():
    kinds = {views.kind_of(views.random_sensor(np.random.default_rng(k))) for k in range(60)}
    assert kinds == set(views.CAMERA_SHARES)
    assert kinds | {"simulated"} == set(views.CAMERAS)


def test_cameras_are_drawn_by_their_shares():
    shares = {"tof": 3.0, "simulated": 1.0}
    drawn = [views.kind_of(views.random_sensor(np.random.default_rng(k), shares)) for k in range(400)]
    assert set(drawn) == set(shares)
    assert drawn.count("tof") / 400 == pytest.approx(0.75, abs=0.07)


def test_of_a_simulated_kinect_exact_depth_is_asked_for_and_it_is_never_mirrored(tmp_path, monkeypatch):
    """Its frames repeat the upper left pixel of a block: mirrored it would be another one."""
    quiet = SimulatedKinectSensor(step=1e-5, noise_px=0.0, jitter=0.0, waves_px=0.0)
    monkeypatch.setattr(views, "random_sensor", lambda *_: quiet)
    only = {"simulated": FrameShares(0.0, 1.0, 0.0, 0.0)}
    pool = ViewPool(ViewSettings(1, CROP, CROP, scale=2), tmp_path)
    for seed in range(20):
        found = make_lesson(pool, 0, CROP, np.random.default_rng(seed), only)
        assert not any(found.measured)
        np.testing.assert_allclose(found.low, found.targets[0][::2, ::2], atol=2e-3)


@pytest.mark.parametrize("way", [decimate, block_mean])
def test_a_hole_is_in_no_median_and_no_mean(way):
    frame = np.zeros((4, 8), np.float32)
    frame[0, 0], frame[1, 5], frame[0, 6], frame[1, 7] = 3.0, 5.0, 2.0, 2.5
    expected = [[3.0, 0.0, 5.0, 2.0 if way is decimate else 2.25], [0.0] * 4]
    np.testing.assert_allclose(way(frame, 2), expected)


def test_a_batch_moves_to_a_device_as_it_is(pool):
    torch = pytest.importorskip("torch")
    batch = make_batch(pool, 2, CROP, 1, 3)
    moved = batch.tensors(torch.device("cpu"))
    np.testing.assert_array_equal(moved.low.numpy(), batch.low)
    for name in ("targets", "measured"):
        ours, theirs = getattr(batch, name), getattr(moved, name)
        assert len(ours) == len(theirs) == 2
        for a, b in zip(ours, theirs):
            np.testing.assert_array_equal(a, b.numpy())


def test_worlds_and_sensors_vary(pool):
    sensors = {type(views.random_sensor(np.random.default_rng(k))).__name__ for k in range(60)}
    assert sensors == {"StereoSensor", "TimeOfFlightSensor", "PhoneLidarSensor", "IdealSensor"}  # unless asked for more
    means = [make_batch(pool, 1, CROP, 1, step).targets[1].mean() for step in range(20)]
    assert max(means) > 1.3 * min(means)
