"""How true depth is, against exact depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: A point is flying if it is farther from every true surface around it than the larger of these.
FLYING_METRES = 0.02
FLYING_SHARE = 0.01


@dataclass
class ErrorSum:
    """Errors over many frames of one method; add frames, then read the figures."""

    squared: float = 0.0
    absolute: float = 0.0
    compared: int = 0
    flying: int = 0
    valid: int = 0
    pixels: int = 0

    def add(self, result: np.ndarray, truth: np.ndarray, scale: int, where: np.ndarray | None = None) -> None:
        """Adds one frame.

        Args:
            result: [H, W] float32 metres, 0 invalid.
            truth: [H, W] float32 metres, exact everywhere.
            scale: output over input size; one input pixel is ``scale`` output pixels.
            where: [H, W] bool, the pixels whose error counts: those valid in every method compared.
        """
        valid = result > 0
        compared = valid if where is None else valid & where
        error = np.where(compared, result - truth, 0.0).astype(np.float64)
        self.squared += float((error * error).sum())
        self.absolute += float(np.abs(error).sum())
        self.compared += int(compared.sum())
        self.flying += int(flying(result, truth, scale).sum())
        self.valid += int(valid.sum())
        self.pixels += valid.size

    @property
    def rmse_mm(self) -> float:
        """Root mean square error, mm."""
        return 1e3 * float(np.sqrt(self.squared / max(self.compared, 1)))

    @property
    def mae_mm(self) -> float:
        """Mean absolute error, mm."""
        return 1e3 * self.absolute / max(self.compared, 1)

    @property
    def flying_pct(self) -> float:
        """Flying pixels among the valid ones, per cent."""
        return 100.0 * self.flying / max(self.valid, 1)

    @property
    def valid_pct(self) -> float:
        """Valid pixels, per cent."""
        return 100.0 * self.valid / max(self.pixels, 1)

    def figures(self) -> dict[str, float]:
        """The figures by name, rounded for reports."""
        return {key: round(getattr(self, key), 4) for key in ("rmse_mm", "mae_mm", "flying_pct", "valid_pct")}


def flying(result: np.ndarray, truth: np.ndarray, radius: int) -> np.ndarray:
    """[H, W] bool: valid points of ``result`` on no surface.

    A point flies if its depth differs by more than max(2 cm, 1 %) from the exact depth of every
    pixel within ``radius`` (one input pixel, in output pixels) along both axes.
    """
    tolerance = np.maximum(np.float32(FLYING_METRES), np.float32(FLYING_SHARE) * result)
    suspects = np.flatnonzero((result > 0) & (np.abs(result - truth) > tolerance))
    padded = np.pad(truth, radius, mode="edge")
    rows, columns = np.unravel_index(suspects, result.shape)
    value, allowed = result.ravel()[suspects], tolerance.ravel()[suspects]
    apart = np.ones(suspects.shape, bool)
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            apart &= np.abs(value - padded[rows + dy, columns + dx]) > allowed
    mask = np.zeros(result.size, bool)
    mask[suspects] = apart
    return mask.reshape(result.shape)
