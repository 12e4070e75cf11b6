"""What a model costs to run, counted and not timed. Needs torch."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from dsca_ros.engine.export import load_weights, make_graph
from dsca_ros.engine.zoo import DEPTH, ModelFile


def network_cost(model: ModelFile, size: tuple[int, int]) -> tuple[int, float]:
    """Parameters of a model's network, and GFLOP of its whole graph, as `graph_cost` counts them.

    Args:
        model: one with weights beside its graph.
        size: height and width of the low-resolution input.

    Raises:
        ExportError: if the weights are missing or are none of this package.
    """
    network, _ = load_weights(model.weights)
    parameters = sum(p.numel() for p in network.parameters())
    return parameters, graph_cost(make_graph(network, model.domain), model.domain, size)


def graph_cost(graph: torch.nn.Module, domain: str, size: tuple[int, int]) -> float:
    """GFLOP of one image. Convolutions and matrix products count, a multiplication and an addition as two operations.

    Args:
        graph: the whole algorithm, as `make_graph` makes it.
        domain: what it takes.
        size: height and width of the low-resolution input.
    """
    counter = FlopCounterMode(display=False)
    # Shapes alone go through the graph: nothing is computed.
    with FakeTensorMode(allow_non_fake_inputs=True), counter, torch.no_grad():
        image = torch.empty(1, 1, *size)
        graph(image, torch.empty(2)) if domain == DEPTH else graph(image)
    return counter.get_total_flops() / 1e9
