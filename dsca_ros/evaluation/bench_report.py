"""What `dsca bench` shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # the command's help needs none of what measuring needs
    from dsca_ros.evaluation.bench import Ratio

#: What can be measured.
PARTS = ("engines", "points", "node", "replay", "growth")


@dataclass(frozen=True)
class Columns:
    """A table: its title, headings, of which so many are names, and rows."""

    title: str
    headings: tuple[str, ...]
    names: int
    rows: list[list[str]]

    def for_terminal(self) -> Table:
        """As rich draws it."""
        table = Table(title=self.title, title_justify="left")
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if index < self.names else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> list[str]:
        """As lines of a document."""
        marks = "|" + "---|" * self.names + "---:|" * (len(self.headings) - self.names)
        rows = [self.headings, *self.rows]
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return [f"**{self.title}**", "", lines[0], marks, *lines[1:], ""]


def bench_tables(figures: dict[str, Any], ratios: list[Ratio]) -> Group:
    """The machine, what was measured, and what changed since an earlier run."""
    parts: list[Any] = [Text(machine_line(figures["machine"]))]
    parts += [columns.for_terminal() for columns in _tables(figures)]
    if ratios:
        rows = [[r.part, r.row["size"], _which(r.row), r.figure, f"{r.ratio:.2f}"] for r in ratios]
        headings = ("part", "size", "which", "of", "ratio")
        parts.append(Columns("over those of before", headings, 4, rows).for_terminal())
    return Group(*parts)


def bench_markdown(figures: dict[str, Any]) -> str:
    """The same for a document."""
    lines = [f"*{machine_line(figures['machine'])}*", ""]
    for columns in _tables(figures):
        lines += columns.markdown()
    return "\n".join(lines)


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    text = (
        f"{machine['processor']}, {machine['cores']} cores: {machine['gflop_per_s']} GFLOP/s in a float32 matrix "
        f"product, {machine['gb_per_s']} GB/s in a copy"
    )
    return text + (f"; {machine['gpu']}" if machine["gpu"] else "")


def _tables(figures: dict[str, Any]) -> list[Columns]:
    tables = []
    if "engines" in figures:
        headings = ("model", "size", "precision", "engine", "ms (10 – 90 %)", "GFLOP", "of peak", "memory MB")
        rows = [_engine(row, figures["machine"]["gflop_per_s"]) for row in figures["engines"]]
        tables.append(Columns("engines: an array in, an array out", headings, 4, rows))
    if "points" in figures:
        tables.append(_points(figures["points"]))
    if "node" in figures:
        tables += _node(figures["node"])
    if "replay" in figures:
        tables.append(_replay(figures["replay"]))
    if "growth" in figures:
        tables += _growth(figures["growth"])
    return tables


def _name(row: dict[str, Any]) -> str:
    return f"{row['model']} ×{row['scale']}"


def _which(row: dict[str, Any]) -> str:
    """What but the size tells a row apart."""
    if "model" in row:
        return ", ".join([_name(row), *(row[name] for name in ("precision", "engine") if name in row)])
    return f"{row['cameras']} cameras" if "cameras" in row else f"{row['coding']}, holes: {_holes(row)}"


def _engine(row: dict[str, Any], peak: float) -> list[str]:
    name = [_name(row), row["size"], row["precision"], row["engine"]]
    if "error" in row:
        return [*name, row["error"], "", "", ""]
    gflop = row["gflop"]
    ms = _spread(row)
    if "engine_ms" in row:
        ms += f", up {row['up_ms']:.2f}, engine {row['engine_ms']:.2f}, down {row['down_ms']:.2f}"
    # Of the CPU's peak: a GPU's is another.
    on_cpu = "CPU" in row["runs_on"]
    share = f"{100 * gflop / (row['ms'] / 1e3) / peak:.0f} %" if gflop and on_cpu else "–"
    # What the process grew by: nothing, where the engine before left room.
    memory = f"{row['memory_mb']:.0f}" if row["memory_mb"] >= 1.0 else "–"
    return [*name, ms, f"{gflop:.2f}" if gflop else "–", share, memory]


def _spread(row: dict[str, Any]) -> str:
    return f"{row['ms']:.1f} ({row['ms_p10']:.1f} – {row['ms_p90']:.1f})"


def _points(rows: list[dict[str, Any]]) -> Columns:
    headings = ("size", "coding", "holes", "organised, ms (10 – 90 %)", "valid alone, ms (10 – 90 %)")
    cells = [
        [row["size"], row["coding"], _holes(row), _spread(row["organised"]), _spread(row["valid_alone"])]
        for row in rows
    ]
    return Columns("points: an image in, x y z out, on one core", headings, 3, cells)


def _holes(row: dict[str, Any]) -> str:
    if not row["holes_pct"]:
        return "none"
    side = row["hole_side_px"]
    return f"{row['holes_pct']:g} %, " + (f"of {side} px" if side > 1 else "single pixels")


def _percentiles(values: dict[str, float]) -> str:
    return " / ".join(f"{values[name]:.1f}" for name in ("p50", "p95", "p99")) if values else "–"


def _node(rows: list[dict[str, Any]]) -> list[Columns]:
    first = rows[0]
    headings = ("size", "peak Hz", f"Hz out of {first['camera_hz']:g}", "lost %", "latency ms, p50 / p95 / p99",
                "cores", "memory MB", "first frame s", "import s")  # fmt: skip
    whole, parts = [], []
    for row in rows:
        at = row["at_camera_rate"]
        counts = [f"{row['peak_hz']:g}", f"{at['hz']:g}", f"{at['lost_pct']:g}"]
        rest = [f"{at['cpu_cores']:g}", f"{at['memory_mb']:.0f}", f"{row['first_frame_s']:g}", f"{row['import_s']:g}"]
        whole.append([row["size"], *counts, _percentiles(at["latency_ms"]), *rest])
        parts.append([row["size"], *(_percentiles(values) for values in at["parts_ms"].values())])
    title = f"node over DDS: {_name(first)}, {first['engine']}"
    names = tuple(first["at_camera_rate"]["parts_ms"])
    return [
        Columns(title, headings, 1, whole),
        Columns("parts of that latency, ms, p50 / p95 / p99", ("size", *names), 1, parts),
    ]


def _replay(rows: list[dict[str, Any]]) -> Columns:
    headings = ("model", "size", "engine", "Hz", "MB/s in", "MB/s out", "busy: read", "engine", "write")
    cells = []
    for row in rows:
        rates = [f"{row[name]:g}" for name in ("hz", "in_mb_per_s", "out_mb_per_s")]
        shares = [f"{100 * row['share'][name]:.0f} %" for name in ("read", "engine", "write")]
        cells.append([_name(row), row["size"], row["engine"], *rates, *shares])
    return Columns("dsca replay", headings, 3, cells)


def _growth(growth: dict[str, Any]) -> list[Columns]:
    headings = ("cameras", "size", "latency ms, p50 / p95 / p99", "cores", "memory MB a node")
    rows = [
        [str(row["cameras"]), row["size"], _percentiles(row["latency_ms"]), f"{row['cpu_cores']:g}",
         f"{row['memory_mb']:.0f}"]
        for row in growth["pixels"] + growth["cameras"]
    ]  # fmt: skip
    return [Columns(f"growth, {growth['hz']:g} Hz", headings, 2, rows)]
