"""The node, and a line in a file for every frame it publishes: where `dsca bench` takes the parts of a latency from.

python -m dsca_ros.ros.traced_node FILE --ros-args ...
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import IO

from dsca_ros.ros.diagnostics import FrameTimes
from dsca_ros.ros.node import DscaNode
from dsca_ros.ros.run import run


class TracedNode(DscaNode):
    """See `DscaNode`. Each line is a `FrameTimes` as JSON, and ``age``: seconds from the stamp to the last publish."""

    def __init__(self, trace: IO[str]) -> None:
        super().__init__()
        publish = self.health.published

        def published(times: FrameTimes, age: float, invalid: float, lacks: str = "") -> None:
            publish(times, age, invalid, lacks)
            print(json.dumps({**asdict(times), "age": age}), file=trace, flush=True)

        self.health.published = published  # type: ignore[method-assign]


def main(args: list[str]) -> None:
    """Runs it until a signal ends it."""
    with open(args[1], "w") as trace:
        run(lambda: TracedNode(trace), "traced_node", [args[0], *args[2:]])


if __name__ == "__main__":
    main(sys.argv)
