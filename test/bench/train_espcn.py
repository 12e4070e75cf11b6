"""Trains the peer exactly as dsca-nano was trained at first: its recipe, views and lessons, the loop of `dsca train`.

Example: python test/bench/train_espcn.py runs/espcn-x2 --compile --resume
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from espcn import Espcn, EspcnGraph
from rich.console import Console
from torch import nn

from dsca_ros.training.batch import Batch
from dsca_ros.training.progress import TrainingProgress
from dsca_ros.training.recipe import Recipe, ViewData
from dsca_ros.training.tasks import CameraTask
from dsca_ros.training.train import train

RECIPE = Path(__file__).parents[2] / "config/train/dsca-nano-first.yaml"


def peer_recipe() -> Recipe:
    """dsca-nano's, whose architecture is not used; a plain network decides nothing on validity."""
    recipe = Recipe.load(RECIPE)
    assert isinstance(recipe.data, ViewData)
    data = replace(recipe.data, loss=replace(recipe.data.loss, validity=0.0))
    return replace(recipe, model="espcn", data=data)


class EspcnTask(CameraTask):
    """`CameraTask` with an `Espcn`: dsca-nano's batches, of which the targets at x4 are left out."""

    def __init__(self, recipe: Recipe, cache: Path, progress: Callable[[int, int], None]) -> None:
        assert isinstance(recipe.data, ViewData)
        super().__init__(recipe, recipe.data, cache, progress)
        self.validation = [_first_stage(batch) for batch in self.validation]

    def network(self) -> nn.Module:
        """See `Task.network`."""
        return Espcn()

    def graph(self, network: nn.Module) -> nn.Module:
        """See `Task.graph`."""
        assert isinstance(network, Espcn)
        return EspcnGraph(network)

    def batch(self, step: int) -> Batch:
        """See `Task.batch`."""
        return _first_stage(super().batch(step))


def _first_stage(batch: Batch) -> Batch:
    return Batch(batch.low, batch.targets[:1], batch.measured[:1])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where checkpoint, log and curve go; views are cached beside it")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--compile", action="store_true", help="fuse the network, which needs a C++ compiler")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = peer_recipe()
    with TrainingProgress(Console(), recipe) as progress:
        task = EspcnTask(recipe, options.folder.parent / "cache", progress.views)
        train(recipe, options.folder, options.resume, progress, compiled=options.compile, task=task)


if __name__ == "__main__":
    main()
