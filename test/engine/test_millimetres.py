"""Graphs that take and give a camera's own integers: the same depth, bit for bit, as by way of `depth.units`."""

import sys

import numpy as np
import onnxruntime
import pytest

from dsca_ros.depth import units
from dsca_ros.engine.arrays import graph_inputs, like_input
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.millimetres import BYTES_IN, BYTES_OUT, take_millimetres
from dsca_ros.engine.zoo import DEPTH, list_models

onnx = pytest.importorskip("onnx")
RANGE = (0.1, 10.0)
#: Where conversions go wrong: the ends, what is no reading, both sides of a byte and of the range.
EDGES = (0, 1, 99, 100, 101, 255, 256, 257, 9999, 10000, 10001, 32767, 32768, 65279, 65280, 65533, 65534, 65535)
#: float32 has a step of 4e-6 there, and so can tell them from 65.5345 m, the first that is rounded to 65535.
LAST_METRES, TOO_FAR = 65.53449, 65.53451


def shipped():
    try:
        return [model for model in list_models() if model.domain == DEPTH]
    except EngineError:
        return []  # test_shipped_models.py says so


def small_graph(factors: np.ndarray) -> bytes:
    """Depth times ``factors`` [h, w], twice as wide and high, 0 where it is farther than the range."""
    helper, numpy_helper, float32 = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
    constants = {
        "factors": factors.astype(np.float32)[None, None],
        "larger": np.array([1, 1, 2, 2], np.float32),
        "far_end": np.array(1, np.int64),
        "zero": np.zeros((), np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["depth_range", "far_end"], ["far"]),
        helper.make_node("LessOrEqual", ["depth", "far"], ["near_enough"]),
        helper.make_node("Where", ["near_enough", "depth", "zero"], ["kept"]),
        helper.make_node("Mul", ["kept", "factors"], ["product"]),
        helper.make_node(
            "Resize", ["product", "", "larger"], ["result"],
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "small",
        [
            helper.make_tensor_value_info("depth", float32, [1, 1, "height", "width"]),
            helper.make_tensor_value_info("depth_range", float32, [2]),
        ],
        [helper.make_tensor_value_info("result", float32, [1, 1, "result_height", "result_width"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def session(graph: bytes) -> onnxruntime.InferenceSession:
    """As the graph says it: an optimiser may change the order of the arithmetic."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])


def through_bytes(runs: onnxruntime.InferenceSession, depth: np.ndarray, depth_range=RANGE) -> np.ndarray:
    pairs = np.ascontiguousarray(depth, "<u2").view(np.uint8).reshape(1, *depth.shape, 2)
    (result,) = runs.run([BYTES_OUT], {BYTES_IN: pairs, "depth_range": np.array(depth_range, np.float32)})
    return np.ascontiguousarray(result).view("<u2")[0, :, :, 0]


def through_metres(runs: onnxruntime.InferenceSession, depth: np.ndarray, depth_range=RANGE) -> np.ndarray:
    (result,) = runs.run(["result"], graph_inputs(depth, depth_range, DEPTH))
    return like_input(result, depth.dtype)


def sprinkled(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With every value of `EDGES` somewhere."""
    depth = depth.copy()
    depth.flat[rng.choice(depth.size, len(EDGES), replace=False)] = EDGES
    return depth


@pytest.fixture(params=shipped(), ids=lambda model: model.path.stem, scope="module")
def both(request):
    """A shipped model's graph, and the same with millimetres."""
    graph = request.param.read()
    return request.param.scale, session(graph), session(take_millimetres(graph))


@pytest.mark.parametrize("size", [(17, 23), (16, 24), (9, 8)], ids=str)
def test_shipped_models_give_the_same_bit_for_bit(both, depth_image, rng, size):
    scale, metres, millimetres = both
    depth = sprinkled(np.rint(depth_image(*size) * 1000).astype(np.uint16), rng)
    result = through_bytes(millimetres, depth)
    assert result.shape == (scale * size[0], scale * size[1]) and (result > 0).mean() > 0.3
    np.testing.assert_array_equal(result, through_metres(metres, depth))


def test_shipped_models_give_the_same_for_noise(both, rng):
    _, metres, millimetres = both
    depth = sprinkled(rng.integers(0, 1 << 16, (13, 19), np.uint16), rng)
    for depth_range in (RANGE, (0.1, units.MAX_UINT16_MM / units.MM_PER_M), (5.0, 5.1)):
        result = through_bytes(millimetres, depth, depth_range)
        np.testing.assert_array_equal(result, through_metres(metres, depth, depth_range))


def test_every_value_comes_through():
    depth = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    runs = session(take_millimetres(small_graph(np.ones((256, 256)))))
    for far, last in ((65.5345, 65534), (10.0, 10000), (100.0, 65534)):
        expected = np.where(depth > last, 0, depth).repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(through_bytes(runs, depth, (0.1, far)), expected)


def test_rows_and_columns_are_not_mixed_up(rng):
    depth = rng.integers(1, 10000, (3, 5), np.uint16)
    result = through_bytes(session(take_millimetres(small_graph(np.ones((3, 5))))), depth)
    np.testing.assert_array_equal(result, depth.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("metres", "millimetres"),
    [
        (np.nan, 0),
        (np.inf, 0),
        (-np.inf, 0),
        (-1.0, 0),
        (-1e30, 0),
        (1e30, 0),
        (0.0, 0),
        (0.00049, 0),
        (0.00051, 1),
        (0.0015, 2),
        (1.2344, 1234),
        (1.2346, 1235),
        (LAST_METRES, 65534),
        (TOO_FAR, 0),
        (65.536, 0),
        (66.0, 0),
    ],
)
def test_results_are_rounded_and_what_is_no_depth_is_0(metres, millimetres):
    runs = session(take_millimetres(small_graph(np.full((2, 3), metres))))
    np.testing.assert_array_equal(through_bytes(runs, np.full((2, 3), 1000, np.uint16)), millimetres)


def test_results_are_rounded_as_units_does(rng):
    """Halves above all, which is where two ways to round differ."""
    metres = (rng.integers(0, 1 << 17, (64, 64)) / 2000.0).astype(np.float32)
    runs = session(take_millimetres(small_graph(metres)))
    result = through_bytes(runs, np.full(metres.shape, 1000, np.uint16))
    np.testing.assert_array_equal(result[::2, ::2], units.to_millimetres(metres))


def test_names_types_and_shapes():
    before = small_graph(np.ones((1, 1)))
    graph = onnx.load_from_string(take_millimetres(before)).graph

    def told(values):
        return [
            (v.name, v.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim])
            for v in values
        ]

    uint8, float32 = onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT
    assert told(graph.input) == [(BYTES_IN, uint8, [1, "height", "width", 2]), ("depth_range", float32, [2])]
    assert told(graph.output) == [(BYTES_OUT, uint8, [1, "result_height", "result_width", 2])]
    assert small_graph(np.ones((1, 1))) == before  # what went in is as it was


def test_without_onnx_the_remedy_is_told(monkeypatch):
    graph = small_graph(np.ones((1, 1)))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineError, match="remedy: pip install onnx"):
        take_millimetres(graph)
