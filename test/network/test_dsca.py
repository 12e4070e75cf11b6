import pytest

torch = pytest.importorskip("torch")

from dsca_ros.network.blend import FAINT  # noqa: E402
from dsca_ros.network.dsca import DSCA, FIRM, WEIGHTS, DSCAConfig, accumulate, enlarge  # noqa: E402

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


def test_padding_does_not_reach_the_first_pixels(tiny_level_network):
    """An odd size is padded at the right and below: far from there nothing changes."""
    network = tiny_level_network(2, attention_scales=1)
    for stage in network.stages:  # attention sees the whole image, so it is left out here
        torch.nn.init.zeros_(stage.attention.gate[2].weight)
    x = torch.randn(1, 3, 41, 43)
    whole, padded = network(x[..., :40, :40])[0], network(x)[0]
    torch.testing.assert_close(padded[..., :40, :40], whole[..., :40, :40], rtol=1e-4, atol=1e-5)


def test_odd_sizes_are_padded_by_their_last_pixels(tiny_level_network):
    network = tiny_level_network(4)
    assert network.config.multiple == 2
    x = torch.randn(1, 3, 17, 23)
    even = torch.nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")
    for odd, whole in zip(network(x), network(even), strict=True):
        torch.testing.assert_close(odd, whole[..., : odd.shape[-2], : odd.shape[-1]])


def test_convolutions_see_the_border_where_it_is(tiny_level_network):
    """Only the pyramid of the attention is padded to its multiples: without attention nothing is."""
    network = tiny_level_network(2, unshuffle=1)
    for stage in network.stages:
        for merge in stage.attention.merge:
            torch.nn.init.zeros_(merge.weight)
            torch.nn.init.zeros_(merge.bias)
    x = torch.randn(1, 3, 13, 18)
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


def test_a_map_is_not_rounded_under_autocast(tiny_level_network):
    network = tiny_level_network(2)
    with torch.autocast("cpu", torch.bfloat16):
        (residual,) = network(torch.randn(1, 3, 16, 16))
    assert residual.dtype == torch.float32
    assert not torch.equal(residual, residual.bfloat16().float())


# --- heads that weigh ----------------------------------------------------------------------------


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
@pytest.mark.parametrize("taps", [(9,), (4,), (9, 4)], ids=str)
def test_stages_that_weigh_hand_on_features_and_enlarge_a_map(unshuffle, taps):
    network = DSCA(DSCAConfig(8, (6, 4), (1, 1), unshuffle=unshuffle, head=WEIGHTS, taps=taps))
    all_features = network(torch.randn(2, 1, 8, 12))
    sizes = [(8 * f, 12 * f) for f in (1, 2, 4)]
    for index, (features, stage, size) in enumerate(zip(all_features, network.each_stage(), sizes, strict=True)):
        folded = tuple(n // unshuffle for n in size)
        assert features.shape == (2, (6, 4, 4)[index], *folded)
        of_pixel = taps[min(index, len(taps) - 1)] + 1
        assert stage.head(features).shape == (2, of_pixel, 2 * size[0], 2 * size[1])
        values = torch.rand(2, 1, *size)
        for planes in stage.enlarge(values, torch.ones_like(values), features):
            assert planes.shape == (2, (2 * unshuffle) ** 2, *folded) and planes.dtype == torch.float32
            assert stage.blend.lay_out(planes).shape == (2, 1, 2 * size[0], 2 * size[1])


def test_what_a_stage_uses_in_parts_is_the_whole_head():
    torch.manual_seed(0)
    (stage,) = DSCA(DSCAConfig(2, (6,), (1,), unshuffle=2, head=WEIGHTS, taps=(4,))).stages
    torch.nn.init.normal_(stage.last.weight)
    torch.nn.init.normal_(stage.last.bias)
    features, values = torch.randn(1, 6, 4, 5), torch.rand(1, 1, 8, 10)
    valid = (torch.rand(1, 1, 8, 10) < 0.7).float()
    blended, support, shift = map(stage.blend.lay_out, stage.enlarge(values * valid, valid, features))
    weights, validity = stage.last(features).split([16 * 4, 16], dim=1)
    expected, expected_support = stage.blend(values * valid, valid, [weights[:, tap::4] for tap in range(4)])
    torch.testing.assert_close(blended, expected)
    assert torch.equal(support, expected_support)
    torch.testing.assert_close(shift, torch.nn.functional.pixel_shuffle(validity, 4))


def test_strain_is_what_the_logits_of_weights_are_beyond_their_use():
    torch.manual_seed(0)
    (stage,) = DSCA(DSCAConfig(2, (6,), (1,), unshuffle=2, head=WEIGHTS, taps=(4,))).stages
    features = torch.randn(1, 6, 4, 5)
    assert stage.strain(features).item() == 0.0  # it starts at bilinear weights
    torch.nn.init.zeros_(stage.last.weight)
    with torch.no_grad():  # taps of one pixel are together, and validity, which does not count, is last
        stage.last.bias[:64] = torch.tensor([FIRM + 2.0, -FIRM - 4.0, FIRM, 0.0]).repeat(16)
        stage.last.bias[64:] = 1e3
    strain = stage.strain(features)
    assert strain.item() == pytest.approx(1.5)
    strain.backward()
    assert torch.equal(stage.last.bias.grad[:4].sign(), torch.tensor([1.0, -1.0, 0.0, 0.0]))
    assert not stage.last.bias.grad[64:].any()


def test_a_head_that_weighs_starts_at_bilinear_weights_and_no_say_in_validity():
    torch.manual_seed(0)
    (stage,) = DSCA(DSCAConfig(2, (6,), (1,), unshuffle=2, head=WEIGHTS)).stages
    weights, shift = stage.head[0].bias.split([16 * 9, 16])
    assert torch.equal(weights, stage.blend.start) and not shift.any()
    # Bilinear weights and a little for all others, or those would never be learned.
    first = torch.sigmoid(weights[:9])
    bilinear = torch.tensor([1, 3, 0, 3, 9, 0, 0, 0, 0]) / 16
    torch.testing.assert_close(first, bilinear, atol=FAINT, rtol=0)
    assert (first > 0.005).all()
    assert 0 < stage.head[0].weight.std() < 0.02


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_the_buffers_of_a_blend_are_no_weights(unshuffle):
    """Files of weights hold what was trained alone."""
    network = DSCA(DSCAConfig(4, (6,), (1,), unshuffle=unshuffle, head=WEIGHTS))
    assert network.state_dict().keys() == dict(network.named_parameters()).keys()


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"head": "both"}, "head must be residual or weights, not 'both'"),
        ({"taps": 9}, "taps must be a list"),
        ({"taps": ()}, "taps must be a list"),
        ({"taps": ("9",)}, "taps must be a list"),
    ],
    ids=str,
)
def test_mistakes_about_heads_are_named(settings, cause):
    with pytest.raises(ValueError, match=cause):
        DSCAConfig(2, **settings)


@pytest.mark.parametrize("taps", [0, 5, 16])
def test_a_number_of_taps_that_there_is_not_is_refused_by_the_configuration(taps):
    with pytest.raises(ValueError, match="9 or 4"):
        DSCAConfig(2, head=WEIGHTS, taps=(taps,))


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
