"""One picture to choose a model by: how true its depth is against how long it takes."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

#: What the errors are told as shares of.
REFERENCE = "bilinear"


def relative_errors(sets: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Of every method and scale, its mean error over bilinear's: the geometric mean over all sets.

    Args:
        sets: rows of `dsca evaluate --fidelity`: against exact depth the error everywhere, on recorded frames that on
            surfaces.
    """
    errors: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for row in sets:
        errors[row["method"], row["scale"]][row["set"]] = row["mae_mm" if row["kind"] == "truth" else "surface_mae_mm"]
    found = {}
    for (method, scale), by_set in errors.items():
        usual = errors[REFERENCE, scale]
        logs = [math.log(error / usual[name]) for name, error in by_set.items() if error and usual.get(name)]
        if logs:
            found[method, scale] = math.exp(sum(logs) / len(logs))
    return found


def chart_points(figures: dict[str, Any], truth: dict[str, Any], size: str) -> list[dict[str, Any]]:
    """What is drawn: ``method, scale, engine, ms, error`` of every method at that size, where it is fastest."""
    errors = relative_errors(truth["sets"])
    points = []
    for row in figures["engines"]:
        method = row["model"]
        # OpenCV's own bicubic makes depth of holes, so no error is told for it.
        error = errors.get((method, row["scale"])) if row["engine"] != "OpenCV" else None
        if row["size"] == size and "ms" in row and error:
            names = {"method": method, "scale": row["scale"], "engine": row["engine"]}
            points.append({**names, "ms": row["ms"], "error": error})
    points.sort(key=lambda point: point["ms"])
    return list({(point["method"], point["scale"]): point for point in reversed(points)}.values())


def draw_chart(figures: dict[str, Any], truth: dict[str, Any], size: str, path: Path) -> None:
    """Draws it: a panel a scale, a mark for each method and engine."""
    points = chart_points(figures, truth, size)
    scales = sorted({point["scale"] for point in points})
    figure = Figure(figsize=(1.0 + 5.5 * max(1, len(scales)), 4.6), layout="constrained")
    for axis, scale in zip(figure.subplots(1, max(1, len(scales)), sharey=True, squeeze=False)[0], scales):
        for point in (point for point in points if point["scale"] == scale):
            axis.plot(point["ms"], point["error"], "o" if point["method"].startswith("dsca") else "s", markersize=7)
            text = f" {point['method']}\n {point['engine']}" if point["engine"] != "numpy" else f" {point['method']}"
            axis.annotate(text, (point["ms"], point["error"]), fontsize=8, va="center")
        axis.axvline(1e3 / 30.0, color="grey", linewidth=0.8, linestyle=":")
        axis.annotate(" 30 Hz", (1e3 / 30.0, 1.0), xycoords=("data", "axes fraction"), fontsize=8, va="top")
        axis.set(title=f"×{scale}, {size} in", xlabel="milliseconds a frame", xscale="log")
        axis.margins(x=0.25, y=0.12)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("mean error over bilinear's, all sets\n(less is truer)")
    figure.suptitle(figures["machine"]["processor"], fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
