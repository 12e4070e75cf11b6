"""Fixtures of the replay's tests."""

from __future__ import annotations

import pytest

pytest.importorskip("rosbags")


@pytest.fixture(autouse=True)
def small_models(use_tiny_models) -> None:
    """A small random network: what is tested here is what becomes of messages."""


@pytest.fixture
def settings():
    from dsca_ros.replay.settings import ReplaySettings

    return ReplaySettings(model="tiny", threads=1)
