"""What a MCAP file holds, found by walking through it from its start: no index is needed, no end.

For what the reader of `rosbags` gives up on (a recording that was cut off, a damaged chunk), and for our own
unfinished results. The format: https://mcap.dev/spec. A record is an opcode of one byte, a length of eight, and
so many bytes; messages lie in chunks, and an index of each channel's messages follows each chunk.
"""

from __future__ import annotations

import contextlib
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dsca_ros.replay.scanned import Message, ScannedFile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = 0x0B, 0x0C, 0x0D, 0x0E, 0x0F

RECORD = struct.Struct("<BQ")
MESSAGE_HEADER = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
CHUNK_HEADER = struct.Struct("<QQQI")  # first and last log time, size unpacked, checksum of that
INDEX_HEADER = struct.Struct("<HI")  # channel, bytes of the entries that follow
INDEX_ENTRY = struct.Struct("<QQ")  # log time, offset in the chunk
#: Longer records and chunks are taken for damage.
MAX_RECORD = 1 << 32


class Chunk(NamedTuple):
    """Where a chunk is, and what its header says; or a run of messages that lie in no chunk, as one."""

    offset: int
    data_offset: int
    data_length: int
    end: int
    start_time: int
    end_time: int
    size: int
    crc: int
    compression: str
    #: Offset of the index, and number of messages, of each channel.
    indexes: dict[int, tuple[int, int]]


class McapChannel(NamedTuple):
    """A topic of a file."""

    id: int
    topic: str
    msgtype: str
    encoding: str
    definition: str
    definition_encoding: str
    metadata: dict[str, str]


@dataclass
class Scan:
    """What was found in a file.

    Attributes:
        chunks: in the file's order.
        good_end: offset after the last whole chunk and its indexes.
        finished: whether the data section ends as it should.
    """

    chunks: list[Chunk] = field(default_factory=list)
    good_end: int = 0
    finished: bool = False
    loose: list[bytes] = field(default_factory=list)


class Damaged(Exception):
    """A chunk whose content is not what its header says."""


def read_string(data: bytes | memoryview, at: int) -> tuple[str, int]:
    """A string with its length before it, and the offset after it."""
    (length,) = struct.unpack_from("<I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise Damaged("a string reaches beyond its record")
    return bytes(data[at + 4 : end]).decode(errors="replace"), end


def scan(path: Path) -> Scan:
    """Walks through a file as far as it makes sense."""
    found = Scan()
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return found
        found.good_end = len(MAGIC)
        while True:
            offset = file.tell()
            head = file.read(RECORD.size)
            if len(head) < RECORD.size:
                return found
            opcode, length = RECORD.unpack(head)
            end = offset + RECORD.size + length
            if end > size or not (1 <= opcode <= DATA_END or opcode >= 0x80):
                return found
            if opcode == CHUNK:
                chunk = _chunk(file, offset, end)
                if chunk is None:
                    return found
                found.chunks.append(chunk)
            elif opcode == MESSAGE_INDEX and found.chunks and length >= INDEX_HEADER.size:
                channel, entries = INDEX_HEADER.unpack(file.read(INDEX_HEADER.size))
                last = found.chunks[-1]
                last.indexes[channel] = (offset, min(entries, length - INDEX_HEADER.size) // INDEX_ENTRY.size)
                found.chunks[-1] = last._replace(end=end)
            elif opcode == MESSAGE and length >= MESSAGE_HEADER.size:
                channel, _, time, _ = MESSAGE_HEADER.unpack(file.read(MESSAGE_HEADER.size))
                run = Chunk(offset, offset, end - offset, end, time, time, end - offset, 0, "", {channel: (0, 1)})
                found.chunks.append(run)
            elif opcode in (SCHEMA, CHANNEL):
                found.loose.append(head + file.read(length))
            elif opcode == DATA_END:
                found.finished = True  # the summary repeats schemas and channels, which a damaged chunk may have had
            elif opcode == FOOTER:
                return found
            if not found.finished:
                found.good_end = end
            file.seek(end)


def _chunk(file: BinaryIO, offset: int, end: int) -> Chunk | None:
    """A chunk's header, read from behind its opcode and length; None where it contradicts itself."""
    head = file.read(CHUNK_HEADER.size + 4)
    if len(head) < CHUNK_HEADER.size + 4:
        return None
    start_time, end_time, size, crc = CHUNK_HEADER.unpack_from(head)
    (length,) = struct.unpack_from("<I", head, CHUNK_HEADER.size)
    if length > 16:
        return None
    rest = file.read(length + 8)
    if len(rest) < length + 8:
        return None
    (data_length,) = struct.unpack_from("<Q", rest, length)
    data_offset = file.tell()
    if data_offset + data_length != end or size > MAX_RECORD:
        return None
    compression = rest[:length].decode(errors="replace")
    return Chunk(offset, data_offset, data_length, end, start_time, end_time, size, crc, compression, {})


def unpack_chunk(file: BinaryIO, chunk: Chunk) -> bytes:
    """The records in a chunk.

    Raises:
        Damaged: if they cannot be unpacked, or their checksum is another.
    """
    file.seek(chunk.data_offset)
    data = file.read(chunk.data_length)
    try:
        if chunk.compression == "zstd":
            data = zstd.decompress(data)
        elif chunk.compression == "lz4":
            from lz4.frame import decompress

            data = decompress(data)
        elif chunk.compression:
            raise Damaged(f"compression {chunk.compression!r} is unknown")
    except (zstd.ZstdError, RuntimeError, ValueError, EOFError, MemoryError) as error:
        raise Damaged(str(error)) from None
    if len(data) != chunk.size or (chunk.crc and zlib.crc32(data) != chunk.crc):
        raise Damaged("checksum or size is wrong")
    return data


def records(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Opcode and content of each record.

    Raises:
        Damaged: where a length makes no sense.
    """
    view, at = memoryview(data), 0
    while at < len(view):
        if at + RECORD.size > len(view):
            raise Damaged("a record is cut off")
        opcode, length = RECORD.unpack_from(view, at)
        at += RECORD.size
        if at + length > len(view):
            raise Damaged("a record is cut off")
        yield opcode, view[at : at + length]
        at += length


class ScannedMcap(ScannedFile[Chunk]):
    """A file read without its index.

    Attributes:
        channels: all that any readable chunk tells of, by id.
        counts: messages of each channel that can be read.
        lost: messages in damaged chunks, as far as their indexes tell, and of channels that nothing tells of.
        lost_bytes: of the file that could not be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.scan = scan(path)
        self.channels: dict[int, McapChannel] = {}
        self.counts: dict[int, int] = {}
        self.lost_bytes = 0 if self.scan.finished else path.stat().st_size - self.scan.good_end
        self._schemas: dict[int, tuple[str, str, str]] = {}
        for record in self.scan.loose:
            with contextlib.suppress(Damaged, struct.error):
                self._learn(*next(records(record)))
        with path.open("rb") as file:
            for chunk in self.scan.chunks:
                try:
                    counts: dict[int, int] = {}
                    for opcode, content in records(unpack_chunk(file, chunk)):
                        if opcode == MESSAGE:
                            channel = MESSAGE_HEADER.unpack_from(content)[0]
                            counts[channel] = counts.get(channel, 0) + 1
                        else:
                            self._learn(opcode, content)
                except (Damaged, struct.error):
                    self.lost += sum(count for _, count in chunk.indexes.values())
                    self.lost_bytes += chunk.data_length
                    continue
                self.chunks.append(chunk)
                for channel, count in counts.items():
                    self.counts[channel] = self.counts.get(channel, 0) + count
        for channel in self.counts.keys() - self.channels.keys():
            self.lost += self.counts.pop(channel)

    def _learn(self, opcode: int, content: memoryview) -> None:
        if opcode == SCHEMA:
            name, at = read_string(content, 2)
            encoding, at = read_string(content, at)
            self._schemas[struct.unpack_from("<H", content)[0]] = (name, encoding, read_string(content, at)[0])
        elif opcode == CHANNEL:
            number, schema = struct.unpack_from("<HH", content)
            topic, at = read_string(content, 4)
            encoding, at = read_string(content, at)
            metadata: dict[str, str] = {}
            end = at + 4 + int(struct.unpack_from("<I", content, at)[0])
            at += 4
            while at < end:
                key, at = read_string(content, at)
                metadata[key], at = read_string(content, at)
            name, kind, definition = self._schemas.get(schema, ("", "", ""))
            self.channels[number] = McapChannel(number, topic, name, encoding, definition, kind, metadata)

    def _load(self, file: BinaryIO, chunk: Chunk) -> Iterator[Message]:
        for opcode, content in records(unpack_chunk(file, chunk)):
            if opcode == MESSAGE:
                channel, _, time, _ = MESSAGE_HEADER.unpack_from(content)
                yield Message(time, channel, bytes(content[MESSAGE_HEADER.size :]))
