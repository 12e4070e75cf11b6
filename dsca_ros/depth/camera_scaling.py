"""The numbers of a camera_info, and those of an image that is larger; no ROS types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsca_ros.depth.camera import Intrinsics, scale_principal_point
from dsca_ros.depth.image_layout import BadMessage

#: Focal lengths of a real camera are larger, pixels, and nothing else in a camera_info is as large: with these bounds
#: every point computed from it is finite.
LEAST_FOCAL, LARGEST_VALUE = 1e-3, 1e9
#: Of the rotation's nine numbers and the distortion's, of which no model has more than 14.
MOST_OTHERS = 64


@dataclass(frozen=True)
class CameraNumbers:
    """What of a camera_info depends on the image's size.

    Attributes:
        size: (width, height) of the whole sensor, pixels.
        k: [9] float64, the camera matrix by rows.
        p: [12] float64, the projection matrix by rows.
        offset: (x, y) of the region of interest, pixels of the sensor.
        region: (width, height) of the region of interest, 0 where it is the whole sensor.
        binning: (x, y) sensor pixels a pixel of the image; 0 counts as 1.
    """

    size: tuple[int, int]
    k: np.ndarray
    p: np.ndarray
    offset: tuple[int, int] = (0, 0)
    region: tuple[int, int] = (0, 0)
    binning: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, info: Any) -> CameraNumbers:
        """Those of a camera_info, whichever library read it."""
        roi = info.roi
        return cls(
            (info.width, info.height),
            np.array(info.k, np.float64),
            np.array(info.p, np.float64),
            (roi.x_offset, roi.y_offset),
            (roi.width, roi.height),
            (info.binning_x, info.binning_y),
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) of the image these go with: the sensor's region of interest, binned."""
        width, height = self.region[0] or self.size[0], self.region[1] or self.size[1]
        return width // max(1, self.binning[0]), height // max(1, self.binning[1])

    @property
    def is_calibrated(self) -> bool:
        """Whether K holds focal lengths; drivers send zeros where there is no calibration."""
        fx, cx, fy, cy = (float(self.k[i]) for i in (0, 2, 4, 5))
        return fx > 0 and fy > 0 and all(math.isfinite(v) for v in (fx, fy, cx, cy))

    def check_size(self, width: int, height: int) -> None:
        """Holds them to the size of the image they go with.

        Raises:
            BadMessage: if they describe another image.
        """
        described = self.image_size
        if described != (width, height):
            raise BadMessage(
                "camera_info_size",
                f"camera_info is for {described[0]}x{described[1]}, the image is {width}x{height}; "
                "is it of the same stream and profile?",
            )

    def check_plausible(self, others: Sequence[float] = ()) -> None:
        """Holds them, and others that do not depend on the size, to what a camera can be.

        Raises:
            BadMessage: if they are none of a camera.
        """
        focal_lengths = (self.k[0], self.k[4]), (self.p[0], self.p[5])
        # Without a calibration both are 0. A comparison with NaN is false.
        plausible = all((fx == 0 and fy == 0) or min(fx, fy) >= LEAST_FOCAL for fx, fy in focal_lengths)
        if len(others) > MOST_OTHERS or not all(abs(v) <= LARGEST_VALUE for v in (*self.k, *self.p, *others)):
            plausible = False
        if not plausible:
            raise BadMessage(
                "camera_info_values",
                "camera_info holds numbers that no camera has: NaN, infinite or absurd, or too many of them",
            )

    def scaled(self, scale: int) -> CameraNumbers:
        """Those of an image ``scale`` times larger per side, binning and region of interest folded in."""
        binning_x, binning_y = max(1, self.binning[0]), max(1, self.binning[1])
        width, height = self.image_size
        k, p = np.array(self.k, np.float64), np.array(self.p, np.float64)

        def per_axis(f: float, c: float, offset: int, binning: int) -> tuple[float, float]:
            # Full-sensor pixels to those of the cropped, binned image, then to the larger one.
            c = (c - offset + 0.5) / binning - 0.5
            return f / binning * scale, scale_principal_point(c, scale)

        if self.is_calibrated:
            k[0], k[2] = per_axis(k[0], k[2], self.offset[0], binning_x)
            k[4], k[5] = per_axis(k[4], k[5], self.offset[1], binning_y)
            k[1] *= scale / binning_x
        if p[0] > 0 and p[5] > 0:
            p[0], p[2] = per_axis(p[0], p[2], self.offset[0], binning_x)
            p[5], p[6] = per_axis(p[5], p[6], self.offset[1], binning_y)
            p[1] *= scale / binning_x
            p[3] *= scale / binning_x
            p[7] *= scale / binning_y
        return CameraNumbers((width * scale, height * scale), k, p)

    def intrinsics(self) -> Intrinsics:
        """The pinhole camera, where binning and region are none.

        Depth images are rectified, so P speaks for them; K does where a driver leaves P empty.
        """
        k, p = self.k, self.p
        fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if p[0] > 0 and p[5] > 0 else (k[0], k[4], k[2], k[5])
        return Intrinsics(*self.size, fx, fy, cx, cy)
