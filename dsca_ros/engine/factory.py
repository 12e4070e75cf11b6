"""From an engine's name to an engine, and what this machine has of them."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dsca_ros.engine.base import Engine, EngineError, ModelFileError, SlowEngine
from dsca_ros.engine.gpu import GpuError, find_driver
from dsca_ros.engine.starting import StartingEngine
from dsca_ros.engine.tensorrt_build import FLAVOURS
from dsca_ros.engine.zoo import DEPTH, PRECISIONS, ModelFile, find_model

log = logging.getLogger(__name__)

#: ``auto`` is half precision on a GPU and float32 on a CPU.
PRECISION_NAMES = ("auto", *PRECISIONS)


def _tensorrt(model: ModelFile, threads: int) -> SlowEngine:
    from dsca_ros.engine.tensorrt import TensorRTEngine

    return TensorRTEngine(model)


def _onnxruntime(model: ModelFile, threads: int) -> Engine:
    from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, threads)


def _onnxruntime_cuda(model: ModelFile, threads: int) -> Engine:
    from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, threads, cuda=True)


def _openvino(model: ModelFile, threads: int) -> Engine:
    from dsca_ros.engine.openvino import OpenVinoEngine

    return OpenVinoEngine(model, threads)


def _torch(model: ModelFile, threads: int) -> Engine:
    from dsca_ros.engine.torch import TorchEngine

    return TorchEngine(model, threads)


def _tensorrt_missing() -> str | None:
    try:
        driver = find_driver()
        missing = [name for name in ("pycuda", "onnx") if importlib.util.find_spec(name) is None]
        if missing:
            return f"no {missing[0]} here; remedy: pip install {missing[0]}"
        from dsca_ros.engine.plans import usable_flavour

        usable_flavour(driver)
    except EngineError as error:
        return str(error)
    return None


def _onnxruntime_missing() -> str | None:
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"{error}; remedy: pip install onnxruntime"
    return None


def _onnxruntime_cuda_missing() -> str | None:
    try:
        find_driver()
    except GpuError as error:
        return str(error)
    reason = _onnxruntime_missing()
    if reason is None:
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "this onnxruntime is for CPUs; remedy: pip install onnxruntime-gpu in its place"
    return reason


def _openvino_missing() -> str | None:
    return None if importlib.util.find_spec("openvino") else "no openvino here; remedy: pip install openvino"


def _torch_missing() -> str | None:
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    return f"no {missing[0]} here; remedy: pip install 'dsca_ros[train]'" if missing else None


@dataclass(frozen=True)
class EngineKind:
    """One way to run a graph.

    Attributes:
        name: what users call it.
        create: makes one; of a model and CPU threads.
        missing: None where it can run here, else why not and the remedy.
        packages: that it may come from.
        precision: what ``auto`` precision means for it.
        slow: whether it is a `SlowEngine`.
    """

    name: str
    create: Callable[[ModelFile, int], Engine]
    missing: Callable[[], str | None]
    packages: tuple[str, ...]
    precision: str = "fp32"
    slow: bool = False

    def version(self) -> str | None:
        """Version of the first of its packages that is installed."""
        for package in self.packages:
            try:
                return metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        return None


_TENSORRT_PACKAGES = tuple(f"{name}{cuda}" for name in FLAVOURS for cuda in ("", "_cu13", "_cu12"))
#: In the order in which ``auto`` tries them.
ENGINES = (
    EngineKind("tensorrt", _tensorrt, _tensorrt_missing, _TENSORRT_PACKAGES, "fp16", slow=True),
    EngineKind("onnxruntime-cuda", _onnxruntime_cuda, _onnxruntime_cuda_missing, ("onnxruntime-gpu",), "fp16"),
    EngineKind("openvino", _openvino, _openvino_missing, ("openvino",)),
    EngineKind("onnxruntime", _onnxruntime, _onnxruntime_missing, ("onnxruntime", "onnxruntime-gpu")),
    EngineKind("torch", _torch, _torch_missing, ("torch",)),
)
ENGINE_NAMES = ("auto", *(kind.name for kind in ENGINES))


def create_engine(
    engine: str,
    model: str,
    scale: int,
    precision: str = "auto",
    threads: int = 0,
    domain: str | None = DEPTH,
    background: bool = False,
    warm_start: bool = True,
    folder: Path | None = None,
) -> Engine:
    """Starts an engine.

    Args:
        engine: one of `ENGINE_NAMES`; ``auto`` is the first one this machine can run.
        model, scale: see `find_model`.
        precision: one of `PRECISION_NAMES`.
        threads: threads of one inference on a CPU; 0 takes the number of cores.
        domain: what the caller's images are; None takes a model of any domain.
        background: an engine that takes long to start does so in a thread of its own; see `StartingEngine`.
        warm_start: meanwhile, OpenVINO or ONNX Runtime runs on the CPU; else there is no result.
        folder: of the models; None is `models_folder`.

    Raises:
        EngineError: if the name is unknown, no such model exists, it is for other images, or the
            engine cannot run here.
    """
    if threads < 0:
        raise EngineError(f"threads is {threads}; 0 takes the number of cores")
    files, usable = _choose(engine, model, scale, precision, domain, folder)
    for kind in usable:
        try:
            if kind.slow and background:
                return _in_background(kind, files[kind.name], threads, warm_start)
            return kind.create(files[kind.name], threads)
        except EngineError as error:
            if kind is usable[-1] or isinstance(error, ModelFileError):
                raise
            log.warning("%s cannot start (%s): the next engine is tried", kind.name, error)
    raise AssertionError("unreachable")


def check_engine(engine: str, model: str, scale: int, precision: str, domain: str | None = DEPTH) -> None:
    """Whether `create_engine` would find a model and an engine, without starting any.

    Raises:
        EngineError: as it would.
    """
    _choose(engine, model, scale, precision, domain)


def _choose(
    engine: str, model: str, scale: int, precision: str, domain: str | None, folder: Path | None = None
) -> tuple[dict[str, ModelFile], list[EngineKind]]:
    """The engines to try, at least one, the best first, and the file each of them would run."""
    if engine not in ENGINE_NAMES:
        raise EngineError(f"there is no engine {engine!r}; there are: {', '.join(ENGINE_NAMES)}")
    if precision not in PRECISION_NAMES:
        raise EngineError(f"there is no precision {precision!r}; there are: {', '.join(PRECISION_NAMES)}")
    wanted = [kind for kind in ENGINES if engine in ("auto", kind.name)]
    reasons = {kind.name: kind.missing() for kind in wanted}
    usable = [kind for kind in wanted if reasons[kind.name] is None]
    # A model that does not exist is told before that nothing could run it.
    files = {
        k.name: find_model(model, scale, k.precision if precision == "auto" else precision, folder) for k in usable
    }
    for file in list(files.values()) or [find_model(model, scale, folder=folder)]:
        if domain is not None and file.domain != domain:
            raise EngineError(f"{model} takes {file.domain} and not {domain}: `dsca info` lists what each model takes")
    if not usable:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise EngineError(f"no engine can run here; {told}")
    return files, usable


def _in_background(kind: EngineKind, file: ModelFile, threads: int, warm_start: bool) -> Engine:
    def slow() -> SlowEngine:
        made = kind.create(file, threads)
        assert hasattr(made, "prepare")
        return made  # type: ignore[return-value]

    single = find_model(file.model, file.scale, "fp32", file.path.parent)
    # The better of those that ask for nothing but a CPU.
    standby = _onnxruntime if _openvino_missing() else _openvino
    return StartingEngine(slow, (lambda: standby(single, threads)) if warm_start else None, file.scale)
