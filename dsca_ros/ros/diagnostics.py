"""What the node knows of its own health, and how it tells it on /diagnostics."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from dsca_ros.engine.starting import BUILDING, FAILED, RUNNING

#: Latencies and rates are taken over this many frames at most.
WINDOW = 300
#: Rates are taken over the last so many seconds.
RATE_SECONDS = 3.0
#: No input for this long while someone listens is stale, seconds.
STALE_AFTER = 2.0


@dataclass(frozen=True)
class FrameTimes:
    """Where the time of one frame went, seconds on the steady clock."""

    waited: float
    decode: float
    engine: float
    encode: float
    publish: float

    @property
    def total(self) -> float:
        """From the callback to the last publish."""
        return self.waited + self.decode + self.engine + self.encode + self.publish

    @property
    def overhead(self) -> float:
        """The node's own share: everything but the engine and the wait for it."""
        return self.decode + self.encode + self.publish


@dataclass
class Health:
    """Counters and timings; any thread may add to them."""

    engine: str = "starting"
    precision: str = ""
    device: str = ""
    #: State of the engine, and what there is to say of it; see `Upsampler.state`.
    engine_state: str = RUNNING
    engine_note: str = ""
    #: Why a network that was asked for is not the one that runs.
    network_error: str = ""
    #: That the engine does not answer; empty while it does.
    hangs: str = ""
    #: Publishers of the camera's topics; more than one mix their frames.
    cameras: int = 0
    #: State of the node's lifecycle.
    lifecycle: str = "active"
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _counts: Counter = field(default_factory=Counter)
    _input: deque = field(default_factory=lambda: deque(maxlen=WINDOW))
    _output: deque = field(default_factory=lambda: deque(maxlen=WINDOW))
    _times: deque = field(default_factory=lambda: deque(maxlen=WINDOW))
    _age: float = 0.0
    _invalid: float = 0.0
    _error: str | None = None
    #: Why the newest frame was rejected, and what the newest one that went out lacks; empty if neither is so.
    _rejected: str = ""
    _lacks: str = ""

    def listening(self) -> None:
        """The camera is subscribed to (again): what came before tells nothing of it."""
        with self._lock:
            self._input.clear()
            self._rejected = self._lacks = ""

    def freed(self) -> None:
        """The engine is gone, and what it was and what failed with it."""
        with self._lock:
            self.engine, self.device = "none", ""
            self.engine_state, self.engine_note, self.network_error, self._error = RUNNING, "", "", None
            self.hangs = self._rejected = self._lacks = ""
            self._input.clear()

    def received(self) -> None:
        """A frame came in."""
        with self._lock:
            self._counts["received"] += 1
            self._input.append(time.monotonic())

    def count(self, cause: str) -> None:
        """Something was dropped, rejected or left out for this cause."""
        with self._lock:
            self._counts[cause] += 1

    def rejected(self, cause: str, text: str) -> None:
        """A frame was rejected; ``text`` says why."""
        with self._lock:
            self._counts[f"rejected_{cause}"] += 1
            self._rejected = text

    def published(self, times: FrameTimes, age: float, invalid: float, lacks: str = "") -> None:
        """A frame went out.

        Args:
            times: where its time went.
            age: seconds against its stamp.
            invalid: share of its pixels.
            lacks: why camera_info or points that someone may wait for did not go with it.
        """
        with self._lock:
            self._counts["published"] += 1
            self._output.append(time.monotonic())
            self._times.append(times)
            self._age, self._invalid, self._error = age, invalid, None
            self._rejected, self._lacks = "", lacks

    def failed(self, text: str) -> None:
        """The engine failed on a frame; cleared by the next frame that succeeds."""
        with self._lock:
            self._counts["engine_error"] += 1
            self._error = text or "the engine failed, and did not say why"

    def counts(self) -> dict[str, int]:
        """Every counter by its name."""
        with self._lock:
            return dict(self._counts)

    def array(self, name: str, stamp: object, listened_to: bool) -> DiagnosticArray:
        """The diagnostics message of this moment."""
        with self._lock:
            times = list(self._times)
            status = DiagnosticStatus(name=f"{name}: depth super-resolution", hardware_id=self.engine)
            status.level, status.message = self._level(listened_to)
            values: dict[str, object] = {
                "state": status.message.split(":")[0],
                "engine": self.engine,
                "precision": self.precision,
                "device": self.device,
                "input_hz": f"{_rate(self._input):.1f}",
                "output_hz": f"{_rate(self._output):.1f}",
                "invalid_ratio": f"{self._invalid:.3f}",
                "age_ms": f"{1e3 * self._age:.1f}",
            }
            if times:
                total = 1e3 * np.percentile([t.total for t in times], [50, 99])
                values["latency_p50_ms"], values["latency_p99_ms"] = (f"{v:.2f}" for v in total)
                values["engine_ms"] = f"{1e3 * float(np.median([t.engine for t in times])):.2f}"
                values["overhead_ms"] = f"{1e3 * float(np.median([t.overhead for t in times])):.2f}"
            values.update(sorted(self._counts.items()))
            status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = stamp
        return message

    def _level(self, listened_to: bool) -> tuple[bytes, str]:
        quiet = time.monotonic() - self._input[-1] if self._input else None
        if self.lifecycle == "finalized":
            return DiagnosticStatus.OK, "FINALIZED: it was shut down, and has to be started anew"
        if self.lifecycle != "active":
            return DiagnosticStatus.OK, f"{self.lifecycle.upper()}: `ros2 lifecycle` brings the node on"
        for error in (self.hangs, self._error, self.network_error):
            if error:
                return DiagnosticStatus.ERROR, f"ERROR: {error}"
        if self.engine_state == FAILED:
            return DiagnosticStatus.ERROR, f"ERROR: {self.engine_note}"
        if self.engine_state == BUILDING and self._input:
            return DiagnosticStatus.WARN, f"BUILDING: {self.engine_note}"
        if not listened_to:
            return DiagnosticStatus.OK, "IDLE: nobody listens, so nothing is computed"
        if quiet is None:
            return DiagnosticStatus.WARN, "WAITING: no depth image yet; is the input topic right?"
        if quiet > STALE_AFTER:
            return DiagnosticStatus.STALE, f"STALE: no depth image for {quiet:.0f} s; is the camera running?"
        silent = not self._output or time.monotonic() - self._output[-1] > STALE_AFTER
        if self._rejected and silent:
            return DiagnosticStatus.WARN, f"RUNNING: nothing goes out, images are rejected: {self._rejected}"
        if self._lacks:
            return DiagnosticStatus.WARN, f"RUNNING: {self._lacks}"
        if self.cameras > 1:
            return DiagnosticStatus.WARN, f"RUNNING: {self.cameras} cameras publish on one topic, and their frames mix"
        return DiagnosticStatus.OK, "RUNNING"


def _rate(stamps: deque) -> float:
    recent = [s for s in stamps if s > time.monotonic() - RATE_SECONDS]
    return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0
