"""What networks are trained for: data, loss and validation of cameras and of maps."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.depth.imresize import imresize, to_uint8  # noqa: E402
from dsca_ros.depth.levels import NOISE, score_levels  # noqa: E402
from dsca_ros.network.camera_graph import INPUT_CHANNELS, CameraGraph  # noqa: E402
from dsca_ros.network.dsca import DSCA, DSCAConfig, enlarge  # noqa: E402
from dsca_ros.network.level_graph import LEVEL_CHANNELS, LevelGraph  # noqa: E402
from dsca_ros.training import maps, tasks  # noqa: E402
from dsca_ros.training.disparity_scenes import disparity_scene  # noqa: E402
from dsca_ros.training.recipe import MapData, Recipe, RecipeError, ViewData  # noqa: E402
from dsca_ros.training.tasks import CameraTask, MapTask, make_task  # noqa: E402
from dsca_ros.training.views import ViewSettings  # noqa: E402

CPU = torch.device("cpu")
#: With nothing added a network is bilinear enlargement.
NETWORK = DSCAConfig(2, (6,), (1,), unshuffle=2, input_channels=INPUT_CHANNELS, residual_gain=0.0)
CAMERA = Recipe("c", 2, NETWORK, 4, ViewData(3, crop=24), batch=2)
MAPS = Recipe("m", 4, replace(NETWORK, scale=4, input_channels=LEVEL_CHANNELS), 4, MapData(size=32), batch=2)


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
    return torch.from_numpy(batch.low), [torch.from_numpy(target) for target in batch.targets]


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
    assert list(figures) == list(task.columns)
    assert all(np.isfinite(value) for value in figures.values())
    assert {column for curve in task.curves for column in curve} <= set(task.columns)


@pytest.mark.parametrize("recipe", [CAMERA, MAPS], ids=["views", "maps"])
def test_the_loss_has_a_gradient(tmp_path, recipe):
    task = made(recipe, tmp_path)
    network = DSCA(replace(recipe.network, residual_gain=1.0))
    loss = task.loss(task.graph(network), *in_torch(task.batch(0)), 0.9)
    loss.backward()
    assert torch.isfinite(loss) and network.stages[-1].head[0].weight.grad.abs().max() > 0


# --- cameras ------------------------------------------------------------------------------------


def test_the_surface_counts_more_towards_the_end(tmp_path, monkeypatch):
    data = ViewData(3, crop=24, surface_weight=0.5, surface_weight_end=1.5, squared_weight=0.2)
    task = made(replace(CAMERA, data=data), tmp_path)
    weights = []
    monkeypatch.setattr(tasks, "supervise_depth", lambda *arguments: weights.append(arguments[-2:]))
    for done in (0.0, 0.5, 0.75, 1.0):
        task.loss(task.graph(DSCA(NETWORK)), *in_torch(task.batch(0)), done)
    assert weights == [(pytest.approx(surface), 0.2) for surface in (0.5, 0.5, 1.0, 1.5)]


def test_validation_of_an_untrained_residual_is_that_of_bilinear(camera_task):
    """With nothing added the network is bilinear enlargement inside the guard."""
    figures = camera_task.validate(CameraGraph(DSCA(NETWORK)), CPU)
    assert figures["val_mae_mm"] == pytest.approx(figures["val_bilinear_mae_mm"], rel=0.25)
    assert 0 < figures["val_mae_mm"] <= figures["val_rmse_mm"]


def test_for_cameras_less_mean_error_is_better(camera_task):
    assert camera_task.badness({"val_mae_mm": 10.0}) < camera_task.badness({"val_mae_mm": 11.0})


def test_a_crop_larger_than_the_views_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="crop is 25, and views are 32x24"):
        made(replace(CAMERA, data=ViewData(3, crop=25)), tmp_path)


# --- maps ---------------------------------------------------------------------------------------


def test_the_squared_error_counts_towards_the_end(tmp_path, monkeypatch):
    task = made(replace(MAPS, data=MapData(size=32, squared_weight=0.1, squared_from=0.6, stage_weight=0.3)), tmp_path)
    weights = []
    monkeypatch.setattr(tasks, "supervise_levels", lambda *arguments: weights.append(arguments[-2:]))
    for done in (0.0, 0.6, 0.8, 1.0):
        task.loss(task.graph(DSCA(MAPS.network)), *in_torch(task.batch(0)), done)
    assert weights == [(0.3, pytest.approx(squared)) for squared in (0.0, 0.0, 0.05, 0.1)]


def test_the_squared_error_may_never_count(tmp_path):
    task = made(replace(MAPS, data=MapData(size=32, squared_from=1.0)), tmp_path)
    assert torch.isfinite(task.loss(task.graph(DSCA(MAPS.network)), *in_torch(task.batch(0)), 1.0))


def test_validation_scores_as_the_benchmark_does(map_task):
    figures = map_task.validate(LevelGraph(DSCA(MAPS.network)), CPU)
    results = {"val_": [], "val_bicubic_": []}
    for exact in maps.validation_maps(None, None, 4):
        low = to_uint8(imresize(exact, Fraction(1, 4)))
        bilinear = enlarge(enlarge(torch.from_numpy(low).float()[None, None], 2), 2)[0, 0].numpy()
        results["val_"].append(score_levels(to_uint8(bilinear), exact))
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
    task.loss(task.graph(network), *in_torch(task.batch(0)), 0.0).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_network_of_one_step_is_trained_on_views(tmp_path):
    recipe = replace(CAMERA, scale=4, network=replace(NETWORK, scale=4, multi_stage=False))
    task = made(recipe, tmp_path)
    loss = task.loss(task.graph(DSCA(recipe.network)), *in_torch(task.batch(0)), 0.0)
    assert torch.isfinite(loss)
