"""The network in torch, from the weights that ship: what every other engine is held to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dsca_ros.engine.arrays import graph_inputs, like_input
from dsca_ros.engine.base import EngineError, Kept
from dsca_ros.engine.export import ExportError, load_weights, make_graph
from dsca_ros.engine.tiles import in_tiles
from dsca_ros.engine.zoo import ModelFile
from dsca_ros.reason import reason_of

#: Runs before a capture, in which libraries choose their kernels and allocate.
WARM_UP_RUNS = 3


class TorchEngine:
    """See `Engine`. On a GPU the network runs in channels_last, as one CUDA graph for each size of image.

    Args:
        model: the exported graph whose weights to run.
        threads: torch's threads on a CPU, for the whole process; 0 leaves them as they are.

    Raises:
        EngineError: if the weights are missing or are none of this package.
    """

    def __init__(self, model: ModelFile, threads: int = 0) -> None:
        self.scale, self.precision = model.scale, model.precision
        self._domain = model.domain
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.cuda.get_device_name() if self._device.type == "cuda" else "CPU"
        self.description = f"torch {torch.__version__} ({self.device}, {model.precision})"
        if threads:
            torch.set_num_threads(threads)
        try:
            network, _ = load_weights(model.weights)
        except ExportError as error:
            raise EngineError(str(error)) from None
        graph = make_graph(network, model.domain, half=model.precision == "fp16").eval()
        self._graph: torch.nn.Module | None = graph.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._captured: Kept[tuple[int, ...], _Captured] = Kept()

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        """See `Engine.infer`."""
        if self._device.type != "cpu":
            return self._infer(depth, depth_range)
        return in_tiles(lambda tile: self._infer(tile, depth_range), depth, self.scale)

    @torch.inference_mode()
    def _infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        if self._graph is None:
            raise EngineError("this engine is closed")
        arrays = graph_inputs(depth, depth_range, self._domain).values()
        # A camera's array may be read-only, and torch has no such tensors.
        inputs = [torch.from_numpy(array if array.flags.writeable else array.copy()) for array in arrays]
        try:
            result = self._graph(*inputs) if self._device.type == "cpu" else self._replay(self._graph, inputs)
        except torch.cuda.OutOfMemoryError as error:
            raise EngineError(f"the GPU has too little free memory ({reason_of(error)})") from None
        return like_input(result.cpu().numpy(), depth.dtype)

    def _replay(self, graph: torch.nn.Module, inputs: list[Tensor]) -> Tensor:
        """The result of the CUDA graph for this size, captured at its first image."""
        size = tuple(inputs[0].shape)
        captured = self._captured.get(size, lambda _: _Captured(graph, [tensor.to(self._device) for tensor in inputs]))
        return captured.replay(inputs)

    def close(self) -> None:
        """See `Engine.close`."""
        self._captured.clear()
        self._graph = None


class _Captured:
    """A CUDA graph of a module, with the memory it reads from and writes to."""

    def __init__(self, module: torch.nn.Module, inputs: list[Tensor]) -> None:
        self._inputs = inputs
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                module(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = module(*inputs)

    def replay(self, inputs: list[Tensor]) -> Tensor:
        for mine, given in zip(self._inputs, inputs):
            mine.copy_(given)
        self._graph.replay()
        return self._result
