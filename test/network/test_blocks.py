import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.network.blocks import (  # noqa: E402
    BLOCKS,
    BilayerResidualBlock,
    CrossScaleAttention,
    PlainResidualBlock,
    correlation,
)


def pyramid(channels: int, scales: int, size: int = 16, batch: int = 2) -> list:
    torch.manual_seed(1)
    return [torch.randn(batch, channels, size >> k, size >> k) for k in range(scales)]


@pytest.mark.parametrize("inner_kernel", [1, 3])
def test_a_block_keeps_the_shape_and_is_residual(inner_kernel):
    block = BilayerResidualBlock(6, 2, inner_kernel)
    x = torch.randn(2, 6, 9, 7)
    assert block(x).shape == x.shape
    for parameter in block.outer.parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(block(x), x)


def test_the_inner_layer_is_a_residual_too():
    block = BilayerResidualBlock(4, 3, 1)
    for parameter in block.narrow.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(block(x), x + block.outer(x))


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_attention_starts_as_weight_one(scales):
    attention = CrossScaleAttention(5, scales)
    weights = attention.attention(pyramid(5, scales))
    assert [tuple(w.shape) for w in weights] == [(2, 5, 1, 1)] * scales
    for weight in weights:
        torch.testing.assert_close(weight, torch.ones_like(weight))


def test_attention_weights_lie_between_0_and_2_and_depend_on_the_input():
    attention = CrossScaleAttention(5, 3)
    torch.nn.init.normal_(attention.gate[2].weight)
    torch.nn.init.normal_(attention.row_pooling)
    weights = torch.cat(attention.attention(pyramid(5, 3)), dim=1)
    assert weights.shape == (2, 15, 1, 1)
    assert (weights > 0).all() and (weights < 2).all()
    assert weights.std() > 0.05
    assert not torch.allclose(weights[0], weights[1])


def test_attention_does_not_depend_on_the_gain_or_offset_of_the_features():
    attention = CrossScaleAttention(4, 3)
    torch.nn.init.normal_(attention.gate[2].weight)
    features = pyramid(4, 3)
    scaled = [7.0 * f + 2.0 for f in features]
    for a, b in zip(attention.attention(features), attention.attention(scaled), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_attention_keeps_the_shape(scales):
    x = torch.randn(1, 6, 12, 20)
    assert CrossScaleAttention(6, scales)(x).shape == x.shape


def test_statistics_of_half_precision_features_stay_finite():
    attention = CrossScaleAttention(4, 2).half()
    features = [(100 * f).half() for f in pyramid(4, 2, 32)]
    for weight in attention.attention(features):
        assert torch.isfinite(weight).all()


def test_correlation_is_that_of_numpy():
    a, b = torch.randn(2, 3, 10, 11), torch.randn(2, 4, 10, 11)
    b[:, 0] = 0.5 * b[:, 0] - 2.0 * a[:, 1]
    found = correlation(3.0 * a + 1.0, b).numpy()
    assert found.shape == (2, 3, 4)
    for k in range(2):
        rows = np.concatenate([a[k].flatten(1), b[k].flatten(1)])
        np.testing.assert_allclose(found[k], np.corrcoef(rows)[:3, 3:], atol=1e-4)


def test_a_constant_channel_correlates_with_nothing():
    a = torch.randn(1, 2, 8, 8)
    a[:, 0] = 3.0
    found = correlation(a, a)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[0, 0], torch.zeros(2), atol=1e-3, rtol=0)


def test_statistics_are_taken_in_float32_under_autocast():
    """A mean of many times the deviation would leave nothing of it in bfloat16."""
    attention = CrossScaleAttention(4, 2)
    torch.nn.init.normal_(attention.gate[2].weight)
    torch.nn.init.normal_(attention.row_pooling)
    features = [f + 60.0 for f in pyramid(4, 2)]
    expected = attention.attention(features)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention.attention(features)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.float(), b, atol=0.05, rtol=0)


# --- the plain block of the ablation ------------------------------------------------------------


@pytest.mark.parametrize("inner_kernel", [1, 3])
def test_a_plain_block_keeps_the_shape_and_is_residual(inner_kernel):
    block = PlainResidualBlock(6, 2, inner_kernel)
    x = torch.randn(2, 6, 9, 7)
    assert block(x).shape == x.shape
    assert not torch.allclose(block(x), x)
    for parameter in block.second.parameters():
        torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize("channels", [16, 32, 48, 64])
@pytest.mark.parametrize("expansion", [2, 4])
@pytest.mark.parametrize("inner_kernel", [1, 3])
def test_a_plain_block_has_the_parameters_of_a_bilayer_block(channels, expansion, inner_kernel):
    plain, bilayer = (
        sum(p.numel() for p in block(channels, expansion, inner_kernel).parameters())
        for block in (BLOCKS["plain"], BLOCKS["bilayer"])
    )
    assert plain == pytest.approx(bilayer, rel=0.1)
