"""Whether half precision is what float32 is: the measure itself, and the shipped models held to it."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from dsca_ros.engine.accuracy import BEYOND, DEPTH_RANGE, Accuracy, built_in_frames, compare, measure_accuracy
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine
from dsca_ros.engine.zoo import find_model, list_models
from dsca_ros.upsampler import DEFAULT_MODEL as MODEL

DTYPES = (np.uint16, np.float32)
SIDE = 200
#: Shares of pixels that are wrong: so few are forgiven, so many are not.
FEW, MANY = BEYOND / 2, 5 * BEYOND
SHAPE = (60, 80)
SCALES = sorted({file.scale for file in list_models() if (file.model, file.precision) == (MODEL, "fp16")})

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
shares = pytest.mark.parametrize(("share", "holds"), [(FEW, True), (MANY, False)], ids=["few", "many"])


def wall(millimetres: int, dtype: type) -> np.ndarray:
    """A wall, a tenth of which is a hole."""
    depth = np.full((SIDE, SIDE), millimetres, np.uint16)
    depth[: SIDE // 10] = 0
    return depth if dtype == np.uint16 else depth / np.float32(1000)


def somewhere(eligible: np.ndarray, share: float) -> tuple[np.ndarray, ...]:
    """Indices of a share of all pixels, taken from the eligible ones."""
    count = round(share * eligible.size)
    found = np.flatnonzero(eligible)
    assert len(found) >= count > 0
    return np.unravel_index(np.random.default_rng(3).choice(found, count, replace=False), eligible.shape)


def off_by(depth: np.ndarray, millimetres: float, share: float = MANY) -> np.ndarray:
    """The same, too far in a share of the pixels."""
    wrong = depth.copy()
    one = 1 if depth.dtype == np.uint16 else np.float32(0.001)
    # Near enough for 0.1 % to be less than 2 mm.
    near = (depth > 300 * one) & (depth < 1900 * one)
    wrong[somewhere(near, share)] += depth.dtype.type(millimetres * one)
    return wrong


# --- the measure --------------------------------------------------------------------------------


@dtypes
def test_what_is_the_same_holds(dtype):
    depth = wall(1500, dtype)
    accuracy = compare([depth, depth], [depth.copy(), depth.copy()])
    assert accuracy == Accuracy(beyond=0.0, worst_mm=0.0, finite=True)
    assert accuracy.holds


@dtypes
@shares
def test_two_millimetres_are_forgiven_in_few_pixels(dtype, share, holds):
    depth = wall(1500, dtype)
    accuracy = compare([off_by(depth, 2, share)], [depth])
    assert accuracy.holds == holds
    assert accuracy.beyond == pytest.approx(share)
    # The 99.9th percentile of the pixels that are valid, which the few are not enough to reach.
    assert accuracy.worst_mm == pytest.approx(0.0 if holds else 2.0, abs=0.01)


@pytest.mark.parametrize(
    ("dtype", "error", "holds"),
    [(np.uint16, 1, True), (np.uint16, 2, False), (np.float32, 0.9, True), (np.float32, 1.1, False)],
)
def test_a_millimetre_is_allowed_near_by(dtype, error, holds):
    depth = wall(800, dtype)
    assert compare([off_by(depth, error)], [depth]).holds == holds


@dtypes
@pytest.mark.parametrize(("error", "holds"), [(4, True), (-4, True), (6, False), (-6, False)])
def test_a_thousandth_is_allowed_far_away(dtype, error, holds):
    depth, moved = (wall(5000 + by, dtype) for by in (0, error))
    assert compare([moved], [depth]).holds == holds


@dtypes
@shares
@pytest.mark.parametrize("appears", [True, False])
def test_a_hole_that_appears_or_is_filled_is_an_error_of_any_size(dtype, share, holds, appears):
    depth = wall(1500, dtype)
    wrong = depth.copy()
    if appears:
        wrong[somewhere(depth > 0, share)] = 0
    else:
        wrong[somewhere(depth == 0, share)] = depth.max()
    accuracy = compare([wrong], [depth])
    assert accuracy.holds == holds
    assert accuracy.beyond == pytest.approx(share)
    assert accuracy.worst_mm == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_not_finite_is_not_forgiven(value):
    depth = wall(1500, np.float32)
    wrong = depth.copy()
    wrong[3, 4] = value
    accuracy = compare([wrong, depth], [depth, depth])
    assert not accuracy.finite and not accuracy.holds
    assert "not finite" in str(accuracy)


def test_errors_are_counted_over_all_frames():
    depth = wall(1500, np.uint16)
    accuracy = compare([depth, off_by(depth, 2)], [depth, depth])
    assert accuracy.beyond == pytest.approx(MANY / 2)


@dtypes
def test_nothing_but_holes_is_the_same_everywhere(dtype):
    nothing = np.zeros((8, 8), dtype)
    assert compare([nothing], [nothing]) == Accuracy(0.0, 0.0, True)


def test_it_is_kept_as_json_and_told_in_words():
    depth = wall(1500, np.float32)
    accuracy = compare([off_by(depth, 2)], [depth])
    assert Accuracy.from_plain(json.loads(json.dumps(accuracy.plain()))) == accuracy
    assert str(accuracy) == "0.50 % of pixels differ by more than 1 mm and 0.1 %"


# --- the frames ---------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("shape", [SHAPE, (80, 60), (45, 61)])
def test_the_frames_are_a_cameras_of_that_size_and_dtype(dtype, shape):
    frames = built_in_frames(shape, np.dtype(dtype))
    assert len(frames) == 2
    for frame in frames:
        assert frame.shape == shape and frame.dtype == dtype
        metres = frame * (0.001 if dtype == np.uint16 else 1.0)
        near, far = DEPTH_RANGE
        seen = metres[metres > 0]
        assert np.isfinite(metres).all() and (seen > near).all() and (seen < far).all()
        # Something to get wrong: surfaces at many depths, and holes.
        assert 0.2 < (metres > 0).mean() < 1.0 and seen.std() > 0.2
    assert not np.array_equal(*frames)
    for frame, again in zip(frames, built_in_frames(shape, np.dtype(dtype))):
        np.testing.assert_array_equal(frame, again)


def test_both_dtypes_show_the_same():
    for whole, metric in zip(*(built_in_frames(SHAPE, np.dtype(dtype)) for dtype in DTYPES)):
        np.testing.assert_allclose(whole / 1000.0, metric, atol=0.00051)


# --- engines ------------------------------------------------------------------------------------


def measured(dtype: type, change: Callable[[np.ndarray], np.ndarray] = lambda exact: exact) -> Accuracy:
    """Of an engine that gives what float32 gives, changed."""
    engine = OnnxRuntimeEngine(find_model(MODEL, 2, "fp32"), threads=1)
    frames = []

    def infer(depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        assert depth.shape == SHAPE and depth.dtype == dtype and depth_range == DEPTH_RANGE
        frames.append(depth)
        return change(engine.infer(depth, depth_range))

    accuracy = measure_accuracy(infer, find_model(MODEL, 2, "fp16"), SHAPE, np.dtype(dtype))
    np.testing.assert_array_equal(frames, built_in_frames(SHAPE, np.dtype(dtype)))
    return accuracy


@dtypes
def test_an_exact_engine_holds(dtype):
    accuracy = measured(dtype)
    assert accuracy.holds and accuracy.finite
    # ONNX Runtime does not sum in the same order on every number of threads.
    assert accuracy.beyond == 0.0 and accuracy.worst_mm <= (1.01 if dtype == np.uint16 else 0.01)


@dtypes
@shares
def test_an_engine_that_is_off_in_some_pixels(dtype, share, holds):
    accuracy = measured(dtype, lambda exact: off_by(exact, 2, share))
    assert accuracy.holds == holds
    assert accuracy.beyond == pytest.approx(share, rel=0.1)


@dtypes
def test_an_engine_whose_result_lies_a_pixel_beside(dtype):
    assert not measured(dtype, lambda exact: np.roll(exact, 1, axis=1)).holds


@dtypes
@shares
def test_an_engine_that_loses_pixels(dtype, share, holds):
    def lose(exact: np.ndarray) -> np.ndarray:
        exact[somewhere(exact > 0, share)] = 0
        return exact

    assert measured(dtype, lose).holds == holds


@shares
def test_an_engine_that_is_not_finite_never_holds(share, holds):
    def break_(exact: np.ndarray) -> np.ndarray:
        exact[somewhere(exact > 0, share)] = np.nan
        return exact

    assert not measured(np.float32, break_).holds


@dtypes
def test_an_engine_that_gives_its_own_memory_is_read_before_it_writes_over_it(dtype):
    memory = np.empty((2 * SHAPE[0], 2 * SHAPE[1]), dtype)

    def share_memory(exact: np.ndarray) -> np.ndarray:
        memory[:] = exact
        return memory[:]

    assert measured(dtype, share_memory).holds


@dtypes
@pytest.mark.parametrize("scale", SCALES)
def test_the_shipped_model_in_half_precision_holds(dtype, scale):
    model = find_model(MODEL, scale, "fp16")
    accuracy = measure_accuracy(OnnxRuntimeEngine(model, threads=1).infer, model, (240, 320), np.dtype(dtype))
    assert accuracy.holds, accuracy
