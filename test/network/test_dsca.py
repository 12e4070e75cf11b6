import pytest

torch = pytest.importorskip("torch")

from dsca_ros.network.camera_graph import CameraGraph  # noqa: E402
from dsca_ros.network.dsca import DSCA, DSCAConfig, accumulate, enlarge  # noqa: E402

SIZES = [(16, 24), (17, 23), (9, 8), (1, 1)]


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("unshuffle", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_one_map_a_stage_of_any_size(scale, unshuffle, size):
    network = DSCA(DSCAConfig(scale, (6, 4), (1, 1), unshuffle=unshuffle, input_channels=2))
    height, width = size
    maps = network(torch.randn(2, 2, height, width))
    expected = [(2, 1, height * f, width * f) for f in (2, 4, 8) if f <= scale]
    assert [tuple(m.shape) for m in maps] == expected


@pytest.mark.parametrize("attention_scales", [1, 2, 4])
def test_attention_of_any_number_of_scales(attention_scales):
    network = DSCA(DSCAConfig(2, (4,), (1,), attention_scales=attention_scales))
    assert network(torch.randn(1, 1, 11, 13))[0].shape == (1, 1, 22, 26)


def test_widths_and_depths_are_those_of_the_configuration():
    network = DSCA(DSCAConfig(8, (8, 6), (3, 2), expansion=4, inner_kernel=1))
    assert [len(stage.blocks) for stage in network.stages] == [3, 2, 2]
    assert [stage.head[0].in_channels for stage in network.stages] == [8, 6, 6]
    assert network.stages[0].blocks[0].widen.weight.shape == (32, 8, 1, 1)


@pytest.mark.parametrize("scale", [0, 1, 3, 16, "2"])
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match="2, 4 or 8"):
        DSCAConfig(scale)


def test_the_gain_scales_what_comes_out():
    maps = []
    for gain in (1.0, 0.25):
        torch.manual_seed(0)
        maps.append(DSCA(DSCAConfig(2, (4,), (1,), residual_gain=gain))(torch.ones(1, 1, 8, 8))[0])
    assert maps[0].abs().max() > 0
    torch.testing.assert_close(maps[1], 0.25 * maps[0])


def test_padding_does_not_reach_the_first_pixels(tiny_network):
    """An odd size is padded at the right and below: far from there nothing changes."""
    network = tiny_network(2, attention_scales=1)
    for stage in network.stages:  # attention sees the whole image, so it is left out here
        torch.nn.init.zeros_(stage.attention.gate[2].weight)
    x = torch.randn(1, 4, 41, 43)
    whole, padded = network(x[..., :40, :40])[0], network(x)[0]
    torch.testing.assert_close(padded[..., :40, :40], whole[..., :40, :40], rtol=1e-4, atol=1e-5)


def test_odd_sizes_are_padded_by_their_last_pixels(tiny_network):
    network = tiny_network(4)
    assert network.config.multiple == 2
    x = torch.randn(1, 4, 17, 23)
    even = torch.nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")
    for odd, whole in zip(network(x), network(even), strict=True):
        torch.testing.assert_close(odd, whole[..., : odd.shape[-2], : odd.shape[-1]])


def test_convolutions_see_the_border_where_it_is(tiny_network):
    """Only the pyramid of the attention is padded to its multiples: without attention nothing is."""
    network = tiny_network(2, unshuffle=1)
    for stage in network.stages:
        for merge in stage.attention.merge:
            torch.nn.init.zeros_(merge.weight)
            torch.nn.init.zeros_(merge.bias)
    x = torch.randn(1, 4, 13, 18)
    (found,) = network(x)
    (stage,) = network.stages
    entered = stage.enter(x)
    expected = stage.head(entered + stage.blocks(entered)) * stage.gain
    assert found.shape[-2:] == (26, 36)
    torch.testing.assert_close(found, expected)


def test_maps_accumulate_over_the_stages():
    start = torch.rand(1, 1, 5, 6)
    residuals = [torch.rand(1, 1, 10, 12), torch.rand(1, 1, 20, 24)]
    first, second = accumulate(start, residuals, (2, 2))
    torch.testing.assert_close(first, enlarge(start, 2) + residuals[0])
    torch.testing.assert_close(second, enlarge(first, 2) + residuals[1])


@pytest.mark.parametrize("scale", [2, 8])
def test_the_gradient_reaches_every_parameter(tiny_network, scale, depth_image):
    network = tiny_network(scale).train()
    graph = CameraGraph(network)
    depth = torch.from_numpy(depth_image(20, 24))[None, None]
    filled, _, features = graph.prepare(depth, torch.tensor([0.1, 10.0]))
    sum(stage.square().mean() for stage in graph.stages(filled, features)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_map_is_not_rounded_under_autocast(tiny_network):
    network = tiny_network(2)
    with torch.autocast("cpu", torch.bfloat16):
        (residual,) = network(torch.randn(1, 4, 16, 16))
    assert residual.dtype == torch.float32
    assert not torch.equal(residual, residual.bfloat16().float())


# --- the configurations of the paper's ablation -------------------------------------------------

ABLATION = [
    {"block": "plain", "attention_scales": 0, "multi_stage": False},
    {"block": "plain", "attention_scales": 3, "multi_stage": False},
    {"block": "bilayer", "attention_scales": 0, "multi_stage": False},
    {"block": "plain", "attention_scales": 0, "multi_stage": True},
    {"block": "bilayer", "attention_scales": 3, "multi_stage": True},
]
by_ablation = pytest.mark.parametrize("settings", ABLATION, ids=lambda s: "-".join(map(str, s.values())))


@by_ablation
@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("size", [(16, 24), (17, 23), (1, 1)], ids=str)
def test_every_configuration_gives_maps_of_the_right_sizes(settings, scale, size):
    config = DSCAConfig(scale, (6,), (1,), **settings)
    maps = DSCA(config)(torch.randn(1, 1, *size))
    factors = [2, 4, 8][: scale.bit_length() - 1] if settings["multi_stage"] else [scale]
    assert [tuple(m.shape) for m in maps] == [(1, 1, size[0] * f, size[1] * f) for f in factors]


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_one_step_of_the_whole_scale_accumulates_onto_one_enlargement(scale):
    config = DSCAConfig(scale, multi_stage=False)
    assert config.factors == (scale,)
    start, residual = torch.rand(1, 1, 5, 6), torch.rand(1, 1, 5 * scale, 6 * scale)
    (found,) = accumulate(start, [residual], config.factors)
    torch.testing.assert_close(found, enlarge(start, scale) + residual)


def test_without_attention_there_are_no_parameters_of_it():
    network = DSCA(DSCAConfig(4, (6,), (1,), attention_scales=0, unshuffle=2))
    assert not any("attention" in name for name, _ in network.named_parameters())
    assert network.config.multiple == 2  # no pyramid to pad for


@pytest.mark.parametrize("multi_stage", [True, False])
@pytest.mark.parametrize("attention_scales", [0, 3])
def test_the_kind_of_block_changes_the_parameters_by_a_tenth_at_most(multi_stage, attention_scales):
    settings = {"attention_scales": attention_scales, "multi_stage": multi_stage}
    plain, bilayer = (
        sum(p.numel() for p in DSCA(DSCAConfig(8, (32,), (8,), block=block, **settings)).parameters())
        for block in ("plain", "bilayer")
    )
    assert plain != bilayer and plain == pytest.approx(bilayer, rel=0.1)


def test_an_unknown_block_is_refused():
    with pytest.raises(ValueError, match="block must be bilayer or plain, not 'round'"):
        DSCAConfig(2, block="round")
