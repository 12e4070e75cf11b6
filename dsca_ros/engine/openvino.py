"""OpenVINO: faster than ONNX Runtime on most x86 processors, for it joins what is done pixel by pixel in one pass."""

from __future__ import annotations

from functools import cache

import numpy as np
import openvino as ov

from dsca_ros.engine.arrays import graph_inputs, like_input
from dsca_ros.engine.base import EngineError, Kept
from dsca_ros.engine.tiles import in_tiles
from dsca_ros.engine.zoo import ModelFile


class OpenVinoEngine:
    """See `Engine`.

    Args:
        model: the exported graph to run.
        threads: threads of one inference; 0 takes the number of cores.

    Raises:
        EngineError: if the file is damaged or is no graph of this package.
    """

    def __init__(self, model: ModelFile, threads: int = 0) -> None:
        self.scale, self.precision = model.scale, model.precision
        self.device, self.threads = "CPU", threads
        self._model = model
        self._graph = model.read()
        self._requests: Kept[tuple[int, int], ov.InferRequest] = Kept()
        workers = "all cores" if not threads else f"{threads} thread{'s' * (threads > 1)}"
        self.description = f"OpenVINO {ov.__version__.split('-')[0]} (CPU, {workers})"
        # A broken graph is found now, not at the first frame.
        self._request((8, 8))

    def _request(self, shape: tuple[int, int]) -> ov.InferRequest:
        """What runs one input size: with the size known, OpenVINO folds all shape arithmetic."""
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            # Depth does not fit in 16 bits, which it would take where the processor has them.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            # The camera driver runs on these cores, too.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            graph = core().read_model(self._graph)
            image = next(given for given in graph.inputs if len(given.partial_shape) == 4)
            graph.reshape({image: [1, 1, *shape]})
            return core().compile_model(graph, "CPU", options).create_infer_request()
        except Exception as error:  # openvino raises its own kinds, straight from C++
            raise EngineError(f"OpenVINO cannot load {self._model.path}: {_line(error)}") from error

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        """See `Engine.infer`."""
        return in_tiles(lambda tile: self._infer(tile, depth_range), depth, self.scale)

    def _infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        feeds = graph_inputs(depth, depth_range, self._model.domain)
        request = self._requests.get(depth.shape, self._request)
        try:
            result = next(iter(request.infer(feeds, share_inputs=True).values()))
        except Exception as error:  # openvino raises its own kinds, straight from C++
            raise EngineError(f"OpenVINO failed on {depth.shape[1]}x{depth.shape[0]}: {_line(error)}") from error
        return like_input(result, depth.dtype)

    def close(self) -> None:
        """See `Engine.close`."""
        self._requests.clear()


@cache
def core() -> ov.Core:
    """OpenVINO itself: one for the process, and never freed.

    Each exchanges its thread's stack for signals, and puts the one before back when it goes. Of two that go in another
    order than they came, a freed stack stays behind, and the next Ctrl-C is a crash.
    """
    return ov.Core()


def _line(error: Exception) -> str:
    """What OpenVINO says after the places in its own sources, in one line."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    return " ".join(lines[0].split()) if lines else type(error).__name__
