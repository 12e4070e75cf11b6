"""Engines ahead of time: for the GPU of this machine, or for another one's that need not be here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsca_ros.engine import tensorrt_build as trt
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.engine_cache import EngineCache
from dsca_ros.engine.gpu import GpuError, find_driver
from dsca_ros.engine.plans import Plan, usable_flavour
from dsca_ros.engine.zoo import find_model


@dataclass(frozen=True)
class AheadRequest:
    """Every model at every scale, size and precision, for every target.

    Attributes:
        models, scales, precisions: see `find_model`.
        sizes: width and height of the camera's image.
        targets: architectures such as ``sm89``, or ``current``.
        dtype: of the camera's image: ``uint16`` or ``float32``.
        workspace: bytes that a build may use.
    """

    models: list[str]
    scales: list[int]
    sizes: list[tuple[int, int]]
    precisions: list[str]
    targets: list[str]
    dtype: np.dtype
    workspace: int = trt.WORKSPACE

    def plans(self) -> list[Plan]:
        """The engines asked for.

        Raises:
            EngineError: if there is no such model, or no engine can be built for a target.
        """
        return [
            Plan(find_model(model, scale, precision), (height, width), self.dtype, *destination)
            for destination in [self._destination(target) for target in self.targets]
            for model in self.models
            for scale in self.scales
            for precision in self.precisions
            for width, height in self.sizes
        ]

    @staticmethod
    def _destination(target: str) -> tuple[Any, ...]:
        if target != trt.CURRENT:
            return trt.flavour_for(target), target
        try:
            driver = find_driver()
        except GpuError as error:
            raise EngineError(f"{error}; or name the GPU it is for: --target sm89") from None
        return usable_flavour(driver), driver.gpus[0].target, driver.gpus[0]


def build_ahead(
    request: AheadRequest, cache: EngineCache, starting: Callable[[Plan], trt.Progress | None]
) -> Iterator[dict[str, Any]]:
    """Builds what is not in the cache, one after the other, and tells of each.

    Args:
        request: what to build.
        cache: where to.
        starting: called before each; what it gives is told of the progress.

    Yields:
        ``model, scale, size, precision, dtype, target, flavour, version, seconds, bytes, built, path``; ``path`` is
        None where the engine could not be written.
    """
    for plan in request.plans():
        engine, built = plan.get(cache, starting(plan), request.workspace)
        path = cache.path(plan.key)
        if built and not path.is_file():
            raise EngineError(f"cannot write to {cache.folder}; remedy: set XDG_CACHE_HOME to a folder that can be")
        yield {
            **row(vars(plan.key)),
            "seconds": engine.facts["seconds"],
            "bytes": path.stat().st_size,
            "built": built,
            "path": str(path),
        }


def row(key: dict[str, Any]) -> dict[str, Any]:
    """What people want to know of an engine's key."""
    names = ("model", "scale", "precision", "dtype", "target", "gpu", "flavour", "version")
    return {**{name: key[name] for name in names}, "size": f"{key['width']}x{key['height']}"}


def stored_engines(cache: EngineCache) -> list[dict[str, Any]]:
    """Every engine in a cache as `build_ahead` tells of it; a damaged one has a path alone."""
    rows = []
    for path, about in cache.each():
        told = {"path": str(path), "bytes": path.stat().st_size}
        if about is not None:
            told = {**row(about["key"]), "seconds": about["facts"].get("seconds"), **told}
        rows.append(told)
    return rows
