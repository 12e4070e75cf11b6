"""Which TensorRT engine a model needs for an image, and where it comes from: the cache, or a build."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsca_ros.engine import tensorrt_build as trt
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.engine_cache import EngineCache, EngineKey, StoredEngine, write_readable
from dsca_ros.engine.gpu import Driver, Gpu
from dsca_ros.engine.millimetres import BYTES_IN, take_millimetres
from dsca_ros.engine.zoo import DEPTH, ModelFile

log = logging.getLogger(__name__)

#: What is said of a build while another process does it.
WAITING = "waiting for another process that builds it"


@dataclass(frozen=True)
class Plan:
    """An engine to be had.

    Attributes:
        model: the graph.
        shape: height and width of the input.
        dtype: of the caller's images.
        flavour: what builds and runs it.
        target: GPU architecture.
        gpu: the GPU of this machine it is for; None when it is built for another machine.
    """

    model: ModelFile
    shape: tuple[int, int]
    dtype: np.dtype
    flavour: trt.Flavour
    target: str
    gpu: Gpu | None = None

    @property
    def in_millimetres(self) -> bool:
        """Whether the camera's integers go in as they are."""
        return self.model.domain == DEPTH and self.dtype == np.uint16

    @property
    def key(self) -> EngineKey:
        """What the engine is found by."""
        # TensorRT-RTX decides on the machine itself how to run: one engine serves every GPU of an architecture.
        gpu = self.gpu.name if self.gpu is not None and self.flavour.name != trt.RTX else ""
        dtype = "uint16" if self.in_millimetres else "float32"
        height, width = self.shape
        file = self.model
        return EngineKey(
            *(file.model, file.scale, file.precision, file.sha256, dtype, width, height, self.target, gpu),
            *(self.flavour.name, self.flavour.version),
        )

    def request(self, workspace: int = trt.WORKSPACE) -> trt.BuildRequest:
        """How it is built.

        Raises:
            EngineError: if the model's file is missing or damaged.
        """
        graph = self.model.read()
        if self.in_millimetres:
            graph = take_millimetres(graph)
            shapes: dict[str, tuple[int, ...]] = {BYTES_IN: (1, *self.shape, 2)}
        else:
            shapes = {"depth" if self.model.domain == DEPTH else "levels": (1, 1, *self.shape)}
        ahead = self.target in self.flavour.targets
        target = self.target if ahead else trt.CURRENT
        return trt.BuildRequest(graph, shapes, target, self.model.precision != "fp32", workspace)

    def get(
        self, cache: EngineCache, progress: trt.Progress | None = None, workspace: int = trt.WORKSPACE
    ) -> tuple[StoredEngine, bool]:
        """The engine, from the cache or built, and whether it was built.

        Raises:
            EngineError: if it cannot be built.
        """
        key = self.key

        def make() -> StoredEngine:
            timings = cache.timing_cache(key)
            known = _read(timings)
            built = trt.build(self.flavour, self.request(workspace), progress, known)
            if built.timing_cache:
                _keep(timings, built.timing_cache)
            return StoredEngine(built.plan, {"seconds": round(built.seconds, 2)})

        def waiting() -> bool:
            return progress is None or progress(WAITING, 0.0)

        return cache.get(key, make, waiting)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # none yet, or another user's


def _keep(path: Path, timings: bytes) -> None:
    """Timings only save time: that they cannot be kept is no error."""
    try:
        write_readable(path, timings)
    except OSError as error:
        log.debug("cannot keep %s: %s", path, error)


def usable_flavour(driver: Driver, names: Iterable[str] | None = None) -> trt.Flavour:
    """The TensorRT that can run on this machine's first GPU.

    Raises:
        EngineError: saying of each flavour why not, and the remedy.
    """
    names = list(trt.installed() if names is None else names)
    if not names:
        raise EngineError("no TensorRT is installed; remedy: pip install 'dsca_ros[tensorrt]'; on a Jetson, JetPack")
    gpu, reasons = driver.gpus[0], []
    for name in names:
        try:
            flavour = trt.load_flavour(name)
        except EngineError as error:
            reasons.append(str(error))
            continue
        reason = unusable(flavour, driver.cuda, gpu)
        if reason is None:
            return flavour
        reasons.append(reason)
    raise EngineError("; ".join(reasons))


def unusable(flavour: trt.Flavour, cuda: tuple[int, int], gpu: Gpu) -> str | None:
    """Why a flavour cannot run on a GPU under a driver, and the remedy; None if nothing speaks against it."""
    if gpu.capability < (7, 5):
        return f"{gpu.name} ({gpu.target}) is older than TensorRT supports (sm75); remedy: engine: onnxruntime"
    needed = flavour.cuda_major
    if needed is not None and cuda[0] < needed:
        return (
            f"{flavour.label} needs a driver for CUDA {needed}, and this one is for CUDA {cuda[0]}.{cuda[1]}; "
            f"remedy: a newer driver, or pip install the package for CUDA {cuda[0]}"
        )
    return None
