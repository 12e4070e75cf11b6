"""Switching between a standby and an engine that is slow to start. The engines are stand-ins: no GPU is tested here."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dsca_ros.engine.base import EngineError, EngineNotReady
from dsca_ros.engine.starting import BUILDING, FAILED, FIRST_PAUSE, LONGEST_PAUSE, RUNNING, StartingEngine

RANGE = (0.1, 10.0)
SCALE = 2
#: How long anything awaited may take, seconds.
TIMEOUT = 20.0
#: What the engines put in every pixel, on top of what the image has there.
STANDBY, SLOW = 1000, 2000
#: Where a slow engine can fail.
PLACES = ("create", "prepare", "infer")


def image(value: int = 0, size: tuple[int, int] = (4, 5), dtype: type = np.uint16) -> np.ndarray:
    return np.full(size, value, dtype)


def larger(depth: np.ndarray, added: int) -> np.ndarray:
    return depth.repeat(SCALE, 0).repeat(SCALE, 1) + depth.dtype.type(added)


class Standby:
    """An engine that is there at once."""

    scale, description, device, precision = SCALE, "the standby", "CPU", "fp32"

    def __init__(self) -> None:
        self.error: EngineError | None = None
        self.closed = 0

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        assert not self.closed and depth_range == RANGE
        if self.error:
            raise self.error
        return larger(depth, STANDBY)

    def close(self) -> None:
        self.closed += 1


class Slow:
    """A slow engine that does what its workshop says."""

    scale, description, device, precision = SCALE, "the slow engine", "a GPU", "fp16"

    def __init__(self, workshop: Workshop, number: int) -> None:
        self._workshop, self._number = workshop, number
        self.progress = "starting"
        self._stopped = False
        self._closed = False
        self._ready: set[tuple[tuple[int, int], str]] = set()

    def prepare(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        shop = self._workshop
        shop.events.append(f"prepare {self._number} {shape[1]}x{shape[0]} {np.dtype(dtype).name}")
        shop.before_prepare()
        self._stopped = False  # as TensorRT's does
        self.progress = "timing kernels, 40 %"
        shop.preparing.set()
        assert shop.may_prepare.wait(TIMEOUT), "the test forgot to open the gate"
        if self._stopped:
            raise EngineError("the build was stopped")
        shop.fail_in("prepare")
        self._ready.add((shape, np.dtype(dtype).name))

    def stop_preparing(self) -> None:
        self._stopped = True
        self._workshop.stopped.set()
        if self._workshop.preparing.is_set():
            self._workshop.may_prepare.set()

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        assert not self._closed and depth_range == RANGE
        assert (depth.shape, depth.dtype.name) in self._ready, "the caller would wait for a build"
        self._workshop.fail_in("infer")
        return larger(depth, SLOW)

    def close(self) -> None:
        assert not self._closed, "closed twice"
        self._closed = True
        self._workshop.events.append(f"close {self._number}")
        self._workshop.fail_in("close")


class Workshop:
    """Makes slow engines, lets their preparations wait, and lets them fail; writes down what happens."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self.events: list[str] = []
        self.creating, self.may_create = threading.Event(), threading.Event()
        self.preparing, self.may_prepare = threading.Event(), threading.Event()
        self.stopped = threading.Event()
        self.before_prepare: Callable[[], object] = lambda: None
        self._numbers = itertools.count()
        self.may_create.set()

    def create(self) -> Slow:
        number = next(self._numbers)
        self.events.append(f"create {number}")
        self.creating.set()
        assert self.may_create.wait(TIMEOUT), "the test forgot to open the gate"
        self.fail_in("create")
        return Slow(self, number)

    def fail_in(self, place: str) -> None:
        if place in self.errors:
            raise self.errors[place]

    def prepared(self) -> list[str]:
        return [event for event in self.events if event.startswith("prepare")]


class Clock:
    """A steady clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A starting engine of stand-ins."""

    def __init__(self, standby: bool = True) -> None:
        self.shop, self.clock, self.standby = Workshop(), Clock(), Standby()
        make = (lambda: self.standby) if standby else None
        self.engine = StartingEngine(self.shop.create, make, SCALE, self.clock)

    def infer(self, depth: np.ndarray | None = None) -> int:
        """What was added to the image, and so which engine ran."""
        depth = image() if depth is None else depth
        result = self.engine.infer(depth, RANGE)
        assert result.dtype == depth.dtype and result.shape == (SCALE * depth.shape[0], SCALE * depth.shape[1])
        (added,) = np.unique(result - depth.repeat(SCALE, 0).repeat(SCALE, 1))
        return int(added)

    def settle(self) -> None:
        """Until no try is under way."""
        for thread in starting_threads():
            thread.join(TIMEOUT)
            assert not thread.is_alive()

    def run(self) -> None:
        """Until the slow engine answers."""
        self.shop.may_prepare.set()
        self.infer()
        self.settle()
        assert self.infer() == SLOW

    def next_try(self) -> None:
        """Past the pause after a failure, and through the try that follows."""
        self.clock.now += LONGEST_PAUSE
        self.infer()
        self.settle()


def starting_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dsca_engine_start"]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    end(bench)


@pytest.fixture
def lone() -> Iterator[Bench]:
    """One without a standby."""
    bench = Bench(standby=False)
    yield bench
    end(bench)


def end(bench: Bench) -> None:
    bench.shop.may_create.set()
    bench.shop.errors.clear()
    bench.engine.close()
    bench.settle()


# --- taking over --------------------------------------------------------------------------------


def test_the_standby_answers_until_the_slow_engine_is_ready_and_then_never_again(bench):
    assert [bench.infer() for _ in range(5)] == 5 * [STANDBY]
    assert bench.shop.preparing.wait(TIMEOUT)
    assert [bench.infer() for _ in range(5)] == 5 * [STANDBY]
    bench.shop.may_prepare.set()
    bench.settle()
    assert [bench.infer() for _ in range(5)] == 5 * [SLOW]
    assert bench.shop.events == ["create 0", "prepare 0 5x4 uint16"]


def test_nothing_is_started_before_the_first_image(bench):
    assert not starting_threads() and not bench.shop.events
    assert (bench.engine.state, bench.engine.note) == (BUILDING, "starting")


def test_without_a_standby_a_call_tells_how_far_it_is(lone):
    lone.shop.may_create.clear()
    with pytest.raises(EngineNotReady, match=r"^building: starting$"):
        lone.infer()
    lone.shop.may_create.set()
    assert lone.shop.preparing.wait(TIMEOUT)
    with pytest.raises(EngineNotReady, match=r"^building: timing kernels, 40 %$"):
        lone.infer()
    lone.shop.may_prepare.set()
    lone.settle()
    assert lone.infer() == SLOW


def test_what_it_says_of_itself_at_every_stage(bench):
    def said() -> tuple[str, ...]:
        engine = bench.engine
        return engine.state, engine.note, engine.description, engine.device, engine.precision

    of_standby, of_slow = ((kind.description, kind.device, kind.precision) for kind in (Standby, Slow))
    assert bench.engine.scale == SCALE
    bench.shop.may_create.clear()
    bench.infer()
    assert bench.shop.creating.wait(TIMEOUT)
    assert said() == (BUILDING, "starting", *of_standby)
    bench.shop.may_create.set()
    assert bench.shop.preparing.wait(TIMEOUT)
    assert said() == (BUILDING, "timing kernels, 40 %", *of_standby)
    bench.shop.may_prepare.set()
    bench.settle()
    assert said() == (RUNNING, "", *of_slow)
    bench.shop.errors["infer"] = EngineError("the GPU fell off the bus")
    bench.infer()
    assert said() == (FAILED, "the GPU fell off the bus; next try in 1 s", *of_standby)


def test_without_a_standby_nothing_runs_at_first(lone):
    assert (lone.engine.description, lone.engine.device, lone.engine.precision) == ("none yet", "", "")


def test_a_standby_that_cannot_start_is_told_at_once():
    def broken() -> Standby:
        raise EngineError("no such file")

    with pytest.raises(EngineError, match="no such file"):
        StartingEngine(Workshop().create, broken, SCALE)
    assert not starting_threads()


def test_what_the_standby_raises_is_the_callers(bench):
    bench.standby.error = EngineError("the CPU is on fire")
    with pytest.raises(EngineError, match="on fire"):
        bench.infer()
    bench.shop.may_prepare.set()
    bench.settle()
    assert bench.infer() == SLOW


def test_an_image_that_no_engine_takes_is_the_callers_and_no_failure_of_the_engine(bench):
    bench.run()
    bench.shop.errors["infer"] = TypeError("depth must be uint16 or float32")
    with pytest.raises(TypeError, match="uint16"):
        bench.infer()
    assert bench.engine.state == RUNNING
    bench.shop.errors.clear()
    assert bench.infer() == SLOW


# --- another size -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (image(size=(6, 7)), "7x6 uint16"),
        (image(size=(5, 4)), "4x5 uint16"),
        (image(dtype=np.float32), "5x4 float32"),
    ],
    ids=["larger", "turned", "metres"],
)
def test_another_size_or_dtype_is_prepared_while_the_standby_runs(bench, other, name):
    bench.run()
    bench.shop.may_prepare.clear()
    bench.shop.preparing.clear()
    assert bench.infer(other) == STANDBY
    assert bench.shop.preparing.wait(TIMEOUT)
    assert bench.engine.state == BUILDING
    # The slow engine does one thing at a time.
    assert bench.infer() == bench.infer(other) == STANDBY
    bench.shop.may_prepare.set()
    bench.settle()
    assert bench.engine.state == RUNNING
    prepared = ["prepare 0 5x4 uint16", f"prepare 0 {name}"]
    assert bench.shop.prepared() == prepared
    # Back, and back again: nothing is prepared anew.
    assert [bench.infer(depth) for depth in (image(), other, image(), other)] == 4 * [SLOW]
    assert bench.shop.prepared() == prepared and not starting_threads()


def test_a_size_that_cannot_be_prepared_is_tried_again_as_any_failure(bench):
    bench.run()
    bench.shop.errors["prepare"] = EngineError("too large")
    bench.infer(image(size=(6, 7)))
    bench.settle()
    assert bench.engine.state == FAILED
    bench.shop.errors.clear()
    bench.next_try()
    assert bench.infer() == SLOW


# --- failures -----------------------------------------------------------------------------------


def fail(bench: Bench, place: str, error: Exception) -> None:
    """Lets the slow engine fail in a place, at its first try or, for infer, at its first image."""
    bench.shop.may_prepare.set()
    if place == "infer":
        bench.run()
    bench.shop.errors[place] = error
    bench.infer()
    bench.settle()


@pytest.mark.parametrize("place", PLACES)
def test_a_failure_is_told_and_the_standby_goes_on(bench, place, caplog):
    fail(bench, place, EngineError("the GPU is too hot"))
    assert bench.engine.state == FAILED
    assert bench.engine.note == "the GPU is too hot; next try in 1 s"
    assert [bench.infer() for _ in range(5)] == 5 * [STANDBY]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "the GPU is too hot; next try in 1 s"


@pytest.mark.parametrize("place", PLACES)
def test_the_image_that_finds_the_failure_is_not_lost(bench, place):
    bench.shop.may_prepare.set()
    if place == "infer":
        bench.run()
    bench.shop.errors[place] = EngineError("broken")
    assert bench.infer(image(7)) == STANDBY


def test_without_a_standby_a_call_tells_of_the_failure(lone):
    lone.shop.errors["create"] = EngineError("the GPU is too hot")
    with pytest.raises(EngineNotReady, match=r"^(building|failed)"):  # whichever thread is faster
        lone.infer()
    lone.settle()
    with pytest.raises(EngineNotReady, match=r"^failed: the GPU is too hot; next try in 1 s$"):
        lone.infer()


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_tried_before_the_pause_is_over(bench, place):
    fail(bench, place, EngineError("broken"))
    bench.shop.errors.clear()
    before = list(bench.shop.events)
    bench.clock.now += 0.9 * FIRST_PAUSE
    assert bench.infer() == STANDBY
    assert not starting_threads() and bench.shop.events == before
    assert bench.engine.note == "broken; next try in 0 s"
    bench.clock.now += 0.2 * FIRST_PAUSE
    assert bench.infer() == STANDBY
    bench.settle()
    assert (bench.engine.state, bench.engine.note) == (RUNNING, "")
    assert bench.infer() == SLOW


@pytest.mark.parametrize("place", PLACES)
def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success(bench, place):
    def pause() -> float:
        """How long after this failure the next try is, as it is told and as it is."""
        note = bench.engine.note
        assert note.startswith("broken; next try in ")
        told = float(note.split()[-2])
        before = len(bench.shop.events)
        bench.clock.now += told - 0.01
        bench.infer()
        assert len(bench.shop.events) == before
        bench.clock.now += 0.02
        bench.infer()
        bench.settle()
        assert len(bench.shop.events) > before
        if place == "infer":
            bench.infer()
        return told

    fail(bench, place, EngineError("broken"))
    assert [pause() for _ in range(12)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]
    bench.shop.errors.clear()
    bench.next_try()
    assert bench.infer() == SLOW
    fail(bench, "infer", EngineError("broken"))
    assert bench.engine.note == "broken; next try in 1 s"


def test_a_week_of_failures_is_not_too_many(bench):
    """2 ** 1024 is larger than any float."""
    bench.shop.errors["create"] = EngineError("broken")
    for _ in range(1100):
        bench.next_try()
    assert bench.engine.note == "broken; next try in 600 s"


@pytest.mark.parametrize("closing_fails", [False, True])
@pytest.mark.parametrize("place", ["prepare", "infer"])
def test_the_failed_engine_is_closed_before_the_next_is_created(bench, place, closing_fails):
    fail(bench, place, EngineError("broken"))
    if closing_fails:
        bench.next_try()
        bench.shop.events.clear()
        bench.shop.errors["close"] = RuntimeError("the driver is gone, too")
        bench.next_try()
        bench.infer()
    bench.shop.errors.clear()
    bench.next_try()
    assert bench.infer() == SLOW
    events = [event.split()[:2] for event in bench.shop.events if not event.startswith("prepare")]
    for (before, number), (after, its_number) in itertools.pairwise(events):
        assert {before, after} == {"create", "close"}
        assert (its_number == number) == (after == "close")


def test_a_failure_to_create_leaves_nothing_to_close(bench):
    fail(bench, "create", EngineError("broken"))
    bench.shop.errors.clear()
    bench.next_try()
    assert [event.split()[0] for event in bench.shop.events] == ["create", "create", "prepare"]


@pytest.mark.parametrize("place", ["create", "prepare"])
@pytest.mark.parametrize(
    ("error", "text"), [(ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"), (MemoryError(), "MemoryError: ")]
)
def test_any_other_exception_is_told_with_its_type(bench, place, error, text):
    fail(bench, place, error)
    assert bench.engine.state == FAILED
    assert bench.engine.note == f"{text}; next try in 1 s"
    assert bench.infer() == STANDBY


def test_an_engine_made_anew_is_prepared_for_every_size_anew(bench):
    other = image(size=(6, 7))
    for depth in (image(), other):
        bench.shop.may_prepare.set()
        bench.infer(depth)
        bench.settle()
        assert bench.infer(depth) == SLOW
    fail(bench, "infer", EngineError("broken"))
    bench.shop.errors.clear()
    bench.next_try()
    assert [bench.infer(), bench.infer(other)] == [SLOW, STANDBY]
    bench.settle()
    assert bench.infer(other) == SLOW
    assert bench.shop.prepared()[2:] == ["prepare 1 5x4 uint16", "prepare 1 7x6 uint16"]


# --- the end ------------------------------------------------------------------------------------


def assert_closed(bench: Bench) -> None:
    assert not starting_threads()
    assert bench.standby.closed == 1
    created = [event for event in bench.shop.events if event.startswith("create")]
    closed = [event for event in bench.shop.events if event.startswith("close")]
    assert len(created) == len(closed)


def test_closing_during_a_preparation_ends_it(bench, caplog):
    bench.infer()
    assert bench.shop.preparing.wait(TIMEOUT)
    bench.engine.close()
    assert bench.shop.stopped.is_set()
    assert_closed(bench)
    assert not caplog.records  # that it was ended is no failure to warn of


def test_closing_while_the_engine_is_created_prepares_nothing(bench):
    bench.shop.may_create.clear()
    bench.infer()
    assert bench.shop.creating.wait(TIMEOUT)
    closing = threading.Thread(target=bench.engine.close)
    closing.start()
    while not bench.engine._closed:  # set at once
        closing.join(0.001)
    bench.shop.may_create.set()
    closing.join(TIMEOUT)
    assert not closing.is_alive()
    assert not bench.shop.prepared()
    assert_closed(bench)


def test_a_stop_that_comes_just_before_the_preparation_is_not_lost(bench):
    arrived = threading.Event()

    def before_prepare() -> None:
        arrived.set()
        assert bench.shop.stopped.wait(TIMEOUT)

    # After the first stop the preparation begins, which takes that stop back.
    bench.shop.before_prepare = before_prepare
    bench.infer()
    assert arrived.wait(TIMEOUT)
    closing = threading.Thread(target=bench.engine.close)
    closing.start()
    closing.join(TIMEOUT / 4)
    assert not closing.is_alive()
    assert_closed(bench)


@pytest.mark.parametrize("place", [None, *PLACES])
def test_closing_once_or_twice_closes_every_engine_once(bench, place):
    bench.run() if place is None else fail(bench, place, EngineError("broken"))
    bench.shop.errors.clear()
    bench.engine.close()
    bench.engine.close()
    bench.settle()
    assert bench.standby.closed == 1
    created = [event.split()[1] for event in bench.shop.events if event.startswith("create")]
    closed = [event.split()[1] for event in bench.shop.events if event.startswith("close")]
    assert closed == ([] if place == "create" else created)


def test_closing_before_the_first_image(bench, lone):
    for unused in (bench, lone):
        unused.engine.close()
        assert not unused.shop.events
    assert bench.standby.closed == 1


def test_after_the_end_nothing_is_started(lone):
    lone.engine.close()
    with pytest.raises(EngineNotReady):
        lone.infer()
    assert not starting_threads() and not lone.shop.events


# --- many calls ---------------------------------------------------------------------------------


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns after every few instructions: what can come between will."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_every_one_of_hundreds_of_calls_is_answered_across_the_switch(bench, hasty):
    calls, warm = 400, threading.Event()
    added, errors = [], []

    def hammer() -> None:
        try:
            # Each image has its own value, which `infer` holds the result to.
            while len(added) < 5000 and added.count(SLOW) < calls:
                added.append(bench.infer(image(len(added))))
                if len(added) == calls:
                    warm.set()
        except BaseException as error:
            errors.append(error)
            warm.set()

    thread = threading.Thread(target=hammer)
    thread.start()
    assert warm.wait(TIMEOUT)
    bench.shop.may_prepare.set()
    thread.join(TIMEOUT)
    assert not thread.is_alive() and not errors
    standby = added.count(STANDBY)
    assert standby >= calls and len(added) == standby + calls
    assert added == standby * [STANDBY] + calls * [SLOW]
    assert bench.shop.events == ["create 0", "prepare 0 5x4 uint16"]


def test_who_asks_while_it_fails_and_recovers_gets_sane_answers(bench, hasty):
    descriptions, devices, states, notes = set(), set(), set(), set()
    done = threading.Event()
    bench.shop.may_prepare.set()

    def watch() -> None:
        while not done.is_set():
            descriptions.add(bench.engine.description)
            devices.add(bench.engine.device)
            states.add(bench.engine.state)
            notes.add(bench.engine.note)

    thread = threading.Thread(target=watch)
    thread.start()
    for round_ in range(100):
        bench.next_try()
        assert bench.infer(image(round_)) == SLOW
        bench.shop.errors["infer"] = EngineError("broken")
        assert bench.infer(image(round_)) == STANDBY
        bench.shop.errors.clear()
    done.set()
    thread.join(TIMEOUT)
    assert descriptions <= {Standby.description, Slow.description}
    assert devices <= {Standby.device, Slow.device}
    assert states <= {BUILDING, RUNNING, FAILED}
    failed = {f"broken; next try in {seconds} s" for seconds in (0, 1)}
    assert notes <= {"", "starting", "timing kernels, 40 %"} | failed
