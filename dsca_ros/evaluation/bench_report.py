"""What `dsca bench` shows."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

HEADINGS = ("model", "size", "precision", "engine", "ms (10 – 90 %)", "GFLOP", "of peak", "memory MB")


def bench_tables(figures: dict[str, Any], ratios: list[tuple[dict[str, Any], float]]) -> Group:
    """The machine, its engines, and what changed since an earlier run."""
    machine = figures["machine"]
    text = f"{machine['processor']}: {machine['gflop_per_s']} GFLOP/s in a matrix product, {machine['gb_per_s']} GB/s"
    table = Table(title="engines: an array in, an array out", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:4] else "right")
    for row in figures["engines"]:
        table.add_row(*_cells(row, machine["gflop_per_s"]))
    parts: list[Any] = [Text(text + (f"; {machine['gpu']}" if machine["gpu"] else "")), table]
    if ratios:
        changes = Table(title="milliseconds over those of before", title_justify="left")
        for heading in ("model", "size", "engine", "ratio"):
            changes.add_column(heading)
        for row, ratio in ratios:
            changes.add_row(_name(row), row["size"], row["engine"], f"{ratio:.2f}")
        parts.append(changes)
    return Group(*parts)


def bench_markdown(figures: dict[str, Any]) -> str:
    """The engines' table for a document."""
    machine = figures["machine"]
    lines = [f"*{machine['processor']}, {machine['gflop_per_s']} GFLOP/s in a float32 matrix product.*", ""]
    lines += ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(_cells(row, machine["gflop_per_s"])) + " |" for row in figures["engines"]]
    return "\n".join(lines) + "\n"


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']} ×{row['scale']}"


def _cells(row: dict[str, Any], peak: float) -> list[str]:
    name = [_name(row), row["size"], row["precision"], row["engine"]]
    if "error" in row:
        return [*name, row["error"], "", "", ""]
    gflop = row["gflop"]
    ms = f"{row['ms']:.1f} ({row['ms_p10']:.1f} – {row['ms_p90']:.1f})"
    if "engine_ms" in row:
        ms += f", up {row['up_ms']:.2f}, engine {row['engine_ms']:.2f}, down {row['down_ms']:.2f}"
    # Of the CPU's peak: a GPU's is another.
    on_cpu = "CPU" in row["runs_on"]
    share = f"{100 * gflop / (row['ms'] / 1e3) / peak:.0f} %" if gflop and on_cpu else "–"
    return [*name, ms, f"{gflop:.2f}" if gflop else "–", share, f"{row['memory_mb']:.0f}"]
