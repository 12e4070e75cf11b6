"""What /diagnostics says: the states, the rates, the counters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from ros_graph import OUTPUTS, Graph, values

from dsca_ros.ros import diagnostics
from dsca_ros.ros.diagnostics import FrameTimes, Health
from dsca_ros.ros.node import DscaNode

TIMES = FrameTimes(waited=0.001, decode=0.002, engine=0.010, encode=0.001, publish=0.002)
KEYS = {
    "state",
    "engine",
    "precision",
    "input_hz",
    "output_hz",
    "invalid_ratio",
    "age_ms",
    "latency_p50_ms",
    "latency_p99_ms",
    "engine_ms",
    "overhead_ms",
    "received",
    "published",
}


class Clock:
    """A steady clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(diagnostics.time, "monotonic", clock)
    return clock


def status_of(health: Health, listened_to: bool = True) -> DiagnosticStatus:
    (status,) = health.array("/dsca_node", Time(sec=5), listened_to).status
    return status


# --- without DDS --------------------------------------------------------------------------------


def test_states_follow_what_happens(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "STALE_AFTER", 2.0)
    health = Health(engine="an engine", precision="fp32")

    def now(listened_to: bool = True) -> tuple[str, bytes]:
        status = status_of(health, listened_to)
        assert status.message.startswith(values(status)["state"])
        return values(status)["state"], status.level

    assert now(listened_to=False) == ("IDLE", DiagnosticStatus.OK)
    assert now() == ("WAITING", DiagnosticStatus.WARN)
    health.received()
    assert now() == ("RUNNING", DiagnosticStatus.OK)
    clock.now += 1.9
    assert now() == ("RUNNING", DiagnosticStatus.OK)
    clock.now += 0.2
    assert now() == ("STALE", DiagnosticStatus.STALE)
    health.received()
    assert now() == ("RUNNING", DiagnosticStatus.OK)
    health.failed("RuntimeError: broken")
    assert now() == ("ERROR", DiagnosticStatus.ERROR)
    assert status_of(health).message == "ERROR: RuntimeError: broken"
    health.published(TIMES, 0.02, 0.5)
    assert now() == ("RUNNING", DiagnosticStatus.OK)
    assert now(listened_to=False) == ("IDLE", DiagnosticStatus.OK)


def test_a_camera_of_which_nothing_comes_is_no_good_state(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "STALE_AFTER", 2.0)
    health = Health()

    def after(frame: Callable[[], None], seconds: float = 0.1) -> tuple[str, bytes]:
        clock.now += seconds
        health.received()
        frame()
        status = status_of(health)
        assert values(status)["state"] == "RUNNING"
        return status.message, status.level

    def reject() -> None:
        health.rejected("unknown_encoding", "depth encoding 'bgr8' is unknown")

    rejected = "RUNNING: nothing goes out, images are rejected: depth encoding 'bgr8' is unknown"
    assert after(reject) == (rejected, DiagnosticStatus.WARN)
    assert after(lambda: health.published(TIMES, 0.0, 0.0)) == ("RUNNING", DiagnosticStatus.OK)
    # One among many that go out is counted, and no more.
    assert after(reject) == ("RUNNING", DiagnosticStatus.OK)
    assert after(reject, 2.1) == (rejected, DiagnosticStatus.WARN)
    assert after(lambda: health.published(TIMES, 0.0, 0.0, "no info")) == ("RUNNING: no info", DiagnosticStatus.WARN)
    assert after(lambda: health.published(TIMES, 0.0, 0.0)) == ("RUNNING", DiagnosticStatus.OK)
    assert health.counts()["rejected_unknown_encoding"] == 3
    # Another camera, maybe.
    after(reject, 2.1)
    health.listening()
    health.received()
    assert status_of(health).message == "RUNNING"


def test_rates_are_of_the_last_seconds(clock: Clock) -> None:
    health = Health()
    for index in range(100):
        clock.now = 1000.0 + index / 20
        health.received()
        if index % 2 == 0:
            health.published(TIMES, 0.02, 0.5)
    read = values(status_of(health))
    assert (read["input_hz"], read["output_hz"]) == ("20.0", "10.0")
    clock.now += 10.0
    read = values(status_of(health))
    assert (read["input_hz"], read["output_hz"]) == ("0.0", "0.0")
    health.received()
    assert values(status_of(health))["input_hz"] == "0.0"  # one frame is no rate


def test_times_are_percentiles_of_recent_frames() -> None:
    health = Health(engine="ONNX Runtime", precision="fp16")
    for index in range(101):
        health.received()
        health.published(FrameTimes(0.0, 0.001, 0.001 * index, 0.001, 0.001), age=0.25, invalid=0.125)
    read = values(status_of(health))
    assert set(read) >= KEYS
    assert (read["latency_p50_ms"], read["latency_p99_ms"]) == ("53.00", "102.00")
    assert (read["engine_ms"], read["overhead_ms"]) == ("50.00", "3.00")
    assert (read["age_ms"], read["invalid_ratio"]) == ("250.0", "0.125")
    assert (read["engine"], read["precision"]) == ("ONNX Runtime", "fp16")
    assert (read["received"], read["published"]) == ("101", "101")


def test_every_cause_is_counted_by_its_name() -> None:
    health = Health()
    for cause in ("dropped_busy", "rejected_bad_step", "dropped_busy"):
        health.count(cause)
    assert health.counts() == {"dropped_busy": 2, "rejected_bad_step": 1}
    read = values(status_of(health))
    assert (read["dropped_busy"], read["rejected_bad_step"]) == ("2", "1")


def test_the_message_names_the_node_and_the_engine() -> None:
    array = Health(engine="an engine").array("/front/dsca_node", Time(sec=5), True)
    assert array.header.stamp.sec == 5
    (status,) = array.status
    assert status.name.startswith("/front/dsca_node: ")
    assert status.hardware_id == "an engine"


# --- over DDS -----------------------------------------------------------------------------------


def test_diagnostics_come_once_a_second(graph: Graph) -> None:
    node = DscaNode(context=graph.context)
    assert [timer.timer_period_ns for timer in node.timers] == [1_000_000_000]
    node.close()


def test_the_node_tells_its_state_as_it_changes(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "STALE_AFTER", 3600.0)
    node = graph.start_node()
    status = graph.status(lambda v: v["state"] == "IDLE", "of IDLE")
    assert status.level == DiagnosticStatus.OK
    graph.connect()
    assert graph.status(lambda v: v["state"] == "WAITING", "of WAITING").level == DiagnosticStatus.WARN
    graph.good_frame()
    graph.good_frame()
    status = graph.status(lambda v: v["state"] == "RUNNING" and v["published"] == "2", "of RUNNING")
    read = values(status)
    assert set(read) >= KEYS
    assert read["engine"] == node.pipeline.upsampler.engine == status.hardware_id
    assert read["precision"] == "fp32"
    for name in (
        "input_hz",
        "output_hz",
        "latency_p50_ms",
        "latency_p99_ms",
        "engine_ms",
        "overhead_ms",
    ):
        assert float(read[name]) > 0, name
    assert float(read["latency_p50_ms"]) <= float(read["latency_p99_ms"])
    image = list(graph.listener.images.values())[-1]
    invalid = np.frombuffer(image.data, np.uint16) == 0
    assert float(read["invalid_ratio"]) == pytest.approx(invalid.mean(), abs=6e-4)
    monkeypatch.setattr(diagnostics, "STALE_AFTER", 0.0)
    assert graph.status(lambda v: v["state"] == "STALE", "of STALE").level == DiagnosticStatus.STALE
    monkeypatch.setattr(diagnostics, "STALE_AFTER", 3600.0)
    graph.good_frame()
    graph.status(lambda v: v["state"] == "RUNNING" and v["published"] == "3", "of RUNNING again")


def test_a_listener_that_comes_back_waits_and_finds_nothing_stale(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.start_node()
    (subscription,) = graph.listener.subscribe(OUTPUTS[0])
    graph.spin_until(lambda: graph.camera.image_publisher.get_subscription_count() == 1)
    graph.spin_until(lambda: graph.connected("/depth/image_raw"))
    graph.send(graph.camera.image())
    graph.tester.destroy_subscription(subscription)
    graph.spin_until(lambda: graph.camera.image_publisher.get_subscription_count() == 0)
    graph.status(lambda v: v["state"] == "IDLE", "of IDLE")
    # Any time is too long now; but that nobody listened for a while is no fault of the camera.
    monkeypatch.setattr(diagnostics, "STALE_AFTER", 0.0)
    graph.listener.subscribe(OUTPUTS[0])
    status = graph.status(lambda v: v["state"] != "IDLE", "with a listener again")
    assert values(status)["state"] == "WAITING"
