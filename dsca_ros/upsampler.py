"""The one way to larger depth: a depth image in, a depth image out."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from dsca_ros.depth import holes, units
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.factory import create_engine
from dsca_ros.engine.starting import RUNNING

DEFAULT_MODEL = "dsca-nano"
DEFAULT_SCALE = 2
#: Nearest and farthest depth taken as valid, metres: what indoor cameras measure, and not their
#: stray values (65.535 m is 65535 mm, the "no reading" of several drivers).
DEFAULT_RANGE = (0.1, 10.0)


class Upsampler:
    """Depth super-resolution with one model on one engine.

    Example:
        >>> upsampler = Upsampler(scale=2)
        >>> larger = upsampler(depth)  # [H, W] uint16 mm or float32 m, to [2H, 2W] of the same

    Args:
        model: name of a model, such as ``dsca-nano``.
        scale: 2, 4 or 8, where the model has it.
        engine: ``auto`` takes the fastest engine this machine can run.
        precision: ``fp32``, ``fp16``, or ``auto``: fp16 on a GPU, fp32 on a CPU.
        threads: threads of one inference on a CPU; 0 takes the number of cores.
        depth_range: nearest and farthest depth taken as valid, metres; may be set at any time.
        fill_holes: holes of up to so many pixels are filled before, infinity fills all; may be set at any time.
        background: an engine that takes long to start does not hold up anybody: see `state`. A call then raises
            EngineNotReady where there is nothing to run meanwhile.
        warm_start: with ``background``, an engine for CPUs runs meanwhile.
        share_memory: results may lie in the engine's own memory, which the next call writes over.
        folder: of the models and their manifest; None takes those that ship, or $DSCA_MODELS.

    Raises:
        EngineError: if the model or the engine does not exist or cannot run here.
        ValueError: for a range that is none.
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        scale: int = DEFAULT_SCALE,
        engine: str = "auto",
        precision: str = "auto",
        threads: int = 0,
        depth_range: tuple[float, float] = DEFAULT_RANGE,
        fill_holes: float = 0.0,
        background: bool = False,
        warm_start: bool = True,
        share_memory: bool = False,
        folder: Path | str | None = None,
    ) -> None:
        self.model = model
        self.scale = scale
        self.depth_range = depth_range
        self.fill_holes = fill_holes
        self._share_memory = share_memory
        self._closed = False
        where = None if folder is None else Path(folder)
        self._engine = create_engine(
            engine, model, scale, precision, threads, background=background, warm_start=warm_start, folder=where
        )

    @property
    def depth_range(self) -> tuple[float, float]:
        """Nearest and farthest depth taken as valid, metres."""
        return self._depth_range

    @depth_range.setter
    def depth_range(self, value: tuple[float, float]) -> None:
        if not 0 <= value[0] < value[1]:  # nor is NaN a bound
            raise ValueError(f"depth_range is {value!r}; it must be a nearest and a farther depth, in metres")
        self._depth_range = value

    @property
    def engine(self) -> str:
        """What runs, for people."""
        return self._engine.description

    @property
    def device(self) -> str:
        """What it runs on: ``CPU``, or the GPU's name."""
        return self._engine.device

    @property
    def precision(self) -> str:
        """Arithmetic of the network: ``fp32`` or ``fp16``."""
        return self._engine.precision

    @property
    def state(self) -> str:
        """``RUNNING``; with ``background`` also ``BUILDING`` or ``FAILED``, and `note` says more."""
        return getattr(self._engine, "state", RUNNING)

    @property
    def note(self) -> str:
        """How far a start in the background is, or what failed in it; empty when all is well."""
        return getattr(self._engine, "note", "")

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        """Super-resolves one image.

        Args:
            depth: [H, W] ``uint16`` millimetres or ``float32`` metres; 0 and non-finite are invalid.

        Returns:
            [scale * H, scale * W] of the same dtype and unit, 0 invalid. Every valid value lies
            within the range of the valid input pixels within two pixels, but for what ``fill_holes`` filled.

        Raises:
            TypeError, ValueError: for an array of another kind or shape.
            EngineError: if the engine fails, or is closed.
        """
        if self._closed:
            raise EngineError("this upsampler is closed")
        if not isinstance(depth, np.ndarray):
            raise TypeError(f"depth must be a numpy array, not {type(depth).__name__}")
        if self.fill_holes > 0:
            valid = units.in_range(depth, self.depth_range)
            filled = holes.fill_holes(depth, valid, self.fill_holes)
            return holes.keep_filled(self._engine.infer(filled, self.depth_range), filled, valid)
        result = self._engine.infer(depth, self.depth_range)
        return result if self._share_memory or result.base is None else result.copy()

    def close(self) -> None:
        """Frees the engine; there are no results after that."""
        self._closed = True
        self._engine.close()

    def __enter__(self) -> Upsampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
