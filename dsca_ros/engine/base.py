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
                non-finite values, are invalid. It is only read. For a model whose domain is levels:
                ``uint8``, or ``float32`` of 0-255, and no pixel is invalid.
            depth_range: nearest and farthest depth taken as valid, metres; levels have none.

        Returns:
            [scale * H, scale * W] of the same dtype and unit.
        """
        ...

    def close(self) -> None:
        """Frees what the engine holds; it cannot be used after that."""
        ...
