"""From an engine's name to an engine, and what this machine has of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from dsca_ros.engine.base import Engine, EngineError
from dsca_ros.engine.zoo import DEPTH, ModelFile, find_model


def _onnxruntime(model: ModelFile, threads: int) -> Engine:
    from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(model, threads)


def _torch(model: ModelFile, threads: int) -> Engine:
    from dsca_ros.engine.torch import TorchEngine

    return TorchEngine(model, threads)


def _onnxruntime_missing() -> str | None:
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"{error}; remedy: pip install onnxruntime"
    return None


def _torch_missing() -> str | None:
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    return f"no {missing[0]} here; remedy: pip install 'dsca_ros[train]'" if missing else None


@dataclass(frozen=True)
class EngineKind:
    """One way to run a graph."""

    name: str
    create: Callable[[ModelFile, int], Engine]
    #: None where it can run here, else why not and the remedy.
    missing: Callable[[], str | None]
    packages: tuple[str, ...]

    def version(self) -> str | None:
        """Version of the first of its packages that is installed."""
        for package in self.packages:
            try:
                return metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
        return None


#: In the order in which ``auto`` tries them.
ENGINES = (
    EngineKind("onnxruntime", _onnxruntime, _onnxruntime_missing, ("onnxruntime",)),
    EngineKind("torch", _torch, _torch_missing, ("torch",)),
)
ENGINE_NAMES = ("auto", *(kind.name for kind in ENGINES))


def create_engine(
    engine: str, model: str, scale: int, precision: str = "fp32", threads: int = 0, domain: str | None = DEPTH
) -> Engine:
    """Starts an engine.

    Args:
        engine: one of `ENGINE_NAMES`; ``auto`` is the first one this machine can run.
        model, scale, precision: see `find_model`.
        threads: threads of one inference on a CPU; 0 takes the number of cores.
        domain: what the caller's images are; None takes a model of any domain.

    Raises:
        EngineError: if the name is unknown, no such model exists, it is for other images, or the
            engine cannot run here.
    """
    if engine not in ENGINE_NAMES:
        raise EngineError(f"there is no engine {engine!r}; there are: {', '.join(ENGINE_NAMES)}")
    file = find_model(model, scale, precision)
    if domain is not None and file.domain != domain:
        raise EngineError(f"{model} takes {file.domain} and not {domain}: `dsca info` lists what each model takes")
    reasons = []
    for kind in ENGINES:
        if engine in ("auto", kind.name):
            reason = kind.missing()
            if reason is None:
                return kind.create(file, threads)
            reasons.append(f"{kind.name}: {reason}")
    raise EngineError("no engine can run here; " + "; ".join(reasons))
