"""Measuring: networks against truth and recordings, and cameras against their models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from dsca_ros.cli.common import (
    ENGINE,
    JSON,
    PEERS,
    THREADS,
    check_targets,
    console,
    fail,
    parse_size,
    write_json,
    write_markdown,
)
from dsca_ros.upsampler import DEFAULT_MODEL, DEFAULT_SCALE


def evaluate(
    data: Path | None = typer.Option(None, metavar="DIR", help="The paper's benchmark: the folder with its ten maps."),
    fidelity: list[str] = typer.Option(
        None, metavar="DIR", help="Is it true? A folder of depth frames, or `synthetic`; may be given several times."
    ),
    model: list[str] = typer.Option(
        None, help=f"May be given several times; default {DEFAULT_MODEL}, with --data all of the benchmark's."
    ),
    scale: list[int] = typer.Option(None, help="May be given several times; default 2, with --data 2, 4 and 8."),
    sensor: list[str] = typer.Option(["stereo", "kinect_v1", "tof"], help="Sensor models; may be given several times."),
    scenes: int = typer.Option(24, min=1, help="Held-out synthetic rooms."),
    size: str = typer.Option("320x240", metavar="WxH", help="Size of the low-resolution image."),
    frames: int = typer.Option(8, min=1, help="With --fidelity: frames of each set."),
    engine: str = ENGINE,
    threads: int = THREADS,
    precision: str = typer.Option("fp32", help="fp32 or fp16."),
    ensemble: bool = typer.Option(False, "--ensemble", help="With --data: also the mean of eight ways to lay a map."),
    peers: Path = PEERS,
    twins: bool = typer.Option(
        True, "--twins/--no-twins", help="With --fidelity: decimated frames go to a model's -decimated twin."
    ),
    pictures: Path = typer.Option(None, metavar="DIR", help="With --data or --fidelity: draw pictures."),
    json_file: str = JSON,
    markdown: str = typer.Option(
        None, metavar="FILE", help="Write the tables as Markdown; FILE#PART replaces PART of a document; - is stdout."
    ),
) -> None:
    """Models against the usual ways to enlarge depth: on rooms no model was trained on; with --data on the paper's
    benchmark beside the paper's own figures; with --fidelity on recorded and exact depth.

    Example: dsca evaluate --model dsca-nano --scale 4 --json -

    Example: dsca evaluate --data middlebury10 --scale 4 --scale 8 --pictures pictures

    Example: dsca evaluate --fidelity recordings/d435 --fidelity synthetic --json fidelity.json
    """
    from dsca_ros.engine.base import EngineError

    tables = Console(file=sys.stderr if "-" in (json_file, markdown) else sys.stdout)
    try:
        if fidelity and data is not None:
            raise typer.BadParameter("--data and --fidelity are two evaluations: give one of them")
        if peers is not None and not fidelity:
            raise typer.BadParameter("--peers are measured with --fidelity")
        if ensemble and data is None:
            raise typer.BadParameter("--ensemble is measured with --data")
        if pictures is not None and data is None and not fidelity:
            raise typer.BadParameter("--pictures are drawn with --data or --fidelity")
        check_targets(json_file, markdown)
        if fidelity:
            from dsca_ros.evaluation.fidelity_report import fidelity_markdown, fidelity_tables
            from dsca_ros.evaluation.fidelity_run import FidelitySettings, run_fidelity

            asked = FidelitySettings(
                model or [], scale or [], frames, engine, precision, threads, pictures, peers, twins
            )
            figures, networks = run_fidelity(fidelity, asked, console)
            tables.print(fidelity_tables(figures, networks))
            write_json(figures, json_file)
            write_markdown(fidelity_markdown(figures, networks), markdown)
        elif data is None:
            models, scales = model or [DEFAULT_MODEL], scale or [DEFAULT_SCALE]
            results = _held_out(tables, models, scales, sensor, scenes, parse_size(size), engine, precision, threads)
            write_json({"results": results}, json_file)
            from dsca_ros.evaluation.report import markdown_table

            write_markdown(markdown_table(results), markdown)
        else:
            from dsca_ros.evaluation.benchmark_report import benchmark_markdown, benchmark_tables
            from dsca_ros.evaluation.benchmark_run import BenchmarkSettings, run_benchmark

            settings = BenchmarkSettings(model or [], scale or [], engine, precision, threads, ensemble, pictures)
            figures = run_benchmark(data, settings, console)
            tables.print(benchmark_tables(figures))
            write_json(figures, json_file)
            write_markdown(benchmark_markdown(figures), markdown)
    except (EngineError, ValueError, OSError) as error:  # SetError and BenchmarkError are ValueErrors
        fail(str(error))


def _held_out(
    tables: Console,
    models: list[str],
    scales: list[int],
    sensors: list[str],
    scenes: int,
    size: tuple[int, int],
    engine: str,
    precision: str,
    threads: int,
) -> list[dict[str, Any]]:
    """Models on held-out synthetic rooms, twins on decimated frames of them; prints a table for each."""
    from rich.progress import track

    from dsca_ros.depth.sensors import find_sensor
    from dsca_ros.engine.zoo import find_model, is_twin
    from dsca_ros.evaluation.compare import compare
    from dsca_ros.evaluation.held_out import held_out_samples
    from dsca_ros.evaluation.report import error_table
    from dsca_ros.upsampler import Upsampler

    width, height = size
    results = []
    # Once each, and what does not exist is told before measuring, not after.
    models, scales, sensors = list(dict.fromkeys(models)), list(dict.fromkeys(scales)), list(dict.fromkeys(sensors))
    for name in sensors:
        find_sensor(name)
    for model in models:
        for scale in scales:
            find_model(model, scale, precision)
    for model in models:
        for scale in scales:
            with Upsampler(model, scale, engine, precision, threads) as upsampler:
                for name in sensors:
                    samples = held_out_samples(upsampler, scale, name, scenes, width, height, is_twin(model))
                    counted = track(samples, f"{name} ×{scale}", total=scenes, console=console, transient=True)
                    errors = compare(counted)
                    results.append({"sensor": name, "model": model, "scale": scale, "scenes": scenes, "error": errors})
                    frames = f"{name} {width}×{height}" + ", decimated" * is_twin(model)
                    tables.print(error_table(errors, f"{model} ×{scale}, {frames}, {scenes} rooms"))
    return results


def sensors(
    folders: list[Path] = typer.Argument(..., metavar="DIR...", help="Folders of depth frames, or of such folders."),
    model: str = typer.Option("", help="Sensor model of the camera; default: by the folder's name, where it is known."),
    frames: int = typer.Option(5, min=1, help="Frames of each set, and synthetic rooms for its model."),
    pictures: Path = typer.Option(None, metavar="DIR", help="Draw the fit."),
    json_file: str = JSON,
    markdown: str = typer.Option(
        None, metavar="FILE", help="Write the table as Markdown; FILE#PART replaces PART of a document; - is stdout."
    ),
) -> None:
    """Noise, quantisation and holes of recorded frames, beside the same of the camera's model.

    Example: dsca sensors recordings/d435 --model stereo --pictures pictures
    """
    from dsca_ros.evaluation.sensor_report import sensor_markdown, sensor_tables
    from dsca_ros.evaluation.sensor_run import SensorSettings, run_sensors

    check_targets(json_file, markdown)
    try:
        figures = run_sensors([str(folder) for folder in folders], SensorSettings(model, frames, pictures), console)
    except (ValueError, OSError) as error:  # SetError is a ValueError
        fail(str(error))
    Console(file=sys.stderr if "-" in (json_file, markdown) else sys.stdout).print(sensor_tables(figures))
    write_json(figures, json_file)
    write_markdown(sensor_markdown(figures), markdown)
