"""Two thousand frames leave the node as large as five hundred did."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ros_graph import OUTPUTS, Graph, key, scene

FRAMES, SETTLED = 2000, 500
ALLOWED = 4 * 2**20  # one leaked 128x96 result a frame would be 37 MB


def resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.once
def test_memory_is_flat_over_two_thousand_frames(graph: Graph) -> None:
    process = graph.start("dsca_ros.ros.node")
    graph.listener.subscribe(*OUTPUTS)
    camera, listener = graph.camera, graph.listener
    depths = [scene(index=i) for i in range(8)]

    def exchange(index: int) -> None:
        """A frame there and back; sent again if it is lost, as it may be over best effort."""
        image = camera.image(depths[index % len(depths)])
        info = camera.info(image)
        sent = 0.0

        def answered() -> bool:
            nonlocal sent
            if time.monotonic() - sent > 1.0:
                assert process.popen.poll() is None, process.output()
                sent = time.monotonic()
                camera.publish(image, info)
            return key(image) in listener.images

        graph.spin_until(answered, f"the result of frame {index}")

    counted = {"infos": 0, "clouds": 0}
    start = 0
    for index in range(1, FRAMES + 1):
        exchange(index)
        if index % 100 == 0:  # this test's own memory is not the point
            counted["infos"] += len(listener.infos)
            counted["clouds"] += len(listener.clouds)
            for seen in (listener.images, listener.infos, listener.clouds):
                seen.clear()
        if index == SETTLED:
            start = resident(process.popen.pid)
    grown = resident(process.popen.pid) - start
    assert min(counted.values()) > 0.9 * FRAMES, counted
    assert grown < ALLOWED, f"{grown / 2**20:.1f} MB more after {FRAMES - SETTLED} frames"
