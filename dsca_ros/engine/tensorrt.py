"""TensorRT on an NVIDIA GPU, with pycuda.

One thread owns the GPU's primary context and does all CUDA work; whoever calls waits for it. Per frame nothing is
allocated: the image is copied to page-locked memory, and from there one CUDA graph takes it up, runs the engine and
brings the result down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dsca_ros.depth.units import FARTHEST_UINT16
from dsca_ros.engine import tensorrt_build as trt
from dsca_ros.engine.accuracy import Accuracy, measure_accuracy
from dsca_ros.engine.arrays import graph_inputs, like_input
from dsca_ros.engine.base import EngineError, Kept
from dsca_ros.engine.cuda_graph import CudaGraph
from dsca_ros.engine.engine_cache import EngineCache, StoredEngine, write_readable
from dsca_ros.engine.gpu import find_driver
from dsca_ros.engine.plans import Plan, usable_flavour
from dsca_ros.engine.zoo import DEPTH, ModelFile, find_model

log = logging.getLogger(__name__)

#: Runs before an engine counts as warm.
WARM_UP_RUNS = 3

T = TypeVar("T")


class TensorRTEngine:
    """See `Engine` and `SlowEngine`.

    Args:
        model: the exported graph to run.
        cache: where built engines are kept.

    Raises:
        EngineError: if this machine has no GPU that TensorRT runs on, or lacks TensorRT or pycuda.
    """

    def __init__(self, model: ModelFile, cache: EngineCache | None = None) -> None:
        self.scale, self.precision = model.scale, model.precision
        self._model = model
        self._cache = cache or EngineCache()
        driver = find_driver()
        self._gpu = driver.gpus[0]
        self.device = self._gpu.name
        self._flavour = usable_flavour(driver)
        self.description = f"{self._flavour.label} ({self._gpu.name}, {model.precision})"
        self._note, self._stop, self._closed = "starting", False, False
        self._sessions: Kept[tuple[tuple[int, int], np.dtype], Session] = Kept(Session.close)
        self._context: Any = None
        self._thread = ThreadPoolExecutor(1, "dsca_cuda")
        try:
            self._run(self._open)
        except BaseException:
            self._thread.shutdown()
            raise

    @property
    def progress(self) -> str:
        """See `SlowEngine.progress`."""
        return self._note

    def prepare(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        """See `SlowEngine.prepare`."""
        self._stop = False
        self._run(lambda: self._session(shape, np.dtype(dtype)))

    def stop_preparing(self) -> None:
        """See `SlowEngine.stop_preparing`."""
        self._stop = True

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        """See `Engine.infer`."""
        return self._run(lambda: self._session(depth.shape, depth.dtype).infer(depth, depth_range))

    def time_parts(self, shape: tuple[int, int], dtype: np.dtype, runs: int) -> dict[str, float]:
        """Median milliseconds of a frame's way up, through the engine, and down, by the GPU's own clock."""
        return self._run(lambda: self._session(shape, np.dtype(dtype)).time_parts(runs))

    def close(self) -> None:
        """See `Engine.close`."""
        self._stop = True
        if not self._closed:
            self._closed = True
            self._thread.submit(self._shut).result()
            self._thread.shutdown()

    # --- in the CUDA thread ---------------------------------------------------------------------

    def _run(self, work: Callable[[], T]) -> T:
        try:
            return self._thread.submit(self._guarded, work).result()
        except RuntimeError as error:
            if isinstance(error, EngineError):
                raise
            raise EngineError("this engine is closed") from error  # what the pool says after its shutdown

    def _guarded(self, work: Callable[[], T]) -> T:
        """CUDA's own errors as ours: they leave this thread's context in doubt, so it is given up."""
        try:
            return work()
        except EngineError:
            raise
        except Exception as error:
            self._shut()
            text = " ".join(str(error).split())
            raise EngineError(f"the GPU failed ({type(error).__name__}: {text}); {self._memory_note(error)}") from error

    def _open(self) -> None:
        try:
            import pycuda.driver as cuda
        except ImportError as error:
            raise EngineError(
                f"pycuda cannot be loaded ({error}); remedy: pip install pycuda, which needs the CUDA toolkit to build"
            ) from None
        self._cuda = cuda
        cuda.init()
        # The primary context is the one TensorRT uses.
        self._context = cuda.Device(0).retain_primary_context()
        self._context.push()

    def _shut(self) -> None:
        """Frees everything in the order in which it depends on each other; again is no error."""
        self._sessions.clear()
        context, self._context = self._context, None
        if context is not None:
            context.pop()
            context.detach()

    def _memory_note(self, error: Exception) -> str:
        if type(error).__name__ != "MemoryError":
            return "remedy: `nvidia-smi`, and a restart of this program"
        return f"of {self._gpu.memory >> 20} MiB too little was free; remedy: close what else uses the GPU"

    def _session(self, shape: tuple[int, int], dtype: np.dtype) -> Session:
        if self._context is None:
            self._open()  # after a failure
        return self._sessions.get((shape, np.dtype(dtype)), self._start)

    def _start(self, size: tuple[tuple[int, int], np.dtype]) -> Session:
        """A session from disk, or built."""
        shape, dtype = size
        plan = Plan(self._model, shape, dtype, self._flavour, self._gpu.target, self._gpu)
        session, stored = self._load(plan)
        if self._model.precision == "fp32" or self._model.domain != DEPTH:
            return session
        facts = stored.facts
        if "accuracy" not in facts:
            self._note = "comparing half precision with float32"
            measured = measure_accuracy(session.infer, self._model, shape, plan.dtype)
            facts = {**facts, "accuracy": measured.plain()}
            self._cache.store(plan.key, StoredEngine(stored.plan, facts))
        accuracy = Accuracy.from_plain(facts["accuracy"])
        if accuracy.holds:
            return session
        log.warning("%s in half precision is not float32's (%s): float32 is used", self._model.name, accuracy)
        session.close()
        self.precision = "fp32"
        single = find_model(self._model.model, self._model.scale, self.precision)
        return self._load(replace(plan, model=single))[0]

    def _load(self, plan: Plan) -> tuple[Session, StoredEngine]:
        """An engine from the cache or built, on the GPU and warm. One that does not load is built anew, once."""
        stored, built = plan.get(self._cache, self._tell)
        jit = self._cache.path(plan.key).with_suffix(".jit")
        self._note = "loading the engine"
        try:
            return Session(self._cuda, plan, stored.plan, jit), stored
        except EngineError as error:
            if built:
                raise
            log.warning("the engine in the cache does not load (%s): it is built anew", error)
        self._cache.discard(plan.key)
        stored, _ = plan.get(self._cache, self._tell)
        return Session(self._cuda, plan, stored.plan, jit), stored

    def _tell(self, phase: str, share: float) -> bool:
        self._note = f"{phase}, {100.0 * share:.0f} %"
        return not self._stop


class Session:
    """An engine on the GPU with its memory: images of one size and dtype. Of the CUDA thread alone.

    Args:
        cuda: the module pycuda.driver.
        plan: what the engine is.
        serialised: the engine.
        jit: file in which TensorRT-RTX keeps what it compiled on this machine.

    Raises:
        EngineError: if the engine does not load here.
    """

    def __init__(self, cuda: Any, plan: Plan, serialised: bytes, jit: Path) -> None:
        self._cuda, self._plan = cuda, plan
        self._log = trt.make_log(plan.flavour.api)
        self._host: dict[str, np.ndarray] = {}
        self._device: dict[str, Any] = {}
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._stream: Any = None
        self._graph: CudaGraph | None = None
        try:
            runtime_cache = self._load(serialised, jit)
            self._allocate()
            self._result = self._host[self._outputs[0]]
            self._warm_up()
        except BaseException:
            self.close()
            raise
        if runtime_cache is not None:
            _keep_jit(jit, runtime_cache)

    def _load(self, serialised: bytes, jit: Path) -> Any:
        """Engine and context; gives TensorRT-RTX's cache of what it compiles, None of plain TensorRT."""
        api = self._plan.flavour.api
        self._runtime = api.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(serialised)
        if self._engine is None:
            raise EngineError(self._log.said())
        runtime_cache = None
        if self._plan.flavour.name == trt.RTX:
            config = self._engine.create_runtime_config()
            runtime_cache = config.create_runtime_cache()
            if jit.is_file():
                runtime_cache.deserialize(jit.read_bytes())
            config.set_runtime_cache(runtime_cache)
            self._context = self._engine.create_execution_context(config)
        else:
            self._context = self._engine.create_execution_context()
        if self._context is None:
            free, total = self._cuda.mem_get_info()
            raise EngineError(
                f"the engine needs {self._engine.device_memory_size_v2 >> 20} MiB on the GPU, and {free >> 20} of "
                f"{total >> 20} MiB are free ({self._log.said()}); remedy: close what else uses the GPU"
            )
        return runtime_cache

    def _allocate(self) -> None:
        """A stream, and memory on both sides for every input and output."""
        api = self._plan.flavour.api
        self._stream = self._cuda.Stream()
        height, width = self._plan.shape
        sizes = {"depth_range": (2,), "depth_bytes": (1, height, width, 2)}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            is_input = self._engine.get_tensor_mode(name) == api.TensorIOMode.INPUT
            if is_input:
                self._context.set_input_shape(name, sizes.get(name, (1, 1, height, width)))
            (self._inputs if is_input else self._outputs).append(name)
        # The outputs' sizes are known once all inputs' are.
        for name in (*self._inputs, *self._outputs):
            shape = tuple(self._context.get_tensor_shape(name))
            dtype = np.dtype(api.nptype(self._engine.get_tensor_dtype(name)))
            self._host[name] = self._cuda.pagelocked_empty(shape, dtype)
            self._device[name] = self._cuda.mem_alloc(self._host[name].nbytes)
            self._context.set_tensor_address(name, int(self._device[name]))

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        """See `Engine.infer`; the result is this session's own memory."""
        if self._plan.in_millimetres:
            farthest = min(depth_range[1], FARTHEST_UINT16)
            self._host["depth_bytes"].view(np.uint16)[0, :, :, 0] = depth
            self._host["depth_range"][:] = depth_range[0], farthest
        else:
            for name, array in graph_inputs(depth, depth_range, self._plan.model.domain).items():
                self._host[name][...] = array
        if self._graph is not None:
            self._graph.launch(self._stream.handle)
        else:
            self._enqueue()
        self._stream.synchronize()
        if self._plan.in_millimetres:
            return self._result.view(np.uint16)[0, :, :, 0]
        if not np.isfinite(self._result.sum(dtype=np.float64)):
            raise EngineError("the GPU's result is not finite; remedy: precision: fp32")
        return like_input(self._result, depth.dtype)

    def _enqueue(self) -> None:
        """Up, through, down: all of it in the stream's order."""
        self._upload()
        self._execute()
        self._download()

    def _upload(self) -> None:
        for name in self._inputs:
            self._cuda.memcpy_htod_async(self._device[name], self._host[name], self._stream)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise EngineError(f"TensorRT failed: {self._log.said()}")

    def _download(self) -> None:
        for name in self._outputs:
            self._cuda.memcpy_dtoh_async(self._host[name], self._device[name], self._stream)

    def time_parts(self, runs: int) -> dict[str, float]:
        """See `TensorRTEngine.time_parts`."""
        names = ("up", "engine", "down")
        parts: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(runs):
            marks = [self._cuda.Event() for _ in range(len(names) + 1)]
            marks[0].record(self._stream)
            for step, mark in zip((self._upload, self._execute, self._download), marks[1:]):
                step()
                mark.record(self._stream)
            marks[-1].synchronize()
            for name, start, end in zip(names, marks, marks[1:]):
                parts[name].append(start.time_till(end))
        return {f"{name}_ms": float(np.median(values)) for name, values in parts.items()}

    def _warm_up(self) -> None:
        """Runs it until it is warm, then captures it: one launch a frame instead of some hundred."""
        for name in self._inputs:
            self._host[name][...] = 1
        for _ in range(WARM_UP_RUNS):
            self._enqueue()
            self._stream.synchronize()
        try:
            self._graph = CudaGraph(self._stream.handle, self._enqueue)
        except EngineError as error:
            log.info("no CUDA graph (%s): every kernel is launched by itself", error)

    def close(self) -> None:
        """Frees what is on the GPU: first what uses, then what is used."""
        if self._graph is not None:
            self._graph.close()
        self._graph = self._context = self._engine = self._runtime = None
        self._result = np.empty(0)
        for memory in self._device.values():
            memory.free()
        self._device.clear()
        self._host.clear()
        self._stream = None


def _keep_jit(path: Path, runtime_cache: Any) -> None:
    """What was compiled only saves time at the next start: that it cannot be kept is no error."""
    try:
        write_readable(path, bytes(runtime_cache.serialize()))
    except OSError as error:
        log.debug("cannot keep %s: %s", path, error)
