"""A network against the usual ways to enlarge depth, where the exact depth is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dsca_ros.depth import units
from dsca_ros.depth.metrics import ErrorSum
from dsca_ros.depth.resample import METHODS
from dsca_ros.depth.synthetic import SyntheticStream


@dataclass(frozen=True)
class Sample:
    """One frame: measured, super-resolved, exact; float32 metres, 0 invalid."""

    measured: np.ndarray
    result: np.ndarray
    truth: np.ndarray

    @property
    def scale(self) -> int:
        """Output size over input size."""
        return self.result.shape[0] // self.measured.shape[0]


def with_truth(pairs: Iterable[tuple[np.ndarray, np.ndarray]], stream: SyntheticStream) -> list[Sample]:
    """Finds which frame of the stream each measured image is, and its exact depth.

    Args:
        pairs: (measured, result) as received, metres.
        stream: the stream they come from.

    Raises:
        LookupError: if an image is not one of the stream's.
    """
    waiting = {units.to_millimetres(measured).tobytes(): result for measured, result in pairs}
    samples = []
    for index in range(stream.frames):
        if not waiting:
            break
        measured = stream.measured(index)
        result = waiting.pop(units.to_millimetres(measured).tobytes(), None)
        if result is not None:
            scale = result.shape[0] // measured.shape[0]
            samples.append(Sample(measured, result, stream.truth(index, scale)))
    if waiting:
        raise LookupError(f"{len(waiting)} received frames are not the synthetic camera's")
    return samples


def compare(samples: Iterable[Sample], name: str = "dsca") -> dict[str, dict[str, float]]:
    """Figures of every method: ``{method: {rmse_mm, mae_mm, flying_pct, valid_pct}}``.

    RMSE and MAE are over the pixels valid in every method, flying pixels over each one's own.
    """
    sums = {method: ErrorSum() for method in (*METHODS, name)}
    for sample in samples:
        results = {method: enlarge(sample.measured, sample.scale) for method, enlarge in METHODS.items()}
        results[name] = sample.result
        common = np.logical_and.reduce([result > 0 for result in results.values()])
        for method, result in results.items():
            sums[method].add(result, sample.truth, sample.scale, common)
    return {method: total.figures() for method, total in sums.items()}
