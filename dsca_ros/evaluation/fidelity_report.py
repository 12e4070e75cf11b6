"""Fidelity's figures as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dsca_ros.evaluation.fidelity import NAIVE

#: Columns of a row with exact depth, and of a recorded one: key, heading, digits.
COLUMNS: dict[str, tuple[tuple[str, str, int], ...]] = {
    "truth": (
        ("rmse_mm", "RMSE mm", 1),
        ("mae_mm", "mean error mm", 2),
        ("edge_mae_mm", "at edges mm", 1),
        ("flying_pct", "flying %", 2),
        ("hallucinated_pct", "hallucinated %", 3),
        ("lost_pct", "lost %", 3),
    ),
    "recorded": (
        ("surface_mae_mm", "surfaces mm", 2),
        ("edge_mae_mm", "at edges mm", 1),
        ("flying_pct", "flying %", 2),
        ("plane_rms_ratio", "planes", 3),
        ("steadiness_ratio", "steadiness", 3),
        ("consistency_mm", "consistency mm", 2),
    ),
}
TITLES = {
    "truth": "against exact depth",
    "recorded": "on recorded frames, decimated and restored; ratios: planes to the input, steadiness to bilinear",
}


def cells(row: dict[str, Any]) -> list[str]:
    """A row's figures in the order of `COLUMNS`."""
    return ["–" if row[key] is None else f"{row[key]:.{digits}f}" for key, _, digits in COLUMNS[row["kind"]]]


def fidelity_tables(figures: dict[str, Any], networks: set[str]) -> Group:
    """What `dsca evaluate --fidelity` shows, a table for each set and scale; rows of ``networks`` are bold."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in figures["sets"]:
        groups.setdefault((row["kind"], row["set"], row["scale"]), []).append(row)
    tables: list[Table | Text] = []
    for kind, columns in COLUMNS.items():
        there = {key: rows for key, rows in groups.items() if key[0] == kind}
        if there:
            tables.append(Text(TITLES[kind]))
        for (_, name, scale), rows in sorted(there.items()):
            table = Table(title=escape(f"{name} ×{scale}"), title_justify="left")
            table.add_column("method", no_wrap=True)
            for _, heading, _ in columns:
                table.add_column(heading, justify="right")
            for row in rows:
                table.add_row(row["method"], *cells(row), style="bold" if row["method"] in networks else "")
            tables.append(table)
    if figures.get("twins"):
        tables.append(Text(told_of_twins(figures)))
    return Group(*tables)


def told_of_twins(figures: dict[str, Any]) -> str:
    """Which models the decimated frames were given to."""
    named = " and ".join(f"{twin} for {model}" for model, twin in figures["twins"].items())
    return f"Decimated frames were given to the twins: {named}."


def fidelity_markdown(figures: dict[str, Any], networks: set[str]) -> str:
    """The same as Markdown, of the methods that leave invalid pixels out as they should."""
    lines: list[str] = []
    for kind, columns in COLUMNS.items():
        rows = [row for row in figures["sets"] if row["kind"] == kind and row["method"] not in NAIVE]
        if not rows:
            continue
        heads = ["set", "scale", "method", *(heading for _, heading, _ in columns)]
        title = TITLES[kind]
        lines += [f"### {title[0].upper()}{title[1:]}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in sorted(rows, key=lambda row: (row["set"], row["scale"])):
            method = f"**{row['method']}**" if row["method"] in networks else row["method"]
            lines.append(f"| {row['set']} | ×{row['scale']} | {method} | {' | '.join(cells(row))} |")
        lines.append("")
    if figures.get("twins"):
        lines += [told_of_twins(figures), ""]
    return "\n".join(lines)
