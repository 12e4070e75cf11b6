"""An engine that takes long to start, behind one that does not: something runs from the first image on.

Whoever calls never waits for a build: until the slow engine is ready the standby runs, or there is no result. When
the slow engine fails, in starting or later, it is closed and started again after pauses that grow.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from dsca_ros.engine.base import KEPT_SIZES, Engine, EngineError, EngineNotReady, SlowEngine

log = logging.getLogger(__name__)

#: Pauses before another try, seconds: the first, doubled again and again up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 600.0
#: How long `close` waits for a build to end, seconds.
LONGEST_END = 30.0

#: What `StartingEngine.state` may be.
BUILDING, RUNNING, FAILED = "BUILDING", "RUNNING", "FAILED"


class StartingEngine:
    """See `Engine`.

    Args:
        create: makes the slow engine; called in a thread of its own, again after a failure.
        standby: makes the engine that runs meanwhile; None for no results meanwhile.
        clock: seconds, for tests.

    Raises:
        EngineError: if the standby cannot start.
    """

    def __init__(
        self,
        create: Callable[[], SlowEngine],
        standby: Callable[[], Engine] | None,
        scale: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scale = scale
        self._create, self._clock = create, clock
        self._standby = standby() if standby is not None else None
        self._lock = threading.Lock()
        self._main: SlowEngine | None = None
        #: What the slow engine is ready for; the newest last, and no more than it keeps.
        self._ready: list[tuple[tuple[int, int], str]] = []
        self._thread: threading.Thread | None = None
        self._failure, self._failures, self._retry_at = "", 0, 0.0
        self._closed = False

    @property
    def state(self) -> str:
        """`RUNNING` once the slow engine has taken over, `BUILDING` before, `FAILED` until the next try."""
        with self._lock:
            return self._state

    @property
    def _state(self) -> str:
        """Of whoever holds the lock."""
        if self._failure and self._thread is None:
            return FAILED
        return RUNNING if self._ready and self._thread is None else BUILDING

    @property
    def note(self) -> str:
        """How far the start is, or what failed and when it is tried again; for people."""
        with self._lock:
            state = self._state
            if state == RUNNING:
                return ""
            if state == FAILED:
                return f"{self._failure}; next try in {max(0.0, self._retry_at - self._clock()):.0f} s"
            return self._main.progress if self._main is not None else "starting"

    @property
    def _running(self) -> Engine | None:
        main = self._main  # read once: it may fail meanwhile
        return main if main is not None and self.state == RUNNING else self._standby

    @property
    def description(self) -> str:
        """What runs now."""
        running = self._running
        return running.description if running is not None else "none yet"

    @property
    def device(self) -> str:
        """What it runs on now."""
        running = self._running
        return running.device if running is not None else ""

    @property
    def precision(self) -> str:
        """Of what runs now."""
        running = self._running
        return running.precision if running is not None else ""

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        """See `Engine.infer`.

        Raises:
            EngineNotReady: without a standby, while the slow engine is not ready.
        """
        key = (depth.shape, depth.dtype.name)
        with self._lock:
            main = self._main if key in self._ready and self._thread is None else None
        if main is not None:
            try:
                result = main.infer(depth, depth_range)
                self._failures = 0  # only now: one that starts but fails on every image waits longer and longer
                return result
            except EngineError as error:
                self._fail(error)
        else:
            self._start(depth.shape, depth.dtype)
        if self._standby is not None:
            return self._standby.infer(depth, depth_range)
        raise EngineNotReady(f"{self.state.lower()}: {self.note}")

    def _start(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        """Begins to prepare for a size, unless a try is under way, has just ended well, or the pause is not over."""
        with self._lock:
            if self._closed or self._thread is not None or (self._failure and self._clock() < self._retry_at):
                return
            if (shape, dtype.name) in self._ready:  # since the caller looked
                return
            self._thread = threading.Thread(
                target=self._prepare, args=(shape, dtype), name="dsca_engine_start", daemon=True
            )
            self._thread.start()

    def _prepare(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        try:
            if self._main is None:
                main = self._create()
                with self._lock:
                    self._main = main
                if self._closed:
                    raise EngineError("closed while it started")
            self._main.prepare(shape, dtype)
        except Exception as error:  # whatever it is, it must not end this thread silently
            self._fail(error)
        else:
            with self._lock:
                self._ready = [*self._ready, (shape, dtype.name)][-KEPT_SIZES:]
                self._failure = ""
        finally:
            with self._lock:
                self._thread = None

    def _fail(self, error: Exception) -> None:
        text = str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        with self._lock:
            main, self._main = self._main, None
            self._ready.clear()
            pause = min(FIRST_PAUSE * 2 ** min(self._failures, 32), LONGEST_PAUSE)  # no float holds 2**1024
            self._failure, self._failures, self._retry_at = text, self._failures + 1, self._clock() + pause
            closed = self._closed
        if not closed:
            log.warning("%s; next try in %.0f s", text, pause)
        if main is not None:
            try:
                main.close()
            except Exception as closing:  # what has failed once may fail to close, too
                log.debug("closing the failed engine: %s", closing)

    def close(self) -> None:
        """See `Engine.close`. A build that runs is ended."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
        deadline = time.monotonic() + LONGEST_END
        while thread is not None and thread.is_alive() and time.monotonic() < deadline:
            main = self._main
            if main is not None:
                main.stop_preparing()  # again and again: one that comes before `prepare` begins may be lost
            thread.join(timeout=0.05)
        with self._lock:
            main, self._main = self._main, None
        if main is not None:
            main.close()
        if self._standby is not None:
            self._standby.close()
