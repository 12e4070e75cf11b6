"""Tables for the terminal."""

from __future__ import annotations

import importlib.util
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dsca_ros.engine.factory import ENGINES
from dsca_ros.engine.gpu import GpuError, find_driver
from dsca_ros.engine.tensorrt_build import FLAVOURS
from dsca_ros.engine.zoo import list_models, models_folder


def demo_table(figures: dict[str, Any]) -> Group:
    """The demo's report."""
    flow = Table(title=f"{figures['model']} ×{figures['scale']} on {figures['engine']}", title_justify="left")
    for heading in ("input", "output", "dropped", "latency p50 / p95 / p99", "engine", "rest of node"):
        flow.add_column(heading, justify="right")
    latency = figures["latency_ms"]
    flow.add_row(
        f"{figures['input_hz']:.1f} Hz",
        f"{figures['output_hz']:.1f} Hz",
        f"{figures['dropped_pct']:.1f} %",
        " / ".join(f"{latency[p]:.1f}" for p in ("p50", "p95", "p99")) + " ms",
        f"{figures['engine_ms']:.1f} ms",
        f"{figures['node_overhead_ms']:.1f} ms",
    )
    error = error_table(figures["error"], f"against the exact depth of {figures['samples']} frames")
    note = Text("latency: from the camera's publish to the result received, all processes on this machine", style="dim")
    return Group(flow, note, error)


def error_table(errors: dict[str, dict[str, float]], title: str) -> Table:
    """Figures of `compare`, a row a method."""
    table = Table(title=title, title_justify="left")
    for heading in ("method", "RMSE mm", "mean error mm", "flying pixels", "valid pixels"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for method, row in errors.items():
        millimetres = f"{row['rmse_mm']:.1f}", f"{row['mae_mm']:.2f}"
        shares = f"{row['flying_pct']:.2f} %", f"{row['valid_pct']:.2f} %"
        table.add_row(method, *millimetres, *shares, style="bold" if method == "dsca" else "")
    return table


def markdown_table(results: list[dict[str, Any]]) -> str:
    """Results of `dsca evaluate` as a Markdown table, the network's name in place of "dsca"."""
    lines = [
        "| sensor | scale | method | RMSE mm | mean error mm | flying pixels | valid pixels |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for method, row in result["error"].items():
            name = f"**{result['model']}**" if method == "dsca" else method
            shares = f"{row['flying_pct']:.2f} % | {row['valid_pct']:.2f} %"
            lines.append(
                f"| {result['sensor']} | ×{result['scale']} | {name} "
                f"| {row['rmse_mm']:.1f} | {row['mae_mm']:.2f} | {shares} |"
            )
    return "\n".join(lines) + "\n"


def installation() -> dict[str, Any]:
    """What is here: versions, models, engines and why an engine cannot run."""
    engines = []
    for kind in ENGINES:
        reason = kind.missing()
        engines.append({"engine": kind.name, "version": kind.version(), "usable": reason is None, "why_not": reason})
    usable = {e["engine"] for e in engines if e["usable"]}
    chosen = next((kind.name for kind in ENGINES if kind.name in usable), None)
    names = ("dsca_ros", "numpy", "onnxruntime", "openvino", "torch", "tensorrt", "tensorrt_rtx", "pycuda", "rclpy")
    return {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **_gpus(),
        "packages": {name: _version(name) for name in names},
        "engines": engines,
        "auto": chosen,
        "models_folder": str(models_folder()),
        "models": [
            {
                "model": m.model,
                "scale": m.scale,
                "precision": m.precision,
                "domain": m.domain,
                "bytes": m.path.stat().st_size,
                "file": m.path.name,
            }
            for m in list_models()
            if m.path.exists()
        ],
    }


def _gpus() -> dict[str, Any]:
    try:
        driver = find_driver()
    except GpuError as error:
        return {"gpus": [], "driver_cuda": None, "no_gpu": str(error)}
    gpus = [{"name": g.name, "target": g.target, "bytes": g.memory} for g in driver.gpus]
    return {"gpus": gpus, "driver_cuda": ".".join(map(str, driver.cuda)), "no_gpu": None}


def engine_table(rows: list[dict[str, Any]], folder: Path) -> Table:
    """What `dsca build` shows."""
    table = Table(title=f"engines in {folder}", title_justify="left")
    for heading in ("model", "size", "precision", "takes", "for", "built with", "s", "MB"):
        table.add_column(heading, justify="right" if heading in ("s", "MB") else "left")
    for row in rows:
        if "model" not in row:
            table.add_row(f"{Path(row['path']).name}: damaged, will be built anew")
            continue
        target = row["target"] + f" ({row['gpu']})" * bool(row["gpu"])
        made = f"{FLAVOURS[row['flavour']]} {row['version']}"
        seconds = f"{row['seconds']:.1f}" if row["seconds"] is not None else ""
        name, megabytes = f"{row['model']} ×{row['scale']}", f"{row['bytes'] / 1e6:.1f}"
        table.add_row(name, row["size"], row["precision"], row["dtype"], target, made, seconds, megabytes)
    return table


def engine_markdown(rows: list[dict[str, Any]]) -> str:
    """What `dsca build --markdown` writes: seconds and megabytes of each model, by target."""
    targets = list(dict.fromkeys(row["target"] for row in rows))
    lines = ["| model | size | precision | " + " | ".join(f"{target}, s / MB" for target in targets) + " |"]
    lines.append("|---|---|---|" + "---|" * len(targets))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        name = (f"{row['model']} ×{row['scale']}", row["size"], row["precision"])
        cells.setdefault(name, {})[row["target"]] = f"{row['seconds']:.1f} / {row['bytes'] / 1e6:.0f}"
    lines += [
        "| " + " | ".join((*name, *(found.get(target, "–") for target in targets))) + " |"
        for name, found in cells.items()
    ]
    return "\n".join(lines) + "\n"


def _version(name: str) -> str | None:
    if importlib.util.find_spec(name) is None:
        return None
    for candidate in (name, f"ros-{name}", name.replace("_", "-"), f"{name}_cu13", f"{name}_cu12"):
        try:
            return metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
    return "installed"


def info_table(figures: dict[str, Any]) -> Group:
    """What `dsca info` shows."""
    packages = ", ".join(f"{k} {v or 'not installed'}" for k, v in figures["packages"].items())
    gpus = ", ".join(f"{g['name']} ({g['target']}, {g['bytes'] >> 20} MiB)" for g in figures["gpus"])
    gpu = f"{gpus}; the driver runs CUDA {figures['driver_cuda']}" if gpus else figures["no_gpu"]
    head = Text(f"Python {figures['python']} on {figures['machine']}\n{packages}\nGPU: {gpu}\n")
    engines = Table(title="engines, in the order in which auto tries them", title_justify="left")
    for heading in ("engine", "version", "here"):
        engines.add_column(heading)
    for row in figures["engines"]:
        here = "auto takes this" if row["engine"] == figures["auto"] else "usable" if row["usable"] else row["why_not"]
        engines.add_row(row["engine"], row["version"] or "–", here)
    models = Table(title=f"models in {figures['models_folder']}", title_justify="left")
    for heading in ("model", "takes", "scale", "precision", "size"):
        models.add_column(heading, justify="right" if heading == "size" else "left")
    for row in figures["models"]:
        size = f"{row['bytes'] / 1e3:.0f} kB"
        models.add_row(row["model"], row["domain"], f"×{row['scale']}", row["precision"], size)
    return Group(head, engines, models)
