"""The bag that `dsca bench` makes, and what it tells of its replay."""

import numpy as np
import pytest

from dsca_ros.replay.bags import Bag
from dsca_ros.replay.bench import LAP, PERIOD, make_bag, measure_replay
from dsca_ros.replay.settings import ReplaySettings
from dsca_ros.replay.wire import read_depth


def test_the_bag_is_of_a_camera(tmp_path):
    make_bag(tmp_path / "bag", (32, 24), LAP + 2)
    with Bag(tmp_path / "bag") as bag:
        messages = list(bag.messages())
        frames = [read_depth(message.data, bag.topics[0].msgtype) for message in messages]
    assert [message.time for message in messages] == [PERIOD * (n + 1) for n in range(LAP + 2)]
    assert {frame.depth.shape for frame in frames} == {(24, 32)}
    assert all((frame.depth > 300).mean() > 0.5 for frame in frames)
    np.testing.assert_array_equal(frames[0].depth, frames[LAP].depth)


def test_rates_and_shares(use_tiny_models):
    row = measure_replay(ReplaySettings("tiny", 2, "onnxruntime", 1), (96, 72), 0.2)
    assert row["frames"] >= LAP and row["hz"] > 0
    assert 0.0 < row["in_mb_per_s"] < row["out_mb_per_s"]
    assert set(row["share"]) == {"read", "engine", "write"}
    assert 0.0 < max(row["share"].values()) <= 1.0
    assert row["runs_on"].startswith("ONNX Runtime") and row["engine"] == "onnxruntime"
    assert row["out_mb_per_s"] == pytest.approx(5.0 * row["in_mb_per_s"], rel=0.5)  # the input comes along
