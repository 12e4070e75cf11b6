"""Making models: training and export."""

from __future__ import annotations

from pathlib import Path

import typer

from dsca_ros.cli.common import console, fail


def train(
    recipe: Path = typer.Argument(..., help="A recipe, see config/train/."),
    resume: bool = typer.Option(False, "--resume", help="Go on from the last checkpoint."),
    folder: Path = typer.Option(None, help="Where checkpoint, log and curve go; default runs/NAME."),
    data: Path = typer.Option(None, help="The folder of the maps' folders, for recipes that train on maps."),
    threads: int = typer.Option(1, min=1, help="Threads of torch; one process a core trains most."),
    compiled: bool = typer.Option(
        None, "--compile/--no-compile", help="Fuse the network with torch.compile, which needs a C++ compiler."
    ),
) -> None:
    """Trains a model. Interrupt it at will: --resume goes on exactly.

    Example: dsca train config/train/dsca-nano-first.yaml --resume
    """
    try:
        import torch

        from dsca_ros.training.maps import MapError
        from dsca_ros.training.progress import TrainingProgress
        from dsca_ros.training.recipe import Recipe, RecipeError
        from dsca_ros.training.train import train as run
        from dsca_ros.training.views import ViewError
    except ImportError as error:
        fail(f"training needs torch ({error}); remedy: pip install 'dsca_ros[train]'")
    torch.set_num_threads(threads)
    try:
        chosen = Recipe.load(recipe)
        where = folder or Path("runs") / chosen.name
        with TrainingProgress(console, chosen) as progress:
            checkpoint = run(chosen, where, resume, progress, data=data, compiled=compiled)
    except (MapError, RecipeError, ViewError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        kept = (where / "checkpoint.pt").exists()
        fail("interrupted" + f"; what was trained is in {where}: go on with --resume" * kept)
    console.print(
        f"checkpoint: {checkpoint}; export it with: dsca export {checkpoint}", highlight=False, soft_wrap=True
    )


def export(
    source: Path = typer.Argument(..., help="A checkpoint (.pt) or weights (.safetensors)."),
    folder: Path = typer.Option(Path("models"), help="The models folder; its manifest is brought up to date."),
    mean_with: list[Path] = typer.Option(
        [], metavar="FILE", help="A checkpoint of another training of the same network: the mean of their weights."
    ),
    scale: list[int] = typer.Option(
        [], help="Of a checkpoint of several scales, this one; may be given several times; default all."
    ),
) -> None:
    """Exports a trained network to ONNX, fp32 and mixed fp16, the whole algorithm in the graph.

    Example: dsca export runs/dsca-nano-x4/checkpoint.pt --scale 4
    """
    try:
        from dsca_ros.engine.export import ExportError, export_model
    except ImportError as error:
        fail(f"export needs torch, onnx and safetensors ({error}); remedy: pip install 'dsca_ros[train]'")
    try:
        written = export_model(source, folder, mean_with, scale)
    except ExportError as error:
        fail(str(error))
    for path in written:
        console.print(f"{path}  {path.stat().st_size / 1e3:.0f} kB", highlight=False, soft_wrap=True)
