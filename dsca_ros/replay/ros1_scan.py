"""What a ROS 1 bag holds, found by walking through it from its start: no index is needed, no end.

For bags that the reader of `rosbags` gives up on: a recording that was cut off (which never got its index) or is
damaged. The format: https://wiki.ros.org/Bags/Format/2.0. A record is a header of named fields and data, each with its
length of four bytes before it; messages lie in chunks, and an index of each connection's messages follows each chunk.
"""

from __future__ import annotations

import bz2
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rosbags.interfaces import Connection, ConnectionExtRosbag1, MessageDefinition, MessageDefinitionFormat

from dsca_ros.replay.mcap_scan import Damaged
from dsca_ros.replay.scanned import Message, ScannedFile

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, INDEX, CHUNK, CONNECTION = 2, 4, 5, 7
#: Longer headers are taken for damage.
MAX_HEADER = 1 << 20

_LENGTH = struct.Struct("<I")
_TIME = struct.Struct("<II")
#: Bytes of a message's entry in an index.
_INDEX_ENTRY = 12

Fields = dict[bytes, bytes]


class Chunk(NamedTuple):
    """Where a chunk's data is, and the times of the messages in it that can be read, ns."""

    offset: int
    length: int
    compression: bytes
    start_time: int
    end_time: int


class ScannedRos1(ScannedFile[Chunk]):
    """A ROS 1 bag read without its index.

    Attributes:
        connections: by id, with the number of messages that can be read.
        lost: messages that cannot be read, as far as the chunks' own indexes tell.
        lost_bytes: of the file that could not be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.connections: dict[int, Connection] = {}
        self._counts: dict[int, int] = {}
        with path.open("rb") as file:
            self._walk(file, path.stat().st_size)
        for number, count in self._counts.items():
            self.connections[number] = self.connections[number]._replace(msgcount=count)

    def _walk(self, file: BinaryIO, size: int) -> None:
        at, expected, read = len(MAGIC), 0, 0
        while at < size:
            try:
                file.seek(at)
                fields = _fields(file.read(_number(file.read(4), MAX_HEADER)))
                length = _number(file.read(4), 1 << 32)
            except Damaged:
                self.lost_bytes += size - at
                break
            data_at, kind = file.tell(), _kind(fields)
            whole = data_at + length <= size
            if kind == CHUNK:
                read += self._learn_chunk(file, fields, min(length, size - data_at))
            elif kind == CONNECTION and whole:
                self._learn_connection(fields, file.read(length))
            elif kind == INDEX:
                expected += min(int.from_bytes(fields.get(b"count", b""), "little"), length // _INDEX_ENTRY)
            at = data_at + length
        self.lost = max(0, expected - read)

    def _learn_chunk(self, file: BinaryIO, fields: Fields, length: int) -> int:
        """Takes note of a chunk; returns how many messages in it can be read."""
        offset, compression, times = file.tell(), fields.get(b"compression", b""), []
        for kind, inner, data in self._records(file, Chunk(offset, length, compression, 0, 0), count_loss=True):
            if kind == CONNECTION:
                self._learn_connection(inner, data)
            elif kind == MESSAGE and len(inner.get(b"time", b"")) == _TIME.size:
                number = _connection(inner)
                if number in self.connections:
                    self._counts[number] = self._counts.get(number, 0) + 1
                    times.append(_nanoseconds(inner))
        if times:
            self.chunks.append(Chunk(offset, length, compression, min(times), max(times)))
        return len(times)

    def _learn_connection(self, fields: Fields, data: bytes) -> None:
        try:
            inner = _fields(data)
            number = _number(fields.get(b"conn", b""), 1 << 32)
            package, _, kind = inner[b"type"].decode().rpartition("/")
            definition = MessageDefinition(MessageDefinitionFormat.MSG, inner[b"message_definition"].decode())
            latching = int(inner.get(b"latching", b"0") == b"1")
            topic = fields[b"topic"].decode()
        except (Damaged, KeyError, ValueError):
            return
        ext, digest = ConnectionExtRosbag1(None, latching), inner.get(b"md5sum", b"").decode(errors="replace")
        self.connections[number] = Connection(number, topic, f"{package}/msg/{kind}", definition, digest, 0, ext, self)

    def _records(self, file: BinaryIO, chunk: Chunk, count_loss: bool = False) -> Iterator[tuple[int, Fields, bytes]]:
        """Kind, fields and data of the records in a chunk, up to where it is damaged."""
        file.seek(chunk.offset)
        data, at = file.read(chunk.length), 0
        try:
            data = _unpacked(data, chunk.compression)
            while at < len(data):
                length = _number(data[at : at + 4], MAX_HEADER)
                fields = _fields(data[at + 4 : at + 4 + length])
                begin = at + 4 + length + 4
                end = begin + _number(data[begin - 4 : begin], 1 << 32)
                if end > len(data):
                    raise Damaged("a record is cut off")
                yield _kind(fields), fields, data[begin:end]
                at = end
        except Damaged:
            if count_loss:
                self.lost_bytes += chunk.length if not at else len(data) - at

    def _load(self, file: BinaryIO, chunk: Chunk) -> Iterator[Message]:
        for kind, fields, data in self._records(file, chunk):
            if kind == MESSAGE and len(fields.get(b"time", b"")) == _TIME.size:
                number = _connection(fields)
                if number in self.connections:
                    yield Message(_nanoseconds(fields), number, data)


def _number(data: bytes, bound: int) -> int:
    """Four bytes as a number below a bound."""
    if len(data) != _LENGTH.size or (number := int(_LENGTH.unpack(data)[0])) >= bound:
        raise Damaged("a length makes no sense")
    return number


def _kind(fields: Fields) -> int:
    """What a record is; 0 where it does not tell."""
    return int.from_bytes(fields.get(b"op", b""), "little")


def _connection(fields: Fields) -> int:
    """Whose message it is; a number that no connection has where it does not tell."""
    return int.from_bytes(fields.get(b"conn", 5 * b"\xff"), "little")


def _nanoseconds(fields: Fields) -> int:
    seconds, rest = _TIME.unpack(fields[b"time"])
    return int(seconds * 1_000_000_000 + rest)


def _fields(data: bytes) -> Fields:
    found, at = {}, 0
    while at < len(data):
        end = at + 4 + _number(data[at : at + 4], MAX_HEADER)
        name, equals, value = data[at + 4 : end].partition(b"=")
        if end > len(data) or not equals:
            raise Damaged("a field is cut off")
        found[name], at = value, end
    return found


def _unpacked(data: bytes, compression: bytes) -> bytes:
    try:
        if compression == b"bz2":
            return bz2.decompress(data)
        if compression == b"lz4":
            from lz4.frame import decompress

            return bytes(decompress(data))
    except (OSError, ValueError, RuntimeError, EOFError, MemoryError) as error:
        raise Damaged(str(error)) from None
    return data
