"""How true depth is where no exact depth is known: pure measures on recorded frames.

All depth is [H, W] float32 metres, 0 invalid; a result is ``scale`` times as large as its input, on the
half-pixel grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsca_ros.depth.camera import Intrinsics

#: A step between neighbours over the larger of these is a depth edge.
STEP_METRES, STEP_SHARE = 0.05, 0.02
#: Output pixels from a step within which a point counts as near an edge.
EDGE_REACH = 4
#: Planes are looked for in windows of this side, every half a side.
PLANE_WINDOW = 40
#: Pixels at its border that are left out when points are held against its plane: a result may take from beyond it.
PLANE_RIM = 2
#: A window is a plane if so many of its pixels are valid, and so many of them within three deviations.
PLANE_VALID, PLANE_INLIERS = 0.9, 0.95
#: The RMS of a plane's points to it is at most this share of depth, plus this much per metre squared.
PLANE_SHARE, PLANE_PER_METRE2 = 0.005, 0.004


def edges(depth: np.ndarray) -> np.ndarray:
    """[H, W] bool: valid pixels with a step over max(5 cm, 2 %) to a valid neighbour."""
    mask = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        a, b = np.moveaxis(depth, axis, 0)[:-1], np.moveaxis(depth, axis, 0)[1:]
        step = (a > 0) & (b > 0) & (np.abs(a - b) > np.maximum(STEP_METRES, STEP_SHARE * np.minimum(a, b)))
        view = np.moveaxis(mask, axis, 0)
        view[:-1] |= step
        view[1:] |= step
    return mask


def near(mask: np.ndarray, reach: int) -> np.ndarray:
    """[H, W] bool: pixels with a true one at most ``reach`` away along both axes."""
    for axis in (0, 1):
        source = np.moveaxis(mask, axis, 0)
        grown = source.copy()
        for distance in range(1, reach + 1):
            grown[distance:] |= source[:-distance]
            grown[:-distance] |= source[distance:]
        mask = np.moveaxis(grown, 0, axis)
    return mask


def hallucinated(result: np.ndarray, source: np.ndarray, scale: int) -> np.ndarray:
    """[sH, sW] bool: valid output with no valid input within one input pixel."""
    return (result > 0) & ~_enlarged(near(source > 0, 1), scale)


def lost(result: np.ndarray, source: np.ndarray, scale: int) -> np.ndarray:
    """[sH, sW] bool: invalid output where all input within one input pixel is valid."""
    return (result <= 0) & ~_enlarged(near(source <= 0, 1), scale)


def _enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def best_choice(source: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What could be chosen by whoever knew the exact depth: a floor for all who take what was measured nearby.

    Args:
        source: [H, W], what was measured.
        truth: [sH, sW], exact.

    Returns:
        [sH, sW], of the valid depths within one input pixel the one that is nearest to the exact one; 0 where nearest
        interpolation has none.
    """
    scale = truth.shape[0] // source.shape[0]
    best, off = np.zeros_like(truth), np.full(truth.shape, np.inf, np.float32)
    padded = np.pad(source, 1)
    height, width = source.shape
    for dy in range(3):
        for dx in range(3):
            tap = _enlarged(padded[dy : dy + height, dx : dx + width], scale)
            distance = np.where(tap > 0, np.abs(tap - truth), np.inf)
            nearer = distance < off
            best[nearer], off[nearer] = tap[nearer], distance[nearer]
    return np.where(_enlarged(source, scale) > 0, best, np.float32(0.0))


def decimate(depth: np.ndarray, factor: int) -> np.ndarray:
    """Every block of factor x factor pixels as the lower median of its valid ones, 0 where there is none.

    As librealsense's decimation does it; the result's grid agrees with the input's by the half-pixel rule.
    Rows and columns beyond a multiple of the factor are left out.
    """
    height, width = (n // factor for n in depth.shape)
    blocks = depth[: height * factor, : width * factor].reshape(height, factor, width, factor)
    values = np.sort(blocks.swapaxes(1, 2).reshape(height, width, factor * factor), axis=2)  # invalid ones first
    count = (values > 0).sum(axis=2)
    index = values.shape[2] - count + np.maximum(count - 1, 0) // 2
    picked = np.take_along_axis(values, np.minimum(index, values.shape[2] - 1)[..., None], axis=2)[..., 0]
    return np.where(count > 0, picked, 0.0).astype(np.float32)


def block_mean(depth: np.ndarray, factor: int) -> np.ndarray:
    """Mean of the valid pixels of every block of factor x factor, 0 where there is none."""
    height, width = (n // factor for n in depth.shape)
    blocks = depth[: height * factor, : width * factor].reshape(height, factor, width, factor).astype(np.float64)
    count = (blocks > 0).sum(axis=(1, 3))
    return (blocks.sum(axis=(1, 3)) / np.maximum(count, 1)).astype(np.float32)


def consistency(result: np.ndarray, source: np.ndarray, scale: int) -> tuple[float, int]:
    """Sum of the absolute differences between the result averaged back and its input, metres, and their count."""
    back = block_mean(result, scale)
    both = (back > 0) & (source > 0)
    return float(np.abs(back - source)[both].sum(dtype=np.float64)), int(both.sum())


@dataclass(frozen=True)
class Plane:
    """A plane in a window of an image: 1 / Z = a * u + b * v + c in the input's pixels."""

    rows: slice
    columns: slice
    coefficients: tuple[float, float, float]
    #: RMS distance of the input's points from it along Z, metres.
    residual: float

    def distances(self, depth: np.ndarray, scale: int) -> np.ndarray:
        """Distances along Z of a result's valid points in the window, metres, signed.

        But for its rim: at a window that ends where the plane does, where the result puts that edge is no matter of
        how flat the plane is.
        """
        rows, columns = (
            slice((side.start + PLANE_RIM) * scale, (side.stop - PLANE_RIM) * scale)
            for side in (self.rows, self.columns)
        )
        window = depth[rows, columns].astype(np.float64)
        v = (np.arange(rows.start, rows.stop) + 0.5)[:, None] / scale - 0.5
        u = (np.arange(columns.start, columns.stop) + 0.5)[None, :] / scale - 0.5
        a, b, c = self.coefficients
        return (window - 1.0 / (a * u + b * v + c))[window > 0]


def find_planes(depth: np.ndarray, window: int = PLANE_WINDOW) -> list[Plane]:
    """Windows of the image that show one plane; in inverse depth a plane is linear whatever the lens."""
    planes = []
    for top in range(0, depth.shape[0] - window + 1, window // 2):
        for left in range(0, depth.shape[1] - window + 1, window // 2):
            rows, columns = slice(top, top + window), slice(left, left + window)
            plane = _fit_plane(depth[rows, columns], rows, columns)
            if plane is not None:
                planes.append(plane)
    return planes


def _fit_plane(patch: np.ndarray, rows: slice, columns: slice) -> Plane | None:
    v, u = np.nonzero(patch > 0)
    if v.size < PLANE_VALID * patch.size:
        return None
    depth = patch[v, u].astype(np.float64)
    system = np.stack([u + columns.start, v + rows.start, np.ones_like(u)], axis=1).astype(np.float64)
    inside = np.ones(v.size, bool)
    for _ in range(4):
        solution = np.linalg.lstsq(system[inside], 1.0 / depth[inside], rcond=None)[0]
        expected = system @ solution
        if (expected <= 0).any():
            return None
        distance = depth - 1.0 / expected
        deviation = max(1.4826 * float(np.median(np.abs(distance))), 1e-4)
        inside = np.abs(distance) <= 3.0 * deviation
    typical = float(np.median(depth))
    residual = float(np.sqrt(np.square(distance).mean()))
    # By all of its points: a corner of something else has few of them, and most of their sum of squares. A result that
    # keeps that corner sharp would pass for rough, and one that smears it for flat.
    if inside.mean() < PLANE_INLIERS or residual > PLANE_SHARE * typical + PLANE_PER_METRE2 * typical**2:
        return None
    a, b, c = (float(value) for value in solution)
    return Plane(rows, columns, (a, b, c), residual)


def warp(depth: np.ndarray, camera: Intrinsics, motion: np.ndarray) -> np.ndarray:
    """A depth image as another camera position would see it: nearest pixel, nearest surface, 0 elsewhere.

    Args:
        depth: [H, W].
        camera: of both images.
        motion: [4, 4], points of this camera's frame to the other's.
    """
    points = camera.back_project(depth).reshape(-1, 3)
    points = points[np.isfinite(points[:, 2])].astype(np.float64) @ motion[:3, :3].T + motion[:3, 3]
    points = points[points[:, 2] > 1e-3]
    u = np.floor(points[:, 0] / points[:, 2] * camera.fx + camera.cx + 0.5)
    v = np.floor(points[:, 1] / points[:, 2] * camera.fy + camera.cy + 0.5)
    seen = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    pixel = v[seen].astype(np.int64) * camera.width + u[seen].astype(np.int64)
    nearest = np.full(depth.size, np.inf)
    np.minimum.at(nearest, pixel, points[seen, 2])
    return np.where(np.isfinite(nearest), nearest, 0.0).astype(np.float32).reshape(depth.shape)


def spread(values: np.ndarray) -> float:
    """Half the distance between the 16th and 84th percentile: the deviation, without the outliers' say."""
    if values.size == 0:
        return float("nan")
    low, high = np.percentile(values, (15.87, 84.13))
    return 0.5 * float(high - low)
