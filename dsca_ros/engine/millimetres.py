"""An exported graph that takes and gives a camera's own 16-bit millimetres.

Half the bytes of floats cross to the GPU and back, and nothing is converted on the CPU. Neither ONNX's usual
operators nor TensorRT know 16-bit integers, so the graph sees the two bytes of each. Needs the package `onnx`.
"""

from __future__ import annotations

import numpy as np

from dsca_ros.depth.units import MAX_UINT16_MM, MM_PER_M
from dsca_ros.engine.base import EngineError

#: Names of input and output: uint8 [1, H, W, 2] and [1, sH, sW, 2], the low byte first.
BYTES_IN, BYTES_OUT = "depth_bytes", "result_bytes"


def take_millimetres(graph: bytes) -> bytes:
    """A graph for depth, ``depth`` to ``result`` in float metres, as one for bytes of uint16 millimetres.

    The arithmetic is that of `depth.units`: same input, same output, bit for bit.

    Args:
        graph: the ONNX file's bytes. Its second input, ``depth_range``, stays; its far end must be under 65.535 m,
            as the largest uint16 is no measurement.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise EngineError(f"engines for 16-bit depth need onnx ({error}); remedy: pip install onnx") from None

    model = onnx.load_from_string(graph)
    body = model.graph

    def constant(name: str, value: np.ndarray) -> str:
        body.initializer.append(numpy_helper.from_array(value, f"mm/{name}"))
        return f"mm/{name}"

    bytes_to_number = constant("bytes_to_number", np.array([1.0, 256.0], np.float32))
    last, second = constant("last", np.array([-1], np.int64)), constant("second", np.array([1], np.int64))
    metres_per_mm = constant("metres_per_mm", np.array(1.0 / MM_PER_M, np.float32))
    mm_per_metre = constant("mm_per_metre", np.array(MM_PER_M, np.float32))
    half, one = constant("half", np.array(0.5, np.float32)), constant("one", np.array(1.0, np.float32))
    too_large = constant("too_large", np.array(MAX_UINT16_MM + 1, np.float32))
    zero = constant("zero", np.array(0.0, np.float32))
    high_share, high_worth = (constant(f"256_{sign}", np.array(256.0**sign, np.float32)) for sign in (-1, 1))

    before = [
        helper.make_node("Cast", [BYTES_IN], ["mm/bytes"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["mm/bytes", bytes_to_number], ["mm/parts"]),
        helper.make_node("ReduceSum", ["mm/parts", last], ["mm/in_rows"], keepdims=0),
        helper.make_node("Unsqueeze", ["mm/in_rows", second], ["mm/in"]),
        helper.make_node("Mul", ["mm/in", metres_per_mm], ["depth"]),
    ]
    after = [
        helper.make_node("Mul", ["result", mm_per_metre], ["mm/exact"]),
        helper.make_node("Add", ["mm/exact", half], ["mm/raised"]),
        # False for NaN, too.
        helper.make_node("GreaterOrEqual", ["mm/raised", one], ["mm/positive"]),
        helper.make_node("Less", ["mm/raised", too_large], ["mm/small"]),
        helper.make_node("And", ["mm/positive", "mm/small"], ["mm/keep"]),
        helper.make_node("Where", ["mm/keep", "mm/raised", zero], ["mm/kept"]),
        helper.make_node("Floor", ["mm/kept"], ["mm/out"]),
        helper.make_node("Mul", ["mm/out", high_share], ["mm/over_256"]),
        helper.make_node("Floor", ["mm/over_256"], ["mm/high"]),
        helper.make_node("Mul", ["mm/high", high_worth], ["mm/of_high"]),
        helper.make_node("Sub", ["mm/out", "mm/of_high"], ["mm/low"]),
        helper.make_node("Concat", ["mm/low", "mm/high"], ["mm/planes"], axis=1),
        helper.make_node("Transpose", ["mm/planes"], ["mm/pairs"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["mm/pairs"], [BYTES_OUT], to=TensorProto.UINT8),
    ]
    nodes = [*before, *body.node, *after]
    del body.node[:]
    body.node.extend(nodes)
    for values, name, new in ((body.input, "depth", BYTES_IN), (body.output, "result", BYTES_OUT)):
        found = next(value for value in values if value.name == name)
        rows, columns = (axis.dim_param for axis in found.type.tensor_type.shape.dim[2:])
        found.CopyFrom(helper.make_tensor_value_info(new, TensorProto.UINT8, [1, rows, columns, 2]))
    onnx.checker.check_model(model)
    return model.SerializeToString()
