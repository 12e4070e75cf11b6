"""ONNX Runtime: on the CPU it runs everywhere, and is what tests hold other engines to; also on a GPU."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from dsca_ros.engine.arrays import graph_inputs, like_input
from dsca_ros.engine.base import EngineError, Kept
from dsca_ros.engine.gpu import find_driver
from dsca_ros.engine.tiles import in_tiles
from dsca_ros.engine.zoo import ModelFile
from dsca_ros.reason import reason_of


class OnnxRuntimeEngine:
    """See `Engine`.

    Args:
        model: the exported graph to run.
        threads: threads of one inference; 0 takes the number of cores.
        cuda: run it on the first NVIDIA GPU.
        whole: take images of any size at once, as on a GPU, whatever memory they need; see `engine.tiles`.

    Raises:
        EngineError: if the file is damaged or is no graph of this package, or the GPU cannot be used.
    """

    def __init__(self, model: ModelFile, threads: int = 0, cuda: bool = False, whole: bool = False) -> None:
        self.scale, self.precision = model.scale, model.precision
        self.device = find_driver().gpus[0].name if cuda else "CPU"
        self._provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
        self.threads, self._whole = threads, whole or cuda
        self._model = model
        self._graph = model.read()
        self._sessions: Kept[tuple[int, int], ort.InferenceSession] = Kept()
        workers = f"{threads} threads" if threads != 1 else "1 thread"
        on = f"{self.device}, {model.precision}" if cuda else f"CPU, {workers if threads else 'all cores'}"
        self.description = f"ONNX Runtime {ort.__version__} ({on})"
        # A broken graph is found now, not at the first frame.
        self._session((8, 8))

    def _session(self, shape: tuple[int, int]) -> ort.InferenceSession:
        """The session for one input size: with the size known, ONNX Runtime folds all shape arithmetic."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        # Spinning workers would take the cores from the camera driver between frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        options.add_free_dimension_override_by_name("height", shape[0])
        options.add_free_dimension_override_by_name("width", shape[1])
        try:
            session = ort.InferenceSession(self._graph, options, providers=[self._provider])
        except Exception as error:  # onnxruntime raises its own kinds, straight from C++
            text = reason_of(error)
            raise EngineError(f"ONNX Runtime cannot load {self._model.path}: {text}") from error
        # It only warns, and takes the CPU, where CUDA or cuDNN are missing.
        if self._provider not in session.get_providers():
            raise EngineError(
                f"ONNX Runtime cannot use {self.device}; remedy: install the CUDA and cuDNN it was built with"
            )
        return session

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        """See `Engine.infer`."""
        if self._whole:
            return self._infer(depth, depth_range)
        return in_tiles(lambda tile: self._infer(tile, depth_range), depth, self.scale)

    def _infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        feeds = graph_inputs(depth, depth_range, self._model.domain)
        session = self._sessions.get(depth.shape, self._session)
        try:
            result = session.run(None, feeds)[0]
        except Exception as error:  # onnxruntime raises its own kinds, straight from C++
            text = reason_of(error)
            raise EngineError(f"ONNX Runtime failed on {depth.shape[1]}x{depth.shape[0]}: {text}") from error
        return like_input(result, depth.dtype)

    def close(self) -> None:
        """See `Engine.close`."""
        self._sessions.clear()
