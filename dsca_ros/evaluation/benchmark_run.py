"""`dsca evaluate --data`: every method on every map, with progress, cost and pictures."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dsca_ros.engine.zoo import ModelFile
from dsca_ros.evaluation.benchmark import (
    Method,
    Result,
    averages,
    benchmark_models,
    bicubic,
    case_of,
    load_maps,
    measure,
    model_method,
    plain,
)
from dsca_ros.evaluation.folders import make_folder
from dsca_ros.evaluation.published import AVERAGES, Case

#: The size whose cost the paper states.
COST_SIZE = (1080, 1320)


@dataclass(frozen=True)
class BenchmarkSettings:
    """What to measure and how; see `dsca evaluate --help`."""

    models: list[str]
    scales: list[int]
    engine: str = "auto"
    precision: str = "fp32"
    threads: int = 0
    ensemble: bool = False
    pictures: Path | None = None


def run_benchmark(folder: Path, settings: BenchmarkSettings, console: Console) -> dict[str, Any]:
    """Measures, and draws where asked to.

    Args:
        folder: with the ten maps.
        settings: see there.
        console: for the progress bar.

    Returns:
        ``results[]`` (model, scale, noisy, image, psnr_db, pe_pct, seconds), ``average[]`` (without image),
        ``cost[]`` (model, scale, parameters, gflop, seconds, engine) and ``published[]``.
    """
    maps = load_maps(folder)
    make_folder(settings.pictures)
    models = benchmark_models(settings.models, settings.scales, settings.precision)
    cases = sorted({case_of(m) for m in models}, key=lambda case: (case[1], case[0]))
    results: list[Result] = []
    cost: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        rows = len(cases) + len(models) * (1 + settings.ensemble)
        task = progress.add_task("", total=rows * len(maps))

        def score(method: Method) -> list[Result]:
            progress.update(task, description=f"{method.name} ×{method.scale}{' noisy' * method.noisy}")
            rows = []
            for result in measure(method, maps):
                rows.append(result)
                progress.advance(task)
            return rows

        for case in cases:
            drawn = [bicubic(*case)]
            results += score(drawn[0])
            running = []
            for model in (m for m in models if case_of(m) == case):
                method, engine = model_method(model, settings.engine, settings.threads)
                running.append(engine)
                drawn.append(method)
                scored = score(method)
                results += scored
                cost.append(cost_row(model, scored, maps, engine.description))
                if settings.ensemble:
                    laid, other = model_method(model, settings.engine, settings.threads, ensemble=True)
                    results += score(laid)
                    other.close()
            if settings.pictures is not None:
                progress.update(task, description=f"drawing ×{case[0]}")
                draw(case, drawn, maps, settings.pictures)
            for engine in running:
                engine.close()
    return {
        "results": [plain(result) for result in results],
        "average": averages(results),
        "cost": cost,
        "published": [
            {"model": name, "scale": scale, "noisy": with_noise, "psnr_db": cell[0], "pe_pct": cell[1]}
            for name, cells in AVERAGES.items()
            for (scale, with_noise), cell in cells.items()
        ],
    }


def cost_row(model: ModelFile, scored: list[Result], maps: dict[str, np.ndarray], engine: str) -> dict[str, Any]:
    """Parameters and operations of a model, and the median time of a full-size map in this run."""
    parameters, gflop = None, None
    if importlib.util.find_spec("torch") is not None:
        from dsca_ros.engine.cost import network_cost

        parameters, gflop = network_cost(model, (COST_SIZE[0] // model.scale, COST_SIZE[1] // model.scale))
    seconds = [r.seconds for r in scored if maps[r.image].shape == COST_SIZE]
    return {
        "model": model.model,
        "scale": model.scale,
        "parameters": parameters,
        "gflop": None if gflop is None else round(gflop, 2),
        "seconds": round(float(np.median(seconds)), 4) if seconds else None,
        "engine": engine,
    }


def draw(case: Case, methods: list[Method], maps: dict[str, np.ndarray], folder: Path) -> None:
    """The case's pictures, a file for each of a few maps."""
    from dsca_ros.evaluation.benchmark_pictures import DRAWN, draw_crops

    scale, with_noise = case
    for name in DRAWN:
        title = f"{name}, {'noisy ' * with_noise}×{scale}"
        draw_crops(maps[name], case, methods, folder / f"{name}-x{scale}{'-noisy' * with_noise}.png", title)
