"""From an exported graph to a TensorRT engine: one code path for TensorRT 10 and 11 and for TensorRT-RTX.

TensorRT-RTX has the same API under another name, and builds for a GPU that need not be there.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from dsca_ros.engine.base import EngineError

#: Modules of the API's flavours, and their names for people; in the order in which they are preferred.
FLAVOURS = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
RTX = "tensorrt_rtx"
#: The GPU of this machine, as a target.
CURRENT = "current"
#: TensorRT-RTX has no float32 matrix product for GPUs of this architecture.
TURING = "sm75"
#: What a build may use for its tactics, bytes.
WORKSPACE = 1 << 30
#: Told of a build: what it does, and how much of that is done, 0 to 1. An answer of False ends the build.
Progress = Callable[[str, float], bool]


class BuildCancelled(EngineError):
    """The progress callback ended a build."""


@dataclass(frozen=True)
class Flavour:
    """One TensorRT that is installed; ``api`` is its module."""

    name: str
    version: str
    api: Any

    @property
    def label(self) -> str:
        """For people: ``TensorRT-RTX 1.7.1``."""
        return f"{FLAVOURS[self.name]} {self.version}"

    @property
    def targets(self) -> tuple[str, ...]:
        """Architectures it builds for without such a GPU; none for plain TensorRT."""
        known = getattr(self.api, "ComputeCapability", None) if self.name == RTX else None
        names = known.__members__ if known is not None else ()
        return tuple(name.lower() for name in names if re.fullmatch(r"SM\d+", name))

    @property
    def cuda_major(self) -> int | None:
        """The CUDA its libraries are built with, where its package tells: a driver must be as new."""
        for cuda in (13, 12, 11):
            for package in (f"{self.name}_cu{cuda}_libs", f"{self.name}_cu{cuda}"):
                try:
                    metadata.version(package)
                except metadata.PackageNotFoundError:
                    continue
                return cuda
        return None


def installed() -> list[str]:
    """The flavours that are installed, the preferred one first, without loading any."""
    return [name for name in FLAVOURS if importlib.util.find_spec(name) is not None]


def load_flavour(name: str) -> Flavour:
    """Loads a flavour's library.

    Raises:
        EngineError: if it is not installed or cannot be loaded.
    """
    try:
        api = importlib.import_module(name)
        version = api.__version__
    except Exception as error:  # OSError, RuntimeError or ImportError, by what is missing; a folder has no version
        text = " ".join(str(error).split())
        raise EngineError(
            f"{FLAVOURS[name]} cannot be loaded ({text}); remedy: pip install 'dsca_ros[tensorrt]', or on a Jetson "
            "JetPack's python3-libnvinfer"
        ) from None
    return Flavour(name, version, api)


def flavour_for(target: str) -> Flavour:
    """The flavour that builds for an architecture which is not this machine's.

    Raises:
        EngineError: if none can.
    """
    if RTX not in installed():
        raise EngineError(
            f"building for {target} without such a GPU needs TensorRT-RTX; remedy: pip install tensorrt-rtx-cu13"
        )
    flavour = load_flavour(RTX)
    if target not in flavour.targets:
        raise EngineError(f"{flavour.label} does not build for {target}; it does for: {', '.join(flavour.targets)}")
    return flavour


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        graph: the ONNX file's bytes.
        shapes: of the inputs whose size is not fixed in the graph, by name.
        target: architecture such as ``sm89``, or `CURRENT`.
        half: whether the graph computes in half precision; if not, float32 means float32, and no TF32.
        workspace: bytes that the build may use for its tactics.
    """

    graph: bytes
    shapes: dict[str, tuple[int, ...]]
    target: str = CURRENT
    half: bool = False
    workspace: int = WORKSPACE


@dataclass(frozen=True)
class Built:
    """A serialised engine, what it took, and the timing cache after it (empty where the flavour has none)."""

    plan: bytes
    seconds: float
    timing_cache: bytes


def build(
    flavour: Flavour, request: BuildRequest, progress: Progress | None = None, timing_cache: bytes = b""
) -> Built:
    """Builds an engine; seconds to minutes.

    Args:
        flavour: what to build with.
        request: what to build.
        progress: told how far it is.
        timing_cache: of an earlier build on the same GPU, which makes this one faster.

    Raises:
        EngineError: with TensorRT's own words, if it cannot.
        BuildCancelled: if ``progress`` says so.
    """
    started, api = time.monotonic(), flavour.api
    log = make_log(api)
    try:
        builder = api.Builder(log)
    except TypeError:  # the binding's way to say that there is none
        raise EngineError(f"{flavour.label} cannot start: {log.said()}") from None
    strong = getattr(api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # TensorRT 11 has nothing else
    network = builder.create_network(0 if strong is None else 1 << int(strong))
    parser = api.OnnxParser(network, log)
    if not parser.parse(request.graph):
        said = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise EngineError(f"{flavour.label} cannot read the graph: {said or log.said()}")
    if flavour.name == RTX and request.target == TURING:
        halve_products(api, network)

    config = builder.create_builder_config()
    config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, request.workspace)
    if not request.half:
        config.clear_flag(api.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for name, shape in request.shapes.items():
        profile.set_shape(name, shape, shape, shape)
    config.add_optimization_profile(profile)
    if request.target != CURRENT:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(api.ComputeCapability, request.target.upper()), 0)
    timings = config.create_timing_cache(timing_cache) if flavour.name != RTX else None
    if timings is not None:
        config.set_timing_cache(timings, ignore_mismatch=False)
    monitor = make_monitor(api, progress) if progress is not None else None
    if monitor is not None:
        config.progress_monitor = monitor

    plan = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.cancelled:
        raise BuildCancelled("the build was ended before it was done")
    if plan is None:
        raise EngineError(f"{flavour.label} cannot build this: {log.said()}")
    after = bytes(config.get_timing_cache().serialize()) if timings is not None else b""
    return Built(bytes(plan), time.monotonic() - started, after)


def halve_products(api: Any, network: Any) -> None:
    """Computes float32 matrix products in half precision, which is what TensorRT-RTX has on Turing.

    The graphs multiply nothing but rows of length 1 and what the attention makes of their products: nothing is far
    from 1. See `network.blocks.correlation`.
    """
    products = [
        layer
        for layer in (network.get_layer(index) for index in range(network.num_layers))
        if layer.type == api.LayerType.MATRIX_MULTIPLY and layer.get_input(0).dtype == api.float32
    ]
    for layer in products:
        result = layer.get_output(0)
        readers = _readers(network, result.name)
        for index in range(2):
            layer.set_input(index, network.add_cast(layer.get_input(index), api.float16).get_output(0))
        single = network.add_cast(result, api.float32).get_output(0)
        for reader, index in readers:
            reader.set_input(index, single)


def _readers(network: Any, name: str) -> list[tuple[Any, int]]:
    """Layers that read a tensor, each with the index of the input they read it by."""
    found = []
    for position in range(network.num_layers):
        layer = network.get_layer(position)
        for index in range(layer.num_inputs):
            tensor = layer.get_input(index)
            if tensor is not None and tensor.name == name:
                found.append((layer, index))
    return found


def make_log(api: Any) -> Any:
    """A TensorRT logger that keeps what went wrong, to tell it in one line, and is silent otherwise."""

    class Log(api.ILogger):
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.Severity.ERROR, api.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def said(self) -> str:
            return "; ".join(self.errors[-2:]) or "it does not say why"

    return Log()


def make_monitor(api: Any, progress: Progress) -> Any:
    """A TensorRT progress monitor that reports the outermost phase. TensorRT calls it from threads of its own."""

    class Monitor(api.IProgressMonitor):
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._lock = threading.Lock()
            self._outer: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                with self._lock:
                    self._outer[phase_name] = max(num_steps, 1)
                self._tell(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            steps = self._outer.get(phase_name)
            if steps is not None:
                self._tell(phase_name, (step + 1) / steps)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._outer.pop(phase_name, None)

        def _tell(self, phase_name: str, share: float) -> None:
            if not progress(phase_name, min(share, 1.0)):
                self.cancelled = True

    return Monitor()
