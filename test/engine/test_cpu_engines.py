"""What every engine owes its callers, held on those for CPUs with a small random network."""

import subprocess
import sys

import numpy as np
import pytest

from dsca_ros.engine.base import EngineError
from dsca_ros.engine.factory import ENGINES
from dsca_ros.engine.zoo import ModelFile, find_model

RANGE = (0.1, 10.0)
KINDS = {kind.name: kind for kind in ENGINES}
TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@pytest.fixture(params=TITLES)
def kind(request):
    """One way to run a graph on a CPU."""
    kind = KINDS[request.param]
    if reason := kind.missing():
        pytest.skip(reason)
    return kind


@pytest.fixture
def engine(kind, use_tiny_models):
    return kind.create(find_model("tiny", 2), 1)


def millimetres(metres):
    return np.rint(metres * 1e3).astype(np.uint16)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_dtype_and_unit_that_come_in_go_out(engine, dtype):
    constant = np.full((12, 15), 1500 if dtype == np.uint16 else 1.5, dtype)
    result = engine.infer(constant, RANGE)
    assert result.dtype == dtype and result.shape == (24, 30)
    np.testing.assert_allclose(result, constant[0, 0], rtol=1e-6)


def test_millimetres_are_the_rounded_metres(engine, depth_image):
    exact = millimetres(depth_image(17, 23))
    from_metres = engine.infer(exact * np.float32(0.001), RANGE)
    np.testing.assert_array_equal(engine.infer(exact, RANGE), np.floor(from_metres * 1e3 + 0.5))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_padded_rows_and_other_strides(engine, depth_image, dtype):
    depth = depth_image(17, 23)
    plain = millimetres(depth) if dtype == np.uint16 else depth
    expected = engine.infer(plain, RANGE)
    padded = np.full((17, 31), 777, dtype)
    padded[:, :23] = plain
    np.testing.assert_array_equal(engine.infer(padded[:, :23], RANGE), expected)
    np.testing.assert_array_equal(engine.infer(np.asfortranarray(plain), RANGE), expected)
    upside_down = plain[::-1].copy()[::-1]
    np.testing.assert_array_equal(engine.infer(upside_down, RANGE), expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_the_input_is_only_read(engine, depth_image, dtype):
    depth = depth_image(12, 15)
    if dtype == np.uint16:
        depth = millimetres(depth)
    else:
        depth[depth == 0] = np.nan
    before = depth.copy()
    depth.flags.writeable = False
    engine.infer(depth, RANGE)
    np.testing.assert_array_equal(depth, before)


def test_a_result_does_not_change_under_the_next_one(engine, depth_image):
    first = engine.infer(depth_image(12, 15, 1), RANGE)
    kept = first.copy()
    engine.infer(depth_image(12, 15, 2), RANGE)
    np.testing.assert_array_equal(first, kept)


def test_sizes_may_change_in_mid_stream(kind, engine, depth_image):
    sizes = [(12, 15), (9, 8), (24, 32), (12, 15), (7, 30), (9, 8)]
    for height, width in sizes:
        depth = depth_image(height, width)
        fresh = kind.create(find_model("tiny", 2), 1)
        np.testing.assert_array_equal(engine.infer(depth, RANGE), fresh.infer(depth, RANGE))


@pytest.mark.parametrize(
    ("limits", "near", "far"),
    [((0.1, 10.0), True, True), ((0.1, 2.0), True, False), ((2.0, 10.0), False, True)],
)
def test_the_range_decides_what_is_valid(engine, limits, near, far):
    depth = np.full((10, 20), 1000, np.uint16)
    depth[:, 10:] = 4000
    valid = engine.infer(depth, limits) > 0
    assert (valid[:, :20] == near).all() and (valid[:, 20:] == far).all()


def test_the_largest_uint16_is_no_reading_in_any_range(engine):
    depth = np.full((10, 20), 2000, np.uint16)
    depth[3:6, 5:9] = 65535
    holes = np.where(depth == 65535, np.uint16(0), depth)
    wide = (0.1, 100.0)
    np.testing.assert_array_equal(engine.infer(depth, wide), engine.infer(holes, wide))


def test_an_all_invalid_image_gives_one(engine):
    for value in (0, 65535, 20000):
        assert not engine.infer(np.full((9, 8), value, np.uint16), RANGE).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float64, ">u2", ">f4"])
def test_other_dtypes_are_refused(engine, dtype):
    with pytest.raises(TypeError, match="uint16 millimetres or float32 metres"):
        engine.infer(np.ones((8, 8), dtype), RANGE)


@pytest.mark.parametrize("shape", [(8,), (8, 8, 1), (1, 1, 8, 8), (0, 8), (8, 0)])
def test_other_shapes_are_refused(engine, shape):
    with pytest.raises(ValueError, match="shape"):
        engine.infer(np.ones(shape, np.float32), RANGE)


def test_the_description_names_runtime_and_threads(use_tiny_models, kind, engine):
    assert engine.description.startswith(TITLES[kind.name]) and "1 thread)" in engine.description
    assert "3 threads" in kind.create(find_model("tiny", 4), 3).description
    assert "all cores" in kind.create(find_model("tiny", 4), 0).description


def test_threads_do_not_change_the_result(kind, engine, depth_image):
    two = kind.create(find_model("tiny", 2), 2)
    depth = depth_image(17, 23)
    np.testing.assert_allclose(two.infer(depth, RANGE), engine.infer(depth, RANGE), atol=1e-5)


def test_a_file_that_is_no_graph_is_named_in_one_line(kind, tmp_path):
    import hashlib

    path = tmp_path / "a.onnx"
    path.write_bytes(b"no graph")
    model = ModelFile("a", 2, "fp32", path, hashlib.sha256(b"no graph").hexdigest())
    with pytest.raises(EngineError, match=r"cannot load .*a\.onnx") as raised:
        kind.create(model, 1)
    assert "\n" not in str(raised.value)


def test_all_give_the_same(use_tiny_models, depth_image):
    depth = depth_image(33, 46)
    model = find_model("tiny", 4)
    results = [kind.create(model, 1).infer(depth, RANGE) for kind in map(KINDS.get, TITLES) if kind.missing() is None]
    for result in results[1:]:
        np.testing.assert_array_equal(result > 0, results[0] > 0)
        # Half-way between two surfaces, a last digit decides which one it is.
        assert (np.abs(result - results[0]) <= 1e-5 * results[0]).mean() > 0.999


def test_a_signal_after_engines_that_came_and_went_in_any_order_is_no_crash(kind, use_tiny_models):
    """In a process of its own, which a crash would take along; with the stack for signals that pytest sets up too."""
    code = f"""
import faulthandler, signal
faulthandler.enable()
from dsca_ros.engine.factory import create_engine
import numpy as np
first, second = (create_engine({kind.name!r}, "tiny", 2, threads=1) for _ in range(2))
for engine in (first, second):
    engine.infer(np.ones((8, 8), np.float32), (0.1, 10.0))
first.close()
del first, engine
second.close()
del second
signal.signal(signal.SIGINT, lambda *_: print("heard"))
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
