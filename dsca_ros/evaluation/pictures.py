"""The picture a robot engineer decides by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dsca_ros.depth.resample import bicubic, nearest
from dsca_ros.evaluation.compare import Sample

#: Sides of a magnified part over those of the image.
ZOOM = 0.2
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


def busiest_window(mask: np.ndarray, share: float, limit: float = 1.0) -> tuple[slice, slice]:
    """The part with the most true pixels.

    Args:
        mask: [H, W] bool.
        share: sides of the part over those of the image.
        limit: parts with more than this share of true pixels are passed over.

    Returns:
        Rows and columns.
    """
    height, width = int(share * mask.shape[0]), int(share * mask.shape[1])
    total = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    inside[inside > limit * height * width] = 0
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return slice(int(row), int(row) + height), slice(int(column), int(column) + width)


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
    thin = busiest_window(thin_things(truth, width), ZOOM)
    elsewhere = edges(truth)
    elsewhere[thin] = False
    windows = {"edges, magnified": busiest_window(elsewhere, ZOOM, 0.1), "thin things, magnified": thin}
    low, high = np.percentile(truth, [1, 99])
    colours: dict = {"cmap": "turbo", "vmin": low, "vmax": high, "interpolation": "nearest"}

    figure = Figure(figsize=(16, 4 * 3.0 * truth.shape[0] / truth.shape[1] * 4 / 3 + 1.6), layout="constrained")
    axes = figure.subplots(4, 4)
    figure.suptitle(title, fontsize=15)
    for column, (name, image) in enumerate(images.items()):
        shown = np.where(image > 0, image, np.nan)
        drawn = axes[0, column].imshow(shown, **colours)
        axes[0, column].set_title(_caption(name, sample), fontsize=12)
        for window, outline in zip(windows.values(), ("white", "magenta")):
            axes[0, column].plot(*_box(*window), color=outline, linewidth=1.5)
        for row, (label, window) in enumerate(windows.items(), start=1):
            axes[row, column].imshow(shown[window], **colours)
            if column == 0:
                axes[row, 0].set_ylabel(label, fontsize=12)
    figure.colorbar(drawn, ax=axes[:3, :], aspect=40, pad=0.01, label="depth, m (white: no measurement)")
    heat = colormaps["magma"].with_extremes(bad="tab:gray")  # holes must not look like errors
    for column, name in enumerate(("input", "bicubic", "DSCA")):
        image = images[name]
        error = np.where(image > 0, 1e3 * np.abs(image - truth), np.nan)
        drawn = axes[3, column].imshow(error, cmap=heat, vmin=0, vmax=ERROR_RANGE_MM, interpolation="nearest")
        axes[3, column].set_title(f"error of {name}: mean {np.nanmean(error):.1f} mm", fontsize=12)
    figure.colorbar(
        drawn, ax=axes[3, :3], location="bottom", aspect=80, pad=0.02, label="error, mm (grey: no measurement)"
    )
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    _profile(axes[3, 3], images, thin)
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
        axis.plot(np.where(line > 0, line, np.nan), color=colour, linewidth=width, label=name, marker=".", markersize=5)
    axis.set_title("middle row of the thin things, depth in m", fontsize=12)
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.legend(fontsize=9)
    axis.grid(alpha=0.3)
