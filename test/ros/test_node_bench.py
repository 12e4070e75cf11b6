"""`dsca bench` of the node: real nodes over DDS, fed and heard as the command does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from ros_graph import free_domain

from dsca_ros.ros import bench
from dsca_ros.ros.bench import PARTS, NodeBench, NodeBenchError, Played, figures_of, peak_rate

FASTEST = {"model": "tiny", "scale": 2, "engine": "onnxruntime", "threads": 1}


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(free_domain()))
    with bench.ros_for_bench():
        yield


def test_two_nodes_answer_every_image_and_tell_where_the_time_went(use_tiny_models, ros):
    with NodeBench(FASTEST, (32, 24), nodes=2) as running:
        assert running.start_seconds > 0.0
        running.play(20.0, 0.5)  # discovery and the first frames are over
        played = running.play(10.0, 1.0)
    assert played.lost == 0.0 and len(played.latencies) == 20
    for part in PARTS:
        assert len(played.parts[part]) == 20 and min(played.parts[part]) >= 0.0
    # Parts of a latency are less than the whole; by rank, the sums are near it.
    inside = sum(sum(played.parts[part]) for part in PARTS)
    assert inside == pytest.approx(sum(played.latencies), rel=0.05)
    assert played.cpu > 0.0 and played.memory_mb > 10.0


def test_a_node_that_cannot_start_is_told(use_tiny_models, ros):
    with pytest.raises(NodeBenchError, match=r"the node stopped: .*huge"):
        NodeBench(FASTEST | {"model": "huge"}, (32, 24))


class Machine:
    """Loses whatever is beyond its limit."""

    def __init__(self, limit: float) -> None:
        self.limit, self.tried = limit, []

    def play(self, rate: float, seconds: float) -> Played:
        self.tried.append(rate)
        lost = max(0.0, 1.0 - self.limit / rate)
        return Played(rate * (1.0 - lost), lost, [0.01], {}, 1.0, 1.0)


@pytest.mark.parametrize("limit", [1.5, 4.0, 30.0, 57.0])
def test_the_peak_is_the_highest_rate_of_which_little_is_lost(limit):
    machine = Machine(limit)
    peak, played = peak_rate(machine, 1.0)
    assert played.lost < bench.MOST_LOST
    highest = limit / (1.0 - bench.MOST_LOST)
    assert highest / (1.0 + bench.PRECISION) ** 2 <= peak <= highest
    assert len(machine.tried) < 16


def test_no_rate_that_holds_is_told():
    with pytest.raises(NodeBenchError, match="at any rate"):
        peak_rate(Machine(0.0), 1.0)


def test_figures_are_percentiles_in_milliseconds():
    played = Played(9.96, 0.25, [0.001 * n for n in range(101)], {"wait": [0.002], "engine": []}, 0.5, 123.4)
    found = figures_of(played)
    assert found["latency_ms"] == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert found["parts_ms"] == {"wait": {"p50": 2.0, "p95": 2.0, "p99": 2.0}, "engine": {}}
    assert (found["hz"], found["lost_pct"], found["cpu_cores"], found["memory_mb"]) == (10.0, 25.0, 0.5, 123.4)


def test_the_command_measures_the_node(use_tiny_models, tmp_path):
    target = tmp_path / "bench.json"
    options = ("--part", "node", "--model", "tiny", "--engine", "onnxruntime", "--size", "32x24", "--seconds", "1")
    command = [sys.executable, "-m", "dsca_ros.cli", "bench", *options, "--json", str(target), "--markdown", "-"]
    env = {**os.environ, "ROS_DOMAIN_ID": str(free_domain())}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(target.read_text())["node"]
    assert row["peak_hz"] >= 4.0 and row["first_frame_s"] > 0.0 and row["import_s"] > 0.0
    assert set(row["at_camera_rate"]["parts_ms"]) == set(PARTS)
    assert f"| 32x24 | {row['peak_hz']:g} |" in done.stdout
