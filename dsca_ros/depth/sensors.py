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
from dsca_ros.depth.filters import blur, maximum, minimum, smooth_noise
from dsca_ros.depth.units import MM_PER_M


class Sensor(Protocol):
    """Anything that turns exact depth into measured depth."""

    def measure(self, depth: np.ndarray, camera: Intrinsics, rng: np.random.Generator) -> np.ndarray:
        """[H, W] float32 metres, exact, to [H, W] float32 metres, measured, 0 invalid."""
        ...


class RandomSensor(Sensor, Protocol):
    """A kind of camera of which there are many."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> Sensor:
        """One of them."""
        ...


@dataclass(frozen=True)
class StereoSensor:
    """Stereo, structured or coded light: what it measures is disparity.

    The noise is even in disparity, so it grows with depth squared; a matching window fattens near
    objects, frays their edges and correlates the noise; what only one of the two imagers sees is a hole.

    The default values are those of an Intel RealSense D4xx at 640x480: focal length 384 px, baseline
    50 mm, disparity in 1/32 px. Noise is what recorded surfaces show (docs/sensors.md). Lengths are in pixels of
    that focal length: in a frame of a smaller one, which the camera has shrunk, they are shorter.

    Attributes:
        noise_px: deviation of the disparity before it is rounded to ``step``, pixels.
        smooth_share: share of the noise's variance that is correlated over ``reach`` pixels.
        fattening: how much of an edge is grown by a pixel.
        fraying: deviation of an edge from where it is, pixels.
        smear: share of an edge which the camera's filters blend over ``smear_reach`` pixels to both sides.
        rim: pixels to both sides of an edge that are lost, in patches.
        dropout: share of the surfaces without texture, which are holes.
        outliers: share of pixels that are far off.
        grid: step of the driver's integers, metres.
    """

    focal_px: float = 384.0
    baseline: float = 0.05
    step: float = 1.0 / 32.0
    noise_px: float = 0.025
    smooth_share: float = 1.0
    reach: int = 2
    fattening: float = 0.35
    fraying: float = 0.3
    smear: float = 0.6
    smear_reach: int = 4
    rim: int = 1
    dropout: float = 0.02
    outliers: float = 0.0001
    min_depth: float = 0.2
    max_depth: float = 10.0
    grid: float = 1.0 / MM_PER_M

    @classmethod
    def kinect_v1(cls) -> StereoSensor:
        """Microsoft Kinect v1: focal length 575 px, baseline 75 mm, disparity in 1/8 px, edges unfiltered."""
        return cls(575.0, 0.075, 1 / 8, 0.04, 1.0, 1, 0.3, 0.3, 0.0, 1, 1, 0.02, 0.0, 0.5, 8.0)

    @classmethod
    def realsense_f200(cls) -> StereoSensor:
        """Intel RealSense F200: coded light from 0.2 to 1.2 m, in steps of 0.1 mm."""
        return cls(475.0, 0.05, 1 / 256, 0.04, 1.0, 2, 0.2, 0.3, 0.0, 1, 4, 0.15, 0.0, 0.15, 1.3, 1e-4)

    @classmethod
    def random(cls, rng: np.random.Generator) -> StereoSensor:
        """A stereo camera from the range that is sold: what a model for all of them trains on."""
        return cls(
            focal_px=float(rng.uniform(350, 700)),
            baseline=float(rng.uniform(0.045, 0.1)),
            step=float(rng.choice([1 / 8, 1 / 8, 1 / 16, 1 / 32, 1 / 32, 1 / 256])),
            noise_px=float(np.exp(rng.uniform(np.log(0.008), np.log(0.1)))),
            smooth_share=float(rng.uniform(0.4, 1.0)),
            reach=int(rng.integers(1, 4)),
            fattening=float(rng.uniform(0.0, 0.6)),
            fraying=float(rng.uniform(0.0, 0.9)),
            smear=float(max(0.0, rng.uniform(-0.6, 1.0))),
            smear_reach=int(rng.integers(1, 9)),
            rim=int(rng.integers(0, 5)),
            dropout=float(rng.choice([0.0, 0.02, 0.06, 0.15])),
            outliers=float(rng.choice([0.0, 0.0005, 0.002])),
            min_depth=0.1,
            max_depth=float(np.exp(rng.uniform(np.log(1.2), np.log(60.0)))),
            grid=float(rng.choice([1e-3, 1e-3, 1e-4])),
        )

    def measure(self, depth: np.ndarray, camera: Intrinsics, rng: np.random.Generator) -> np.ndarray:
        """See `Sensor.measure`."""
        height, width = depth.shape
        exact = camera.fx * self.baseline / depth  # in pixels of this image
        native = np.float32(self.focal_px / camera.fx)
        reach, smear_reach, rim = (self.length(length, camera) for length in (self.reach, self.smear_reach, self.rim))
        edge = maximum(exact) - minimum(exact) > 0.5 / native
        # The matching window locks on to an edge a fraction of a pixel off, in patches.
        columns = np.arange(width)[None, :] + np.rint(self.fraying * smooth_noise((height, width), 2, rng))
        rows = np.arange(height)[:, None] + np.rint(self.fraying * smooth_noise((height, width), 2, rng))
        rows = np.clip(rows, 0, height - 1).astype(np.int32)
        columns = np.clip(columns, 0, width - 1).astype(np.int32)
        disparity = np.where(edge, exact[rows, columns], exact)
        fat = smooth_noise((height, width), 3, rng) > _normal_quantile(1.0 - self.fattening)
        disparity = np.where(fat, maximum(disparity), disparity)
        if self.smear and smear_reach:
            smeared = smooth_noise((height, width), 8, rng) > _normal_quantile(1.0 - self.smear)
            disparity = np.where(smeared, blur(disparity, smear_reach), disparity)
        if self.outliers:
            astray = rng.random(depth.shape, np.float32) < self.outliers
            astray |= maximum(astray) & (rng.random(depth.shape, np.float32) < 0.3)  # alone, or a few together
            disparity = np.where(astray, disparity * rng.uniform(0.1, 2.5, depth.shape).astype(np.float32), disparity)

        noise = correlated_noise(depth.shape, self.smooth_share, reach, rng)
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
        if rim:
            valid &= ~(maximum(edge, rim) & (smooth_noise(depth.shape, 4, rng) > 0.4))
        valid &= smooth_noise(depth.shape, 8, rng) > _normal_quantile(self.dropout)
        return _on_grid(result, valid, self.grid)

    def length(self, native: int, camera: Intrinsics) -> int:
        """A length in the sensor's own pixels in those of a frame; no frame has more pixels than the sensor."""
        return int(native * min(camera.fx / self.focal_px, 1.0) + 0.5)

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
    3.9 m and what it gives nearer than that, noise as recorded surfaces show it (docs/sensors.md).

    Attributes:
        noise_base, noise_growth: deviation at depth z is ``noise_base + noise_growth * z ** 2``, metres.
        smooth_share: share of the noise's variance that is correlated over ``reach`` pixels.
        mixing: how often an edge pixel measures both sides.
        rim: pixels to both sides of an edge that are lost, in patches.
        dropout: share of dark surfaces, which are holes.
    """

    noise_base: float = 0.0005
    noise_growth: float = 0.00045
    smooth_share: float = 1.0
    reach: int = 2
    mixing: float = 0.1
    min_depth: float = 0.25
    max_depth: float = 3.9
    dropout: float = 0.005
    rim: int = 2

    @classmethod
    def random(cls, rng: np.random.Generator) -> TimeOfFlightSensor:
        """A time-of-flight camera from the range that is sold."""
        return cls(
            noise_base=float(np.exp(rng.uniform(np.log(0.0002), np.log(0.003)))),
            noise_growth=float(np.exp(rng.uniform(np.log(0.0001), np.log(0.002)))),
            smooth_share=float(rng.uniform(0.2, 1.0)),
            reach=int(rng.integers(1, 3)),
            mixing=float(rng.uniform(0.0, 0.6)),
            min_depth=0.1,
            max_depth=float(rng.uniform(3.5, 10.0)),
            dropout=float(rng.uniform(0.0, 0.03)),
            rim=int(rng.integers(0, 4)),
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
        result = result + sigma * correlated_noise(depth.shape, self.smooth_share, self.reach, rng)
        # Edge pixels whose phases disagree too much are dropped by the driver.
        valid = ~(edge & (smooth_noise(depth.shape, 1, rng) > 1.1))
        if self.rim:
            valid &= ~(maximum(edge, self.rim) & (smooth_noise(depth.shape, 4, rng) > 0.6))
        valid &= (result >= self.min_depth) & (result <= self.max_depth)
        valid &= smooth_noise(depth.shape, 6, rng) > _normal_quantile(self.dropout)
        return _on_grid(result, valid)


@dataclass(frozen=True)
class PhoneLidarSensor:
    """The dense depth a phone makes of few LiDAR points and its colour image: no hole, and every edge smeared.

    The default values are those of ARKit's 256x192 depth.

    Attributes:
        smear: pixels over which an edge is blended.
        wobble: deviation of slow waves on surfaces, share of depth.
        noise: deviation of fine noise, share of depth.
    """

    smear: int = 1
    wobble: float = 0.002
    noise: float = 0.0002
    min_depth: float = 0.1
    max_depth: float = 10.0

    @classmethod
    def random(cls, rng: np.random.Generator) -> PhoneLidarSensor:
        """A phone."""
        return cls(int(rng.integers(0, 3)), float(rng.uniform(0.0, 0.006)), float(rng.uniform(0.0001, 0.001)))

    def measure(self, depth: np.ndarray, camera: Intrinsics, rng: np.random.Generator) -> np.ndarray:
        """See `Sensor.measure`."""
        result = blur(depth, self.smear) if self.smear else depth
        fine = correlated_noise(depth.shape, 0.5, 1, rng)
        slow = smooth_noise(depth.shape, 12, rng)
        result = result * (1.0 + np.float32(self.wobble) * slow + np.float32(self.noise) * fine)
        return _on_grid(result, (result >= self.min_depth) & (result <= self.max_depth))


@dataclass(frozen=True)
class SimulatedKinectSensor:
    """Structured light as the noisy twins of rendered rooms have it: one point for every 2x2 pixels.

    After "Robust Reconstruction of Indoor Scenes" (2015): all four pixels of a block measure the upper left one of
    them, or what a jitter takes for it, each with noise of its own in the disparity, which is then rounded; and the
    whole camera is off by slow waves, as its calibration left them.

    Attributes:
        focal_baseline: focal length times baseline, px m.
        step: of the disparity, pixels.
        noise_px: deviation of the disparity before it is rounded, pixels.
        jitter: deviation of the point that is measured, pixels.
        waves_px: deviation of the slow waves, pixels.
    """

    focal_baseline: float = 35.13
    step: float = 1.0 / 8.0
    noise_px: float = 0.028
    jitter: float = 0.25
    waves_px: float = 0.1
    max_depth: float = 10.0

    @classmethod
    def random(cls, rng: np.random.Generator) -> SimulatedKinectSensor:
        """Such a camera, more or less noisy."""
        return cls(
            focal_baseline=float(rng.uniform(25.0, 45.0)),
            noise_px=float(np.exp(rng.uniform(np.log(0.015), np.log(0.06)))),
            jitter=float(rng.uniform(0.15, 0.35)),
            waves_px=float(rng.uniform(0.0, 0.15)),
        )

    def measure(self, depth: np.ndarray, camera: Intrinsics, rng: np.random.Generator) -> np.ndarray:
        """See `Sensor.measure`; the image begins with a whole block."""
        height, width = depth.shape
        jitter = np.rint(self.jitter * rng.standard_normal((2, height, width), np.float32)).astype(np.int32)
        rows = np.clip(np.arange(height)[:, None] + jitter[0], 0, height - 1) // 2 * 2
        columns = np.clip(np.arange(width)[None, :] + jitter[1], 0, width - 1) // 2 * 2
        measured = np.float32(self.focal_baseline) / depth[rows, columns]
        measured += np.float32(self.waves_px) * smooth_noise((height, width), 24, rng)
        measured += np.float32(self.noise_px) * rng.standard_normal((height, width), np.float32)
        measured = np.rint(measured / np.float32(self.step)) * np.float32(self.step)
        with np.errstate(divide="ignore"):
            result = np.float32(self.focal_baseline) / measured
        return _on_grid(result, (measured > 0) & (result <= self.max_depth))


@dataclass(frozen=True)
class IdealSensor:
    """No error but the millimetre grid: shows what is lost by resolution alone."""

    @classmethod
    def random(cls, rng: np.random.Generator) -> IdealSensor:
        """The only one."""
        return cls()

    def measure(self, depth: np.ndarray, camera: Intrinsics, rng: np.random.Generator) -> np.ndarray:
        """See `Sensor.measure`."""
        return _on_grid(depth, np.ones(depth.shape, bool))


SENSORS: dict[str, Sensor] = {
    "stereo": StereoSensor(),
    "kinect_v1": StereoSensor.kinect_v1(),
    "realsense_f200": StereoSensor.realsense_f200(),
    "tof": TimeOfFlightSensor(),
    "phone_lidar": PhoneLidarSensor(),
    "simulated_kinect": SimulatedKinectSensor(),
    "ideal": IdealSensor(),
}


def find_sensor(name: str) -> Sensor:
    """The model of that name in `SENSORS`.

    Raises:
        ValueError: naming what there is, if there is none.
    """
    if name not in SENSORS:
        raise ValueError(f"there is no sensor {name!r}; there are: {', '.join(SENSORS)}")
    return SENSORS[name]


def correlated_noise(shape: tuple[int, ...], smooth_share: float, reach: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit variance, of which ``smooth_share`` is correlated over about 2 * reach + 1 pixels; float32."""
    white = rng.standard_normal(shape, np.float32)
    smooth = smooth_noise((shape[0], shape[1]), reach, rng)
    return np.float32(np.sqrt(1.0 - smooth_share)) * white + np.float32(np.sqrt(smooth_share)) * smooth


def _on_grid(depth: np.ndarray, valid: np.ndarray, grid: float = 1.0 / MM_PER_M) -> np.ndarray:
    """Rounded to the driver's integers, 0 where invalid."""
    steps = round(1.0 / grid)
    rounded = np.rint(np.where(valid, depth, 0.0) * steps) / steps
    return rounded.astype(np.float32)


def _normal_quantile(share: float) -> float:
    """The value a standard normal stays under with probability ``share``."""
    if 0.0 < share < 1.0:
        return NormalDist().inv_cdf(share)
    return np.inf if share >= 1.0 else -np.inf
