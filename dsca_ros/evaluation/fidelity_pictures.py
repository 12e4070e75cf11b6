"""Point clouds from above, where flying pixels are plain to see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import edges
from dsca_ros.depth.resample import bilinear
from dsca_ros.evaluation.recordings import DepthSet

#: Rows of the input that are looked at from above.
SLAB = 6
#: Field of view taken where a set does not tell its camera's, degrees.
ASSUMED_FOV = 60.0


def draw_side_view(
    depth_set: DepthSet, network: str, upsample: Callable[[np.ndarray], np.ndarray], scale: int, path: Path
) -> None:
    """The points of a few rows from above: input, bilinear and network.

    The rows are those with most depth edges in the set's middle frame.
    """
    index = len(depth_set.frames) // 2
    depth = depth_set.depth(index)
    camera = depth_set.camera(index) or Intrinsics.from_fov(depth.shape[1], depth.shape[0], ASSUMED_FOV)
    per_row = np.convolve(edges(depth).sum(axis=1), np.ones(SLAB), mode="valid")
    top = int(per_row.argmax())
    clouds = {
        "input": (depth[top : top + SLAB], camera),
        "bilinear": (bilinear(depth, scale)[top * scale : (top + SLAB) * scale], camera.scaled(scale)),
        network: (upsample(depth)[top * scale : (top + SLAB) * scale], camera.scaled(scale)),
    }
    seen = depth[top : top + SLAB]
    low, high = np.percentile(seen[seen > 0], (1, 97)) if (seen > 0).any() else (0.0, 1.0)
    above = max(0.2 * (high - low), 0.1)

    figure = Figure(figsize=(20, 6), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1.0, 1.3, 1.3, 1.3))
    figure.suptitle(f"{depth_set.name} ×{scale}: the points of {SLAB} rows (white) from above")
    axes[0].imshow(np.where(depth > 0, depth, np.nan), cmap="turbo", vmin=low, vmax=high)
    axes[0].axhspan(top, top + SLAB, color="white", alpha=0.8)
    axes[0].set_axis_off()
    for axis, (name, (rows, view)) in zip(axes[1:], clouds.items()):
        x = np.broadcast_to(view.rays()[0][None, :], rows.shape) * rows
        kept = (rows > 0) & (rows < high + above)
        axis.scatter(x[kept], rows[kept], s=3.0 / (scale if name != "input" else 1), color="black", linewidths=0)
        axis.set(title=name, xlabel="x, m", xlim=axes[1].get_xlim(), ylim=(low - 0.1, high + above))
        if name == "input":
            axis.autoscale(axis="x")
            axis.set_ylabel("depth, m")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
