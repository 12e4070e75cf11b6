"""The benchmark's peer: what dsca-nano costs, what dsca-nano learns from, and a graph that every engine runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from espcn import Espcn, EspcnGraph  # noqa: E402
from export_espcn import MODELS, flop_per_pixel, load_espcn  # noqa: E402
from train_espcn import RECIPE, EspcnTask, peer_recipe  # noqa: E402

from dsca_ros.depth.resample import nearest  # noqa: E402
from dsca_ros.engine.cost import network_cost  # noqa: E402
from dsca_ros.engine.zoo import find_model, list_models  # noqa: E402
from dsca_ros.evaluation.bench import BenchRequest, measure  # noqa: E402
from dsca_ros.training import tasks  # noqa: E402
from dsca_ros.training.recipe import Recipe  # noqa: E402
from dsca_ros.training.train import load_checkpoint, train  # noqa: E402
from dsca_ros.training.views import ViewSettings  # noqa: E402
from dsca_ros.upsampler import Upsampler  # noqa: E402

RANGE = (0.1, 10.0)


def through(graph: EspcnGraph, depth: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return graph(torch.from_numpy(depth)[None, None], torch.tensor(RANGE))[0, 0].numpy()


def test_it_costs_what_dsca_nano_costs():
    size, counted = (240, 320), flop_per_pixel()
    nano = network_cost(find_model("dsca-nano", 2), size)[1]
    assert counted * size[0] * size[1] / 1e9 == pytest.approx(nano, rel=0.03)
    assert {file.flop_per_pixel for file in list_models(MODELS)} == {counted}


@pytest.mark.parametrize("size", [(31, 45), (24, 40)])
def test_metres_in_metres_out_and_valid_where_the_nearest_pixel_is(depth_image, size):
    depth = depth_image(*size)
    depth[0, :3] = np.nan, 0.05, 11.0
    result = through(EspcnGraph(load_espcn()), depth)
    assert result.shape == (2 * size[0], 2 * size[1]) and result.dtype == np.float32
    usable = np.nan_to_num(depth)
    usable[(usable < RANGE[0]) | (usable > RANGE[1])] = 0.0
    np.testing.assert_array_equal(result > 0, nearest(usable, 2) > 0)
    assert result[result > 0].min() >= RANGE[0] and result.max() <= RANGE[1]


def test_nothing_valid_gives_nothing():
    assert not through(EspcnGraph(load_espcn()), np.zeros((8, 9), np.float32)).any()


def test_a_wall_stays_where_it_is():
    result = through(EspcnGraph(load_espcn()), np.full((20, 24), 2.0, np.float32))
    np.testing.assert_allclose(result[8:-8, 8:-8], 2.0, rtol=0.01)


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-4), ("fp16", 5e-3)])
def test_the_graphs_are_exports_of_the_weights(depth_image, precision, within):
    depth = depth_image(30, 41)
    with Upsampler("espcn", 2, "onnxruntime", precision, 1, RANGE, folder=MODELS) as upsampler:
        result = upsampler(depth)
    expected = through(EspcnGraph(load_espcn()), depth)
    np.testing.assert_array_equal(result > 0, expected > 0)
    assert np.abs(result - expected)[expected > 0].max() < within * expected.max()


def test_it_is_trained_by_the_recipe_of_dsca_nano():
    """But for the decision on validity, which it does not make."""
    nano, peer = Recipe.load(RECIPE), peer_recipe()
    decided = replace(peer.data, loss=replace(peer.data.loss, validity=nano.data.loss.validity))
    assert replace(peer, model=nano.model, data=decided) == nano and peer.data.loss.validity == 0.0


class Silent:
    """No progress."""

    def views(self, done: int, total: int) -> None: ...

    def step(self, *_: object) -> None: ...


@pytest.fixture
def small(monkeypatch, tmp_path) -> tuple[Recipe, Path]:
    """The recipe at a small size, and a cache for its views."""
    monkeypatch.setattr(tasks, "ViewSettings", lambda count, **s: ViewSettings(2, 32, 24, **s))
    monkeypatch.setattr(tasks, "VALIDATION_BATCHES", 1)
    recipe = peer_recipe()
    return replace(recipe, steps=3, batch=2, data=replace(recipe.data, crop=16)), tmp_path / "cache"


def test_it_is_shown_what_dsca_nano_is_shown_and_asked_for_what_its_first_stage_is_asked_for(small):
    recipe, cache = small
    task = EspcnTask(recipe, cache, lambda *_: None)
    nano = tasks.CameraTask(recipe, recipe.data, cache, lambda *_: None)
    mine, other = task.batch(5), nano.batch(5)
    np.testing.assert_array_equal(mine.low, other.low)
    for name in ("targets", "measured"):
        (first,) = getattr(mine, name)
        np.testing.assert_array_equal(first, getattr(other, name)[0])


def test_training_goes_on_exactly_where_it_was_interrupted(small, tmp_path):
    recipe, cache = small

    def trained(folder: str, *stops: int) -> dict:
        for stop in stops:
            task = EspcnTask(recipe, cache, lambda *_: None)
            checkpoint = train(recipe, tmp_path / folder, True, Silent(), stop_at=stop, task=task)
        return load_checkpoint(checkpoint)

    whole, resumed = trained("whole", 3), trained("resumed", 2, 3)
    assert whole["best"]["figures"] == resumed["best"]["figures"]
    for name, tensor in whole["ema"].items():
        assert torch.equal(tensor, resumed["ema"][name])
    Espcn().load_state_dict(whole["network"])


def test_the_bench_measures_it_beside_the_models_asked_for():
    request = BenchRequest(["dsca-nano"], [2], ["fp32"], [], [(64, 48)], threads=1, runs=3, peers=MODELS)
    engines = {(file.model, engine) for engine, file, _ in request.rows()}
    assert {("dsca-nano", "onnxruntime"), ("dsca-nano", "torch"), ("espcn", "onnxruntime")} <= engines
    # torch makes this package's networks of their weights, and has nothing to make the peer of.
    assert ("espcn", "torch") not in engines
    (row,) = measure(replace(request, models=["no other"], engines=["onnxruntime"]), lambda _: None)
    cost = list_models(MODELS)[0].flop_per_pixel
    assert row["model"] == "espcn" and row["ms"] > 0 and row["gflop"] == round(cost * 64 * 48 / 1e9, 3)
