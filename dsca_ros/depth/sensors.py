"""What a depth camera makes of exact depth: noise, holes and smeared edges.

Each model takes the exact depth of its own pixel grid and gives what a driver would publish:
metres on a millimetre grid, 0 invalid. Parameters are in native units of the technology, so a
model holds at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.filters import maximum, minimum, smooth_noise
from dsca_ros.depth.units import MM_PER_M


class Sensor(Protocol):
    """Anything that turns exact depth into measured depth."""

    def measure(self, depth: np.ndarray, camera: Intrinsics, rng: np.random.Generator) -> np.ndarray:
        """[H, W] float32 metres, exact, to [H, W] float32 metres, measured, 0 invalid."""
        ...


@dataclass(frozen=True)
class StereoSensor:
    """Stereo or structured light: what it measures is disparity.

    The noise is even in disparity, so it grows with depth squared; a matching window fattens near
    objects and frays their edges; what only one of the two imagers sees is a hole.

    The default values are those of an Intel RealSense D435 in its 848x480 mode: focal length 425 px,
    baseline 50 mm, disparity in 1/32 px, noise of about 0.08 px on textured indoor surfaces.
    """

    focal_px: float = 425.0
    baseline: float = 0.05
    step: float = 1.0 / 32.0
    noise_px: float = 0.08
    fattening: float = 0.35
    fraying: float = 0.5
    dropout: float = 0.02
    min_depth: float = 0.2
    max_depth: float = 10.0

    @classmethod
    def kinect_v1(cls) -> StereoSensor:
        """Microsoft Kinect v1: focal length 580 px, baseline 75 mm, disparity in 1/8 px."""
        return cls(580.0, 0.075, 1.0 / 8.0, 0.06, 0.3, 0.6, 0.02, 0.5, 8.0)

    @classmethod
    def random(cls, rng: np.random.Generator) -> StereoSensor:
        """A stereo camera from the range that is sold: what a model for all of them trains on."""
        return cls(
            focal_px=float(rng.uniform(350, 700)),
            baseline=float(rng.uniform(0.045, 0.1)),
            step=float(rng.choice([1 / 8, 1 / 16, 1 / 32, 1 / 64])),
            noise_px=float(rng.uniform(0.02, 0.13)),
            fattening=float(rng.uniform(0.0, 0.6)),
            fraying=float(rng.uniform(0.1, 0.9)),
            dropout=float(rng.uniform(0.0, 0.06)),
        )

    def measure(self, depth: np.ndarray, camera: Intrinsics, rng: np.random.Generator) -> np.ndarray:
        """See `Sensor.measure`."""
        height, width = depth.shape
        exact = camera.fx * self.baseline / depth  # in pixels of this image
        disparity = exact
        # The matching window locks on to an edge a fraction of a pixel off, in patches.
        columns = np.arange(width)[None, :] + np.rint(self.fraying * smooth_noise((height, width), 2, rng))
        rows = np.arange(height)[:, None] + np.rint(self.fraying * smooth_noise((height, width), 2, rng))
        rows = np.clip(rows, 0, height - 1).astype(np.int32)
        columns = np.clip(columns, 0, width - 1).astype(np.int32)
        disparity = disparity[rows, columns]
        fat = smooth_noise((height, width), 3, rng) > 1.0 - 2.0 * self.fattening
        disparity = np.where(fat, maximum(disparity), disparity)

        # The noise of a window matcher is correlated over the window.
        native = np.float32(self.focal_px / camera.fx)
        noise = 0.6 * rng.standard_normal(depth.shape, np.float32) + 0.8 * smooth_noise(depth.shape, 1, rng)
        measured = disparity * native + np.float32(self.noise_px) * noise
        measured = np.rint(measured * np.float32(1.0 / self.step)) * np.float32(self.step)
        with np.errstate(divide="ignore"):
            result = np.float32(self.focal_px * self.baseline) / measured

        valid = (measured > 0) & (result >= self.min_depth) & (result <= self.max_depth)
        valid &= ~self._occluded(exact)
        # Steep steps confuse the matcher, and so do patches without texture.
        step = maximum(disparity) - minimum(disparity)
        confusion = smooth_noise(depth.shape, 1, rng) + np.minimum(step * native, 2.0) * 0.4
        valid &= confusion < 2.6
        valid &= smooth_noise(depth.shape, 8, rng) > _normal_quantile(self.dropout)
        return _millimetre_grid(result, valid)

    @staticmethod
    def _occluded(disparity: np.ndarray) -> np.ndarray:
        """Where a surface further right hides the point from the second imager, or it is outside."""
        seen_at = np.arange(disparity.shape[1], dtype=np.float32)[None, :] - disparity
        nearest = np.minimum.accumulate(seen_at[:, ::-1], axis=1)[:, ::-1]
        hidden = np.zeros(disparity.shape, bool)
        hidden[:, :-1] = nearest[:, 1:] < seen_at[:, :-1] - 0.25
        return hidden | (seen_at < -0.5)


@dataclass(frozen=True)
class TimeOfFlightSensor:
    """Time of flight: what it measures is distance, and a pixel on an edge measures both sides.

    Noise grows with distance as the returned light fades; edge pixels mix near and far into depth
    where nothing is; beyond the range there is no return.

    The default values are those of a Microsoft Azure Kinect in its NFOV unbinned mode: range 0.5 to
    3.9 m, noise about 1 mm at 1 m and under 17 mm at the far end.
    """

    noise_base: float = 0.001
    noise_growth: float = 0.0009
    mixing: float = 0.6
    min_depth: float = 0.4
    max_depth: float = 3.9
    dropout: float = 0.005

    @classmethod
    def random(cls, rng: np.random.Generator) -> TimeOfFlightSensor:
        """A time-of-flight camera from the range that is sold."""
        return cls(
            noise_base=float(rng.uniform(0.0005, 0.004)),
            noise_growth=float(rng.uniform(0.0003, 0.002)),
            mixing=float(rng.uniform(0.2, 0.9)),
            min_depth=0.2,
            max_depth=float(rng.uniform(3.5, 8.0)),
            dropout=float(rng.uniform(0.0, 0.03)),
        )

    def measure(self, depth: np.ndarray, camera: Intrinsics, rng: np.random.Generator) -> np.ndarray:
        """See `Sensor.measure`."""
        near, far = minimum(depth), maximum(depth)
        step = far - near
        edge = step > np.maximum(0.05, 0.04 * near)
        share = rng.random(depth.shape, np.float32)
        mixed = edge & (rng.random(depth.shape, np.float32) < self.mixing * 0.6)
        # Half of the mixed pixels lean hard to one side, as sub-pixel coverage does.
        share = np.where(rng.random(depth.shape, np.float32) < 0.5, share, np.rint(share) * 0.9 + 0.05)
        result = np.where(mixed, near + share * step, depth)
        sigma = self.noise_base + self.noise_growth * result * result
        result = result + sigma * rng.standard_normal(depth.shape, np.float32)
        # Edge pixels whose phases disagree too much are dropped by the driver.
        valid = ~(edge & (smooth_noise(depth.shape, 1, rng) > 1.1))
        valid &= (result >= self.min_depth) & (result <= self.max_depth)
        valid &= smooth_noise(depth.shape, 6, rng) > _normal_quantile(self.dropout)
        return _millimetre_grid(result, valid)


@dataclass(frozen=True)
class IdealSensor:
    """No error but the millimetre grid: shows what is lost by resolution alone."""

    def measure(self, depth: np.ndarray, camera: Intrinsics, rng: np.random.Generator) -> np.ndarray:
        """See `Sensor.measure`."""
        return _millimetre_grid(depth, np.ones(depth.shape, bool))


SENSORS: dict[str, Sensor] = {
    "stereo": StereoSensor(),
    "kinect_v1": StereoSensor.kinect_v1(),
    "tof": TimeOfFlightSensor(),
    "ideal": IdealSensor(),
}


def _millimetre_grid(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    rounded = np.rint(np.where(valid, depth, 0.0) * MM_PER_M) / MM_PER_M
    return rounded.astype(np.float32)


def _normal_quantile(share: float) -> float:
    """The value a standard normal stays under with probability ``share``."""
    return NormalDist().inv_cdf(share) if share > 0.0 else -np.inf
