"""Pictures of the benchmark in the manner of the paper's figures 5 and 6: crops and their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dsca_ros.depth.levels import ERROR_LEVELS, score_levels
from dsca_ros.evaluation.benchmark import Method, shrink
from dsca_ros.evaluation.pictures import busiest_window
from dsca_ros.evaluation.published import Case

#: Maps that are drawn: two large ones full of edges, one small, one of few levels.
DRAWN = ("art", "reindeer", "teddy", "tsukuba")
#: Sides of the crop over those of the map.
CROP = 0.3
#: Errors up to this many levels are told apart.
ERROR_RANGE = 20
#: A step of so many levels is an edge.
EDGE = 8


def draw_crops(image: np.ndarray, case: Case, methods: list[Method], path: Path, title: str) -> None:
    """The input, every method's result and the truth in a crop; below, the errors.

    The crop is where the truth has most edges: chosen without a look at any result.

    Args:
        image: [H, W] uint8, the exact map.
        case: the methods' scale, and whether the input is noisy.
        methods: what to compare.
        path: the picture.
        title: its heading.
    """
    scale, noisy = case
    exact, low = shrink(image, scale, 0 if noisy else None)
    step = np.zeros(exact.shape, bool)
    step[:, 1:] = np.abs(np.diff(exact.astype(np.int16), axis=1)) >= EDGE
    step[1:] |= np.abs(np.diff(exact.astype(np.int16), axis=0)) >= EDGE
    crop = busiest_window(step, CROP)
    shown = {"input": low.repeat(scale, axis=0).repeat(scale, axis=1)}
    captions = {"input": f"input, {low.shape[1]}×{low.shape[0]}"}
    for method in methods:
        result = method.enlarge(low)
        score = score_levels(result, exact, noisy)
        shown[method.name] = result
        captions[method.name] = f"{method.name}, {score.psnr_db:.2f} dB / {score.pe_pct:.2f} %"
    low_level, high_level = int(exact[crop].min()), int(exact[crop].max())

    figure = Figure(figsize=(3.6 * (len(shown) + 1), 7.0), layout="constrained")
    figure.suptitle(f"{title}: a crop, and its errors (figures of the whole map)")
    axes = figure.subplots(2, len(shown) + 1, squeeze=False)
    for column, (name, result) in enumerate([*shown.items(), ("truth", exact)]):
        axes[0, column].imshow(result[crop], cmap="gray", vmin=low_level, vmax=high_level, interpolation="nearest")
        axes[0, column].set_title(captions.get(name, "truth"), fontsize=10)
        if name == "truth":
            continue
        error = np.abs(result[crop].astype(np.int16) - exact[crop])
        heat = axes[1, column].imshow(error, cmap="inferno", vmin=0, vmax=ERROR_RANGE, interpolation="nearest")
        wrong = 100.0 * float((error >= ERROR_LEVELS * (1 + noisy)).mean())
        axes[1, column].set_title(f"PE in the crop {wrong:.2f} %", fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    axes[1, -1].axis("off")
    bar = axes[1, -1].inset_axes((0.02, 0.0, 0.06, 1.0))
    figure.colorbar(heat, cax=bar, label="error, levels")
    figure.savefig(path, dpi=90)
