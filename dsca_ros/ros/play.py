"""`dsca play`: a recording's topics over DDS, at the recording's own pace, where there is no rosbag2.

Bytes go out as they were recorded: nothing is decoded, so every type that is installed here is played. This module
knows no bags, and what reads bags knows no ROS: a `Recording` is all they share.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

CLOCK = "/clock"
#: Times a second that the clock is told.
CLOCK_HZ = 40.0
#: Messages that wait for a slow subscriber, at least.
DEPTH = 10
#: Messages of a latched topic that who comes late gets, at most.
MAX_LATCHED = 1000
#: A lap takes at least so long, seconds: a bag of one message is no endless rush.
SHORTEST_LAP = 0.1
#: How long subscribers get for what is under way at the end, seconds.
END_WITHIN = 2.0
_PROGRESS_EVERY = 0.2
_POLL = 0.02
_S = 1_000_000_000


class RecordedQos(Protocol):
    """What a publisher offered; the policies are enumerations with ROS's names."""

    @property
    def depth(self) -> int: ...
    @property
    def reliability(self) -> Any: ...
    @property
    def durability(self) -> Any: ...


class RecordedTopic(Protocol):
    """A topic of a recording; ``total`` is how many messages it has."""

    @property
    def number(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def msgtype(self) -> str: ...
    @property
    def encoding(self) -> str: ...
    @property
    def qos(self) -> Sequence[RecordedQos]: ...
    @property
    def total(self) -> int: ...


class RecordedMessage(Protocol):
    """A message of topic ``topic``: its time in ns and its CDR bytes."""

    @property
    def topic(self) -> int: ...
    @property
    def time(self) -> int: ...
    @property
    def data(self) -> bytes | memoryview: ...


class Recording(Protocol):
    """What can be played: ``start`` and ``end`` in ns, and messages in the order of their times."""

    @property
    def topics(self) -> Sequence[RecordedTopic]: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    def messages(self, topics: Sequence[int]) -> Iterator[RecordedMessage]: ...


class PlayError(ValueError):
    """A recording cannot be played; the text says why."""


@dataclass(frozen=True)
class PlaySettings:
    """How to play.

    Attributes:
        rate: recorded seconds a second.
        loop: start over at the end, for ever.
        clock: also publish the recording's time on /clock.
        topics: names of those wanted; none: all.
        wait_for: begin only when someone listens to each of these.
    """

    rate: float = 1.0
    loop: bool = False
    clock: bool = False
    topics: tuple[str, ...] = ()
    wait_for: tuple[str, ...] = ()


@dataclass
class PlayReport:
    """What was played.

    Attributes:
        topics: names of those that were published.
        left_out: names of those that were not, and why.
        laps: times that the end was come to.
        late_ms: the most that a message was behind its time, milliseconds.
    """

    topics: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    messages: int = 0
    laps: int = 0
    seconds: float = 0.0
    late_ms: float = 0.0

    def figures(self) -> dict[str, Any]:
        """All of it, rounded, for JSON."""
        return {**asdict(self), "seconds": round(self.seconds, 3), "late_ms": round(self.late_ms, 2)}


def play(
    recording: Recording,
    settings: PlaySettings,
    report: PlayReport,
    progress: Callable[[float, int], None] = lambda share, messages: None,
) -> None:
    """Publishes a recording's topics; returns at its end, with ``loop`` never.

    Args:
        recording: is read from its start in every lap.
        settings: how.
        report: filled in as it goes on, so that it holds when an exception (Ctrl-C) ends it.
        progress: told a few times a second of the share of this lap, and messages so far.

    Raises:
        PlayError: if a topic is not there, or none can be published.
    """
    context = Context()
    # A context of its own leaves signals to the caller.
    rclpy.init(context=context, args=[])
    try:
        node = rclpy.create_node("dsca_play", context=context, enable_rosout=False, start_parameter_services=False)
        try:
            Player(node, recording, settings, report, progress).run()
        finally:
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


class Player:
    """One run of `play`, on a node that is there."""

    def __init__(
        self,
        node: Node,
        recording: Recording,
        settings: PlaySettings,
        report: PlayReport,
        progress: Callable[[float, int], None],
    ) -> None:
        self._recording, self._settings, self._report, self._progress = recording, settings, report, progress
        there = {topic.name for topic in recording.topics}
        for name in (*settings.topics, *settings.wait_for):
            if name not in there:
                raise PlayError(f"the bag has no topic {name}; there is: {', '.join(sorted(there))}")
        self._publishers = self._advertise(node)
        if not self._publishers:
            why = "; ".join(f"{name}: {reason}" for name, reason in report.left_out.items())
            raise PlayError(f"nothing can be published ({why or 'the bag is empty'})")
        self._clock = node.create_publisher(Clock, CLOCK, 1) if settings.clock else None
        self._next_clock, self._told = math.inf, 0.0

    def _advertise(self, node: Node) -> dict[int, Publisher]:
        """A publisher for each topic that is wanted and can be published, by the topic's number."""
        found: dict[int, Publisher] = {}
        for topic in self._recording.topics:
            if self._settings.topics and topic.name not in self._settings.topics:
                continue
            kind = message_type(topic.msgtype)
            if self._settings.clock and topic.name == CLOCK:
                self._report.left_out[topic.name] = "--clock takes its place"
            elif topic.encoding not in ("", "cdr"):
                self._report.left_out[topic.name] = f"it is encoded as {topic.encoding}, not as cdr"
            elif kind is None:
                self._report.left_out[topic.name] = f"{topic.msgtype} is not installed here"
            else:
                try:
                    found[topic.number] = node.create_publisher(kind, topic.name, offered_qos(topic))
                except (NameValidationException, RuntimeError) as error:
                    # A name that ROS 2 does not have, or of two types under one name the second.
                    self._report.left_out[topic.name] = str(error).partition("\n")[0].rstrip(":")
                    continue
                self._report.topics.append(topic.name)
        missing = [name for name in self._settings.wait_for if name not in self._report.topics]
        if missing:
            raise PlayError(f"{missing[0]} is waited for, but not played; see --topic")
        return found

    def run(self) -> None:
        """Plays lap after lap."""
        # By the bag's names, which a publisher completes with a slash.
        numbers = [topic.number for topic in self._recording.topics if topic.name in self._settings.wait_for]
        awaited = [self._publishers[number] for number in numbers if number in self._publishers]
        while not all(publisher.get_subscription_count() for publisher in awaited):
            time.sleep(_POLL)
        began = start = time.monotonic()
        try:
            while True:
                self._lap(start)
                self._report.laps += 1
                if not self._settings.loop:
                    break
                length = max(SHORTEST_LAP, (self._recording.end - self._recording.start) / _S / self._settings.rate)
                start += length
                self._wait(start, start - length)
            for publisher in self._publishers.values():
                publisher.wait_for_all_acked(Duration(seconds=END_WITHIN))
        finally:
            self._report.seconds = time.monotonic() - began

    def _lap(self, start: float) -> None:
        """Plays from first to last message; ``start`` is the lap's, on the steady clock."""
        recording, report = self._recording, self._report
        length = max(1, recording.end - recording.start)
        self._tell_time(recording.start)
        for message in recording.messages(list(self._publishers)):
            due = start + (message.time - recording.start) / _S / self._settings.rate
            now = self._wait(due, start)
            # Only bytes go out as they are.
            self._publishers[message.topic].publish(bytes(message.data))
            report.messages += 1
            report.late_ms = max(report.late_ms, 1e3 * (now - due))
            if now - self._told > _PROGRESS_EVERY:
                self._told = now
                self._progress(min(1.0, (message.time - recording.start) / length), report.messages)

    def _wait(self, due: float, start: float) -> float:
        """Waits, and tells the time meanwhile; returns the time on the steady clock."""
        while True:
            now = time.monotonic()
            if now >= self._next_clock:
                self._tell_time(self._recording.start + round((now - start) * self._settings.rate * _S))
            if now >= due:
                return now
            time.sleep(max(0.0, min(due, self._next_clock) - now))

    def _tell_time(self, recorded: int) -> None:
        if self._clock is not None:
            self._next_clock = time.monotonic() + 1.0 / CLOCK_HZ
            told = Clock()
            told.clock.sec, told.clock.nanosec = divmod(recorded, _S)
            self._clock.publish(told)


def message_type(name: str) -> type | None:
    """The class of ``package/msg/Type``; None where it is not installed."""
    package, _, kind = name.replace("/", ".").rpartition(".")
    try:
        return getattr(importlib.import_module(package), kind, None)
    except (ImportError, ValueError):
        return None


def offered_qos(topic: RecordedTopic) -> QoSProfile:
    """Reliability, durability and depth as recorded; of several publishers what suits every subscriber of theirs.

    Deadlines, lifespans and liveliness are not offered: at another rate they would not be kept.
    """
    reliable = any(qos.reliability.name == "RELIABLE" for qos in topic.qos)
    best_effort = any(qos.reliability.name == "BEST_EFFORT" for qos in topic.qos) and not reliable
    latched = any(qos.durability.name == "TRANSIENT_LOCAL" for qos in topic.qos)
    depth = max([DEPTH, *(qos.depth for qos in topic.qos)])
    if latched:
        # What several publishers kept is kept by one: all of it.
        depth = min(max(depth, topic.total), MAX_LATCHED)
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
