"""`dsca evaluate --fidelity`: is the depth true? Networks and the usual ways, on exact and recorded depth.

With exact depth, it is decimated as cameras' drivers do it, enlarged, and compared. Recorded frames have
no exact depth, and their edges are smeared already: there surfaces are compared, edges only for flying
pixels, and the rest asks whether the result is steady, flat where the input is flat, and agrees with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import (
    EDGE_REACH,
    best_choice,
    consistency,
    decimate,
    edges,
    find_planes,
    hallucinated,
    lost,
    near,
    spread,
    warp,
)
from dsca_ros.depth.metrics import flying
from dsca_ros.depth.resample import METHODS, naive_bicubic, naive_bilinear
from dsca_ros.evaluation.recordings import DepthSet

Enlarge = Callable[[np.ndarray], np.ndarray]
#: Pixels that change by less between two frames, metres and share of depth, show a part that stands still.
STILL_METRES, STILL_SHARE = 0.02, 0.02
#: Frames with less of their pixels valid, or smaller than the scale, are left out.
LEAST_VALID = 0.05
#: Planes flatter than this, metres, are computed and not recorded: nothing can be held to them.
LEAST_PLANE_RMS = 1e-5
#: Ways that take invalid pixels for depth.
NAIVE = {"naive bilinear": naive_bilinear, "naive bicubic": naive_bicubic}

#: No method: see `best_choice`. What it leaves of an error is in the measurement.
BEST_CHOICE = "best choice"


def usual_methods(scale: int) -> dict[str, Enlarge]:
    """Ways to enlarge without a network; the careful ones keep invalid pixels out of every mean."""
    return {name: _at(scale, method) for name, method in (METHODS | NAIVE).items()}


def _at(scale: int, method: Callable[[np.ndarray, int], np.ndarray]) -> Enlarge:
    return lambda depth: method(depth, scale)


#: Methods whose validity decides which pixels are compared.
CAREFUL = tuple(METHODS)


@dataclass
class Tally:
    """Sums for means: add values, read the mean."""

    total: float = 0.0
    count: int = 0

    def add(self, values: np.ndarray) -> None:
        """Adds values."""
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size

    def mean(self, factor: float = 1.0) -> float | None:
        """Mean times a factor; None of nothing."""
        return round(factor * self.total / self.count, 4) if self.count else None


@dataclass
class TruthFigures:
    """Figures of one method against exact depth."""

    squared: Tally = field(default_factory=Tally)
    absolute: Tally = field(default_factory=Tally)
    at_edges: Tally = field(default_factory=Tally)
    flies: Tally = field(default_factory=Tally)
    invented: Tally = field(default_factory=Tally)
    missing: Tally = field(default_factory=Tally)

    def add(self, result: np.ndarray, source: np.ndarray, truth: np.ndarray, where: np.ndarray, scale: int) -> None:
        """Adds one frame; errors count ``where`` all careful methods and the truth are valid."""
        error = np.abs(result - truth).astype(np.float64)
        counted = where & (result > 0)
        self.squared.add(np.square(error[counted]))
        self.absolute.add(error[counted])
        self.at_edges.add(error[counted & near(edges(truth), EDGE_REACH)])
        self.flies.add(flying(result, truth, scale)[(result > 0) & near(truth > 0, scale)])
        self.invented.add(hallucinated(result, source, scale))
        self.missing.add(lost(result, source, scale))

    def figures(self) -> dict[str, float | None]:
        """By the names of the table."""
        mean = self.squared.mean()
        return {
            "rmse_mm": None if mean is None else round(1e3 * (self.squared.total / self.squared.count) ** 0.5, 4),
            "mae_mm": self.absolute.mean(1e3),
            "edge_mae_mm": self.at_edges.mean(1e3),
            "flying_pct": self.flies.mean(100.0),
            "hallucinated_pct": self.invented.mean(100.0),
            "lost_pct": self.missing.mean(100.0),
        }


@dataclass
class RecordedFigures:
    """Figures of one method on recorded frames; ratios are made by `recorded_rows`."""

    surface: Tally = field(default_factory=Tally)
    at_edges: Tally = field(default_factory=Tally)
    flies: Tally = field(default_factory=Tally)
    plane_squared: Tally = field(default_factory=Tally)
    input_plane_squared: Tally = field(default_factory=Tally)
    changes: list[float] = field(default_factory=list)
    apart: Tally = field(default_factory=Tally)

    def add_restored(self, result: np.ndarray, recorded: np.ndarray, where: np.ndarray, scale: int) -> None:
        """Adds a decimated and restored frame."""
        at_edge = near(edges(recorded), EDGE_REACH)
        error = np.abs(result - recorded)
        self.surface.add(error[where & ~at_edge])
        self.at_edges.add(error[where & at_edge])
        self.flies.add(flying(result, recorded, scale)[(result > 0) & at_edge])

    def figures(self) -> dict[str, float | None]:
        """By the names of the table, but for steadiness, which is relative to bilinear."""
        ratio = None
        if self.input_plane_squared.count and self.plane_squared.count:
            mine = self.plane_squared.total / self.plane_squared.count
            own = self.input_plane_squared.total / self.input_plane_squared.count
            # Exact planes: what is left of either is rounding.
            ratio = round((mine / own) ** 0.5, 4) if own > LEAST_PLANE_RMS**2 else None
        return {
            "surface_mae_mm": self.surface.mean(1e3),
            "edge_mae_mm": self.at_edges.mean(1e3),
            "flying_pct": self.flies.mean(100.0),
            "plane_rms_ratio": ratio,
            "consistency_mm": self.apart.mean(1e3),
        }


def chosen(depth_set: DepthSet, frames: int) -> list[int]:
    """At most ``frames`` of a set's frames, spread over it."""
    total = len(depth_set.frames)
    return sorted({int(i) for i in np.linspace(0, total - 1, min(frames, total)).round()})


def common(results: dict[str, np.ndarray], networks: Iterable[str], truth: np.ndarray) -> np.ndarray:
    """[H, W] bool: where the careful methods, all networks and the truth are valid.

    The same pixels for all: who leaves out what is hard would else be compared on what is easy.
    """
    masks = [truth > 0, *(results[name] > 0 for name in (*CAREFUL, *networks))]
    return np.logical_and.reduce(masks)


def cut(depth: np.ndarray, scale: int) -> np.ndarray:
    """Cut at the bottom and on the right to a multiple of the scale."""
    return depth[: depth.shape[0] // scale * scale, : depth.shape[1] // scale * scale]


def enough(depth: np.ndarray) -> bool:
    """Whether a frame has enough valid pixels to be measured."""
    return depth.size > 0 and (depth > 0).mean() >= LEAST_VALID


@dataclass(frozen=True)
class Network:
    """A model to measure.

    Attributes:
        upsample: the model.
        restore: the model for decimated frames: itself, or its twin.
    """

    upsample: Enlarge
    restore: Enlarge


def truth_rows(
    name: str, pairs: Iterable[tuple[np.ndarray, np.ndarray]], networks: Mapping[str, Enlarge], scale: int
) -> list[dict[str, Any]]:
    """Rows of a set with exact depth.

    Args:
        name: of the set.
        pairs: low-resolution input and exact depth of the result's size, metres.
        networks: by the names of their rows.
        scale: output over input size.
    """
    methods = {**usual_methods(scale), **networks}
    tallies = {method: TruthFigures() for method in [*usual_methods(scale), BEST_CHOICE, *networks]}
    for source, truth in pairs:
        results = {method: enlarge(source) for method, enlarge in methods.items()}
        results[BEST_CHOICE] = best_choice(source, truth)
        where = common(results, networks, truth)
        for method, result in results.items():
            tallies[method].add(result, source, truth, where, scale)
    head = {"set": name, "kind": "truth"}
    return [{**head, "method": m, "scale": scale, **tally.figures()} for m, tally in tallies.items()]


def decimated(depth_set: DepthSet, frames: int, scale: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decimated frames of a set of kind truth, and their exact depth."""
    for index in chosen(depth_set, frames):
        measured, truth = cut(depth_set.depth(index), scale), cut(depth_set.truth(index), scale)
        source = decimate(measured, scale)
        if enough(source):
            yield source, truth


def recorded_rows(
    depth_set: DepthSet, frames: int, networks: Mapping[str, Network], scale: int
) -> list[dict[str, Any]]:
    """Rows of a recorded set.

    Args:
        depth_set: of frames.
        frames: how many of them, at most.
        networks: by the names of their rows.
        scale: output over input size.
    """
    methods = {**usual_methods(scale), **{name: network.upsample for name, network in networks.items()}}
    restoring = {**methods, **{name: network.restore for name, network in networks.items()}}
    tallies = {method: RecordedFigures() for method in methods}
    for index in chosen(depth_set, frames):
        frame = depth_set.depth(index)
        recorded = cut(frame, scale)
        source = decimate(recorded, scale)
        if not (source.size and enough(frame)):
            continue
        results = {method: enlarge(source) for method, enlarge in restoring.items()}
        where = common(results, networks, recorded)
        following = depth_set.depth(index + 1) if index + 1 < len(depth_set.frames) else None
        planes = find_planes(frame)
        for method, enlarge in methods.items():
            tally = tallies[method]
            tally.add_restored(results[method], recorded, where & (results[method] > 0), scale)
            result = enlarge(frame)
            total, count = consistency(result, frame, scale)
            tally.apart.total += total
            tally.apart.count += count
            for plane in planes:
                tally.plane_squared.add(np.square(plane.distances(result, scale)))
                tally.input_plane_squared.add(np.square(plane.distances(frame, 1)))
            if following is not None:
                change = change_between(depth_set, index, frame, following, result, enlarge, scale)
                if change is not None:
                    tally.changes.append(change)
    rows = []
    reference = tallies["bilinear"].changes
    for method, tally in tallies.items():
        steadiness = None
        if sum(reference) > 0 and len(tally.changes) == len(reference):
            steadiness = round(sum(tally.changes) / sum(reference), 4)
        head = {"set": depth_set.name, "kind": "recorded", "method": method, "scale": scale}
        rows.append({**head, **tally.figures(), "steadiness_ratio": steadiness})
    return rows


def change_between(
    depth_set: DepthSet,
    index: int,
    frame: np.ndarray,
    following: np.ndarray,
    result: np.ndarray,
    enlarge: Enlarge,
    scale: int,
) -> float | None:
    """Spread of the difference between one result and the next, metres: by known poses, or on still parts.

    None where neither is known, or nothing is seen twice.
    """
    if frame.shape != following.shape:
        return None
    difference = np.empty(0)
    first, second = depth_set.pose(index), depth_set.pose(index + 1)
    camera: Intrinsics | None = depth_set.camera(index)
    if first is not None and second is not None and camera is not None:
        expected = warp(result, camera.scaled(scale), np.linalg.inv(second) @ first)
        next_result = enlarge(following)
        both = (expected > 0) & (next_result > 0)
        # What one view hides from the other is no change.
        both &= np.abs(expected - next_result) < np.maximum(0.1, 0.05 * next_result)
        difference = (next_result - expected)[both]
    elif depth_set.info.still:
        unchanged = (frame > 0) & (following > 0)
        unchanged &= np.abs(frame - following) <= np.maximum(STILL_METRES, STILL_SHARE * frame)
        still = ~near(~unchanged, 1)
        next_result = enlarge(following)
        mask = still.repeat(scale, axis=0).repeat(scale, axis=1) & (result > 0) & (next_result > 0)
        difference = (next_result - result)[mask]
    return spread(difference) if difference.size else None
