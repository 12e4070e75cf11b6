"""The training loop: one function, read top to bottom."""

from __future__ import annotations

import csv
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from dsca_ros.depth.synthetic import HELD_OUT_SEED
from dsca_ros.network.camera_graph import CameraGraph
from dsca_ros.network.dsca import DSCA, enlarge
from dsca_ros.training.data import Batch, ViewPool, ViewSettings, make_batch
from dsca_ros.training.loss import supervise
from dsca_ros.training.recipe import Recipe, RecipeError

VALIDATED = ["val_mae_mm", "val_rmse_mm", "val_bilinear_mae_mm", "val_bilinear_rmse_mm"]
LOG_COLUMNS = ["step", "seconds", "learning_rate", "loss", *VALIDATED]
VALIDATION_BATCHES = 8
#: Depth range the networks train with, metres: wide, as a node's own range may be.
DEPTH_RANGE = (0.1, 20.0)


class Reporter(Protocol):
    """What training tells about its progress."""

    def views(self, done: int, total: int) -> None: ...

    def step(self, step: int, total: int, loss: float, validation: dict[str, float] | None) -> None: ...


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))


def surface_weight(recipe: Recipe, step: int) -> float:
    """Constant for the first half, then rising: first find the edges, then make them sharp."""
    rise = max(0.0, 2.0 * step / recipe.steps - 1.0)
    return recipe.surface_weight + rise * (recipe.surface_weight_end - recipe.surface_weight)


def to_torch(batch: Batch, device: torch.device) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Arrays to tensors on the device."""
    return torch.from_numpy(batch.depth).to(device), [torch.from_numpy(t).to(device) for t in batch.targets]


@torch.no_grad()
def validate(graph: CameraGraph, batches: list[Batch], depth_range: torch.Tensor) -> dict[str, float]:
    """Errors of the whole graph on held-out scenes, beside those of bilinear, by `VALIDATED`."""
    errors: dict[str, list[torch.Tensor]] = {"": [], "bilinear_": []}
    for batch in batches:
        depth, targets = to_torch(batch, depth_range.device)
        filled, _, _ = graph.prepare(depth, depth_range)
        result = graph(depth, depth_range)
        mask = result > 0
        scale = result.shape[-1] // depth.shape[-1]
        for name, value in (("", result), ("bilinear_", 1.0 / enlarge(filled, scale))):
            errors[name].append(1e3 * (value - targets[-1])[mask])
    figures = {}
    for name, parts in errors.items():
        error = torch.cat(parts)
        figures[f"val_{name}mae_mm"] = error.abs().mean().item()
        figures[f"val_{name}rmse_mm"] = error.square().mean().sqrt().item()
    return figures


def train(recipe: Recipe, folder: Path, resume: bool, reporter: Reporter, stop_at: int | None = None) -> Path:
    """Trains a model, or goes on with one.

    Args:
        recipe: what to train.
        folder: where the checkpoint, the log and the curve go; views are cached beside it.
        resume: go on from ``folder/checkpoint.pt`` where there is one. The result is the same, bit for
            bit on CPU, as that of a run that was never interrupted.
        stop_at: stop after this step, as an interruption would.

    Returns:
        The checkpoint: ``recipe``, ``step``, and the averaged weights under ``ema``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    network = DSCA(recipe.network).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    graph = CameraGraph(network)
    average = DSCA(recipe.network).to(device)
    average.load_state_dict(network.state_dict())
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
    checkpoint, log = folder / "checkpoint.pt", folder / "log.csv"
    first = 0
    if resume and checkpoint.exists():
        state = _load(checkpoint, recipe, device)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    elif checkpoint.exists():
        raise RecipeError(f"{checkpoint} is there already: go on with --resume, or train in another --folder")
    else:
        with log.open("w", newline="") as file:
            csv.writer(file).writerow(LOG_COLUMNS)

    cache = folder.parent / "cache"
    views = ViewSettings(recipe.views, scale=recipe.scale)
    if recipe.crop > min(views.height, views.width):
        raise RecipeError(f"crop is {recipe.crop}, and views are {views.width}x{views.height}")
    pool = ViewPool(views, cache, lambda done: reporter.views(done, recipe.views))
    held_out = ViewPool(ViewSettings(48, scale=recipe.scale, first_seed=HELD_OUT_SEED), cache)
    validation = [make_batch(held_out, recipe.batch, recipe.crop, recipe.seed, k) for k in range(VALIDATION_BATCHES)]
    depth_range = torch.tensor(DEPTH_RANGE, device=device)

    def batch_of(step: int) -> Batch:
        return make_batch(pool, recipe.batch, recipe.crop, recipe.seed, step)

    def save(step: int) -> None:
        state = {
            "recipe": plain(recipe),
            "step": step,
            "network": network.state_dict(),
            "ema": average.state_dict(),
            "optimiser": optimiser.state_dict(),
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    started, running = time.monotonic(), 0.0
    last = min(recipe.steps, stop_at or recipe.steps)
    with ThreadPoolExecutor(1) as ahead:  # the next batch is measured while this one trains
        pending = ahead.submit(batch_of, first)
        for step in range(first, last):
            depth, targets = to_torch(pending.result(), device)
            pending = ahead.submit(batch_of, step + 1)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, step)
            filled, valid, features = graph.prepare(depth, depth_range)
            stages = graph.stages(filled, features)
            loss = supervise(stages, targets, valid, surface_weight(recipe, step), recipe.squared_weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimiser.step()
            with torch.no_grad():
                # A young average forgets fast, or the first weights would linger in it.
                decay = min(recipe.ema, (step + 1) / (step + 10))
                for mean, value in zip(average.parameters(), network.parameters()):
                    mean.lerp_(value, 1.0 - decay)
            running = loss.item() if step == first else 0.98 * running + 0.02 * loss.item()

            done, figures = step + 1, None
            if done % recipe.validate_every == 0 or done == last:
                figures = validate(CameraGraph(average), validation, depth_range)
                with log.open("a", newline="") as file:
                    row = [done, round(time.monotonic() - started, 1), learning_rate(recipe, step), running]
                    csv.writer(file).writerow(row + [figures[name] for name in VALIDATED])
                save(done)
            reporter.step(done, recipe.steps, running, figures)
    draw_curve(log, folder / "curve.png", recipe.name)
    return checkpoint


def _load(checkpoint: Path, recipe: Recipe, device: torch.device) -> dict:
    """The checkpoint of an interrupted run of this very recipe."""
    try:
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        trained = Recipe.from_dict(state["recipe"], str(checkpoint))
    except Exception as error:  # torch's unpickler raises nearly anything for a file that is none
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RecipeError(f"{checkpoint}: not a checkpoint of `dsca train` ({reason})") from None
    different = [key for key, value in plain(recipe).items() if plain(trained)[key] != value]
    if different:
        raise RecipeError(
            f"{checkpoint} is of another recipe ({', '.join(different)} differ): train in another --folder"
        )
    return state


def plain(recipe: Recipe) -> dict:
    """The recipe as plain values, as `Recipe.from_dict` takes them."""
    data = asdict(recipe)
    data["network"] = {k: list(v) if isinstance(v, tuple) else v for k, v in data["network"].items()}
    return data


def draw_curve(log: Path, picture: Path, title: str) -> None:
    """Learning curve: training loss, and error on held-out scenes beside bilinear."""
    from matplotlib.figure import Figure

    with log.open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    if not rows:
        return
    column = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(column["step"], column["loss"])
    # The surface term's weight rises in the second half, and the loss with it.
    left.set(xlabel="step", ylabel="training loss", title=title, ylim=(0, None))
    for name, colour in (("mae", "tab:blue"), ("rmse", "tab:orange")):
        right.plot(column["step"], column[f"val_{name}_mm"], color=colour, label=f"network, {name.upper()}")
        bilinear = column[f"val_bilinear_{name}_mm"]
        right.plot(column["step"], bilinear, "--", color=colour, label=f"bilinear, {name.upper()}")
    right.set(xlabel="step", ylabel="error, mm", title="held-out scenes", ylim=(0, None))
    right.legend(fontsize=8)
    figure.savefig(picture, dpi=110)
