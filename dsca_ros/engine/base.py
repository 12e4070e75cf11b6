"""What every engine offers."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class EngineError(RuntimeError):
    """An engine that cannot start or run; the text says what to do."""


class Engine(Protocol):
    """A depth image in, a larger one out. One thread uses it at a time."""

    #: What runs, for people: "ONNX Runtime 1.23 (CPU, 2 threads)".
    description: str
    #: What it runs on: ``CPU``, or the GPU's name.
    device: str
    scale: int

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        """Super-resolves one image.

        Args:
            depth: [H, W] ``uint16`` millimetres or ``float32`` metres, the camera's own array. 0, and
                non-finite values, are invalid. It is only read.
            depth_range: nearest and farthest depth taken as valid, metres.

        Returns:
            [scale * H, scale * W] of the same dtype and unit, 0 invalid.
        """
        ...

    def close(self) -> None:
        """Frees what the engine holds; it cannot be used after that."""
        ...
