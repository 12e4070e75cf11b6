"""The two things a DSCA network is trained for: depth of cameras, and the benchmark's maps.

A task knows its data, its loss and its validation; `train` knows the rest. To both, ``done`` is the
share of the training that is over, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from dsca_ros.depth.imresize import imresize, to_uint8
from dsca_ros.depth.levels import LevelScore, score_levels, shrink_map
from dsca_ros.depth.metrics import flying
from dsca_ros.depth.resample import bilinear, nearest
from dsca_ros.depth.synthetic import HELD_OUT_SEED
from dsca_ros.network.camera_graph import CameraGraph, StageResult
from dsca_ros.network.dsca import DSCA
from dsca_ros.network.level_graph import LevelGraph
from dsca_ros.training.batch import Batch, TensorBatch
from dsca_ros.training.loss import supervise_depth, supervise_levels
from dsca_ros.training.maps import PROCEDURAL, PatchSettings, PatchSource, validation_maps
from dsca_ros.training.recipe import MapData, Recipe, RecipeError, ViewData
from dsca_ros.training.views import ViewPool, ViewSettings, make_batch

#: Depth range the networks for cameras train with, metres: wide, as a node's own range may be.
DEPTH_RANGE = (0.05, 100.0)
#: So many that chance does not pick the checkpoint.
VALIDATION_BATCHES = 24


class Task(Protocol):
    """What `train` needs to know."""

    #: Validation figures by name; beside some of them the same of the usual method.
    columns: tuple[str, ...]
    #: Columns to draw, each with the column of what it has to beat; and their axis.
    curves: tuple[tuple[str, str], ...]
    unit: str

    def network(self) -> nn.Module:
        """What is trained, as it is before."""
        ...

    def graph(self, network: nn.Module) -> nn.Module:
        """The whole algorithm around a network."""
        ...

    def batch(self, step: int) -> Batch:
        """The data of one step; the same for the same step."""
        ...

    def loss(self, graph: nn.Module, batch: TensorBatch, done: float) -> Tensor:
        """The loss of one batch."""
        ...

    def validate(self, graph: nn.Module, device: torch.device) -> dict[str, float]:
        """Figures on data that is never trained on, by `columns`."""
        ...

    def badness(self, figures: dict[str, float]) -> float:
        """What picks the checkpoint: the less the better."""
        ...


@runtime_checkable
class CameraStages(Protocol):
    """What training takes an algorithm for cameras by: the two parts of `CameraGraph`'s."""

    def prepare(self, depth: Tensor, depth_range: Tensor) -> tuple[Tensor, Tensor, Tensor]: ...

    def stages(self, inverse: Tensor, valid: Tensor, features: Tensor) -> list[StageResult]: ...


class CameraTask:
    """Synthetic scenes through models of cameras.

    Errors are shares of depth, so that rooms and streets count alike; those of a scale are means over all pixels
    any of the methods may be right about, and of the scales the mean is taken.
    """

    columns: tuple[str, ...] = (
        *("val_error_pct", "val_bilinear_error_pct", "val_nearest_error_pct"),
        *("val_flying_pct", "val_bilinear_flying_pct", "val_nearest_flying_pct"),
    )
    curves: tuple[tuple[str, str], ...] = (
        ("val_error_pct", "val_nearest_error_pct"),
        ("val_flying_pct", "val_nearest_flying_pct"),
    )
    unit = "%"

    def __init__(self, recipe: Recipe, settings: ViewData, cache: Path, progress: Callable[[int, int], None]) -> None:
        self.recipe, self.settings = recipe, settings
        views = ViewSettings(settings.views, scale=recipe.scale, scenes=settings.scenes)
        if settings.crop > min(views.height, views.width):
            raise RecipeError(f"crop is {settings.crop}, and views are {views.width}x{views.height}")
        self.pool = ViewPool(views, cache, lambda count: progress(count, settings.views))
        held_out = ViewPool(ViewSettings(48, scale=recipe.scale, first_seed=HELD_OUT_SEED), cache)
        self.validation = [self._batch_of(held_out, step) for step in range(VALIDATION_BATCHES)]

    def network(self) -> nn.Module:
        """See `Task.network`."""
        return DSCA(self.recipe.network)

    def graph(self, network: nn.Module) -> nn.Module:
        """See `Task.graph`."""
        assert isinstance(network, DSCA)
        return CameraGraph(network)

    def batch(self, step: int) -> Batch:
        """See `Task.batch`."""
        return self._batch_of(self.pool, step)

    def _batch_of(self, pool: ViewPool, step: int) -> Batch:
        r, s = self.recipe, self.settings
        return make_batch(pool, r.batch, s.crop, r.seed, step, s.frames, s.fully_shrunk, s.cameras)

    def loss(self, graph: nn.Module, batch: TensorBatch, done: float) -> Tensor:
        """See `Task.loss`."""
        assert isinstance(graph, CameraStages)
        inverse, valid, features = graph.prepare(batch.low, torch.tensor(DEPTH_RANGE, device=batch.low.device))
        stages = graph.stages(inverse, valid, features)
        return supervise_depth(stages, batch.targets, batch.measured, batch.low * valid, self.settings.loss)

    @torch.no_grad()
    def validate(self, graph: nn.Module, device: torch.device) -> dict[str, float]:
        """Errors of every stage on held-out scenes, beside those of careful bilinear and nearest."""
        assert isinstance(graph, CameraStages)
        depth_range = torch.tensor(DEPTH_RANGE, device=device)
        names = ("", "bilinear_", "nearest_")
        scales = [2 ** (k + 1) for k in range(len(self.validation[0].targets))]
        errors: dict[tuple[str, int], list[np.ndarray]] = {(name, scale): [] for name in names for scale in scales}
        flies: dict[tuple[str, int], list[np.ndarray]] = {key: [] for key in errors}
        for batch in self.validation:
            prepared = graph.prepare(torch.from_numpy(batch.low).to(device), depth_range)
            stages = graph.stages(*prepared)
            for result, targets, scale in zip(stages, batch.targets[-len(stages) :], scales[-len(stages) :]):
                mine = torch.where(result.there > 0, 1.0 / result.inverse.clamp(min=1e-4), 0.0).cpu().numpy()
                for source, depth, target in zip(batch.low[:, 0], mine[:, 0], targets[:, 0]):
                    results = dict(zip(names, (depth, bilinear(source, scale), nearest(source, scale))))
                    mask = np.logical_and.reduce([target > 0, *(r > 0 for r in results.values())])
                    for name, r in results.items():
                        errors[name, scale].append(np.abs(r - target)[mask] / target[mask])
                        flies[name, scale].append(flying(r, target, scale)[mask])
        figures = {}
        for name in names:
            used = [scale for scale in scales if errors[name, scale]]
            for kind, parts in (("error", errors), ("flying", flies)):
                means = [float(np.concatenate(parts[name, scale]).mean()) for scale in used]
                figures[f"val_{name}{kind}_pct"] = 100.0 * float(np.mean(means))
        return figures

    def badness(self, figures: dict[str, float]) -> float:
        """See `Task.badness`."""
        return figures["val_error_pct"]


class MapTask:
    """Maps of 0-255 under the benchmark's degradation, scored as the benchmark scores."""

    columns: tuple[str, ...] = ("val_psnr_db", "val_pe_pct", "val_bicubic_psnr_db", "val_bicubic_pe_pct")
    curves: tuple[tuple[str, str], ...] = (("val_psnr_db", "val_bicubic_psnr_db"),)
    unit = "PSNR, dB"

    def __init__(self, recipe: Recipe, settings: MapData, data: Path | None, cache: Path) -> None:
        self.recipe, self.settings = recipe, settings
        scale = recipe.scale
        if settings.size % scale:
            raise RecipeError(f"size is {settings.size}, and must be a multiple of the scale {scale}")
        patches = PatchSettings(
            scale, settings.size, settings.shares, settings.noisy, settings.candidates, settings.fill_unknown
        )
        self.source = PatchSource(patches, data, cache)
        self.validation = []
        rng = np.random.default_rng(0xDA7A) if settings.noisy else None
        recorded = set(settings.shares) != {PROCEDURAL}
        for exact in validation_maps(data if recorded else None, cache, scale):
            self.validation.append((exact, shrink_map(exact, scale, rng)))
        bicubic = [self._score(exact, imresize(low, scale)) for exact, low in self.validation]
        self._bicubic = self._means(bicubic, "val_bicubic_")

    def network(self) -> nn.Module:
        """See `Task.network`."""
        return DSCA(self.recipe.network)

    def graph(self, network: nn.Module) -> nn.Module:
        """See `Task.graph`."""
        assert isinstance(network, DSCA)
        return LevelGraph(network)

    def batch(self, step: int) -> Batch:
        """See `Task.batch`."""
        return self.source.batch(self.recipe.batch, self.recipe.seed, step)

    def loss(self, graph: nn.Module, batch: TensorBatch, done: float) -> Tensor:
        """See `Task.loss`."""
        assert isinstance(graph, LevelGraph)
        s = self.settings
        rise = max(0.0, done - s.squared_from) / max(1.0 - s.squared_from, 1e-6)
        stages, weight = graph.stages(batch.low), rise * s.squared_weight
        return supervise_levels(stages, batch.targets, s.stage_weight, weight, batch.counted)

    @torch.no_grad()
    def validate(self, graph: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean PSNR and PE over the held-out maps, beside bicubic's."""
        scores = []
        for exact, low in self.validation:
            result = graph(torch.from_numpy(low).to(device).float()[None, None])
            scores.append(self._score(exact, result[0, 0].float().cpu().numpy()))
        return {**self._means(scores, "val_"), **self._bicubic}

    def badness(self, figures: dict[str, float]) -> float:
        """See `Task.badness`."""
        return -figures["val_psnr_db"]

    def _score(self, exact: np.ndarray, result: np.ndarray) -> LevelScore:
        return score_levels(to_uint8(result), exact, self.settings.noisy)

    @staticmethod
    def _means(scores: list[LevelScore], prefix: str) -> dict[str, float]:
        return {
            f"{prefix}psnr_db": float(np.mean([s.psnr_db for s in scores])),
            f"{prefix}pe_pct": float(np.mean([s.pe_pct for s in scores])),
        }


def make_task(recipe: Recipe, data: Path | None, cache: Path, progress: Callable[[int, int], None]) -> Task:
    """The task a recipe names.

    Args:
        recipe: what to train.
        data: the folder that holds the maps' folders, for recipes that use them.
        cache: where rendered views and decoded maps are kept.
        progress: called with the number of views rendered and their total.
    """
    if isinstance(recipe.data, ViewData):
        return CameraTask(recipe, recipe.data, cache, progress)
    return MapTask(recipe, recipe.data, data, cache)
