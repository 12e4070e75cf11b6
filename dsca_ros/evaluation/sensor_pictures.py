"""The fit of sensor models, pictured: noise against depth, its correlation, and holes beside edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

#: Colours of what was recorded and of the model.
RECORDED, MODEL = "#1f5f9f", "#d9722b"
HOLES = (
    ("holes_beside_steps_pct", "beside\nsteps %"),
    ("holes_elsewhere_pct", "elsewhere\n%"),
    ("hole_left_px", "left of\nnear, px"),
    ("hole_right_px", "right of\nnear, px"),
)


def draw_sensors(figures: dict[str, Any], path: Path) -> None:
    """A row of three plots for each set; a set without a model shows what was recorded alone."""
    rows = figures["sets"]
    figure = Figure(figsize=(12, 0.6 + 2.1 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 3, squeeze=False, width_ratios=(1.2, 1.0, 1.0))
    for axes, row in zip(grid, rows):
        title = f"{row['set']}, model {row['model']}" if row["model"] else f"{row['set']}, no model"
        axes[0].set_title(title, loc="left", fontweight="bold")
        _draw_noise(axes[0], row)
        _draw_correlation(axes[1], row)
        _draw_holes(axes[2], row)
    handles = [
        figure.axes[0].plot([], [], "o", color=RECORDED, label="recorded")[0],
        figure.axes[0].plot([], [], "-", color=MODEL, label="model")[0],
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=66)


def _fits(row: dict[str, Any]) -> list[tuple[dict[str, Any], str, str]]:
    fits = [(row["recorded"], RECORDED, "o"), (row["simulated"], MODEL, "-")]
    return [fit for fit in fits if fit[0]]


def _draw_noise(axis: Axes, row: dict[str, Any]) -> None:
    for fit, colour, style in _fits(row):
        at = [point["depth_m"] for point in fit["noise"] if point["noise_mm"] > 0]
        noise = [point["noise_mm"] for point in fit["noise"] if point["noise_mm"] > 0]
        axis.plot(at, noise, style, color=colour, markersize=4)
    if any(point["noise_mm"] > 0 for fit, *_ in _fits(row) for point in fit["noise"]):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        axis.yaxis.set_minor_formatter("{x:g}")
    else:
        axis.text(0.5, 0.5, "too few smooth surfaces", ha="center", transform=axis.transAxes)
    axis.set(xlabel="depth, m", ylabel="noise, mm")
    axis.grid(alpha=0.3, which="both")


def _draw_correlation(axis: Axes, row: dict[str, Any]) -> None:
    for fit, colour, style in _fits(row):
        for key, dash, mark in (("autocorrelation_rows", "-", "o"), ("autocorrelation_columns", "--", "s")):
            lags = range(1, len(fit[key]) + 1)
            if style == "o":
                filled = colour if mark == "o" else "none"
                axis.plot(lags, fit[key], mark, color=colour, markerfacecolor=filled, markersize=4)
            else:
                axis.plot(lags, fit[key], dash, color=colour)
    axis.axhline(0.0, color="grey", linewidth=0.5)
    axis.set(xlabel="lag, px (columns: dashed, open)", ylabel="correlation", ylim=(-0.5, 1.0))
    axis.grid(alpha=0.3)


def _draw_holes(axis: Axes, row: dict[str, Any]) -> None:
    for fit, colour, style in _fits(row):
        values = [fit[key] or 0.0 for key, _ in HOLES]
        shift = -0.2 if style == "o" else 0.2
        bars = axis.bar([k + shift for k in range(len(HOLES))], values, 0.38, color=colour)
        axis.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=7)
    axis.set_xticks(range(len(HOLES)), [label for _, label in HOLES], fontsize=8)
    axis.set_ylabel("holes")
    axis.margins(y=0.2)
    axis.set_ylim(0.0, max(axis.get_ylim()[1], 1.0))
