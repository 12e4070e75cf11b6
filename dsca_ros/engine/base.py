"""What every engine offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import numpy as np

Key = TypeVar("Key")
Value = TypeVar("Value")

#: Sizes of images an engine stays ready for: a camera that changes its profile back finds all as it was.
KEPT_SIZES = 2


class EngineError(RuntimeError):
    """An engine that cannot start or run; the text says what to do."""


class ModelFileError(EngineError):
    """A model's file that is missing or damaged: no other engine would be right."""


class EngineNotReady(EngineError):
    """An engine that is still being built; the text says how far it is."""


class Kept(Generic[Key, Value]):
    """What an engine makes for each size: the last used `KEPT_SIZES` stay.

    Args:
        end: called with what has to go.
    """

    def __init__(self, end: Callable[[Value], object] = lambda value: None) -> None:
        self._end = end
        self._values: dict[Key, Value] = {}  # the newest last

    def get(self, key: Key, make: Callable[[Key], Value]) -> Value:
        """What was made for a size; ``make`` makes it, if it is not there."""
        if key in self._values:
            self._values[key] = self._values.pop(key)
        else:
            while len(self._values) >= KEPT_SIZES:
                self._end(self._values.pop(next(iter(self._values))))
            self._values[key] = make(key)
        return self._values[key]

    def clear(self) -> None:
        """Ends all."""
        while self._values:
            self._end(self._values.popitem()[1])


class Engine(Protocol):
    """A depth image in, a larger one out. One thread uses it at a time."""

    scale: int

    @property
    def description(self) -> str:
        """What runs, for people: "ONNX Runtime 1.23 (CPU, 2 threads)"."""
        ...

    @property
    def device(self) -> str:
        """What it runs on: ``CPU``, or the GPU's name."""
        ...

    @property
    def precision(self) -> str:
        """Arithmetic of the network: ``fp32`` or ``fp16``."""
        ...

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        """Super-resolves one image.

        Args:
            depth: [H, W] ``uint16`` millimetres or ``float32`` metres, the camera's own array. 0, and
                non-finite values, are invalid. It is only read. For a model whose domain is levels:
                ``uint8``, or ``float32`` of 0-255, and no pixel is invalid.
            depth_range: nearest and farthest depth taken as valid, metres; levels have none.

        Returns:
            [scale * H, scale * W] of the same dtype and unit. It may be the engine's own memory (``base`` is not
            None then), which the next call writes over.

        Raises:
            EngineError: if it fails.
            EngineNotReady: if it cannot yet.
        """
        ...

    def close(self) -> None:
        """Frees what the engine holds; it cannot be used after that."""
        ...


class SlowEngine(Engine, Protocol):
    """An engine that takes long before the first image of a size: it is built, loaded and warmed up."""

    def prepare(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        """Gets ready for images of a height and width and dtype; seconds to minutes.

        Raises:
            EngineError: if it cannot.
        """
        ...

    def stop_preparing(self) -> None:
        """Ends a `prepare` that runs in another thread soon; it raises there."""
        ...

    @property
    def progress(self) -> str:
        """How far `prepare` is, for people."""
        ...
