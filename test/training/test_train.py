"""The training loop, on a network and a pool of views small enough for seconds."""

import csv
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.network.camera_graph import INPUT_CHANNELS, CameraGraph  # noqa: E402
from dsca_ros.network.dsca import DSCA, DSCAConfig  # noqa: E402
from dsca_ros.training import train as training  # noqa: E402
from dsca_ros.training.data import ViewPool, ViewSettings, make_batch  # noqa: E402
from dsca_ros.training.loss import supervise  # noqa: E402
from dsca_ros.training.recipe import Recipe, RecipeError  # noqa: E402, RecipeError

NETWORK = DSCAConfig(2, (6,), (1,), unshuffle=2, input_channels=INPUT_CHANNELS, residual_gain=0.05)
RECIPE = Recipe("tiny", 2, NETWORK, 6, batch=1, crop=24, warm_up=2, views=3, validate_every=2)


class Silent:
    def __init__(self):
        self.steps = []

    def views(self, done, total): ...

    def step(self, step, total, loss, validation):
        self.steps.append((step, loss, validation))


@pytest.fixture(autouse=True)
def small_views(monkeypatch):
    def settings(count: int, **others: int) -> ViewSettings:
        return ViewSettings(min(count, 3), width=32, height=24, **others)

    monkeypatch.setattr(training, "ViewSettings", settings)
    monkeypatch.setattr(training, "VALIDATION_BATCHES", 1)


def state_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)


def assert_same(a, b, where="state"):
    """Equal bit for bit, through all nested dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path):
    whole = training.train(RECIPE, tmp_path / "whole", False, Silent())
    training.train(RECIPE, tmp_path / "parts", False, Silent(), stop_at=3)
    assert state_of(tmp_path / "parts" / "checkpoint.pt")["step"] == 3
    again = Silent()
    parts = training.train(RECIPE, tmp_path / "parts", True, again)
    assert [step for step, _, _ in again.steps] == [4, 5, 6]
    assert_same(state_of(whole), state_of(parts))


def test_what_a_run_leaves(tmp_path):
    checkpoint = training.train(RECIPE, tmp_path / "run", False, Silent())
    state = state_of(checkpoint)
    assert state["step"] == 6 and Recipe.from_dict(state["recipe"]) == RECIPE
    DSCA(NETWORK).load_state_dict(state["ema"])
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "checkpoint.pt",
        "log.csv",
        "curve.png",
    }
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == training.LOG_COLUMNS
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert all(0 < float(row["val_mae_mm"]) <= float(row["val_rmse_mm"]) for row in rows)
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_resumed_log_goes_on_and_a_new_run_overwrites_nothing(tmp_path):
    def steps():
        with (tmp_path / "run" / "log.csv").open() as file:
            return [row["step"] for row in csv.DictReader(file)]

    training.train(RECIPE, tmp_path / "run", False, Silent(), stop_at=2)
    training.train(RECIPE, tmp_path / "run", True, Silent(), stop_at=4)
    assert steps() == ["2", "4"]
    with pytest.raises(RecipeError, match="--resume"):
        training.train(RECIPE, tmp_path / "run", False, Silent(), stop_at=2)
    assert steps() == ["2", "4"]


def test_only_the_same_recipe_resumes(tmp_path):
    training.train(RECIPE, tmp_path / "run", False, Silent(), stop_at=1)
    with pytest.raises(RecipeError, match=r"\(seed differ\)"):
        training.train(replace(RECIPE, seed=2), tmp_path / "run", True, Silent())


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(RecipeError, match="not a checkpoint"):
        training.train(RECIPE, tmp_path, True, Silent())


def test_a_finished_run_resumes_to_itself(tmp_path):
    recipe = replace(RECIPE, steps=2)
    before = state_of(training.train(recipe, tmp_path / "run", False, Silent()))
    assert_same(before, state_of(training.train(recipe, tmp_path / "run", True, Silent())))


def test_the_seed_decides_the_weights(tmp_path):
    recipe = replace(RECIPE, steps=1)
    one = state_of(training.train(recipe, tmp_path / "one", False, Silent()))
    two = state_of(training.train(replace(recipe, seed=2), tmp_path / "two", False, Silent()))
    assert any(not torch.equal(one["ema"][key], two["ema"][key]) for key in one["ema"])


def test_the_loss_falls_on_one_batch_over_and_over(tmp_path):
    pool = ViewPool(ViewSettings(2, 32, 24), tmp_path)
    depth, targets = training.to_torch(make_batch(pool, 2, 24, 1, 0), torch.device("cpu"))
    torch.manual_seed(0)
    graph = CameraGraph(DSCA(NETWORK))
    optimiser = torch.optim.Adam(graph.parameters(), lr=0.01)
    filled, valid, features = graph.prepare(depth, torch.tensor([0.1, 20.0]))
    losses = []
    for _ in range(60):
        loss = supervise(graph.stages(filled, features), targets, valid, 0.25, 0.5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_learning_rate_warms_up_and_decays_to_a_hundredth():
    recipe = replace(RECIPE, steps=100, warm_up=10, learning_rate=1.0)
    rates = [training.learning_rate(recipe, step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[100] == pytest.approx(0.01)


def test_the_surface_counts_more_towards_the_end():
    recipe = replace(RECIPE, steps=100, surface_weight=0.5, surface_weight_end=1.5)
    weights = [training.surface_weight(recipe, step) for step in (0, 50, 75, 100)]
    assert weights == pytest.approx([0.5, 0.5, 1.0, 1.5])


def test_validation_of_an_untrained_residual_is_that_of_bilinear(tmp_path):
    """With nothing added the network is bilinear enlargement inside the guard."""
    pool = ViewPool(ViewSettings(2, 32, 24), tmp_path)
    network = DSCA(replace(NETWORK, residual_gain=0.0))
    depth_range = torch.tensor(training.DEPTH_RANGE)
    figures = training.validate(CameraGraph(network), [make_batch(pool, 2, 24, 1, 0)], depth_range)
    assert list(figures) == training.VALIDATED
    assert figures["val_mae_mm"] == pytest.approx(figures["val_bilinear_mae_mm"], rel=0.25)
