"""Fixtures of the ROS tests: real rclpy and real DDS, of a ROS installation or of wheels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before the first participant is made: nothing of a test leaves this machine.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

from ros_graph import Graph, Process

from dsca_ros.upsampler import Upsampler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of this folder are run under every distribution."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("ros")


@pytest.fixture(scope="session", autouse=True)
def ros_log_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Log files of this process and its children go to a folder of pytest's."""
    os.environ["ROS_LOG_DIR"] = str(tmp_path_factory.mktemp("ros_log"))


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    """An empty graph in a domain of its own."""
    graph = Graph(tmp_path)
    yield graph
    graph.close()


@pytest.fixture(scope="session")
def upsampler() -> Iterator[Upsampler]:
    """The default model, run directly: what the node's results are held to."""
    with Upsampler() as upsampler:
        yield upsampler


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[Process]]:
    """Processes put in this list are gone after the test."""
    started: list[Process] = []
    yield started
    for process in started:
        process.kill()
