"""Whether an engine in half precision gives what float32 gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.synthetic import DEFAULT_FOV, SyntheticStream
from dsca_ros.depth.units import like, to_metres
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine
from dsca_ros.engine.zoo import ModelFile, find_model

#: What a pixel may differ by, metres and share of depth, and how many may differ by more.
METRES, SHARE, BEYOND = 0.001, 0.001, 0.001
#: Sensors whose frames are compared.
SENSORS = ("stereo", "tof")
DEPTH_RANGE = (0.1, 10.0)


@dataclass(frozen=True)
class Accuracy:
    """How far results are from the reference.

    Attributes:
        beyond: share of pixels that differ by more than max(1 mm, 0.1 %), or in validity.
        worst_mm: the 99.9th percentile of the difference of pixels valid in both, mm.
        finite: whether every value is finite.
    """

    beyond: float
    worst_mm: float
    finite: bool

    @property
    def holds(self) -> bool:
        """Whether it may stand in for the reference."""
        return self.finite and self.beyond <= BEYOND

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> Accuracy:
        """From `plain`."""
        return cls(**values)

    def __str__(self) -> str:
        if not self.finite:
            return "some of its results are not finite"
        return f"{100 * self.beyond:.2f} % of pixels differ by more than 1 mm and 0.1 %"


def compare(results: list[np.ndarray], references: list[np.ndarray]) -> Accuracy:
    """Results against references, each [H, W] uint16 millimetres or float32 metres."""
    beyond, differences, finite = [], [], True
    for result, reference in zip(results, references):
        finite &= bool(np.isfinite(result).all())
        mine, exact = to_metres(result), to_metres(reference)
        both = (mine > 0) & (exact > 0)
        # Where both are rounded to millimetres, one of them, which metres do not hold exactly.
        allowed = np.maximum(METRES * (1.001 if result.dtype == np.uint16 else 1.0), SHARE * exact)
        difference = np.abs(mine - exact)
        beyond.append(((mine > 0) != (exact > 0)) | (both & (difference > allowed)))
        differences.append(difference[both])
    every = np.concatenate(differences)
    worst = float(np.percentile(every, 99.9)) if every.size else 0.0
    return Accuracy(float(np.concatenate([b.ravel() for b in beyond]).mean()), 1e3 * worst, finite)


def built_in_frames(shape: tuple[int, int], dtype: np.dtype) -> list[np.ndarray]:
    """A frame of each of `SENSORS` in the default synthetic room, of a height and width and dtype."""
    height, width = shape
    camera = Intrinsics.from_fov(width, height, DEFAULT_FOV)
    return [like(SyntheticStream(camera, sensor, 1).measured(0), dtype) for sensor in SENSORS]


def measure_accuracy(
    infer: Callable[[np.ndarray, tuple[float, float]], np.ndarray],
    model: ModelFile,
    shape: tuple[int, int],
    dtype: np.dtype,
) -> Accuracy:
    """An engine against ONNX Runtime in float32 on the CPU, on built-in frames.

    Args:
        infer: the engine's.
        model: what it runs.
        shape: height and width of its images.
        dtype: of its images.
    """
    reference = OnnxRuntimeEngine(find_model(model.model, model.scale, "fp32"), whole=True)
    frames = built_in_frames(shape, dtype)
    results = [infer(frame, DEPTH_RANGE).copy() for frame in frames]
    return compare(results, [reference.infer(frame, DEPTH_RANGE) for frame in frames])
