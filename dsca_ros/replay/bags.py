"""Bags of every kind, read as one: ROS 2 folders and files, ROS 1 files; whole, cut off or damaged."""

from __future__ import annotations

import contextlib
import errno
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag1,
    ConnectionExtRosbag2,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
)
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag1 import ReaderError as ReaderError1
from rosbags.rosbag2 import ReaderError as ReaderError2
from rosbags.rosbag2.metadata import parse_qos
from rosbags.serde import SerdeError
from rosbags.typesys import TypesysError

from dsca_ros.replay import ros1
from dsca_ros.replay.errors import ReplayError, one_line
from dsca_ros.replay.mcap_scan import MAGIC, Damaged, ScannedMcap, zstd
from dsca_ros.replay.ros1_scan import ScannedRos1
from dsca_ros.replay.ros2 import BagReader as Reader2

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: What a bag is known by, where it is no folder with a metadata.yaml.
SUFFIXES = (".mcap", ".db3", ".bag")


class Topic(NamedTuple):
    """A topic of a bag, as ROS 2 has it.

    Attributes:
        number: what messages refer to it by.
        definition: the type's, of its own and all nested ones; empty where the bag has none.
        is_idl: whether that is IDL, not msg.
        digest: the type's hash; may be empty.
        total: of messages, by the bag's index.
    """

    number: int
    name: str
    msgtype: str
    definition: str
    is_idl: bool
    digest: str
    encoding: str
    qos: list[Qos]
    total: int

    @property
    def latched(self) -> bool:
        """Whether who comes late gets the last messages, too."""
        return self.name == ros1.STATIC or _is_latched(self.qos)


class Message(NamedTuple):
    """A message as it was recorded: the topic's index, time in ns, CDR bytes."""

    topic: int
    time: int
    data: bytes | memoryview


@dataclass
class Loss:
    """What of a bag could not be read: messages as far as they can be told, bytes, and why."""

    messages: int = 0
    bytes: int = 0
    problem: str = ""


class Bag:
    """A bag that is open.

    Attributes:
        path: the folder or file.
        topics: of the bag, one for each name and type.
        start: time of the first message, ns.
        end: after the last message, ns.
        loss: what could not be read, so far; complete after `messages` has come to its end.

    Raises:
        ReplayError: if nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loss = Loss()
        self._reader: Reader1 | Reader2 | None = None
        self._scanned: Sequence[ScannedMcap | ScannedRos1] = []
        self._convert: dict[int, Callable[[bytes], bytes | memoryview]] = {}
        self.topics: list[Topic] = []
        self._of_connection: dict[tuple[int, int], int] = {}
        self._packed = self._looking_ahead = False
        self._left_out, self._why_left_out = 0, ""
        check_is_bag(path)
        try:
            self._open(path)
        except PermissionError:
            raise ReplayError(f"{path} may not be read: no permission") from None
        except FAILURES as error:
            self._salvage(_why(error))

    def _open(self, path: Path) -> None:
        reader = Reader1(path) if path.suffix == ".bag" and path.is_file() else Reader2(path)
        reader.open()
        self._reader = reader
        self._add_connections(reader.connections)
        self.start, self.end = (reader.start_time, reader.end_time) if reader.message_count else (0, 0)
        self._packed = isinstance(reader, Reader2) and reader.leave_packed()
        self.loss = Loss(self._left_out, 0, _left_in_log(path) or self._why_left_out or self._part_problem())

    def _add_connections(self, connections: Sequence[Connection]) -> None:
        known: dict[tuple[str, str], int] = {}
        for connection in connections:
            if isinstance(connection.ext, ConnectionExtRosbag1):
                try:
                    topic, convert = ros1.as_ros2(connection, len(self.topics))
                except ReplayError as error:
                    self._left_out += connection.msgcount
                    self._why_left_out = str(error)
                    continue
                self._convert[connection.id] = convert
            else:
                assert isinstance(connection.ext, ConnectionExtRosbag2)
                idl = connection.msgdef.format == MessageDefinitionFormat.IDL
                ext = connection.ext
                topic = (connection.topic, connection.msgtype, connection.msgdef.data, idl, connection.digest,
                         ext.serialization_format, _qos_of(connection.topic, ext.offered_qos_profiles))  # fmt: skip
            key = topic[0], topic[1]
            if key not in known:
                known[key] = len(self.topics)
                self.topics.append(Topic(len(self.topics), *topic, total=0))
            index = known[key]
            self._of_connection[id(connection.owner), connection.id] = index
            before = self.topics[index]
            same = before._replace(total=before.total + connection.msgcount)
            self.topics[index] = same._replace(qos=topic[6]) if _is_latched(topic[6]) else same

    def _salvage(self, problem: str) -> None:
        """Reads without an index what the reader gave up on."""
        if self.path.suffix == ".bag" and self.path.is_file():
            self._salvage_ros1(problem)
            return
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.mcap"))
        files = [file for file in files if is_mcap(file)]
        databases = sorted(self.path.glob("*.db3")) if self.path.is_dir() else []
        if not files and len(databases) == 1 and self._reader is None:
            files = databases
        if not files:
            raise ReplayError(f"{self.path} cannot be read: {problem}{_remedy(self.path)}")
        self.close()
        if files[0].suffix == ".db3":
            self._of_connection, self.topics = {}, []
            try:
                self._open(files[0])
            except FAILURES:
                raise ReplayError(f"{self.path} cannot be read: {problem}{_remedy(self.path)}") from None
            self.loss.problem = self.loss.problem or problem
            return
        expected = sum(topic.total for topic in self.topics)
        scans = sorted((ScannedMcap(file) for file in files), key=lambda scanned: scanned.times)
        self._scanned = scans
        self._of_connection = {}
        connections: dict[tuple[str, str], int] = {}
        self.topics = []
        for scanned in scans:
            for channel in scanned.channels.values():
                key = channel.topic, channel.msgtype
                count = scanned.counts.get(channel.id, 0)
                if key not in connections:
                    connections[key] = len(self.topics)
                    qos: list[Qos] = []
                    with contextlib.suppress(*FAILURES):
                        qos = parse_qos(channel.metadata.get("offered_qos_profiles", ""))
                    qos = _qos_of(channel.topic, qos)
                    idl = channel.definition_encoding in ("ros2idl", "omgidl")
                    digest = channel.metadata.get("topic_type_hash", "")
                    self.topics.append(Topic(len(self.topics), channel.topic, channel.msgtype, channel.definition,
                                             idl, digest, channel.encoding, qos, 0))  # fmt: skip
                index = connections[key]
                self.topics[index] = self.topics[index]._replace(total=self.topics[index].total + count)
                self._of_connection[id(scanned), channel.id] = index
        if not any(topic.total for topic in self.topics):
            raise ReplayError(f"{self.path} holds no message that can be read: {problem}")
        times = [scanned.times for scanned in scans]
        self.start, self.end = min(first for first, _ in times), max(last for _, last in times) + 1
        found = sum(topic.total for topic in self.topics)
        told = sum(scanned.lost for scanned in scans)
        lost_bytes = sum(scanned.lost_bytes for scanned in scans)
        self.loss = Loss(max(told, expected - found), lost_bytes, problem)

    def _salvage_ros1(self, problem: str) -> None:
        self.close()
        expected = sum(topic.total for topic in self.topics)
        found = ScannedRos1(self.path)
        self._scanned, self._of_connection, self._convert, self.topics = [found], {}, {}, []
        self._left_out = 0
        self._add_connections(list(found.connections.values()))
        total = sum(topic.total for topic in self.topics)
        if not total:
            raise ReplayError(f"{self.path} holds no message that can be read: {problem}")
        self.start, self.end = found.times[0], found.times[1] + 1
        self.loss = Loss(max(found.lost, expected - total) + self._left_out, found.lost_bytes, problem)

    def messages(
        self, topics: Sequence[int] | None = None, start: int | None = None, stop: int | None = None
    ) -> Iterator[Message]:
        """Messages in the order of their times; where a chunk is damaged, all others.

        Args:
            topics: indexes of those wanted; all by default.
            start: the first time wanted, ns.
            stop: the first time no longer wanted, ns.
        """
        wanted = set(range(len(self.topics)) if topics is None else topics)
        if not wanted:
            return
        given = 0
        if self._reader is not None:
            whole = start is None and stop is None
            expected = sum(self.topics[index].total for index in wanted)
            try:
                for message in self._indexed(wanted, start, stop):
                    yield message
                    given += 1
                self.loss.problem = self.loss.problem or self._part_problem()
                if whole and expected - given > self.loss.messages - self._left_out:
                    self.loss.messages = expected - given + self._left_out
                    self.loss.problem = self.loss.problem or "its index tells of more messages than there are"
                return
            except FAILURES as error:
                problem = _why(error)
            topics_before = self.topics
            try:
                self._salvage(problem)
            except ReplayError:
                self.loss = Loss(self._left_out + (expected - given if whole else 0), 0, problem)
                return
            # The rest is given under the indexes that were told before.
            back = {(topic.name, topic.msgtype): topic.number for topic in topics_before}
            again = {t.number: back[t.name, t.msgtype] for t in self.topics if (t.name, t.msgtype) in back}
            self._of_connection = {key: again[index] for key, index in self._of_connection.items() if index in again}
            self.topics = topics_before
        for message in self._unindexed(wanted, start, stop):
            # The order is the same, so what was given already comes first.
            if given:
                given -= 1
            else:
                yield message

    def _part_problem(self) -> str:
        return one_line(self._reader.problem) if isinstance(self._reader, Reader2) else ""

    def _indexed(self, wanted: set[int], start: int | None, stop: int | None) -> Iterator[Message]:
        assert self._reader is not None
        of = self._of_connection
        connections = [c for c in self._reader.connections if of.get((id(c.owner), c.id)) in wanted]
        for connection, time, data in self._reader.messages(connections, start, stop):
            index = of.get((id(connection.owner), connection.id))
            message = None if index is None else self._message(index, connection.id, time, data)
            if message is not None:
                yield message

    def _message(self, topic: int, connection: int, time: int, data: bytes) -> Message | None:
        """A message as CDR bytes; None, and it is counted, where it cannot be one."""
        convert = self._convert.get(connection)
        try:
            if not isinstance(data, bytes) or not 0 <= time < 1 << 63:
                raise Damaged("a message has no bytes, or no time")  # so may a damaged database have it
            if convert is not None:
                return Message(topic, time, convert(data))
            packed = self._packed or data.startswith(ZSTD_MAGIC)  # which no CDR starts with
            return Message(topic, time, zstd.decompress(data) if packed else data)
        except FAILURES as error:
            if not self._looking_ahead:  # else it comes again
                self.loss.messages += 1
                self.loss.problem = _why(error)
            return None

    def _unindexed(self, wanted: set[int], start: int | None, stop: int | None) -> Iterator[Message]:
        for scanned in self._scanned:
            for message in scanned.messages():
                index = self._of_connection.get((id(scanned), message.channel))
                inside = (start is None or message.time >= start) and (stop is None or message.time < stop)
                if inside and index in wanted:
                    assert index is not None
                    read = self._message(index, message.channel, message.time, message.data)
                    if read is not None:
                        yield read

    def first(self, topic: int) -> Message | None:
        """A topic's first message."""
        messages = self.messages([topic])
        self._looking_ahead = True
        try:
            return next(messages, None)
        finally:
            self._looking_ahead = False
            messages.close()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Closes the files."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(*FAILURES):
                reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _failures() -> tuple[type[Exception], ...]:
    import zlib

    import apsw

    # What readers of damaged files raise: mostly not errors of their own. A length that makes no sense gives a
    # MemoryError or an OverflowError.
    lookup = (LookupError, AttributeError, TypeError, AssertionError)
    plain = (OSError, EOFError, ValueError, ArithmeticError, MemoryError, RuntimeError, *lookup)
    libraries = (ReaderError1, ReaderError2, SerdeError, TypesysError, apsw.Error)
    return (*plain, *libraries, struct.error, zlib.error, zstd.ZstdError, Damaged)


#: What reading a damaged bag raises, or a message that is not what its type says.
FAILURES: tuple[Any, ...] = _failures()


def is_mcap(path: Path) -> bool:
    """Whether a file begins as MCAP does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: a folder with a metadata.yaml or storage files, or such a file."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(any(path.glob(f"*{kind}")) for kind in (".mcap", ".db3"))
    return path.suffix in SUFFIXES and path.is_file()


def check_is_bag(path: Path) -> None:
    """Holds a path to being a bag.

    Raises:
        ReplayError: if it is none.
    """
    kinds = f"a folder with a metadata.yaml, or a file ending in {', '.join(SUFFIXES)}"
    try:
        if not path.exists():
            raise ReplayError(f"{path} does not exist")
        if path.name.endswith(".bag.active"):
            raise ReplayError(f"{path} is a recording that was not ended; name it {path.stem} to have it read")
        if not is_bag(path):
            raise ReplayError(f"{path} is not a bag; a bag is {kinds}")
        if path.is_file():
            with path.open("rb") as file:
                beginning = file.read(16)
            starts = {".mcap": MAGIC, ".db3": b"SQLite format 3\0", ".bag": b"#ROSBAG V2.0\n"}
            if not beginning.startswith(starts[path.suffix]):
                what = "is empty" if not beginning else f"is not a bag, though its name ends in {path.suffix}"
                raise ReplayError(f"{path} {what}")
    except PermissionError:
        raise ReplayError(f"{path} may not be read: no permission") from None


def _is_latched(qos: Sequence[Qos]) -> bool:
    return any(each.durability == QosDurability.TRANSIENT_LOCAL for each in qos)


def _qos_of(topic: str, recorded: Sequence[Qos]) -> list[Qos]:
    """A topic's QoS; static transforms without one are latched: played otherwise, nobody would get them."""
    return list(recorded) or (ros1.qos(QosDurability.TRANSIENT_LOCAL, 1) if topic == ros1.STATIC else [])


def _why(error: Exception) -> str:
    if isinstance(error, MemoryError | OverflowError):
        return "a length in it makes no sense"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"no room to unpack it in {tempfile.gettempdir()}; remedy: TMPDIR names another place"
    return one_line(error) or type(error).__name__


def _left_in_log(path: Path) -> str:
    """What to tell of a database whose recorder ended before it wrote all into it; nothing where there is none."""
    files = path.glob("*.db3") if path.is_dir() else [path]
    logs = [file.with_name(f"{file.name}-wal") for file in files if file.suffix == ".db3"]
    left = [log.name for log in logs if log.is_file() and log.stat().st_size]
    remedy = "`PRAGMA wal_checkpoint(TRUNCATE)` in sqlite3 moves it"
    return f"its last messages are still in {left[0]}; remedy: {remedy}" if left else ""


def _remedy(path: Path) -> str:
    if path.is_dir() and not (path / "metadata.yaml").exists():
        return "; remedy: `ros2 bag reindex` it"
    return ""
