"""Figures of sensors as tables: what was recorded, and what the camera's model gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

#: A heading, and the text of a measure from what `SensorFit.plain` gives.
Column = tuple[str, Callable[[dict[str, Any]], str]]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # and no -0.00


def _of(key: str, digits: int) -> Callable[[dict[str, Any]], str]:
    return lambda fit: _number(fit[key], digits)


def _lags(key: str) -> Callable[[dict[str, Any]], str]:
    """Correlation at lags 1 and 3."""
    return lambda fit: ", ".join(_number(fit[key][lag - 1], 2) for lag in (1, 3)) if fit[key] else "–"


def _step(fit: dict[str, Any]) -> str:
    if fit["step_domain"] is None:
        return "–"
    return f"{fit['step_mm']:g} mm" if fit["step_mm"] is not None else f"{fit['step_per_m']:.5f} 1/m"


#: The tables, by their titles.
TABLES: dict[str, tuple[Column, ...]] = {
    "Noise and steps": (
        ("noise mm", _of("noise_mm", 2)),
        ("grows with depth to the power", _of("noise_growth", 1)),
        ("correlation along rows, 1 px, 3 px", _lags("autocorrelation_rows")),
        ("along columns", _lags("autocorrelation_columns")),
        ("step", _step),
    ),
    "Holes and stray pixels": (
        ("holes %", _of("holes_pct", 1)),
        ("beside steps %", _of("holes_beside_steps_pct", 1)),
        ("elsewhere %", _of("holes_elsewhere_pct", 1)),
        ("left of near px", _of("hole_left_px", 1)),
        ("right of near px", _of("hole_right_px", 1)),
        ("width px", _of("hole_width_px", 0)),
        ("outliers %", _of("outliers_pct", 3)),
        ("mixed %", _of("mixed_pct", 2)),
    ),
}
BOTH = "recorded / model"


def table_rows(figures: dict[str, Any], title: str) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of cells for each set; a cell of a measure is ``recorded / model``."""
    first = title == next(iter(TABLES))
    heads = ["set", "model", *(["at m"] if first else []), *(head for head, _ in TABLES[title])]
    rows = []
    for row in figures["sets"]:
        fits = [row["recorded"], *([row["simulated"]] if row["simulated"] else [])]
        cells = [" / ".join(text(fit) for fit in fits) for _, text in TABLES[title]]
        at = [_number(row["noise_at_m"], 2)] if first else []
        rows.append([row["set"], row["model"] or "–", *at, *cells])
    return heads, rows


def notes(figures: dict[str, Any]) -> list[str]:
    """What is to be said about sets."""
    return [f"{row['set']}: {row['note']}." for row in figures["sets"] if row["note"]]


def sensor_tables(figures: dict[str, Any]) -> Group:
    """What `dsca sensors` shows."""
    parts: list[Table | Text] = []
    for title in TABLES:
        heads, rows = table_rows(figures, title)
        table = Table(title=f"{title}: {BOTH}", title_justify="left")
        for head in heads:
            table.add_column(head, justify="left" if head in ("set", "model") else "right")
        for row in rows:
            table.add_row(*map(escape, row))
        parts.append(table)
    return Group(*parts, *map(Text, notes(figures)))


def sensor_markdown(figures: dict[str, Any]) -> str:
    """The same as Markdown."""
    lines: list[str] = []
    for title in TABLES:
        heads, rows = table_rows(figures, title)
        lines += [f"### {title} ({BOTH})", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
    lines += [f"- {note}" for note in notes(figures)]
    return "\n".join(lines).rstrip() + "\n"
