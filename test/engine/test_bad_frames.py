"""Frames as no scene gives them, through every model that ships: finite, in range, the right size."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dsca_ros.depth.fidelity import hallucinated, lost
from dsca_ros.depth.filters import maximum, minimum
from dsca_ros.depth.resample import nearest
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine
from dsca_ros.engine.zoo import DEPTH, list_models
from dsca_ros.evaluation.recordings import open_set
from dsca_ros.upsampler import Upsampler

RANGE = (0.1, 10.0)
MODELS = [model for model in list_models() if model.domain == DEPTH]
#: What the largest frame needs, bytes.
LARGEST_NEEDS = 6e9


def frames() -> dict[str, np.ndarray]:
    """By name: [H, W] float32 metres."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:45, :62].astype(np.float32)
    one = np.zeros((45, 62), np.float32)
    one[20, 30] = 1.5
    return {
        "noise": rng.uniform(0.1, 10.0, (45, 62)).astype(np.float32),
        "noise_with_holes": np.where(rng.random((45, 62)) < 0.5, rng.uniform(0.1, 10.0, (45, 62)), 0.0),
        "nonsense": rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-30, 1e30, 3.0], (45, 62)),
        "one_pixel": one,
        "checkerboard": np.where((rows + columns) % 2 == 0, 2.0, 0.0),
        "near_and_far": np.where((rows + columns) % 2 == 0, 0.1, 10.0),
        "constant": np.full((45, 62), 3.3),
        "nearest": np.full((45, 62), 0.1),
        "farthest": np.full((45, 62), 10.0),
        "ramp": 0.1 + columns / 61.0 * 9.9,
        "beyond_the_range": 0.05 + rows / 44.0 * 20.0,
        "no_pixel": np.zeros((45, 62)),
        "1x1": np.full((1, 1), 2.0),
        "1x1_invalid": np.zeros((1, 1)),
        "row": rng.uniform(1.0, 2.0, (1, 37)),
        "column": rng.uniform(1.0, 2.0, (53, 1)),
        "2x3": rng.uniform(1.0, 2.0, (2, 3)),
    }


def valid_range(depth: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest valid depth within ``reach`` pixels; infinite the wrong way round where there is none."""
    with np.errstate(invalid="ignore"):
        valid = (depth >= RANGE[0]) & (depth <= RANGE[1])
    return minimum(np.where(valid, depth, np.inf), reach), maximum(np.where(valid, depth, -np.inf), reach)


def check_is_of_what_was_measured(result: np.ndarray, depth: np.ndarray, scale: int, name: str) -> np.ndarray:
    """Where a result is valid, having held it to its size, to what was measured nearby, and to losing nothing."""
    assert result.shape == (depth.shape[0] * scale, depth.shape[1] * scale), name
    assert result.dtype == np.float32 and np.isfinite(result).all() and (result >= 0).all(), name
    low, high = (nearest(m, scale) for m in valid_range(depth, 1 if scale == 2 else 2))
    valid = result > 0
    assert (result >= low)[valid].all() and (result <= high)[valid].all(), name
    with np.errstate(invalid="ignore"):
        measured = (depth >= RANGE[0]) & (depth <= RANGE[1])
    source = np.where(measured, depth, 0.0)
    assert not hallucinated(result, source, scale).any() and not lost(result, source, scale).any(), name
    return valid


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.path.stem)
def test_strange_frames_give_frames_in_the_range_of_what_was_measured(model):
    engine = OnnxRuntimeEngine(model, threads=1)
    for name, values in frames().items():
        depth = values.astype(np.float32)
        result = engine.infer(depth, RANGE)
        valid = check_is_of_what_was_measured(result, depth, model.scale, name)
        if name in ("constant", "nearest", "farthest", "1x1", "ramp", "row", "column"):
            assert valid.mean() > 0.9, name


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.path.stem)
def test_recorded_frames_give_frames_in_the_range_of_what_was_measured(model, shared_data):
    engine = OnnxRuntimeEngine(model, threads=1)
    folders = sorted(path for path in shared_data("sensor").iterdir() if path.is_dir())
    assert folders
    for folder in folders:
        frame = open_set(folder).depth(0)
        edges = steps_over(frame, 0.05)
        # The part with most steps, where a network might go astray.
        row, column = max(
            ((r, c) for r in range(0, frame.shape[0] - 96, 48) for c in range(0, frame.shape[1] - 128, 64)),
            key=lambda at: int(edges[at[0] : at[0] + 96, at[1] : at[1] + 128].sum()),
        )
        depth = np.ascontiguousarray(frame[row : row + 96, column : column + 128])
        result = engine.infer(depth, RANGE)
        assert check_is_of_what_was_measured(result, depth, model.scale, folder.name).any()


def steps_over(depth: np.ndarray, metres: float) -> np.ndarray:
    """[H, W] bool: where valid depth differs by more than ``metres`` within a pixel."""
    low, high = valid_range(depth, 1)
    return high - low > metres


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("model", sorted({model.model for model in MODELS}))
def test_with_all_holes_filled_there_are_none(model, scale):
    rng = np.random.default_rng(11)
    depth = np.where(rng.random((48, 64)) < 0.5, rng.uniform(1.0, 3.0, (48, 64)), 0.0).astype(np.float32)
    depth[:20, :25] = 0.0
    with Upsampler(model, scale, "onnxruntime", depth_range=RANGE, fill_holes=np.inf) as upsample:
        result = upsample(depth)
    assert (result > 0).all()


@pytest.mark.parametrize(("scale", "dtype"), [(2, np.float32), (4, np.uint16)], ids=["x2-metres", "x4-millimetres"])
def test_the_largest_frame(scale, dtype):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if memory < LARGEST_NEEDS:
        pytest.skip(f"4096x3072 needs {LARGEST_NEEDS / 1e9:.0f} GB of memory, {memory / 1e9:.1f} GB are free")
    model = next(m for m in MODELS if (m.model, m.scale, m.precision) == ("dsca-nano", scale, "fp32"))
    depth = np.full((3072, 4096), 2000, np.uint16)
    depth[1000:2000, 1000:3000] = 1000
    depth[2500:2600, 200:900] = 0
    image = depth if dtype == np.uint16 else depth * np.float32(0.001)
    result = OnnxRuntimeEngine(model).infer(image, RANGE)
    assert result.shape == (3072 * scale, 4096 * scale) and result.dtype == dtype
    # Away from steps and the hole it is what it was, where tiles meet, too.
    low, high = minimum(image, 3), maximum(image, 3)
    np.testing.assert_array_equal(result[::scale, ::scale][low == high], image[low == high])
