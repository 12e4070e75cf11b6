"""Pinhole geometry. Pixel centres are integers: ``X = (u - cx) * Z / fx``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dsca_ros.depth.units import is_valid, to_metres_or_nan, valid_to_metres

#: Rows of an image that are worked on at once.
ROWS = 32
#: numpy picks by a mask run by run, by indices pixel by pixel: the former is faster for runs longer than this.
LONG_RUN = 16


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: image size in pixels, focal lengths and principal point in pixels."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_fov(cls, width: int, height: int, horizontal_deg: float) -> Intrinsics:
        """Square pixels, principal point in the middle, the given horizontal field of view."""
        focal = 0.5 * width / np.tan(np.radians(horizontal_deg) / 2.0)
        return cls(width, height, float(focal), float(focal), (width - 1) / 2.0, (height - 1) / 2.0)

    def scaled(self, scale: int) -> Intrinsics:
        """The same camera with ``scale`` times the pixels per side.

        A pixel covers half a pixel to each side of its centre, so the principal point moves by
        the half pixel: ``cx' = scale * (cx + 0.5) - 0.5``.
        """
        return replace(
            self,
            width=self.width * scale,
            height=self.height * scale,
            fx=self.fx * scale,
            fy=self.fy * scale,
            cx=scale_principal_point(self.cx, scale),
            cy=scale_principal_point(self.cy, scale),
        )

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """``(x [W], y [H])`` float32: the point at depth Z of pixel (u, v) is Z * (x[u], y[v], 1)."""
        x = (np.arange(self.width, dtype=np.float64) - self.cx) / self.fx
        y = (np.arange(self.height, dtype=np.float64) - self.cy) / self.fy
        return x.astype(np.float32), y.astype(np.float32)

    def back_project(self, depth: np.ndarray, out: np.ndarray | None = None, stride: int = 1) -> np.ndarray:
        """Organised points of a depth image.

        Args:
            depth: [H, W], ``uint16`` millimetres or ``float32`` metres.
            out: [h, w, 3] float32 to fill, when the caller keeps a buffer.
            stride: of the points, every so many per axis.

        Returns:
            [h, w, 3] float32 metres in the optical frame (x right, y down, z forward);
            NaN where invalid.

        Raises:
            ValueError: if the image is not of this camera's size.
        """
        self._check_size(depth)
        depth = depth[::stride, ::stride]
        points = np.empty((*depth.shape, 3), np.float32) if out is None else out
        x, y = (ray[::stride] for ray in self.rays())
        # A few rows at a time, which stay in the processor's cache between the steps.
        for top in range(0, len(depth), ROWS):
            rows = slice(top, top + ROWS)
            z, block = to_metres_or_nan(depth[rows]), points[rows]
            block[..., 2] = z
            np.multiply(z, x, out=block[..., 0])
            np.multiply(z, y[rows, None], out=block[..., 1])
        return points

    def back_project_valid(self, depth: np.ndarray, stride: int, room: Callable[[int], np.ndarray]) -> np.ndarray:
        """The points of the valid pixels alone, in the order of the image.

        Args:
            depth: [H, W], ``uint16`` millimetres or ``float32`` metres.
            stride: of the points, every so many per axis.
            room: gives [n, 3] float32 to fill, for a number of points.

        Returns:
            What ``room`` gave: [n, 3] float32 metres in the optical frame.

        Raises:
            ValueError: if the image is not of this camera's size.
        """
        self._check_size(depth)
        depth = depth[::stride, ::stride]
        valid = is_valid(depth)
        points = room(int(np.count_nonzero(valid)))
        x, y = (ray[::stride] for ray in self.rays())
        columns = np.tile(x, ROWS)
        end = 0
        for top in range(0, len(depth), ROWS):
            rows = slice(top, top + ROWS)
            mask = valid[rows].ravel()
            counts = np.count_nonzero(valid[rows], axis=1)
            begin, end = end, end + int(counts.sum())
            long_runs = np.count_nonzero(mask[1:] != mask[:-1]) * LONG_RUN < mask.size
            pick = mask if long_runs else np.flatnonzero(mask)
            z, block = valid_to_metres(depth[rows].ravel()[pick]), points[begin:end]
            block[:, 2] = z
            np.multiply(z, columns[: mask.size][pick], out=block[:, 0])
            np.multiply(z, np.repeat(y[rows], counts), out=block[:, 1])
        return points

    def _check_size(self, depth: np.ndarray) -> None:
        if depth.shape != (self.height, self.width):
            size = f"{depth.shape[1]}x{depth.shape[0]}"
            raise ValueError(f"depth is {size}, intrinsics are for {self.width}x{self.height}")


def scale_principal_point(c: float, scale: float) -> float:
    """A pixel coordinate of the small image in the one ``scale`` times larger (half-pixel rule)."""
    return scale * (c + 0.5) - 0.5
