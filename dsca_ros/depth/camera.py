"""Pinhole geometry. Pixel centres are integers: ``X = (u - cx) * Z / fx``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dsca_ros.depth.units import is_valid, to_metres_or_nan, valid_to_metres

_Pick = Callable[..., list[np.ndarray]]
#: Rows of an image that are worked on at once: few enough to stay in the processor's cache between the steps.
ROWS = 32
#: numpy picks by a mask run by run, by indices pixel by pixel: the former is faster for runs about longer than this.
LONG_RUN = 32


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
            out: [h, w, 3] float32 to fill, contiguous, when the caller keeps a buffer.
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
        block = _Block(depth, *(ray[::stride] for ray in self.rays()))
        for top in range(0, len(depth), ROWS):
            rows = slice(top, top + ROWS)
            block.project(rows, points[rows].reshape(-1, 3), to_metres_or_nan)
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
        # Of each row; OpenCV adds up 15 times as fast as numpy counts along an axis.
        counts = cv2.reduce(valid.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
        points = room(int(counts.sum()))
        block = _Block(depth, *(ray[::stride] for ray in self.rays()))
        pick = _pick_runs if _has_long_runs(valid) else _pick_pixels
        end = 0
        for top in range(0, len(depth), ROWS):
            rows = slice(top, top + ROWS)
            begin, end = end, end + int(counts[rows].sum())
            if begin < end:
                block.project_valid(rows, valid[rows], counts[rows], points[begin:end], pick)
        return points

    def _check_size(self, depth: np.ndarray) -> None:
        if depth.shape != (self.height, self.width):
            size = f"{depth.shape[1]}x{depth.shape[0]}"
            raise ValueError(f"depth is {size}, intrinsics are for {self.width}x{self.height}")


class _Block:
    """Back-projects some rows of an image at a time, x, y and z each by itself, which OpenCV interleaves."""

    def __init__(self, depth: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
        self._depth, self._x, self._y = depth, np.tile(x, (ROWS, 1)), y
        self._planes = np.empty((3, self._x.size), np.float32)

    def project(self, rows: slice, out: np.ndarray, to_metres: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        """Every point of these rows, into [rows * W, 3]."""
        _interleave(self._project(rows, to_metres), out)

    def project_valid(self, rows: slice, valid: np.ndarray, counts: np.ndarray, out: np.ndarray, pick: _Pick) -> None:
        """The points of these rows whose pixels are valid, into [n, 3]: as many of each row as ``counts`` says."""
        if len(out) == valid.size:
            self.project(rows, out, valid_to_metres)
            return
        depth, columns = pick(valid, self._depth[rows].ravel(), self._x[: len(valid)].ravel())
        planes = self._planes[:, None, : len(out)]
        x, y, z = planes[:, 0]
        valid_to_metres(depth, z)
        np.multiply(columns, z, out=x)
        np.multiply(np.repeat(self._y[rows], counts), z, out=y)
        _interleave(planes, out)

    def _project(self, rows: slice, to_metres: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """[3, 1, rows * W]: x, y and z of every pixel."""
        depth = self._depth[rows]
        planes = self._planes[:, : depth.size]
        x, y, z = planes.reshape(3, *depth.shape)
        to_metres(depth, z)
        np.multiply(z, self._x[: len(depth)], out=x)
        np.multiply(z, self._y[rows, None], out=y)
        return planes[:, None]


def _interleave(planes: np.ndarray, out: np.ndarray) -> None:
    """[3, 1, n] into [n, 3]; the first few apart: from a cache line on OpenCV writes past the cache, faster."""
    # As many as fill a line of 64 bytes, at 12 bytes each: 3 * 11 is 1 modulo its 16 floats.
    head = -out.ctypes.data // 4 * 11 % 16
    for part in (slice(head), slice(head, None)):
        if len(out[part]):
            cv2.merge(list(planes[:, :, part]), out[None, part])


def _has_long_runs(valid: np.ndarray) -> bool:
    """Whether valid pixels lie side by side, judged by every sixteenth row."""
    some = valid[::16]
    return bool(np.count_nonzero(some[:, 1:] != some[:, :-1]) * LONG_RUN < some.size)


def _pick_runs(valid: np.ndarray, *images: np.ndarray) -> list[np.ndarray]:
    """What is valid of each image, which is flat."""
    mask = valid.ravel()
    return [image[mask] for image in images]


def _pick_pixels(valid: np.ndarray, *images: np.ndarray) -> list[np.ndarray]:
    """As `_pick_runs`; faster where the valid pixels are scattered."""
    pixels = np.flatnonzero(valid)
    # Clipping changes nothing, and is faster than to check.
    return [image.take(pixels, mode="clip") for image in images]


def scale_principal_point(c: float, scale: float) -> float:
    """A pixel coordinate of the small image in the one ``scale`` times larger (half-pixel rule)."""
    return scale * (c + 0.5) - 0.5
