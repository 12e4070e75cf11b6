"""Params files with anything in them: the node has settings that are right, or says in one line why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ros_graph import Graph

from dsca_ros.ros.parameters import PARAMETERS

CONFIG = Path(__file__).parents[2] / "config" / "dsca.yaml"
FILES = 160

#: What may stand for a value, as people and machines mistype them.
SCALARS = [".nan", ".inf", "-.inf", "1e999", "0", "-1", "2", "8", "0.5", "1e-320", "99999999999999999999", "true", "no"]
SCALARS += [
    "''",
    "'../../etc/passwd'",
    "dsca-nano",
    "[1, 2]",
    "[]",
    "[a, 1, 2.0]",
    "{a: 1}",
    "null",
    "~",
    "!!python/name:os.system x",
]
SCALARS += [
    "'" + 3000 * "x" + "'",
    "*nobody",
    "&a 3",
    "\t",
    "|\n      text",
    "'\\0'",
    "0x7fffffffffffffff",
    "2001-01-01",
]

#: Reads each file as the node does, in a context of its own; a native crash ends this process and not the tests.
READER = """
import math, sys
import rclpy
from rclpy.context import Context
from dsca_ros.ros import parameters

for number in range(int(sys.argv[2])):
    context = Context()
    try:
        rclpy.init(context=context, args=["--ros-args", "--params-file", f"{sys.argv[1]}/{number}.yaml"])
    except RuntimeError as error:
        print("unreadable", flush=True)
        continue
    node = rclpy.create_node("dsca_node", context=context)
    try:
        settings = parameters.declare(node)
    except ValueError as error:
        assert str(error).strip()
        print("refused", flush=True)
    else:
        for name, (default, _) in parameters.PARAMETERS.items():
            value = getattr(settings, name)
            assert name == "fill_holes" or type(value) is type(default), (name, value)
            assert not isinstance(value, float) or math.isfinite(value) or name == "fill_holes", (name, value)
        assert 0 < settings.min_depth < settings.max_depth <= parameters.FARTHEST
        print("taken", flush=True)
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)
"""


def test_any_params_file_is_taken_or_refused(graph: Graph, tmp_path: Path) -> None:
    lines = CONFIG.read_text().splitlines()
    keys = [index for index, line in enumerate(lines) if line.strip().partition(":")[0] in PARAMETERS]
    rng = np.random.default_rng(3)
    for number in range(FILES):
        text = list(lines)
        for index in rng.choice(keys, 1 + number % 2):
            text[index] = f"{text[index].partition(':')[0]}: {rng.choice(SCALARS)}"
        content = bytearray("\n".join(text).encode())
        if number % 4 == 0:  # and bytes that are no YAML
            position = int(rng.integers(0, len(content)))
            content[position : position + 3] = rng.bytes(2)
        (tmp_path / f"{number}.yaml").write_bytes(content)
    process = graph.run(["-c", READER, str(tmp_path), str(FILES)])
    assert process.wait(120.0) == 0, process.output()[-3000:]
    outcomes = process.output().splitlines()
    counted = {what: outcomes.count(what) for what in ("taken", "refused", "unreadable")}
    assert sum(counted.values()) == FILES and min(counted.values()) > 3, counted
