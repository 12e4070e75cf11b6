"""What a depth camera's own frames tell about its errors: noise, quantisation, holes and outliers.

Nothing here needs exact depth, so a recording and a sensor model can be held against each other. All depth
is [H, W] float32 metres, 0 invalid; several frames are a list, and need not be of one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsca_ros.depth.fidelity import STEP_METRES, STEP_SHARE, edges, near

#: Surfaces are looked for in windows of this side, pixels.
WINDOW = 15
#: A window with a residual over this share of depth, or over so many of its own deviations, is no smooth surface.
ROUGH_SHARE, ROUGH_DEVIATIONS = 0.05, 6.0
#: Noise is told for depths in steps of this factor, from this many windows on.
DEPTH_FACTOR, LEAST_WINDOWS = 1.25, 8
#: Lags of the autocorrelation, pixels.
LAGS = 6
#: Pixels from a depth step within which a hole counts as beside it.
STEP_REACH = 3
#: Two surfaces this share of the image's width apart are not taken as the two sides of one hole.
WIDEST_HOLE = 0.1
#: A surface may fall away by this share of its depth over a hole as wide as the image, and is no step.
SLANT = 1.5
#: A stray pixel is off all its neighbours by the larger of these, metres and share of depth, and has so many.
STRAY_METRES, STRAY_SHARE, STRAY_NEIGHBOURS = 0.05, 0.05, 4
#: Levels are counted on this grid, metres, the finest that a driver publishes.
FINEST_GRID = 1e-4
#: Levels stand for the camera's steps where each was seen by so many pixels.
PIXELS_A_LEVEL = 8
#: Steps that differ by a larger deviation of their logarithm from depth to depth are not even.
UNEVEN = 0.1

INVERSE_DEPTH, DEPTH = "inverse depth", "depth"


# --- noise --------------------------------------------------------------------------------------


def smooth_surfaces(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows without hole or step, and what a quadratic surface leaves of them.

    The surface is fitted to inverse depth, in which a plane is linear.

    Returns:
        [N] median depth, metres, and [N, WINDOW, WINDOW] residuals of inverse depth, 1/m, scaled so that
        white noise keeps its variance.
    """
    rows, columns = depth.shape[0] // WINDOW, depth.shape[1] // WINDOW
    if not rows or not columns:
        return np.empty(0), np.empty((0, WINDOW, WINDOW))
    usable = (depth > 0) & ~near(edges(depth), 2)
    windows = _windows(depth, rows, columns).astype(np.float64)
    windows = windows[_windows(usable, rows, columns).all(axis=1)]
    v, u = ((np.mgrid[:WINDOW, :WINDOW] - (WINDOW - 1) / 2) / WINDOW).reshape(2, -1)
    basis = np.linalg.qr(np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1))[0]
    inverse = 1.0 / windows
    residual = inverse - (inverse @ basis) @ basis.T
    residual *= np.sqrt(WINDOW**2 / (WINDOW**2 - basis.shape[1]))
    typical = np.median(windows, axis=1)
    most = np.abs(residual).max(axis=1, initial=0.0)
    deviation = np.sqrt(np.square(residual).mean(axis=1))
    residual[deviation * typical < 1e-9] = 0.0  # what the fit itself rounds off
    smooth = (most * typical <= ROUGH_SHARE) & (most <= ROUGH_DEVIATIONS * np.maximum(deviation, 1e-12))
    return typical[smooth], residual[smooth].reshape(-1, WINDOW, WINDOW)


def _windows(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    cut = image[: rows * WINDOW, : columns * WINDOW].reshape(rows, WINDOW, columns, WINDOW)
    return cut.swapaxes(1, 2).reshape(rows * columns, WINDOW**2)


@dataclass(frozen=True)
class NoisePoint:
    """Deviation of depth on surfaces ``depth`` away, both metres: the median of ``windows`` windows."""

    depth: float
    deviation: float
    windows: int


def noise_points(depth: np.ndarray, residual: np.ndarray) -> list[NoisePoint]:
    """Noise against depth, from what `smooth_surfaces` gives; by depth, nearest first."""
    deviation = np.sqrt(np.square(residual).mean(axis=(1, 2))) * depth**2
    index = np.floor(np.log(depth) / np.log(DEPTH_FACTOR)).astype(int)
    points = []
    for value in np.unique(index):
        here = index == value
        if here.sum() >= LEAST_WINDOWS:
            at, sigma = float(np.median(depth[here])), float(np.median(deviation[here]))
            points.append(NoisePoint(at, sigma, int(here.sum())))
    return points


def noise_at(points: Sequence[NoisePoint], depth: float) -> float | None:
    """Deviation at a depth, metres, between the points of `noise_points`; None outside of them."""
    seen = [point for point in points if point.deviation > 0]
    margin = np.sqrt(DEPTH_FACTOR)
    if not seen or not seen[0].depth / margin <= depth <= seen[-1].depth * margin:
        return None
    known = np.log([[point.depth, point.deviation] for point in seen])
    return float(np.exp(np.interp(np.log(depth), known[:, 0], known[:, 1])))


def noise_growth(points: Sequence[NoisePoint]) -> float | None:
    """The power of depth that noise grows with: 2 for disparity; None where depths are too much alike."""
    seen = [point for point in points if point.deviation > 0]
    if len(seen) < 3 or seen[-1].depth < 1.5 * seen[0].depth:
        return None
    x, y = np.log([[point.depth, point.deviation] for point in seen]).T
    return float(np.polyfit(x, y, 1, w=np.sqrt([point.windows for point in seen]))[0])


def autocorrelation(residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the residuals of `smooth_surfaces`, along rows and along columns: [LAGS] each, for lags 1, 2, ...

    Every window counts alike once the noisiest fifth is left out. The fitted surface takes slow waves away,
    so wide correlation reads a little low, and negative at long lags. NaN without noise.
    """
    variance = np.square(residual).mean(axis=(1, 2))
    if not variance.any():
        return np.full(LAGS, np.nan), np.full(LAGS, np.nan)
    kept = (variance > 0) & (variance <= np.quantile(variance, 0.8))
    unit = residual[kept] / np.sqrt(variance[kept])[:, None, None]
    rows = np.array([(unit[:, :, :-k] * unit[:, :, k:]).mean() for k in range(1, LAGS + 1)])
    columns = np.array([(unit[:, :-k] * unit[:, k:]).mean() for k in range(1, LAGS + 1)])
    return rows, columns


# --- quantisation -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantisation:
    """The camera's steps: even in inverse depth, ``step`` in 1/m, or even in depth, ``step`` in metres."""

    domain: str
    step: float


def quantisation(frames: Sequence[np.ndarray]) -> Quantisation | None:
    """The steps in which depth comes; None where no level was seen often enough to tell.

    The gaps between neighbouring levels are compared from one depth to another: those of a disparity grow
    with depth squared. Where gaps are near the grid of the driver's integers, they are the grid's.
    """
    values = np.concatenate([frame[frame > 0].astype(np.float64) for frame in frames]) if len(frames) else np.empty(0)
    level, count = np.unique(np.rint(values / FINEST_GRID).astype(np.int64), return_counts=True)
    metres = level * FINEST_GRID
    found = []
    index = np.floor(np.log(np.maximum(metres, FINEST_GRID)) / np.log(1.1)).astype(int)
    for value in np.unique(index):
        here, seen = metres[index == value], count[index == value]
        order = np.sort(seen)
        usually = order[np.searchsorted(order.cumsum(), 0.5 * order.sum())]  # how often an ordinary pixel's level is
        here, seen = here[seen >= 0.1 * usually], seen[seen >= 0.1 * usually]
        if here.size >= 5 and seen.mean() >= PIXELS_A_LEVEL:
            gaps = np.diff(here)
            middle = float(np.median(gaps))
            usual = float(gaps[gaps < 1.5 * middle].mean())  # without levels that nobody saw
            found.append((float(np.median(here)), usual, middle))
    if not found:
        return None
    at, usual, median = np.array(found).T
    grid = float(median.min())
    coarse = usual > 2.5 * grid if (usual > 2.5 * grid).sum() >= 2 else usual > 0
    # A step even in inverse depth shows at two depths at least.
    inverse = usual[coarse] / at[coarse] ** 2
    even_inverse, even_depth = _unevenness(inverse), _unevenness(usual[coarse])
    apart = coarse.sum() >= 2 and at[coarse].max() > 1.2 * at[coarse].min()
    if apart and even_inverse < min(even_depth, UNEVEN):
        return Quantisation(INVERSE_DEPTH, float(np.median(inverse)))
    return Quantisation(DEPTH, float(np.median(median)))


def _unevenness(values: np.ndarray) -> float:
    log = np.log(values)
    return 1.4826 * float(np.median(np.abs(log - np.median(log))))  # the deviation, without one odd depth's say


# --- holes and outliers -------------------------------------------------------------------------


@dataclass(frozen=True)
class HoleFigures:
    """Where pixels are invalid. Shares are of pixels, 0 to 1; None where there is nothing to count.

    Attributes:
        share: of all pixels.
        beside_steps, elsewhere: of those within `STEP_REACH` of a depth step, and of the others.
        left_width, right_width: mean width of the hole at the left and at the right border of near things,
            pixels; 0 where near and far touch.
        width: median width of the holes at those borders, pixels.
    """

    share: float | None
    beside_steps: float | None
    elsewhere: float | None
    left_width: float | None
    right_width: float | None
    width: float | None


def hole_figures(frames: Sequence[np.ndarray]) -> HoleFigures:
    """Holes of frames, added up."""
    beside, elsewhere, left, right = [np.empty(0, bool)], [np.empty(0, bool)], [np.empty(0)], [np.empty(0)]
    for depth in frames:
        mask = np.zeros(depth.shape, bool)
        for turned, image in ((False, depth), (True, depth.T)):
            row, first, second = _steps(image, int(WIDEST_HOLE * depth.shape[1]))
            sides = mask.T if turned else mask
            sides[row, first] = sides[row, second] = True
            if not turned:
                near_is_right = depth[row, first] > depth[row, second]
                left.append((second - first - 1)[near_is_right])
                right.append((second - first - 1)[~near_is_right])
        close = near(mask, STEP_REACH)
        beside.append(depth[close] <= 0)
        elsewhere.append(depth[~close] <= 0)
    invalid, invalid_elsewhere = np.concatenate(beside), np.concatenate(elsewhere)
    left_widths, right_widths = np.concatenate(left), np.concatenate(right)
    both = np.concatenate([left_widths, right_widths])
    return HoleFigures(
        _mean(np.concatenate([invalid, invalid_elsewhere])),
        _mean(invalid),
        _mean(invalid_elsewhere),
        _mean(left_widths),
        _mean(right_widths),
        float(np.median(both[both > 0])) if (both > 0).any() else None,
    )


def _steps(depth: np.ndarray, widest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth steps along rows, also those across holes: [N] row, and the columns of the valid pixels around."""
    row, column = np.nonzero(depth > 0)
    value = depth[row, column]
    gap = column[1:] - column[:-1] - 1
    smaller = np.minimum(value[1:], value[:-1])
    slanted = gap * smaller * (SLANT / depth.shape[1])
    step = np.abs(value[1:] - value[:-1]) > np.maximum(STEP_METRES, STEP_SHARE * smaller) + slanted
    step &= (row[1:] == row[:-1]) & (gap <= widest)
    return row[:-1][step], column[:-1][step], column[1:][step]


def stray_pixels(frames: Sequence[np.ndarray]) -> tuple[float | None, float | None]:
    """Shares of the valid pixels that are far off all their valid neighbours; None without any pixel.

    Returns:
        outliers, which are nearer or farther than every neighbour, and mixed pixels, which lie between them.
    """
    outliers = mixed = valid = 0
    for depth in frames:
        padded = np.pad(depth, 1)
        height, width = depth.shape
        count, nearer = np.zeros(depth.shape, np.uint8), np.zeros(depth.shape, np.uint8)
        far = depth > 0
        valid += int(far.sum())
        for down in range(3):
            for right in range(3):
                other = padded[down : down + height, right : right + width]
                there = (other > 0) & ((down, right) != (1, 1))
                count += there
                nearer += there & (other < depth)
                far &= ~there | (np.abs(depth - other) > np.maximum(STRAY_METRES, STRAY_SHARE * other))
        far &= count >= STRAY_NEIGHBOURS
        between = far & (nearer > 0) & (nearer < count)
        mixed += int(between.sum())
        outliers += int((far & ~between).sum())
    return (outliers / valid, mixed / valid) if valid else (None, None)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None


# --- all of it ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SensorFit:
    """All that is measured of a camera's frames; see the functions that measure it.

    Attributes:
        depth: median depth of the smooth surfaces, metres; None if there are none.
        windows: smooth surfaces found.
        rows, columns: autocorrelation of the noise at lags 1 to `LAGS`; empty without noise.
    """

    depth: float | None
    windows: int
    noise: list[NoisePoint]
    growth: float | None
    rows: list[float]
    columns: list[float]
    steps: Quantisation | None
    holes: HoleFigures
    outliers: float | None
    mixed: float | None

    def plain(self) -> dict[str, Any]:
        """As JSON has it: millimetres, and per cent; None is what could not be measured."""
        steps, holes = self.steps, self.holes
        return {
            "depth_m": _rounded(self.depth, 3),
            "windows": self.windows,
            "noise": [
                {"depth_m": round(p.depth, 3), "noise_mm": round(1e3 * p.deviation, 4), "windows": p.windows}
                for p in self.noise
            ],
            "noise_growth": _rounded(self.growth, 2),
            "autocorrelation_rows": [round(value, 3) for value in self.rows],
            "autocorrelation_columns": [round(value, 3) for value in self.columns],
            "step_domain": steps.domain if steps else None,
            "step_per_m": round(steps.step, 6) if steps and steps.domain == INVERSE_DEPTH else None,
            "step_mm": round(1e3 * steps.step, 3) if steps and steps.domain == DEPTH else None,
            "holes_pct": _rounded(holes.share, 2, 100.0),
            "holes_beside_steps_pct": _rounded(holes.beside_steps, 2, 100.0),
            "holes_elsewhere_pct": _rounded(holes.elsewhere, 2, 100.0),
            "hole_left_px": _rounded(holes.left_width, 2),
            "hole_right_px": _rounded(holes.right_width, 2),
            "hole_width_px": _rounded(holes.width, 1),
            "outliers_pct": _rounded(self.outliers, 4, 100.0),
            "mixed_pct": _rounded(self.mixed, 4, 100.0),
        }


def fit_sensor(frames: Sequence[np.ndarray], walls: Sequence[np.ndarray] = ()) -> SensorFit:
    """Measures frames of one camera: [H, W] float32 metres each, 0 invalid.

    Args:
        frames: of any scene.
        walls: frames of nothing but smooth surfaces; where they are given, they alone tell noise and steps.
    """
    surfaces = [smooth_surfaces(frame) for frame in walls or frames]
    depth = np.concatenate([found for found, _ in surfaces]) if surfaces else np.empty(0)
    residual = np.concatenate([left for _, left in surfaces]) if surfaces else np.empty((0, WINDOW, WINDOW))
    points = noise_points(depth, residual)
    rows, columns = ([] if np.isnan(values).any() else values.tolist() for values in autocorrelation(residual))
    return SensorFit(
        float(np.median(depth)) if depth.size else None,
        depth.size,
        points,
        noise_growth(points),
        rows,
        columns,
        quantisation(walls or frames),
        hole_figures(frames),
        *stray_pixels(frames),
    )


def _rounded(value: float | None, digits: int, factor: float = 1.0) -> float | None:
    return None if value is None else round(factor * value, digits)
