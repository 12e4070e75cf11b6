"""`dsca demo`: three processes over DDS, the figures, the picture, and what it says when it fails."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from ros_graph import free_domain, is_free

FIGURES = {"rmse_mm", "mae_mm", "flying_pct", "valid_pct"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dsca_ros.cli", "demo", *arguments]


def environment(domain: int) -> dict[str, str]:
    return {**os.environ, "ROS_DOMAIN_ID": str(domain)}


def run(*arguments: str, domain: int = 0) -> subprocess.CompletedProcess[str]:
    env = environment(domain or free_domain())
    return subprocess.run(command(*arguments), env=env, capture_output=True, text=True, timeout=150)


def assert_figures(figures: dict[str, object]) -> None:
    assert {"input_hz", "output_hz", "dropped_pct", "latency_ms", "engine_ms", "error"} <= set(figures)
    latency = figures["latency_ms"]
    assert set(latency) == {"p50", "p95", "p99"}
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert 0 < figures["engine_ms"] < latency["p99"]
    assert figures["input_hz"] > 0 and figures["output_hz"] > 0
    assert 0 <= figures["dropped_pct"] <= 100
    assert set(figures["error"]) == {"nearest", "bilinear", "bicubic", "dsca"}
    for method, row in figures["error"].items():
        assert set(row) == FIGURES, method
        assert all(math.isfinite(value) and value >= 0 for value in row.values()), method
        assert row["rmse_mm"] >= row["mae_mm"] > 0, method


def test_the_demo_reports_and_draws(tmp_path: Path) -> None:
    picture, domain = tmp_path / "new" / "demo.png", free_domain()
    options = ["--seconds", "3", "--rate", "5", "--size", "160x120", "--json", "-"]
    done = run(*options, "--picture", str(picture), domain=domain)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)  # and nothing else there
    assert_figures(figures)
    assert figures["samples"] > 0
    assert 4.5 < figures["input_hz"] < 5.5 and 4.5 < figures["output_hz"] < 5.5
    for word in ("bicubic", "nearest", "RMSE", "flying", "p99"):
        assert word in done.stderr
    image = cv2.imread(str(picture))
    assert image is not None and min(image.shape[:2]) > 400 and image.std() > 20
    assert is_free(domain), "a process of the demo is left"


def test_a_rate_that_falls_short_fails_with_the_figures(tmp_path: Path) -> None:
    target, picture = tmp_path / "figures.json", tmp_path / "demo.png"
    options = ["--seconds", "1", "--rate", "240", "--size", "320x240", "--threads", "1"]
    done = run(*options, "--json", str(target), "--picture", str(picture))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
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
    tmp_path: Path, options: list[str], status: int, words: list[str]
) -> None:
    done = run(*options, "--picture", str(tmp_path / "demo.png"))
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    if status == 1:
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "demo.png").exists()


def test_ctrl_c_ends_every_process_of_the_demo(tmp_path: Path) -> None:
    domain = free_domain()
    options = ["--seconds", "100", "--size", "64x48", "--picture", str(tmp_path / "demo.png")]
    with subprocess.Popen(
        command(*options), env=environment(domain), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        deadline = time.monotonic() + 60
        while is_free(domain):  # no participant yet
            assert demo.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=30)
    assert demo.returncode != 0
    assert "Traceback" not in output, output
    assert is_free(domain), "a process of the demo is left"
