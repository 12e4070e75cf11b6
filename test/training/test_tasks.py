"""What networks are trained for: data, loss and validation of cameras and of maps."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.depth.imresize import imresize, to_uint8  # noqa: E402
from dsca_ros.depth.levels import NOISE, score_levels  # noqa: E402
from dsca_ros.depth.resample import bilinear, nearest  # noqa: E402
from dsca_ros.depth.scenes import Scene  # noqa: E402
from dsca_ros.depth.synthetic import HELD_OUT_SEED  # noqa: E402
from dsca_ros.network.camera_graph import INPUT_CHANNELS, CameraGraph  # noqa: E402
from dsca_ros.network.dsca import DSCA, RESIDUAL, WEIGHTS, DSCAConfig, enlarge  # noqa: E402
from dsca_ros.network.level_graph import LEVEL_CHANNELS, LevelGraph  # noqa: E402
from dsca_ros.training import maps, tasks  # noqa: E402
from dsca_ros.training.disparity_scenes import disparity_scene  # noqa: E402
from dsca_ros.training.loss import DepthWeights  # noqa: E402
from dsca_ros.training.recipe import MapData, Recipe, RecipeError, ViewData  # noqa: E402
from dsca_ros.training.tasks import CameraTask, MapTask, make_task  # noqa: E402
from dsca_ros.training.views import ViewSettings  # noqa: E402

CPU = torch.device("cpu")
#: An untrained network of weights is bilinear enlargement, nearly; and one with nothing added is, exactly.
NETWORK = DSCAConfig(2, (6,), (1,), unshuffle=2, input_channels=INPUT_CHANNELS, head=WEIGHTS)
LEVEL_NETWORK = replace(NETWORK, scale=4, input_channels=LEVEL_CHANNELS, head=RESIDUAL, residual_gain=0.0)
CAMERA = Recipe("c", 2, NETWORK, 4, ViewData(3, crop=24), batch=2)
MAPS = Recipe("m", 4, LEVEL_NETWORK, 4, MapData(size=32), batch=2)


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    def settings(count: int, **others: int) -> ViewSettings:
        return ViewSettings(min(count, 3), width=32, height=24, **others)

    monkeypatch.setattr(tasks, "ViewSettings", settings)
    monkeypatch.setattr(tasks, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr(maps, "disparity_scene", lambda rng, size: disparity_scene(rng, min(size, 64)))


def made(recipe, tmp_path, data=None):
    return make_task(recipe, data, tmp_path / "cache", lambda done, total: None)


@pytest.fixture
def camera_task(tmp_path):
    return made(CAMERA, tmp_path)


@pytest.fixture
def map_task(tmp_path):
    return made(MAPS, tmp_path)


def in_torch(batch):
    return batch.tensors(CPU)


# --- both ---------------------------------------------------------------------------------------


def test_the_kind_of_data_decides_the_task(camera_task, map_task):
    assert isinstance(camera_task, CameraTask) and isinstance(camera_task.graph(DSCA(NETWORK)), CameraGraph)
    assert isinstance(map_task, MapTask) and isinstance(map_task.graph(DSCA(MAPS.network)), LevelGraph)


def test_rendered_views_are_reported(tmp_path):
    seen = []
    make_task(CAMERA, None, tmp_path / "cache", lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("recipe", [CAMERA, MAPS], ids=["views", "maps"])
def test_batches_are_a_function_of_seed_and_step(tmp_path, recipe):
    one, other = made(recipe, tmp_path), made(recipe, tmp_path)
    np.testing.assert_array_equal(one.batch(3).low, other.batch(3).low)
    assert not np.array_equal(one.batch(3).low, one.batch(4).low)
    assert not np.array_equal(one.batch(3).low, made(replace(recipe, seed=2), tmp_path).batch(3).low)
    assert len(one.batch(0).low) == recipe.batch


@pytest.mark.parametrize("recipe", [CAMERA, MAPS], ids=["views", "maps"])
def test_validation_gives_the_columns_and_draws_some_of_them(tmp_path, recipe):
    task = made(recipe, tmp_path)
    figures = task.validate(task.graph(DSCA(recipe.network)), CPU)
    assert figures.keys() == set(task.columns)
    assert all(np.isfinite(value) for value in figures.values())
    assert {column for curve in task.curves for column in curve} <= set(task.columns)


@pytest.mark.parametrize("recipe", [CAMERA, MAPS], ids=["views", "maps"])
def test_the_loss_has_a_gradient(tmp_path, recipe):
    task = made(recipe, tmp_path)
    network = DSCA(replace(recipe.network, residual_gain=1.0))
    loss = task.loss(task.graph(network), in_torch(task.batch(0)), 0.9)
    loss.backward()
    assert torch.isfinite(loss) and network.stages[-1].head[0].weight.grad.abs().max() > 0


# --- cameras ------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_recipe_on_what_was_measured(tmp_path, monkeypatch):
    weights = DepthWeights(1.0, 2.0, 3.0, 4.0, 5.0)
    task = made(replace(CAMERA, data=ViewData(3, crop=24, loss=weights)), tmp_path)
    seen = []
    monkeypatch.setattr(tasks, "supervise_depth", lambda *arguments: seen.append(arguments))
    batch = in_torch(task.batch(0))
    batch.low[0, 0, 2, 3] = 1e3  # out of any range
    for done in (0.0, 1.0):
        task.loss(task.graph(DSCA(NETWORK)), batch, done)
    for stages, targets, measured, depth, used in seen:
        assert used == weights and targets is batch.targets and measured is batch.measured
        assert [stage.inverse.shape for stage in stages] == [target.shape for target in targets]
        keep = batch.low < 1e3
        assert torch.equal(depth, torch.where(keep, batch.low, 0.0)) and not keep.all()


def test_views_are_of_the_scenes_of_the_recipe(tmp_path, monkeypatch):
    seen = set()
    of_kind = Scene.of_kind
    monkeypatch.setattr(Scene, "of_kind", lambda kind, seed: seen.add((kind, seed)) or of_kind(kind, seed))
    made(replace(CAMERA, data=ViewData(3, crop=24, scenes={"curved": 1.0})), tmp_path)
    assert {kind for kind, seed in seen if seed < HELD_OUT_SEED} == {"curved"}
    # What is held out is the same for every recipe.
    held_out = {scene for scene in seen if scene[1] >= HELD_OUT_SEED}
    seen.clear()
    made(replace(CAMERA, data=ViewData(3, crop=24, scenes={"room": 1.0})), tmp_path / "other")
    assert held_out and held_out == {scene for scene in seen if scene[1] >= HELD_OUT_SEED}


@pytest.mark.parametrize("scale", [2, 4])
def test_validation_of_an_untrained_network_is_that_of_bilinear(tmp_path, scale):
    task = made(replace(CAMERA, scale=scale, network=replace(NETWORK, scale=scale)), tmp_path)
    torch.manual_seed(0)
    figures = task.validate(CameraGraph(DSCA(replace(NETWORK, scale=scale))), CPU)
    for kind in ("error", "flying"):
        assert figures[f"val_{kind}_pct"] == pytest.approx(figures[f"val_bilinear_{kind}_pct"], rel=0.3)
        assert 0 < figures[f"val_{kind}_pct"] < 100


def test_validation_counted_by_hand(camera_task):
    """Shares of depth where all three methods have a result, of all crops together."""
    torch.manual_seed(0)
    graph = CameraGraph(DSCA(NETWORK))
    figures = camera_task.validate(graph, CPU)
    errors = {"": [], "bilinear_": [], "nearest_": []}
    (batch,) = camera_task.validation
    for low, target in zip(batch.low[:, 0], batch.targets[0][:, 0]):
        prepared = graph.prepare(torch.from_numpy(low)[None, None], torch.tensor(tasks.DEPTH_RANGE))
        with torch.no_grad():
            (stage,) = graph.stages(*prepared)
        inverse = (stage.inverse * stage.there)[0, 0].numpy()
        mine = np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)
        results = {"": mine, "bilinear_": bilinear(low, 2), "nearest_": nearest(low, 2)}
        mask = (target > 0) & np.all([result > 0 for result in results.values()], axis=0)
        for name, result in results.items():
            errors[name].append((np.abs(result - target) / np.where(target > 0, target, 1.0))[mask])
    for name, shares in errors.items():
        assert figures[f"val_{name}error_pct"] == pytest.approx(100 * np.concatenate(shares).mean(), rel=1e-4)


def test_for_cameras_less_error_is_better(camera_task):
    assert camera_task.badness({"val_error_pct": 1.0}) < camera_task.badness({"val_error_pct": 1.1})


def test_a_crop_larger_than_the_views_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="crop is 26, and views are 32x24"):
        made(replace(CAMERA, data=ViewData(3, crop=26)), tmp_path)


# --- maps ---------------------------------------------------------------------------------------


def test_the_squared_error_counts_towards_the_end(tmp_path, monkeypatch):
    task = made(replace(MAPS, data=MapData(size=32, squared_weight=0.1, squared_from=0.6, stage_weight=0.3)), tmp_path)
    weights = []
    monkeypatch.setattr(tasks, "supervise_levels", lambda *arguments: weights.append(arguments[2:4]))
    for done in (0.0, 0.6, 0.8, 1.0):
        task.loss(task.graph(DSCA(MAPS.network)), in_torch(task.batch(0)), done)
    assert weights == [(0.3, pytest.approx(squared)) for squared in (0.0, 0.0, 0.05, 0.1)]


def test_only_errors_where_disparity_is_known_count(tmp_path):
    task = made(replace(MAPS, data=MapData(size=32)), tmp_path)
    graph, batch = task.graph(DSCA(MAPS.network)), task.batch(0)
    outside = replace(batch, counted=[np.zeros_like(target) for target in batch.targets])
    everywhere = replace(batch, counted=[np.ones_like(target) for target in batch.targets])
    all_of_them, none, ones = (task.loss(graph, in_torch(b), 1.0).item() for b in (batch, outside, everywhere))
    assert none == 0.0 < ones == pytest.approx(all_of_them)


def test_the_squared_error_may_never_count(tmp_path):
    task = made(replace(MAPS, data=MapData(size=32, squared_from=1.0)), tmp_path)
    assert torch.isfinite(task.loss(task.graph(DSCA(MAPS.network)), in_torch(task.batch(0)), 1.0))


def test_validation_scores_as_the_benchmark_does(map_task):
    figures = map_task.validate(LevelGraph(DSCA(MAPS.network)), CPU)
    results = {"val_": [], "val_bicubic_": []}
    for exact in maps.validation_maps(None, None, 4):
        low = to_uint8(imresize(exact, Fraction(1, 4)))
        enlarged = enlarge(enlarge(torch.from_numpy(low).float()[None, None], 2), 2)[0, 0].numpy()
        results["val_"].append(score_levels(to_uint8(enlarged), exact))
        results["val_bicubic_"].append(score_levels(to_uint8(imresize(low, 4)), exact))
    for name, scores in results.items():
        assert figures[f"{name}psnr_db"] == pytest.approx(np.mean([s.psnr_db for s in scores]), abs=1e-2)
        assert figures[f"{name}pe_pct"] == pytest.approx(np.mean([s.pe_pct for s in scores]), abs=0.05)
    assert figures["val_psnr_db"] != figures["val_bicubic_psnr_db"]


def test_noisy_maps_are_validated_under_noise(tmp_path, map_task):
    noisy = made(replace(MAPS, data=MapData(size=32, noisy=True)), tmp_path)
    noise = [
        (b.astype(float) - a)[(a > 20) & (a < 235)] for (_, a), (_, b) in zip(map_task.validation, noisy.validation)
    ]
    assert np.concatenate(noise).std() == pytest.approx(NOISE, rel=0.15)
    again = made(replace(MAPS, data=MapData(size=32, noisy=True)), tmp_path)
    for (_, one), (_, other) in zip(noisy.validation, again.validation, strict=True):
        np.testing.assert_array_equal(one, other)


def test_for_maps_more_psnr_is_better(map_task):
    assert map_task.badness({"val_psnr_db": 40.0}) < map_task.badness({"val_psnr_db": 39.0})


def test_a_patch_that_is_no_multiple_of_the_scale_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="size is 30, and must be a multiple of the scale 4"):
        made(replace(MAPS, data=MapData(size=30)), tmp_path)


def test_a_network_of_one_step_is_trained_on_maps(tmp_path):
    """The paper's ablation: x4 at once, held to the last target only."""
    task = made(MAPS, tmp_path)
    network = DSCA(replace(MAPS.network, multi_stage=False, residual_gain=1.0))
    task.loss(task.graph(network), in_torch(task.batch(0)), 0.0).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_network_of_one_step_is_trained_on_views(tmp_path):
    recipe = replace(CAMERA, scale=4, network=replace(NETWORK, scale=4, multi_stage=False))
    task = made(recipe, tmp_path)
    loss = task.loss(task.graph(DSCA(recipe.network)), in_torch(task.batch(0)), 0.0)
    assert torch.isfinite(loss)
