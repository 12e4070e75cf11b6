"""What a model costs to run, counted and not timed. Needs torch."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dsca_ros.engine.export import load_weights
from dsca_ros.engine.zoo import ModelFile


def network_cost(model: ModelFile, size: tuple[int, int]) -> tuple[int, float]:
    """Parameters and GFLOP of a model's network.

    A multiplication and an addition are two operations. Convolutions and matrix products are counted.

    Args:
        model: one with weights beside its graph.
        size: height and width of the low-resolution input.

    Raises:
        ExportError: if the weights are missing or are none of this package.
    """
    network, recipe = load_weights(model.weights)
    parameters = sum(p.numel() for p in network.parameters())
    counter = FlopCounterMode(display=False)
    # Shapes alone go through the network: nothing is computed.
    with FakeTensorMode(allow_non_fake_inputs=True), counter, torch.no_grad():
        network(torch.empty(1, recipe.network.input_channels, *size))
    return parameters, counter.get_total_flops() / 1e9
