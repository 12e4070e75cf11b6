"""The network in torch, from the weights that ship: what every other engine is held to."""

from __future__ import annotations

import numpy as np
import torch

from dsca_ros.engine.arrays import graph_inputs, like_input
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.export import ExportError, load_weights, make_graph
from dsca_ros.engine.zoo import ModelFile


class TorchEngine:
    """See `Engine`.

    Args:
        model: the exported graph whose weights to run.
        threads: torch's threads on a CPU, for the whole process; 0 leaves them as they are.

    Raises:
        EngineError: if the weights are missing or are none of this package.
    """

    def __init__(self, model: ModelFile, threads: int = 0) -> None:
        self.scale = model.scale
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

    @torch.inference_mode()
    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        """See `Engine.infer`."""
        if self._graph is None:
            raise EngineError("this engine is closed")
        inputs = graph_inputs(depth, depth_range, self._domain).values()
        # A camera's array may be read-only, and torch has no such tensors.
        owned = (array if array.flags.writeable else array.copy() for array in inputs)
        result = self._graph(*(torch.from_numpy(array).to(self._device) for array in owned))
        return like_input(result.cpu().numpy(), depth.dtype)

    def close(self) -> None:
        """See `Engine.close`."""
        self._graph = None
