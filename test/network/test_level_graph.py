"""The network on maps of 0-255."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.network.dsca import enlarge  # noqa: E402
from dsca_ros.network.level_graph import LEVEL_CHANNELS, LevelGraph, box_mean  # noqa: E402

SIZES = [(24, 32), (17, 23), (9, 8), (1, 1), (3, 20)]


def levels(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    image = torch.linspace(20.0, 90.0, width).round().expand(height, width).clone()
    image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 180.0
    return (image + torch.randint(0, 3, (height, width), generator=generator))[None, None]


@pytest.fixture
def run(tiny_level_network):
    @torch.no_grad()
    def run(image: torch.Tensor, scale: int = 2, **settings: object) -> torch.Tensor:
        return LevelGraph(tiny_level_network(scale, **settings))(image)

    return run


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_is_enlarged_by_the_scale(run, scale, size):
    result = run(levels(*size), scale)
    assert result.shape == (1, 1, size[0] * scale, size[1] * scale)
    assert torch.isfinite(result).all()


def test_no_network_leaves_the_range_of_levels(run):
    result = run(levels(17, 23), strength=1e4)
    assert result.min() == 0.0 and result.max() == 255.0
    assert ((result == 0) | (result == 255)).float().mean() > 0.5  # it did try


def test_stages_are_not_clipped_or_training_would_not_learn_from_them(tiny_level_network):
    stages = LevelGraph(tiny_level_network(4, strength=1e4)).stages(levels(9, 8))
    assert [tuple(stage.shape[-2:]) for stage in stages] == [(18, 16), (36, 32)]
    assert min(stage.min() for stage in stages) < 0 and max(stage.max() for stage in stages) > 255


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_with_nothing_added_it_is_bilinear(run, scale):
    image = levels(17, 23)
    expected = image
    for _ in range(scale.bit_length() - 1):
        expected = enlarge(expected, 2)
    torch.testing.assert_close(run(image, scale, strength=0.0), expected)


def test_the_network_sees_the_map_and_its_differences_from_local_means(tiny_level_network):
    graph = LevelGraph(tiny_level_network())
    image = torch.full((1, 1, 30, 30), 128.0)
    image[..., 15, 15] = 128.0 + 9.0
    features = graph.features(image)
    assert features.shape == (1, LEVEL_CHANNELS, 30, 30)
    torch.testing.assert_close(features[0, 0, 15, 15], torch.tensor(9.0 / 64.0))
    # 9 above a mean of 9 pixels: 8 levels, eight times half of full scale; of 81 pixels: 9 - 1/9 levels.
    torch.testing.assert_close(features[0, 1, 15, 15], torch.tensor(8.0 / 9.0))
    torch.testing.assert_close(features[0, 2, 15, 15], torch.tensor((9.0 - 1 / 9) / (9.0 - 1 / 9 + 8.0)))
    assert features[0, :, :8, :8].abs().max() == 0.0


def test_means_are_of_the_pixels_inside_the_image():
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    found = box_mean(image, 3)[0, 0]
    assert found[0, 0].item() == pytest.approx((0 + 1 + 4 + 5) / 4)
    assert found[1, 1].item() == pytest.approx(np.mean([0, 1, 2, 4, 5, 6, 8, 9, 10]))
    torch.testing.assert_close(box_mean(image, 9)[0, 0], torch.full((3, 4), 5.5))


def test_half_precision_is_of_the_network_only(tiny_level_network):
    image = levels(17, 23)
    with torch.no_grad():
        full = LevelGraph(tiny_level_network())(image)
        half = LevelGraph(tiny_level_network(), half=True)(image)
    assert half.dtype == torch.float32
    error = (full - half).abs()
    assert 0 < error.max() < 0.2


@pytest.mark.parametrize("settings", [{}, {"attention_scales": 0, "block": "plain", "multi_stage": False}], ids=str)
def test_the_gradient_reaches_every_parameter(tiny_level_network, settings):
    network = tiny_level_network(4, **settings).train()
    sum(stage.square().mean() for stage in LevelGraph(network).stages(levels(20, 24))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
