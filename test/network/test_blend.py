"""Enlarging by weights: whatever the weights are, only means of valid pixels around come out."""

from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.depth import resample  # noqa: E402
from dsca_ros.network.blend import FAINT, HOLD, LEAST, Blend, bilinear_weights  # noqa: E402

LAYOUTS = [(2, 1), (2, 2), (2, 4), (4, 1), (4, 2), (8, 1)]
by_layout = pytest.mark.parametrize(("factor", "unshuffle"), LAYOUTS)
by_taps = pytest.mark.parametrize("taps", [9, 4])


def image(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))[None, None]


def enlarged(blend: Blend, values: np.ndarray, valid: np.ndarray, logits: torch.Tensor) -> tuple:
    """The enlarged map and the share of its support, [factor * H, factor * W] of float64."""
    results = blend(image(np.where(valid, values, 0.0)), image(valid), by_tap(blend, logits))
    return tuple(result[0, 0].double().numpy() for result in results)


def by_tap(blend: Blend, logits: torch.Tensor) -> Iterator[torch.Tensor]:
    """Logits [B, outputs * taps, h, w], the taps of an output pixel together, one tap after the other."""
    return (logits[:, tap :: blend.taps] for tap in range(blend.taps))


def logits_of(blend: Blend, size: tuple[int, int], each: torch.Tensor) -> torch.Tensor:
    """The same logits [outputs * taps] at every one of the features' pixels."""
    height, width = (n // blend.unshuffle for n in size)
    return each[None, :, None, None].expand(1, -1, height, width)


def random_logits(blend: Blend, size: tuple[int, int], strength: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    height, width = (n // blend.unshuffle for n in size)
    return strength * torch.randn(1, blend.outputs * blend.taps, height, width, generator=generator)


def around(values: np.ndarray, valid: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest valid value of the 3x3 input pixels around each output pixel."""
    found = []
    for fill, choose in ((np.inf, np.min), (-np.inf, np.max)):
        padded = np.pad(np.where(valid, values, fill), 1, constant_values=fill)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
        found.append(resample.nearest(choose(windows, axis=(2, 3)), factor))
    return found[0], found[1]


# --- only means of what is there ----------------------------------------------------------------


@by_layout
@by_taps
@pytest.mark.parametrize("strength", [1.0, 30.0, 1e4])
def test_no_weights_leave_the_range_of_the_valid_pixels_around(factor, unshuffle, taps, strength, rng):
    size = (12, 16)
    # The strongest logits make nearly every weight exactly 0 or 1.
    values = np.exp(rng.uniform(np.log(1 / 60), np.log(20), size)).astype(np.float32)
    valid = rng.random(size) < 0.5
    blend = Blend(factor, unshuffle, taps)
    result, _ = enlarged(blend, values, valid, random_logits(blend, size, strength))
    low, high = around(values, valid, factor)
    there = result > 0
    assert np.isfinite(result).all() and there.mean() > 0.8
    assert (result >= low * (1 - 1e-6))[there].all() and (result <= high * (1 + 1e-6))[there].all()
    assert not result[np.isinf(low)].any()  # nothing valid around, nothing there


@by_taps
@pytest.mark.parametrize("logit", [-1e30, -200.0, 200.0, 1e30])
def test_where_all_weights_are_the_same_extreme_the_plain_mean_comes_out(taps, logit, rng):
    """No weight at all is no division by zero, and no hole either."""
    values, valid = rng.uniform(1.0, 2.0, (6, 8)), rng.random((6, 8)) < 0.6
    blend = Blend(2, 2, taps)
    result, _ = enlarged(blend, values, valid, torch.full((1, blend.outputs * taps, 3, 4), logit))
    even, _ = enlarged(blend, values, valid, torch.zeros(1, blend.outputs * taps, 3, 4))
    np.testing.assert_allclose(result, even, rtol=1e-6)
    padded, mask = np.pad(np.where(valid, values, 0.0), 1), np.pad(valid, 1)
    window = (slice(2, 5), slice(3, 6)) if taps == 9 else (slice(2, 4), slice(3, 5))
    assert result[4, 6] == pytest.approx(padded[window].sum() / mask[window].sum(), rel=1e-6)


@by_layout
@by_taps
def test_a_constant_stays_that_constant(factor, unshuffle, taps, rng):
    size = (8, 12)
    valid = rng.random(size) < 0.5
    blend = Blend(factor, unshuffle, taps)
    for constant in (1 / 60, 0.37, 20.0):
        result, _ = enlarged(blend, np.full(size, constant), valid, random_logits(blend, size, 10.0))
        np.testing.assert_allclose(result[result > 0], np.float32(constant), rtol=1e-6)
        assert (result > 0).mean() > 0.7


@by_taps
def test_the_pixels_of_a_hole_have_no_say(taps, rng):
    """Whatever stands beside: moving a hole's neighbours moves the result, the hole itself has no value to move."""
    values, valid = np.full((6, 6), 3.0), np.ones((6, 6), bool)
    valid[2:4, 2:4] = False
    blend = Blend(2, 1, taps)
    logits = torch.full((1, blend.outputs * taps, 6, 6), -20.0)
    with_hole, _ = enlarged(blend, values, valid, logits)
    np.testing.assert_allclose(with_hole[with_hole > 0], 3.0, rtol=1e-6)
    values[1, 1] = 5.0
    moved, _ = enlarged(blend, values, valid, logits)
    changed = np.argwhere(moved != with_hole)
    assert changed.min() >= (0 if taps == 9 else 1) and changed.max() <= (5 if taps == 9 else 4)
    assert len(changed) == (36 if taps == 9 else 16)


# --- where it starts ----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bilinear_weights_are_those_of_the_half_pixel_grid(factor, rng):
    weights = bilinear_weights(factor).reshape(factor, factor, 3, 3).numpy()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=(2, 3)), 1.0, rtol=1e-6)
    depth = rng.uniform(1.0, 2.0, (3, 3)).astype(np.float32)
    expected = resample.naive_bilinear(depth, factor)[factor : 2 * factor, factor : 2 * factor]
    np.testing.assert_allclose((weights * depth).sum(axis=(2, 3)), expected, rtol=1e-5)


@by_layout
@by_taps
def test_it_starts_as_bilinear_of_the_valid_pixels_but_for_the_faint_weights(factor, unshuffle, taps, rng):
    """Every tap beside the bilinear ones weighs FAINT, so it is off by a known share of the local range at most."""
    size = (12, 16)
    values = rng.uniform(1.0, 3.0, size).astype(np.float32)
    valid = rng.random(size) < 0.7
    blend = Blend(factor, unshuffle, taps)
    result, support = enlarged(blend, values, valid, logits_of(blend, size, blend.start))
    expected = resample.bilinear(np.where(valid, values, np.float32(0.0)), factor)
    low, high = around(values, valid, factor)
    both = (expected > 0) & (result > 0) & (support > 0.3)
    assert both.mean() > 0.5
    share = FAINT * taps / (support + FAINT * taps)
    assert (np.abs(result - expected) <= share * (high - low) + 1e-5)[both].all()
    # At a hole's border, too, it is nearer to the careful bilinear than to one of zeros mixed in.
    naive = resample.naive_bilinear(np.where(valid, values, np.float32(0.0)), factor)
    beside = both & (np.abs(expected - naive) > 0.2)
    assert beside.sum() > 50 and (np.abs(result - expected) < np.abs(result - naive))[beside].mean() > 0.95


@by_layout
@by_taps
def test_the_start_of_every_output_counted_by_hand(factor, unshuffle, taps, rng):
    size = (8, 8)
    values, valid = rng.uniform(1.0, 3.0, size), rng.random(size) < 0.6
    blend = Blend(factor, unshuffle, taps)
    result, support = enlarged(blend, values, valid, logits_of(blend, size, blend.start))
    weights = bilinear_weights(factor).double().numpy()
    padded, mask = np.pad(np.where(valid, values, 0.0), 1), np.pad(valid, 1)
    for y, x in np.ndindex(result.shape):
        (row, i), (column, j) = divmod(y, factor), divmod(x, factor)
        plain = weights[i * factor + j].reshape(3, 3)
        used = np.ones((3, 3), bool) if taps == 9 else plain > 0
        there = mask[row : row + 3, column : column + 3] & used
        weight = ((plain + FAINT) / (1 + 2 * FAINT) + LEAST) * there
        expected = (weight * padded[row : row + 3, column : column + 3]).sum() / weight.sum() if there.any() else 0.0
        assert result[y, x] == pytest.approx(expected, rel=1e-5), (y, x)
        beyond = np.pad(valid, 1, mode="edge")  # lies what is at the border
        assert support[y, x] == pytest.approx((plain * beyond[row : row + 3, column : column + 3]).sum(), abs=1e-6)


@by_layout
@by_taps
def test_with_bilinear_weights_a_plane_stays_that_plane(factor, unshuffle, taps):
    size = (12, 8)
    rows, columns = np.mgrid[: size[0], : size[1]]
    plane = 0.5 + 0.031 * rows - 0.023 * columns
    blend = Blend(factor, unshuffle, taps)
    exact = torch.logit(torch.sigmoid(blend.start) * (1 + 2 * FAINT) - FAINT, eps=1e-12)
    result, _ = enlarged(blend, plane, np.ones(size, bool), logits_of(blend, size, exact))
    y, x = ((np.arange(n * factor) + 0.5) / factor - 0.5 for n in size)
    expected = 0.5 + 0.031 * y[:, None] - 0.023 * x[None, :]
    inner = (slice(factor, -factor),) * 2
    np.testing.assert_allclose(result[inner], expected[inner], atol=2e-5)
    started, _ = enlarged(blend, plane, np.ones(size, bool), logits_of(blend, size, blend.start))
    # All nine faint weights pull towards the middle of the input pixel, which is half of one away at most.
    assert np.abs(started - expected)[inner].max() <= taps * FAINT * 0.5 * (0.031 + 0.023)


# --- the layout ---------------------------------------------------------------------------------


@by_layout
@pytest.mark.parametrize("tap", range(9))
def test_one_of_nine_taps_for_all_is_a_shift_of_the_nearest_pixel(factor, unshuffle, tap, rng):
    """The same in every layout: outputs run along rows, and taps do."""
    size = (12, 8)
    values = rng.uniform(1.0, 3.0, size).astype(np.float32)
    blend = Blend(factor, unshuffle, 9)
    each = torch.full((blend.outputs, 9), -40.0)
    each[:, tap] = 40.0
    result, _ = enlarged(blend, values, np.ones(size, bool), logits_of(blend, size, each.flatten()))
    dy, dx = tap // 3 - 1, tap % 3 - 1
    shifted = resample.nearest(np.roll(values, (-dy, -dx), (0, 1)), factor)
    inner = (slice(factor, -factor),) * 2
    np.testing.assert_allclose(result[inner], shifted[inner], atol=3e-5)


@by_layout
@pytest.mark.parametrize("tap", range(4))
def test_one_of_four_taps_is_a_corner_of_the_bilinear_support(factor, unshuffle, tap, rng):
    size = (12, 8)
    values = rng.uniform(1.0, 3.0, size).astype(np.float32)
    blend = Blend(factor, unshuffle, 4)
    each = torch.full((blend.outputs, 4), -40.0)
    each[:, tap] = 40.0
    result, _ = enlarged(blend, values, np.ones(size, bool), logits_of(blend, size, each.flatten()))
    for y, x in np.ndindex(result.shape):
        row = (2 * y + 1 - factor) // (2 * factor) + tap // 2
        column = (2 * x + 1 - factor) // (2 * factor) + tap % 2
        if 0 < row < size[0] - 1 and 0 < column < size[1] - 1:
            assert result[y, x] == pytest.approx(values[row, column], abs=3e-5), (y, x)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("unshuffle", [2, 4])
@by_taps
def test_folding_changes_where_logits_are_and_nothing_else(factor, unshuffle, taps, rng):
    """Random logits in space, folded into the channels of a coarser grid."""
    size = (8, 12)
    values, valid = rng.uniform(1.0, 3.0, size), rng.random(size) < 0.6
    plain, folded = Blend(factor, 1, taps), Blend(factor, unshuffle, taps)
    logits = random_logits(plain, size, 3.0)
    grid = logits.reshape(factor, factor, taps, *size).permute(3, 0, 4, 1, 2)  # [H, factor, W, factor, taps]
    grid = grid.reshape(size[0] * factor, size[1] * factor, taps)
    side = factor * unshuffle
    moved = grid.reshape(size[0] // unshuffle, side, size[1] // unshuffle, side, taps).permute(1, 3, 4, 0, 2)
    moved = moved.reshape(1, side * side * taps, size[0] // unshuffle, size[1] // unshuffle)
    for a, b in zip(enlarged(plain, values, valid, logits), enlarged(folded, values, valid, moved)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("factor", "unshuffle"), [*LAYOUTS, (2, 3), (2, 6)])
@pytest.mark.parametrize("enlarged", [1, 2, 4])
def test_repeating_is_nearest_enlargement(factor, unshuffle, enlarged, rng):
    values = rng.random((12, 24)).astype(np.float32)
    blend = Blend(factor, unshuffle, 4)
    planes = blend.repeat(image(values), enlarged)
    assert planes.shape[1] == (1 if enlarged % unshuffle == 0 else blend.outputs)
    result = blend.lay_out(planes.expand(-1, blend.outputs, -1, -1))[0, 0]
    np.testing.assert_array_equal(result, resample.nearest(values, factor * enlarged))


def test_four_taps_are_the_four_of_nine_that_bilinear_weighs(rng):
    size = (6, 8)
    values, valid = rng.uniform(1.0, 3.0, size), rng.random(size) < 0.8
    nine, four = Blend(4, 1, 9), Blend(4, 1, 4)
    chosen = (bilinear_weights(4) > 0).flatten()
    each = torch.full((16 * 9,), -1e4)
    logits = torch.randn(16 * 4, generator=torch.Generator().manual_seed(0))
    each[chosen] = logits
    a, support = enlarged(nine, values, valid, logits_of(nine, size, each))
    b, other = enlarged(four, values, valid, logits_of(four, size, logits))
    some = b > 0
    assert some.mean() > 0.9
    np.testing.assert_allclose(a[some], b[some], atol=2e-4)
    np.testing.assert_array_equal(support, other)


@pytest.mark.parametrize("taps", [0, 1, 5, 10])
def test_other_numbers_of_taps_are_refused(taps):
    with pytest.raises(ValueError, match=f"taps must be 9 or 4, not {taps}"):
        Blend(2, 1, taps)


# --- learning -----------------------------------------------------------------------------------


@by_taps
def test_every_weight_of_a_valid_tap_has_a_gradient_and_no_other(taps, rng):
    values, valid = rng.uniform(1.0, 3.0, (4, 6)), rng.random((4, 6)) < 0.7
    blend = Blend(2, 1, taps)
    logits = random_logits(blend, (4, 6), 1.0).requires_grad_()
    result, _ = blend(image(np.where(valid, values, 0.0)), image(valid), by_tap(blend, logits))
    (result * torch.randn(result.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    gradient = logits.grad.reshape(4, taps, 4, 6).numpy()
    padded = np.pad(valid, 1)
    for output, tap, y, x in np.ndindex(gradient.shape):
        used = (bilinear_weights(2)[output] > 0).nonzero().flatten().tolist() if taps == 4 else range(9)
        windows = [padded[y + t // 3, x + t % 3] for t in used]
        # A mean of one pixel is that pixel, whatever it weighs.
        matters = windows[tap] and sum(windows) > 1
        assert (abs(gradient[output, tap, y, x]) > 1e-6) == matters, (output, tap, y, x)


# --- the guard ----------------------------------------------------------------------------------


def plain_and_guarded(blend: Blend, values: np.ndarray, valid: np.ndarray, logits: torch.Tensor) -> tuple:
    arrays = image(np.where(valid, values, 0.0)), image(valid)
    results = (blend(*arrays, by_tap(blend, logits), guarded=guarded)[0] for guarded in (False, True))
    return tuple(result[0, 0].double().numpy() for result in results)


def windows_of(blend: Blend, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """[factor * H, factor * W, taps] values an output pixel is made of, NaN where invalid."""
    factor = blend.factor
    padded = np.pad(np.where(valid, values, np.nan), 1, constant_values=np.nan)
    all_weights = bilinear_weights(factor)
    chosen = [(row > 0).nonzero().flatten().tolist() if blend.taps == 4 else range(9) for row in all_weights]
    result = np.empty((values.shape[0] * factor, values.shape[1] * factor, blend.taps))
    for y, x in np.ndindex(result.shape[:2]):
        window = padded[y // factor : y // factor + 3, x // factor : x // factor + 3].ravel()
        result[y, x] = window[list(chosen[y % factor * factor + x % factor])]
    return result


@by_layout
@by_taps
def test_under_the_guard_every_result_is_near_a_pixel_it_is_made_of_counted_by_hand(factor, unshuffle, taps, rng):
    size = (8, 12)
    values = rng.choice([0.2, 1.0, 1.02, 1.5, 3.0], size) * rng.uniform(0.995, 1.005, size)
    valid = rng.random(size) < 0.6
    blend = Blend(factor, unshuffle, taps)
    plain, guarded = plain_and_guarded(blend, values, valid, random_logits(blend, size, 2.0))
    made_of = windows_of(blend, values, valid)
    there = np.isfinite(made_of).any(axis=2)
    plain_there, guarded_there, made_of = plain[there], guarded[there], made_of[there]
    distance = np.where(np.isfinite(made_of), np.abs(plain_there[:, None] - made_of), np.inf)
    nearest = np.take_along_axis(made_of, distance.argmin(axis=1)[:, None], axis=1)[:, 0]
    moved = np.maximum(np.abs(plain_there - nearest) - HOLD * nearest, 0.0)
    least, second = np.sort(distance, axis=1)[:, :2].T
    clear = second - least > 1e-5  # half-way between two taps, a last digit decides
    assert clear.mean() > 0.95
    np.testing.assert_allclose(np.abs(guarded_there - plain_there)[clear], moved[clear], atol=2e-5)
    off = np.nanmin(np.abs(guarded_there[:, None] / made_of - 1.0), axis=1)
    assert off.max() < HOLD + 1e-4
    assert (moved > 0.05).mean() > 0.2  # it did something
    low, high = around(values, valid, factor)
    assert (guarded >= low * (1 - 1e-5))[there].all() and (guarded <= high * (1 + 1e-5))[there].all()


@by_taps
@pytest.mark.parametrize("factor", [2, 4])
def test_the_guard_leaves_ramps_small_steps_and_noise_alone(factor, taps, rng):
    rows, columns = np.mgrid[:10, :12]
    ramp = 3.0 + 0.01 * columns + 0.02 * rows
    step = np.where(columns < 6, 1.0, 1.0 + 1.9 * HOLD)
    noise = 1.0 + 0.002 * rng.standard_normal((10, 12))
    blend = Blend(factor, 1, taps)
    for values in (ramp, step, noise):
        logits = logits_of(blend, (10, 12), blend.start)
        plain, guarded = plain_and_guarded(blend, values, np.ones((10, 12), bool), logits)
        np.testing.assert_allclose(guarded, plain, rtol=1e-6)


@pytest.mark.parametrize(("near", "far"), [(2.0, 0.1), (1.0, 0.95), (0.05, 0.04), (20.0, 0.02)])
def test_nothing_hangs_between_two_surfaces(near, far):
    values, valid = np.full((6, 8), near), np.ones((6, 8), bool)
    values[:, 4:] = far
    blend = Blend(2, 2, 4)
    for seed in range(4):
        _, guarded = plain_and_guarded(blend, values, valid, random_logits(blend, (6, 8), 1.0, seed))
        off = np.minimum(np.abs(guarded / near - 1.0), np.abs(guarded / far - 1.0))
        assert off.max() < HOLD + 1e-7 * near / far + 1e-6


@by_taps
def test_the_guard_takes_holes_for_no_surface(taps):
    values, valid = np.full((6, 8), 1.3), np.ones((6, 8), bool)
    valid[2:4, 3:5] = False
    blend = Blend(2, 2, taps)
    logits = random_logits(blend, (6, 8), 1.0)
    plain, guarded = plain_and_guarded(blend, values, valid, logits)
    np.testing.assert_allclose(guarded, plain, rtol=1e-6)
    assert np.isfinite(plain_and_guarded(blend, values, np.zeros((6, 8), bool), logits)[1]).all()
