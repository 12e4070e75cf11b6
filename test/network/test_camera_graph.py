"""The whole algorithm in torch: holes, domain, weighing, validity."""

from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.depth import resample  # noqa: E402
from dsca_ros.depth.camera import Intrinsics  # noqa: E402
from dsca_ros.depth.fidelity import near  # noqa: E402
from dsca_ros.network.blend import FAINT, HOLD  # noqa: E402
from dsca_ros.network.camera_graph import INPUT_CHANNELS, SUPPORT, CameraGraph, fill_holes  # noqa: E402
from dsca_ros.training.loss import DepthWeights, supervise_depth  # noqa: E402

RANGE = (0.1, 10.0)
WIDE = (0.04, 100.0)
SCALES = [2, 4, 8]


@torch.no_grad()
def run(graph: CameraGraph, depth: np.ndarray, depth_range: tuple[float, float] = RANGE) -> np.ndarray:
    return graph(torch.from_numpy(depth)[None, None], torch.tensor(depth_range))[0, 0].numpy()


@torch.no_grad()
def staged(graph: CameraGraph, depth: np.ndarray, depth_range: tuple[float, float] = RANGE) -> list:
    return graph.stages(*graph.prepare(torch.from_numpy(depth)[None, None], torch.tensor(depth_range)))


def filled(values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = (torch.from_numpy(a.astype(np.float32))[None, None] for a in (values, valid))
    return tuple(image[0, 0].numpy() for image in fill_holes(*images))


def supported(depth: np.ndarray, scale: int) -> np.ndarray:
    """[scale * H, scale * W] bool: with a valid pixel among the four nearest, at every doubling."""
    valid = depth > 0
    while scale > 1:
        valid, scale = resample.naive_bilinear(valid.astype(np.float32), 2) > 0, scale // 2
    return valid


def between_valid(depth: np.ndarray, scale: int) -> np.ndarray:
    """[scale * H, scale * W] bool: all of the four nearest pixels are valid."""
    return resample.naive_bilinear((depth > 0).astype(np.float32), scale) > 0.9999


def say_validity(network: object, logit: float) -> object:
    """Makes a network sure of the validity of every pixel."""
    for stage in network.stages:
        with torch.no_grad():
            stage.head[0].bias[-stage.blend.outputs :] = logit
    return network


# --- holes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (9, 8), (17, 23), (64, 96)], ids=str)
def test_holes_are_filled_and_valid_pixels_left_alone(size, rng):
    values, valid = rng.uniform(0.5, 2.0, size).astype(np.float32), rng.random(size) < 0.4
    valid[0, 0] = True
    result, mean = filled(values * valid, valid)
    np.testing.assert_array_equal(result[valid], values[valid])
    low, high = 0.9999 * values[valid].min(), 1.0001 * values[valid].max()
    for image in (result, mean):
        assert image.shape == size
        assert (image >= low).all() and (image <= high).all()


@pytest.mark.parametrize("size", [(9, 8), (60, 80), (130, 150), (240, 320)], ids=str)
def test_a_constant_fills_a_hole_of_any_size(size):
    valid = np.zeros(size, bool)
    valid[:3, :2] = True
    result, mean = filled(2.0 * valid, valid)
    np.testing.assert_allclose(result, 2.0, rtol=1e-5)
    np.testing.assert_allclose(mean, 2.0, rtol=1e-5)


def test_a_hole_takes_the_values_around_it():
    values = np.ones((40, 60), np.float32)
    values[:, 30:] = 2.0
    valid = np.ones((40, 60), bool)
    valid[18:21, 8:11] = valid[18:21, 48:51] = False
    result, _ = filled(values * valid, valid)
    np.testing.assert_allclose(result[18:21, 8:11], 1.0, rtol=1e-5)
    np.testing.assert_allclose(result[18:21, 48:51], 2.0, rtol=1e-5)


def test_nothing_valid_fills_with_zero():
    for image in filled(np.zeros((20, 30)), np.zeros((20, 30))):
        assert not image.any()


# --- what the network sees ----------------------------------------------------------------------


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_sizes_are_brought_up_to_those_the_network_takes_by_what_is_at_the_border(tiny_network, depth_image, unshuffle):
    graph = CameraGraph(tiny_network(2, unshuffle=unshuffle))
    depth = depth_image(17, 23, noise=0.0)
    inverse, valid, features = graph.prepare(torch.from_numpy(depth)[None, None], torch.tensor(RANGE))
    height, width = (-(-n // unshuffle) * unshuffle for n in depth.shape)
    assert inverse.shape == valid.shape == (1, 1, height, width)
    assert features.shape == (1, INPUT_CHANNELS, height, width)
    np.testing.assert_array_equal(valid[0, 0, :17, :23].numpy(), depth > 0)
    assert torch.equal(inverse[..., 17:, :], inverse[..., 16:17, :].expand_as(inverse[..., 17:, :]))
    assert torch.equal(inverse[..., 23:], inverse[..., 22:23].expand_as(inverse[..., 23:]))
    expected = np.divide(1.0, depth, out=np.zeros_like(depth), where=depth > 0)
    np.testing.assert_allclose(inverse[0, 0, :17, :23], expected, rtol=1e-6)
    assert torch.equal(inverse > 0, valid > 0)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize("times", [0.05, 20.0])
def test_a_dolls_house_looks_like_a_hall_but_for_how_far_it_is(tiny_network, depth_image, times):
    graph = CameraGraph(tiny_network())
    depth = torch.from_numpy(depth_image(24, 32))[None, None]
    far, near_by = (graph.prepare(d, torch.tensor([0.0, 1e3]))[2] for d in (depth, depth * times))
    # The finest difference magnifies the last digits two thousand times.
    torch.testing.assert_close(far[:, 1:], near_by[:, 1:], rtol=1e-3, atol=1e-3)
    shift = torch.full_like(far[:, :1], -0.5 * float(np.log(times)))
    torch.testing.assert_close(near_by[:, :1] - far[:, :1], shift, rtol=1e-4, atol=1e-4)


def test_a_network_that_adds_is_refused(tiny_level_network):
    with pytest.raises(ValueError, match="head: weights, not residual"):
        CameraGraph(tiny_level_network())


# --- only means of what is there ----------------------------------------------------------------


def neighbourhood(depth: np.ndarray, factor: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest valid depth within ``reach`` input pixels of each output pixel."""
    side = 2 * reach + 1
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(depth, reach), (side, side))
    low = np.where(windows > 0, windows, np.inf).min(axis=(2, 3))
    return resample.nearest(low, factor), resample.nearest(windows.max(axis=(2, 3)), factor)


def any_depth(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return np.exp(rng.uniform(np.log(0.05), np.log(60.0), size)).astype(np.float32)


def with_holes(size: tuple[int, int], share: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng([*size, 5])
    return np.where(rng.random(size) < share, np.float32(0.0), any_depth(size, rng))


def steps(first: float, then: float) -> np.ndarray:
    """A step in columns and one in rows, and on one side every second pixel invalid."""
    depth = np.full((17, 22), first, np.float32)
    depth[:, 7:] = then
    depth[11:, :] = first + then - depth[11:, :]
    depth[::2, 12::2] = 0.0
    return depth


def one_pixel() -> np.ndarray:
    depth = np.zeros((9, 12), np.float32)
    depth[5, 6] = 1.7
    return depth


def board(even: int) -> np.ndarray:
    depth = with_holes((14, 15), 0.0)
    depth[np.indices(depth.shape).sum(axis=0) % 2 == even] = 0.0
    return depth


PICTURES = {
    "holes": with_holes((20, 24)),
    "mostly holes": with_holes((16, 20), 0.9),
    "no holes": with_holes((12, 16), 0.0),
    "odd": with_holes((17, 23)),
    "board": board(0),
    "other board": board(1),
    "one pixel": one_pixel(),
    "1x1": np.full((1, 1), 3.3, np.float32),
    "1x1 hole": np.zeros((1, 1), np.float32),
    "1x13": with_holes((1, 13)),
    "13x1": with_holes((13, 1)),
    "2x3": with_holes((2, 3)),
    "nothing": np.zeros((9, 8), np.float32),
    "1 mm at 0.1 m": steps(0.1, 0.101),
    "1 mm at 59 m": steps(59.0, 59.001),
    "10 cm": steps(2.0, 2.1),
    "5 m": steps(0.5, 5.5),
    "50 m": steps(0.05, 50.05),
}
by_picture = pytest.mark.parametrize("picture", PICTURES)
by_taps = pytest.mark.parametrize(
    ("scale", "taps"), [(2, (9,)), (2, (4,)), (4, (9,)), (4, (9, 4)), (4, (4, 9)), (8, (9,)), (8, (9, 4))], ids=str
)


@cache
def networks(tiny_network: object, scale: int, multi_stage: bool = True, taps: tuple[int, ...] = (9,)) -> list:
    """Untrained, with a will of their own, and with all weights at 0 or 1."""
    settings = {"multi_stage": multi_stage, "taps": taps}
    return [tiny_network(scale, s, doubt=s, seed=k, **settings) for k, s in enumerate((0.0, 1.0, 1e3))]


@by_picture
@by_taps
def test_no_network_can_leave_the_range_of_the_valid_inputs_around(tiny_network, scale, picture, taps):
    """Within one input pixel at x2, two at x4 and x8: for every stage, whatever it thinks of validity."""
    depth = PICTURES[picture]
    for network in networks(tiny_network, scale, taps=taps):
        graph = CameraGraph(network)
        for index, stage in enumerate(staged(graph, depth, WIDE)):
            factor = 2 ** (index + 1)
            low, high = neighbourhood(depth, factor, 1 if index == 0 else 2)
            there, inverse = (t[0, 0, : low.shape[0], : low.shape[1]].numpy() for t in (stage.there, stage.inverse))
            inside = there > 0
            np.testing.assert_array_equal(inside, supported(depth, factor))
            assert np.isfinite(inverse).all() and not inverse[~inside].any()
            result = 1.0 / inverse[inside].astype(np.float64)
            rounding = 1e-6 * (index + 1)
            assert (result >= low[inside] * (1 - rounding)).all() and (result <= high[inside] * (1 + rounding)).all()
        result = run(graph, depth, WIDE)
        assert result.shape == tuple(n * scale for n in depth.shape) and np.isfinite(result).all()
        valid = result > 0
        assert (result >= low)[valid].all() and (result <= high)[valid].all()


@pytest.mark.parametrize("scale", [4, 8])
def test_a_first_stage_of_four_taps_leaks_nothing_into_the_second(tiny_network, scale):
    graph = CameraGraph(say_validity(tiny_network(scale, taps=(4, 9)), 20.0))
    depth = PICTURES["one pixel"]
    result = run(graph, depth, WIDE)
    assert (result > 0).any()
    np.testing.assert_allclose(result[result > 0], 1.7, rtol=1e-6)


@pytest.mark.parametrize("taps", [4, 9])
@by_picture
def test_a_stage_is_there_where_it_has_a_result(tiny_network, picture, taps):
    for stage in staged(CameraGraph(tiny_network(4, taps=(taps,))), PICTURES[picture], WIDE):
        assert torch.equal(stage.there > 0, stage.inverse > 0)
        assert ((stage.there == 0) | (stage.there == 1)).all()


@by_picture
@pytest.mark.parametrize(("scale", "taps"), [(2, 4), (4, 9), (8, 4)])
def test_one_stage_of_the_whole_scale_takes_from_one_input_pixel_around(tiny_network, scale, picture, taps):
    depth = PICTURES[picture]
    low, high = neighbourhood(depth, scale, 1)
    for network in networks(tiny_network, scale, multi_stage=False, taps=(taps,)):
        graph = CameraGraph(network)
        assert len(staged(graph, depth, WIDE)) == 1
        result = run(graph, depth, WIDE)
        valid = result > 0
        assert (result >= low)[valid].all() and (result <= high)[valid].all()
        assert not result[np.isinf(low)].any()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("constant", [0.05, 1.7, 60.0])
def test_a_constant_stays_that_constant(tiny_network, scale, constant):
    depth = np.where(with_holes((13, 18)) > 0, np.float32(constant), np.float32(0.0))
    for network in networks(tiny_network, scale):
        (last,) = staged(CameraGraph(network), depth, WIDE)[-1:]
        found = last.inverse[last.there > 0].double().numpy()
        assert found.size > 200
        np.testing.assert_allclose(1.0 / found, np.float32(constant), rtol=1e-6)


def test_within_the_range_the_network_decides(tiny_network, depth_image):
    depth = depth_image(24, 32)
    one, other = (run(CameraGraph(tiny_network(2, seed=seed)), depth) for seed in (0, 1))
    plain = run(CameraGraph(tiny_network(2, strength=0.0)), depth)
    both = (one > 0) & (other > 0)
    assert (np.abs(one - other)[both] > 1e-3).mean() > 0.5
    assert (np.abs(one - plain)[both] > 1e-3).mean() > 0.5


# --- the guard ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_nothing_comes_out_between_two_surfaces(tiny_network, scale):
    depth = np.full((18, 24), 1.0, np.float32)
    depth[:, 11:] = 3.0
    depth[7:, :] += 0.5
    surfaces = np.array([1.0, 1.5, 3.0, 3.5])
    stages = scale.bit_length() - 1
    for strength in (0.0, 1.0, 1e3):
        graph = CameraGraph(say_validity(tiny_network(scale, strength), 20.0))
        result = run(graph, depth)
        off = np.abs(result[..., None] / surfaces - 1.0).min(axis=-1)
        # Each stage may be so far from the one before it.
        assert off.max() <= (1.0 - HOLD / stages) ** -stages - 1.0 + 1e-5
        # Training sees what hangs between: the guard takes the gradient away.
        between = 1.0 / staged(graph, depth)[-1].inverse[0, 0].numpy()
        assert (np.abs(between[..., None] / surfaces - 1.0).min(axis=-1) > 0.03).mean() > 0.03


def test_the_guard_changes_no_validity(tiny_network, depth_image):
    graph = CameraGraph(tiny_network(4, doubt=2.0))
    prepared = graph.prepare(torch.from_numpy(depth_image(17, 23))[None, None], torch.tensor(RANGE))
    with torch.no_grad():
        for plain, guarded in zip(graph.stages(*prepared), graph.stages(*prepared, guarded=True)):
            assert torch.equal(plain.there, guarded.there) and torch.equal(plain.validity, guarded.validity)
            assert not torch.equal(plain.inverse, guarded.inverse)


# --- where it starts ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("taps", [9, 4])
def test_it_starts_close_to_bilinear_of_inverse_depth(tiny_network, depth_image, scale, taps):
    depth = np.where(depth_image(17, 23) > 0, depth_image(17, 23), np.float32(2.5))  # no holes
    graph = CameraGraph(tiny_network(scale, strength=0.0, taps=(taps,)))
    result = staged(graph, depth)[-1].inverse[0, 0, : 17 * scale, : 23 * scale].numpy()
    expected, allowed = 1.0 / depth, np.zeros_like(depth)
    for _ in range(scale.bit_length() - 1):
        low, high = neighbourhood(expected, 2, 1)
        # What the faint weights can move in this stage, beside what they did in those before.
        allowed = neighbourhood(allowed, 2, 1)[1] + FAINT * taps * (high - low)
        expected = resample.bilinear(expected, 2)
    inner = (slice(2 * scale, -2 * scale),) * 2
    error = np.abs(result - expected)[inner]
    assert (error <= allowed[inner] + 1e-6).all()
    assert error.mean() < 0.5 * np.abs(resample.nearest(1.0 / depth, scale) - expected)[inner].mean()


def test_beside_holes_it_starts_close_to_careful_bilinear(tiny_network, depth_image):
    depth = depth_image(24, 32)
    inverse = np.divide(1.0, depth, out=np.zeros_like(depth), where=depth > 0)
    (stage,) = staged(CameraGraph(tiny_network(2, strength=0.0)), depth)
    result = stage.inverse[0, 0].numpy()
    expected = resample.bilinear(inverse, 2)
    low, high = neighbourhood(inverse, 2, 1)
    both = (result > 0) & (expected > 0)
    assert both.mean() > 0.7
    # Half of the bilinear support is valid at least, beside which nine faint weights stand.
    share = 9 * FAINT / (0.5 + 9 * FAINT)
    assert (np.abs(result - expected)[both] <= share * (high - low)[both] + 1e-6).all()


@pytest.mark.parametrize("scale", [2, 4])
def test_a_plane_nearly_stays_that_plane_from_the_start(tiny_network, scale):
    camera = Intrinsics(40, 30, 35.0, 36.0, 18.3, 15.2)
    normal = np.array([0.25, -0.4, 1.0])
    x, y = camera.rays()
    depth = (2.0 / (normal[0] * x[None, :] + normal[1] * y[:, None] + 1.0)).astype(np.float32)
    result = run(CameraGraph(tiny_network(scale, strength=0.0)), depth)
    inner = (slice(2 * scale, -2 * scale),) * 2
    points = camera.scaled(scale).back_project(result)[inner]
    # The faint weights of the first stage pull by 8 % of what is a quarter of a pixel: by 1.2 mm here.
    assert np.abs(points @ normal - 2.0).max() < 2.5e-3
    nearest = camera.scaled(scale).back_project(resample.nearest(depth, scale))[inner]
    assert np.abs(points @ normal - 2.0).mean() < 0.15 * np.abs(nearest @ normal - 2.0).mean()


@pytest.mark.parametrize("scale", [2, 4])
def test_with_exactly_bilinear_weights_a_plane_stays_that_plane(tiny_network, scale):
    camera = Intrinsics(40, 30, 35.0, 36.0, 18.3, 15.2)
    normal = np.array([0.25, -0.4, 1.0])
    x, y = camera.rays()
    depth = (2.0 / (normal[0] * x[None, :] + normal[1] * y[:, None] + 1.0)).astype(np.float32)
    network = tiny_network(scale, strength=0.0)
    with torch.no_grad():
        for stage in network.stages:
            weights = torch.sigmoid(stage.blend.start) * (1 + 2 * FAINT) - FAINT
            stage.head[0].bias[: weights.numel()] = torch.logit(weights, eps=1e-12)
    points = camera.scaled(scale).back_project(run(CameraGraph(network), depth))
    assert np.abs(points[scale:-scale, scale:-scale] @ normal - 2.0).max() < 3e-5


# --- validity -----------------------------------------------------------------------------------


def test_at_x2_it_starts_valid_where_half_of_the_bilinear_support_is(tiny_network, depth_image):
    depth = depth_image(17, 23)
    result = run(CameraGraph(tiny_network(2, strength=0.3)), depth)
    # At the image's border what is outside counts as invalid, and with it a pixel beside a hole.
    inner = (slice(1, -1),) * 2
    np.testing.assert_array_equal((result > 0)[inner], resample.validity(depth, 2)[inner])


@by_taps
@pytest.mark.parametrize("picture", ["holes", "mostly holes", "odd", "other board", "one pixel", "1x13", "nothing"])
def test_nothing_is_valid_beyond_one_input_pixel_from_a_valid_one(tiny_network, scale, taps, picture):
    """A network that wants everything gets what the four nearest pixels support, and not one pixel more."""
    depth = PICTURES[picture]
    sure = say_validity(tiny_network(scale, taps=taps), 1e4)
    result = run(CameraGraph(sure), depth, WIDE)
    np.testing.assert_array_equal(result > 0, supported(depth, scale))
    assert not (result > 0)[~resample.nearest(near(depth > 0, 1), scale)].any()


@by_taps
@pytest.mark.parametrize("settings", [{"unshuffle": 1}, {}, {"unshuffle": 4}, {"unshuffle": 3}], ids=str)
@by_picture
def test_nothing_is_lost_where_all_of_the_four_nearest_are_valid(tiny_network, scale, taps, settings, picture):
    """A network that refuses everything is heard where one of the four is invalid, and nowhere else."""
    depth = PICTURES[picture]
    solid = between_valid(depth, scale)
    assert solid[resample.nearest(~near(depth <= 0, 1), scale)].all()
    for multi_stage in (True, False) if len(taps) == 1 else (True,):
        refusing = say_validity(tiny_network(scale, taps=taps, multi_stage=multi_stage, **settings), -1e4)
        np.testing.assert_array_equal(run(CameraGraph(refusing), depth, WIDE) > 0, solid)


@pytest.mark.parametrize("said", [-6.0, -3.0, 2.0])
def test_only_a_no_is_overruled_where_all_of_the_four_nearest_are_valid(tiny_network, depth_image, said):
    depth = depth_image(18, 24)
    (stage,) = staged(CameraGraph(say_validity(tiny_network(2), said)), depth)
    own = SUPPORT * (resample.naive_bilinear((depth > 0).astype(np.float32), 2) - 0.5) + said
    solid = between_valid(depth, 2)
    assert 0.1 < solid.mean() < 0.9
    np.testing.assert_allclose(stage.validity[0, 0], np.where(solid, np.maximum(own, 0.0), own), atol=1e-5)


def test_a_result_is_valid_where_its_logit_is_not_negative(tiny_network, depth_image):
    depth = depth_image(18, 24)
    for scale in (2, 4):
        graph = CameraGraph(tiny_network(scale, doubt=3.0))
        last = staged(graph, depth)[-1]
        expected = ((last.validity >= 0) & (last.there > 0))[0, 0].numpy()
        assert 0.1 < expected.mean() < 0.9
        np.testing.assert_array_equal(run(graph, depth) > 0, expected)


def test_doubt_decides_on_validity_and_on_nothing_else(tiny_network, depth_image):
    depth = depth_image(17, 23)
    plain, doubting = (run(CameraGraph(tiny_network(2, doubt=doubt)), depth) for doubt in (0.0, 3.0))
    both = (plain > 0) & (doubting > 0)
    assert ((plain > 0) != (doubting > 0)).mean() > 0.1 and both.mean() > 0.2
    np.testing.assert_array_equal(plain[both], doubting[both])


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("invalid", [0.0, np.nan, np.inf, -np.inf, -1.0, 0.05, 10.5, 65.535, 3e38])
def test_what_is_no_depth_or_out_of_range_counts_as_a_hole(tiny_network, depth_image, scale, invalid):
    graph = CameraGraph(tiny_network(scale, doubt=1.0))
    depth = depth_image(17, 23)
    spoilt = np.where(depth > 0, depth, np.float32(invalid))
    result = run(graph, depth)
    assert (result > 0).mean() > 0.3
    np.testing.assert_array_equal(run(graph, spoilt), result)


def test_infinite_depth_is_none_in_a_range_without_an_end(tiny_network, depth_image):
    depth = depth_image(17, 23)
    spoilt = np.where(depth > 0, depth, np.float32(np.inf))
    graph = CameraGraph(tiny_network(2, doubt=1.0))
    np.testing.assert_array_equal(run(graph, spoilt, (0.1, np.inf)), run(graph, depth, (0.1, np.inf)))


@pytest.mark.parametrize("scale", [2, 4])
def test_garbage_of_all_kinds_leaks_into_no_stage(tiny_network, depth_image, rng, scale):
    graph = CameraGraph(tiny_network(scale, strength=1e3, doubt=1.0))
    depth = depth_image(17, 23)
    garbage = rng.choice(np.array([np.nan, np.inf, -np.inf, -3.0, 1e-30, 1e30, 0.0], np.float32), depth.shape)
    spoilt = np.where(depth > 0, depth, garbage)
    for clean, other in zip(staged(graph, depth), staged(graph, spoilt)):
        assert torch.isfinite(clean.inverse).all()
        for name in ("inverse", "there", "validity"):
            assert torch.equal(getattr(clean, name), getattr(other, name)), name


def test_a_range_from_zero_does_not_make_zero_valid(tiny_network, depth_image):
    graph = CameraGraph(tiny_network(2))
    depth = depth_image(17, 23)
    np.testing.assert_array_equal(run(graph, depth, (0.0, 10.0)), run(graph, depth))


@pytest.mark.parametrize("invalid", [0.0, np.nan, np.inf, 65.535])
def test_nothing_valid_in_nothing_valid_out(tiny_network, invalid):
    network = say_validity(tiny_network(4), 1e4)
    result = run(CameraGraph(network), np.full((9, 8), invalid, np.float32))
    assert result.shape == (36, 32) and not result.any()


def test_one_valid_pixel_spreads_only_its_own_depth(tiny_network):
    depth = np.zeros((12, 12), np.float32)
    depth[5, 6] = 1.7
    result = run(CameraGraph(tiny_network(2, strength=1e3)), depth)
    assert (result > 0).sum() == 4
    np.testing.assert_allclose(result[10:12, 12:14], 1.7, rtol=1e-6)


# --- precision and learning ---------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4])
def test_half_precision_is_of_the_network_only_and_close(tiny_network, depth_image, scale):
    depth = depth_image(24, 32)
    full, half = (run(CameraGraph(tiny_network(scale, doubt=0.5), half=half), depth) for half in (False, True))
    assert half.dtype == np.float32
    assert ((full > 0) != (half > 0)).mean() < 0.005
    both = (full > 0) & (half > 0)
    error = np.abs(half - full)[both] / full[both]
    assert 0 < error.max() < 0.02 and error.mean() < 5e-4
    # Where the weights have nothing to choose from, depth is as exact as in full precision.
    constant = np.full((9, 11), 1.2345678, np.float32)
    result = run(CameraGraph(tiny_network(scale), half=True), constant)
    np.testing.assert_allclose(result, constant[0, 0], rtol=1e-6)


@torch.no_grad()
def test_depth_is_not_rounded_under_autocast(tiny_network):
    """Training on CUDA runs the network, and not the map, in bfloat16."""
    graph = CameraGraph(tiny_network(4))
    depth = torch.full((1, 1, 9, 11), 1.2345678)
    inverse, valid, features = graph.prepare(depth, torch.tensor(RANGE))
    with torch.autocast("cpu", torch.bfloat16):
        stages = graph.stages(inverse, valid, features)
    for stage in stages:
        assert stage.inverse.dtype == stage.validity.dtype == torch.float32
        found = 1.0 / stage.inverse[stage.there > 0].double()
        np.testing.assert_allclose(found, 1.2345678, rtol=1e-6)


@pytest.mark.parametrize("taps", [(9,), (9, 4)], ids=str)
@pytest.mark.parametrize("settings", [{}, {"multi_stage": False}, {"attention_scales": 0, "block": "plain"}], ids=str)
@pytest.mark.parametrize("scale", [2, 8])
def test_the_gradient_reaches_every_parameter_through_the_loss(tiny_network, depth_image, scale, taps, settings):
    network = tiny_network(scale, taps=taps, **settings).train()
    graph = CameraGraph(network)
    depth = torch.from_numpy(depth_image(20, 24))[None, None]
    inverse, valid, features = graph.prepare(depth, torch.tensor(RANGE))
    results = graph.stages(inverse, valid, features)
    targets = [
        torch.from_numpy(depth_image(20 * 2**k, 24 * 2**k, seed=k))[None, None] for k in range(1, scale.bit_length())
    ]
    measured = [torch.ones(1) for _ in targets]
    supervise_depth(results, targets, measured, depth * valid, DepthWeights()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
    for stage in network.stages:  # of every single weight and decision
        assert (stage.head[0].bias.grad != 0).all()
