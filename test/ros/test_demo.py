"""`dsca demo`: three processes over DDS, figures, a picture, and what it says when it fails."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
from ros_graph import END_WITHIN, free_domain, interruptible, participants

from dsca_ros.ros import demo as module

METHODS = {"nearest", "bilinear", "bicubic", "dsca"}
FIGURES = {"rmse_mm", "mae_mm", "flying_pct", "valid_pct"}


class Demo:
    """`dsca demo` as a process; what it starts is in one process group with it."""

    def __init__(self, *arguments: str) -> None:
        self.domain = free_domain()
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "dsca_ros.cli", "demo", *arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(self.domain)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=interruptible,
        )
        self.stdout = self.stderr = ""

    def end(self) -> int:
        """Waits for the end; the exit status."""
        self.stdout, self.stderr = self.popen.communicate(timeout=120)
        return self.popen.returncode

    def has_left_something(self) -> bool:
        """Whether a process of the group lives on for longer than it takes to leave."""
        deadline = time.monotonic() + END_WITHIN
        while time.monotonic() < deadline:
            try:
                os.killpg(self.popen.pid, 0)
            except ProcessLookupError:
                return False
            time.sleep(0.05)
        return True

    def kill(self) -> None:
        """Ends every process of the group for good."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        if self.popen.poll() is None:
            self.popen.communicate()


@pytest.fixture
def demo() -> Iterator[Callable[..., Demo]]:
    """Starts a demo; nothing of it is left after the test."""
    started = []

    def start(*arguments: str) -> Demo:
        started.append(Demo(*arguments))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def one_core() -> Iterator[None]:
    """All that a test starts shares one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def assert_figures(figures: dict[str, object]) -> None:
    assert {"input_hz", "output_hz", "dropped_pct", "latency_ms", "engine_ms", "error"} <= set(figures)
    latency = figures["latency_ms"]
    assert set(latency) == {"p50", "p95", "p99"}
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert 0 < figures["engine_ms"] < latency["p99"]
    assert figures["input_hz"] > 0 and figures["output_hz"] > 0
    assert 0 <= figures["dropped_pct"] <= 100
    assert figures["samples"] > 0
    assert set(figures["error"]) == METHODS
    for method, row in figures["error"].items():
        assert set(row) == FIGURES, method
        assert all(math.isfinite(value) and value >= 0 for value in row.values()), method
        assert row["rmse_mm"] >= row["mae_mm"] > 0, method


@pytest.mark.once
def test_the_demo_reports_and_draws(demo: Callable[..., Demo], tmp_path: Path) -> None:
    picture = tmp_path / "new folder" / "demo.png"
    options = ["--seconds", "3", "--rate", "5", "--size", "160x120", "--json", "-"]
    run = demo(*options, "--picture", str(picture))
    assert run.end() == 0, run.stderr
    figures = json.loads(run.stdout)  # and nothing else there
    assert_figures(figures)
    assert 4.5 < figures["input_hz"] < 5.5 and 4.5 < figures["output_hz"] < 5.5
    for word in ("bicubic", "nearest", "RMSE", "flying", "p99"):
        assert word in run.stderr
    image = cv2.imread(str(picture))
    assert image is not None and min(image.shape[:2]) > 400 and image.std() > 20
    assert not run.has_left_something()


@pytest.mark.once
@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("old", [False, True])
def test_a_little_world_is_closed_by_the_variable_that_the_distribution_knows(
    monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_DOMAIN_ID", module._profile_variable()):
        monkeypatch.setenv(name, "")  # so that what is set is put back
        monkeypatch.delenv(name)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if old else find(name))
    module.alone_on_this_machine()
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    # Newer ones warn of it.
    assert os.environ.get("ROS_LOCALHOST_ONLY") == ("1" if old else None)


def test_a_rate_that_falls_short_fails_with_the_figures(demo: Callable[..., Demo], tmp_path: Path) -> None:
    target, picture = tmp_path / "figures.json", tmp_path / "demo.png"
    options = ["--seconds", "1", "--rate", "240", "--size", "200x150", "--threads", "1"]
    run = demo(*options, "--json", str(target), "--picture", str(picture))
    assert run.end() == 1, run.stderr
    assert "Traceback" not in run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("dsca: ") and "240 Hz wanted" in last
    figures = json.loads(target.read_text())
    assert_figures(figures)
    assert figures["output_hz"] < 0.95 * 240 or figures["dropped_pct"] >= 5
    assert picture.exists()
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--model", "dsca-giant"], 1, ["'dsca-giant'", "dsca-nano x2"]),
        (["--scale", "3"], 1, ["scale 3", "dsca-nano x2"]),
        (["--sensor", "sonar"], 1, ["'sonar'", "stereo"]),
        (["--engine", "tensorflow"], 1, ["'tensorflow'", "onnxruntime"]),
        (["--size", "7x7"], 2, ["7x7"]),
        (["--size", "large"], 2, ["large"]),
        (["--rate", "0"], 2, ["--rate"]),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(
    demo: Callable[..., Demo], tmp_path: Path, options: list[str], status: int, words: list[str]
) -> None:
    run = demo(*options, "--picture", str(tmp_path / "demo.png"))
    assert run.end() == status, run.stderr
    assert "Traceback" not in run.stderr
    assert all(word in run.stderr for word in words), run.stderr
    if status == 1:
        assert len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert run.stdout == ""
    assert not (tmp_path / "demo.png").exists()
    assert not run.has_left_something()


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [1, 3])
def test_a_demo_that_is_ended_takes_its_processes_along(
    demo: Callable[..., Demo], tmp_path: Path, processes: int, number: signal.Signals
) -> None:
    run = demo("--seconds", "100", "--size", "64x48", "--picture", str(tmp_path / "demo.png"))
    deadline = time.monotonic() + 60
    while participants(run.domain) < processes:  # of monitor, camera and node
        assert run.popen.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    run.popen.send_signal(number)
    assert run.end() != 0
    assert not run.has_left_something()
    assert "Traceback" not in run.stdout + run.stderr, run.stderr
