"""How fast it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from dsca_ros.cli.common import JSON, PEERS, THREADS, console, fail, parse_size, write_json, write_markdown
from dsca_ros.evaluation.bench_report import PARTS
from dsca_ros.upsampler import DEFAULT_MODEL

SIZES = ["320x240", "640x480", "848x480", "270x330"]


def bench(
    part: list[str] = typer.Option(None, help=f"{', '.join(PARTS)}; may be given several times; default: all."),
    model: list[str] = typer.Option([DEFAULT_MODEL], help="May be given several times; `all` is every one."),
    scale: list[int] = typer.Option(None, help="May be given several times; default: 2 and 4, the node the first."),
    precision: list[str] = typer.Option(["fp32"], help="fp32, fp16; may be given several times."),
    engine: list[str] = typer.Option(
        None, help="May be given several times; default: all that run here, in the node auto."
    ),
    size: list[str] = typer.Option(SIZES, metavar="WxH", help="Of the input; may be given several times."),
    runs: int = typer.Option(50, min=3, help="Measured runs of each row; fewer if they take long."),
    seconds: float = typer.Option(4.0, min=1.0, help="Of playing images to the node, for each rate that is tried."),
    threads: int = THREADS,
    peers: Path = PEERS,
    compare: Path = typer.Option(None, metavar="FILE", help="The --json of an earlier run: prints ratios to it."),
    json_file: str = JSON,
    chart: Path = typer.Option(None, metavar="FILE.png", help="Draw truth against milliseconds; needs --fidelity."),
    fidelity: Path = typer.Option(
        None, metavar="FILE", help="The --json of `dsca evaluate --fidelity`, for the chart."
    ),
    markdown: str = typer.Option(
        None, metavar="FILE", help="Write the tables as Markdown; FILE#PART replaces PART of a document; - is stdout."
    ),
) -> None:
    """Speed: engines beside the machine's own peak, points, and the node over DDS, by parts of its latency.

    Example: dsca bench --size 640x480 --json bench.json

    Example: dsca bench --part engines --compare bench.json
    """
    from dsca_ros.engine.base import EngineError
    from dsca_ros.evaluation.bench import BenchRequest, compared, machine, measure, measure_peers, measure_points
    from dsca_ros.evaluation.bench_report import bench_markdown, bench_tables

    parts = part or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        raise typer.BadParameter(f"--part is {unknown.pop()!r}; there are: {', '.join(PARTS)}")
    if chart is not None and (fidelity is None or "engines" not in parts):
        raise typer.BadParameter("--chart is drawn of engines, and needs --fidelity, a --json of `dsca evaluate`")
    old = _read(compare, "machine", "`dsca bench`")
    try:
        compared(old, old)  # what is none is told now, not after a quarter of an hour
    except (AttributeError, LookupError, TypeError, ValueError):
        fail(f"{compare} is no --json of `dsca bench`")
    truth = _read(fidelity, "sets", "`dsca evaluate --fidelity`")
    sizes = [parse_size(text) for text in size]
    models = [] if "all" in model else model
    request = BenchRequest(models, scale or [], precision, engine or [], sizes, threads, runs, peers)
    try:
        with console.status("measuring the machine") as status:
            figures: dict[str, Any] = {"machine": machine()}
            if "engines" in parts:
                figures["engines"] = list(measure(request, status.update))
                if not engine:
                    figures["engines"] += measure_peers(request, status.update)
            if "points" in parts:
                figures["points"] = list(measure_points(request, _about_one(request)["scale"], status.update))
            if "replay" in parts:
                figures["replay"] = _replays(request, seconds, status.update)
            if {"node", "growth"} & set(parts):
                figures |= _over_ros(request, parts, seconds, status.update)
    except EngineError as error:
        fail(str(error))
    write_json(figures, json_file)
    write_markdown(bench_markdown(figures), markdown)
    if chart is not None:
        _draw(figures, truth, sizes[0], chart)
    stream = sys.stderr if "-" in (json_file, markdown) else sys.stdout
    Console(file=stream).print(bench_tables(figures, compared(figures, old)))


def _read(path: Path | None, key: str, command: str) -> dict[str, Any]:
    """The figures of an earlier command; none where no file is named."""
    if path is None:
        return {}
    try:
        figures = json.loads(path.read_text())
        figures[key][0 if isinstance(figures[key], list) else "processor"]
    except (OSError, ValueError, LookupError, TypeError):
        fail(f"{path} is no --json of {command}")
    return figures


def _draw(figures: dict[str, Any], truth: dict[str, Any], size: tuple[int, int], chart: Path) -> None:
    from dsca_ros.evaluation.bench_chart import draw_chart

    try:
        draw_chart(figures, truth, f"{size[0]}x{size[1]}", chart)
    except OSError as error:
        fail(f"cannot write {chart}: {error.strerror}")
    console.print(f"picture: {chart}", highlight=False, soft_wrap=True)


def _about_one(request: Any) -> dict[str, Any]:
    """What is measured where it is one model on one engine."""
    models, scales, engines = request.models, request.scales, request.engines
    return {
        "model": models[0] if models else DEFAULT_MODEL,
        "scale": scales[0] if scales else 2,
        "engine": engines[0] if engines else "auto",
        "threads": request.threads,
    }


def _replays(request: Any, seconds: float, telling: Callable[[str], None]) -> list[dict[str, Any]]:
    """What `dsca_ros.replay.bench` finds."""
    try:
        from dsca_ros.replay.bench import measure_replay
        from dsca_ros.replay.errors import ReplayError
        from dsca_ros.replay.settings import ReplaySettings
    except ImportError as error:
        fail(f"bags need the library rosbags ({error}); remedy: pip install 'dsca_ros[replay]', or give another --part")
    rows = []
    for size in request.sizes:
        telling(f"replay, {size[0]}x{size[1]}")
        try:
            rows.append(measure_replay(ReplaySettings(**_about_one(request)), size, 2.0 * seconds))
        except ReplayError as error:
            fail(str(error))
    return rows


def _over_ros(request: Any, parts: list[str], seconds: float, telling: Callable[[str], None]) -> dict[str, Any]:
    """What `dsca_ros.ros.bench` finds: the node, and how it grows."""
    try:
        from dsca_ros.ros.bench import NodeBenchError, measure_growth, measure_node, ros_for_bench
    except ImportError as error:
        fail(
            f"the node needs ROS 2 ({error}); source your ROS, install the wheels (pip install 'dsca_ros[ros]'), "
            "or give --part engines"
        )
    about = _about_one(request)
    figures: dict[str, Any] = {}
    try:
        with ros_for_bench():
            if "node" in parts:
                figures["node"] = [measure_node(about, size, seconds, telling) for size in request.sizes]
            if "growth" in parts:
                figures["growth"] = measure_growth(about, seconds, telling)
    except (NodeBenchError, ValueError) as error:
        fail(str(error))
    return figures
