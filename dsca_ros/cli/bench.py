"""How fast it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from dsca_ros.cli.common import JSON, THREADS, console, fail, parse_size, write_json, write_markdown
from dsca_ros.upsampler import DEFAULT_MODEL

SIZES = ["320x240", "640x480"]


def bench(
    model: list[str] = typer.Option([DEFAULT_MODEL], help="May be given several times; `all` is every one."),
    scale: list[int] = typer.Option(None, help="May be given several times; default: all."),
    precision: list[str] = typer.Option(["fp32"], help="fp32, fp16; may be given several times."),
    engine: list[str] = typer.Option(None, help="May be given several times; default: all that run here."),
    size: list[str] = typer.Option(SIZES, metavar="WxH", help="Of the input; may be given several times."),
    runs: int = typer.Option(50, min=3, help="Measured runs of each row; fewer if they take long."),
    threads: int = THREADS,
    compare: Path = typer.Option(None, metavar="FILE", help="The --json of an earlier run: prints ratios to it."),
    json_file: str = JSON,
    markdown: str = typer.Option(
        None, metavar="FILE", help="Write the table as Markdown; FILE#PART replaces PART of a document; - is stdout."
    ),
) -> None:
    """Milliseconds of engines, array in to array out, beside the machine's own peak in the same run.

    Example: dsca bench --size 640x480 --json bench.json

    Example: dsca bench --compare bench.json
    """
    from dsca_ros.engine.base import EngineError
    from dsca_ros.evaluation.bench import BenchRequest, compared, machine, measure
    from dsca_ros.evaluation.bench_report import bench_markdown, bench_tables

    old = []
    if compare is not None:
        try:
            old = json.loads(compare.read_text())["engines"]
        except (OSError, ValueError, KeyError, TypeError):
            fail(f"{compare} is no --json of `dsca bench`")
    sizes = [parse_size(text) for text in size]
    models = [] if "all" in model else model
    request = BenchRequest(models, scale or [], precision, engine or [], sizes, threads, runs)
    try:
        with console.status("measuring the machine") as status:
            figures: dict[str, Any] = {"machine": machine(), "engines": list(measure(request, status.update))}
    except EngineError as error:
        fail(str(error))
    write_json(figures, json_file)
    write_markdown(bench_markdown(figures), markdown)
    stream = sys.stderr if "-" in (json_file, markdown) else sys.stdout
    Console(file=stream).print(bench_tables(figures, compared(figures["engines"], old)))
