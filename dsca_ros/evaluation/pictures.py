"""The picture a robot engineer decides by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dsca_ros.depth.filters import blur
from dsca_ros.depth.resample import bicubic, nearest
from dsca_ros.evaluation.compare import Sample

#: Side of a magnified part, as a share of the image's height.
ZOOM = 0.22
#: A thin thing stands at least this far before what is behind it, metres.
THIN_STEP = 0.4
ERROR_RANGE_MM = 200.0


def thin_things(truth: np.ndarray, width: int) -> np.ndarray:
    """[H, W] bool: where something narrower than ``width`` pixels stands before a far background."""
    near = np.full(truth.shape, False)
    behind = np.minimum(truth[:, : -2 * width], truth[:, 2 * width :])
    near[:, width:-width] = truth[:, width:-width] < behind - THIN_STEP
    return near


def edges(truth: np.ndarray) -> np.ndarray:
    """[H, W] bool: steps of more than 30 cm to the pixel on the right or below."""
    mask = np.zeros(truth.shape, bool)
    mask[:, :-1] |= np.abs(np.diff(truth, axis=1)) > 0.3
    mask[:-1] |= np.abs(np.diff(truth, axis=0)) > 0.3
    return mask


def busiest_window(mask: np.ndarray, size: int, limit: float = 1.0) -> tuple[slice, slice]:
    """The square of ``size`` pixels with the most true pixels, up to a share ``limit`` of its area."""
    radius = size // 2
    density = blur(mask.astype(np.float32), radius)
    density[density > limit] = 0.0
    inner = density[radius:-radius, radius:-radius]
    row, column = np.unravel_index(int(inner.argmax()), inner.shape)
    return slice(int(row), int(row) + size), slice(int(column), int(column) + size)


def draw_demo(samples: list[Sample], path: Path, title: str) -> None:
    """Input, bicubic, network and truth: the whole frame, two magnified parts, the errors, a profile.

    The frame is the one with the most thin things in it, the magnified parts are where most edges and
    most thin things are: chosen by the truth, not by the result.
    """
    width = max(3, samples[0].result.shape[1] // 60)
    sample = max(samples, key=lambda s: int(thin_things(s.truth, width).sum()))
    scale, truth = sample.scale, sample.truth
    images = {
        "input": nearest(sample.measured, scale),
        "bicubic": bicubic(sample.measured, scale),
        "DSCA": sample.result,
        "ground truth": truth,
    }
    size = int(ZOOM * truth.shape[0]) // 2 * 2
    pole = busiest_window(thin_things(truth, width), size)
    away = edges(truth)
    away[pole] = False
    windows = {"edges, magnified": busiest_window(away, size, 0.12), "thin things, magnified": pole}
    low, high = np.percentile(truth, [1, 99])
    colours: dict = {"cmap": "turbo", "vmin": low, "vmax": high, "interpolation": "nearest"}

    figure = Figure(figsize=(15, 14.5), layout="constrained")
    axes = figure.subplots(4, 4, gridspec_kw={"height_ratios": [1, 1.25, 1.25, 1]})
    figure.suptitle(title, fontsize=14)
    for column, (name, image) in enumerate(images.items()):
        shown = np.where(image > 0, image, np.nan)
        drawn = axes[0, column].imshow(shown, **colours)
        axes[0, column].set_title(_caption(name, sample), fontsize=12)
        for (rows, columns), outline in zip(windows.values(), ("white", "magenta")):
            corners = _box(rows, columns)
            axes[0, column].plot(*corners, color=outline, linewidth=1.2)
        for row, (label, window) in enumerate(windows.items(), start=1):
            axes[row, column].imshow(shown[window], **colours)
            if column == 0:
                axes[row, 0].set_ylabel(label, fontsize=12)
    bar = figure.colorbar(drawn, ax=axes[:3, :], shrink=0.6, pad=0.01)
    bar.set_label("depth, m (white: no measurement)")
    for column, name in enumerate(("input", "bicubic", "DSCA")):
        image = images[name]
        error = np.where(image > 0, 1e3 * np.abs(image - truth), np.nan)
        drawn = axes[3, column].imshow(error, cmap="magma", vmin=0, vmax=ERROR_RANGE_MM, interpolation="nearest")
        axes[3, column].set_title(f"error of {name}: mean {np.nanmean(error):.1f} mm", fontsize=11)
    figure.colorbar(drawn, ax=axes[3, 2], shrink=0.9, label="mm")
    for row in axes[:, :]:
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
    _profile(axes[3, 3], images, windows["thin things, magnified"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _caption(name: str, sample: Sample) -> str:
    height, width = (sample.measured if name == "input" else sample.result).shape
    return f"{name}, {width}×{height}"


def _box(rows: slice, columns: slice) -> tuple[list[int], list[int]]:
    left, right, top, bottom = columns.start, columns.stop - 1, rows.start, rows.stop - 1
    return [left, right, right, left, left], [top, top, bottom, bottom, top]


def _profile(axis: Axes, images: dict[str, np.ndarray], window: tuple[slice, slice]) -> None:
    """Depth along the middle row of a window."""
    row = (window[0].start + window[0].stop) // 2
    styles = {"ground truth": ("black", 3.0), "bicubic": ("tab:orange", 1.3), "DSCA": ("tab:blue", 1.6)}
    for name, (colour, width) in styles.items():
        line = images[name][row, window[1]]
        axis.plot(np.where(line > 0, line, np.nan), color=colour, linewidth=width, label=name, marker=".", markersize=4)
    axis.set_title("depth along a row through the thin things", fontsize=11)
    axis.set_ylabel("m")
    axis.yaxis.set_major_locator(_ticks())
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)


def _ticks() -> object:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)
