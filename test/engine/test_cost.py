"""What a model costs, counted."""

import pytest

pytest.importorskip("torch")

from dsca_ros.engine.cost import network_cost
from dsca_ros.engine.export import ExportError, save_weights
from dsca_ros.engine.zoo import LEVELS, ModelFile
from dsca_ros.network.camera_graph import INPUT_CHANNELS
from dsca_ros.training.recipe import MapData, ViewData


@pytest.fixture
def saved(tiny_level_network, save_checkpoint, tmp_path):
    """Saves the weights of a small network: its entry as a model, and its parameters."""

    def save(scale: int, **settings: object) -> tuple[ModelFile, int]:
        network = tiny_level_network(scale, **settings)
        save_weights(save_checkpoint(tmp_path / "checkpoint.pt", "m", network, MapData()), tmp_path)
        model = ModelFile("m", scale, "fp32", tmp_path / f"m-x{scale}-fp32.onnx", "", LEVELS)
        return model, sum(p.numel() for p in network.parameters())

    return save


def test_a_network_counted_by_hand(saved):
    """3 to 5 channels, a plain block, no attention, a head of one step of x2."""
    model, parameters = saved(
        2, channels=(5,), blocks=(1,), unshuffle=1, attention_scales=0, block="plain", expansion=2, inner_kernel=1
    )
    # A bilayer block of these arguments has 25 * (2 + 2 + 9) weights: a hidden layer of round(325 / 90) = 4.
    weights = 9 * (3 * 5 + 5 * 4 + 4 * 5 + 5 * 4)
    biases = 5 + 4 + 5 + 4
    assert parameters == weights + biases
    # Every weight is a multiplication and an addition at every pixel.
    assert network_cost(model, (10, 20)) == (weights + biases, pytest.approx(2 * weights * 10 * 20 / 1e9))


def test_what_a_network_for_cameras_costs_is_its_head_too(tiny_network, save_checkpoint, tmp_path):
    """Its models of both scales: a few weights and a decision for each of the pixels it puts out."""
    sizes = {"channels": (5,), "blocks": (0,), "attention_scales": 0, "unshuffle": 1}
    for taps in (4, 9):
        network = tiny_network(4, taps=(taps,), **sizes)
        save_weights(save_checkpoint(tmp_path / "checkpoint.pt", "m", network, ViewData()), tmp_path)
        head = 4 * (taps + 1) * (5 + 1)
        first, second = 5 * (9 * INPUT_CHANNELS + 1) + head, 20 * (5 + 1) + head
        for scale, expected in ((2, first), (4, first + second)):
            model = ModelFile("m", scale, "fp32", tmp_path / f"m-x{scale}-fp32.onnx", "")
            assert network_cost(model, (10, 20))[0] == expected


def test_cost_grows_with_the_size_and_parameters_do_not(saved):
    model, parameters = saved(4, attention_scales=1)
    small, large = network_cost(model, (24, 32)), network_cost(model, (48, 64))
    assert small[0] == large[0] == parameters
    # The gate of the attention costs the same at any size.
    assert large[1] == pytest.approx(4 * small[1], rel=0.01) and small[1] > 0


def test_a_size_the_paper_states_the_cost_of_is_counted_without_computing_it(saved):
    model, _ = saved(8)
    assert network_cost(model, (135, 165))[1] > 0.01


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(ExportError, match=r"m-x2\.safetensors"):
        network_cost(ModelFile("m", 2, "fp32", tmp_path / "m-x2-fp32.onnx", "", LEVELS), (8, 8))
