"""MCAP files that can be gone on with: a storage plugin for the Writer of `rosbags`.

Its own plugin starts anew whatever lies there, and writes no checksums. Here every chunk has one, chunks end where
their size says (so the same messages give the same file, however often it was interrupted), and a file that was
cut off is cut back to its last whole chunk and gone on with.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from dsca_ros.replay import mcap_scan as mcap
from dsca_ros.replay.ros2 import SqliteWriter

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Bytes of messages after which a chunk ends.
CHUNK_SIZE = 1 << 20
#: Bytes after which the file is brought to the disk: what a power cut takes at most.
SYNC_SIZE = 64 << 20

_NO_TIME = (1 << 63) - 1


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _record(opcode: int, *parts: bytes) -> bytes:
    return mcap.RECORD.pack(opcode, sum(map(len, parts))) + b"".join(parts)


_BEGINNING = mcap.MAGIC + _record(mcap.HEADER, _string("ros2"), _string("dsca_ros"))


class McapStorage:
    """One MCAP file; the methods are those that the Writer calls.

    Attributes:
        done: messages of each channel that a file which is gone on with holds already.
    """

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        self.path = path / f"{path.name}.mcap"
        # Beside the bag's folder until it is finished, since the Writer wants a new folder.
        self._unfinished = path.parent / self.path.name
        self._zstd = compression == CompressionMode.STORAGE
        self._schemas: dict[str, tuple[int, bytes]] = {}
        self._channels: list[bytes] = []
        self._indexes: list[bytes] = []
        self._counts: dict[int, int] = {}
        self._first, self._last = _NO_TIME, 0
        self._synced = 0
        self.done: dict[int, int] = {}
        self._begin_chunk()
        self._going_on = self._unfinished.exists()
        self._file = self._unfinished.open("r+b" if self._going_on else "xb", buffering=0)
        if self._going_on:
            self._take_over()
        else:
            self._put(_BEGINNING)

    def _take_over(self) -> None:
        """Keeps the whole chunks of the file that is there, and cuts off the rest."""
        end = len(_BEGINNING)
        with self._unfinished.open("rb") as file:
            for chunk in mcap.scan(self._unfinished).chunks:
                # What is after a power cut may have the right length, and zeros in it.
                try:
                    data = mcap.unpack_chunk(file, chunk)
                except mcap.Damaged:
                    break
                told = sum(count for _, count in chunk.indexes.values())
                if told != sum(opcode == mcap.MESSAGE for opcode, _ in mcap.records(data)):
                    break  # its indexes are cut off
                self._indexes.append(_chunk_index(chunk))
                for channel, (_, count) in chunk.indexes.items():
                    self.done[channel] = self.done.get(channel, 0) + count
                if told:
                    self._first, self._last = min(self._first, chunk.start_time), max(self._last, chunk.end_time)
                end = chunk.end
        # With not one chunk whole, all is written anew, schemas and channels too.
        self._going_on = bool(self._indexes)
        self._file.truncate(end if self._indexes else 0)
        self._file.seek(0, os.SEEK_END)
        if not self._indexes:
            self._put(_BEGINNING)

    @property
    def times(self) -> tuple[int, int]:
        """First and last log time so far, ns."""
        return self._first, self._last

    def _begin_chunk(self) -> None:
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._entries: dict[int, list[bytes]] = {}
        self._chunk_first, self._chunk_last = _NO_TIME, 0

    def _put(self, *parts: bytes | memoryview) -> None:
        for part in parts:
            rest = memoryview(part)
            while rest.nbytes:  # an unbuffered write may write less
                rest = rest[self._file.write(rest) :]

    def _add(self, *parts: bytes | memoryview) -> None:
        self._parts += parts
        self._size += sum(map(len, parts))

    def add_msgtype(self, connection: Connection) -> None:
        """Adds a type's definition."""
        number = len(self._schemas) + 1
        definition = connection.msgdef
        kind = "ros2idl" if definition.format == MessageDefinitionFormat.IDL else "ros2msg"
        kind = kind if definition.data else ""  # readers take that for "not known", and not for a type without fields
        texts = _string(connection.msgtype), _string(kind), _string(definition.data)
        record = _record(mcap.SCHEMA, struct.pack("<H", number), *texts)
        self._schemas[connection.msgtype] = number, record
        if not self._going_on:
            self._add(record)

    def add_connection(self, connection: Connection, offered_qos_profiles: str) -> None:
        """Adds a topic."""
        assert isinstance(connection.ext, ConnectionExtRosbag2)
        metadata = _string("offered_qos_profiles") + _string(offered_qos_profiles)
        metadata += _string("topic_type_hash") + _string(connection.digest)
        record = _record(
            mcap.CHANNEL,
            struct.pack("<HH", connection.id, self._schemas[connection.msgtype][0]),
            _string(connection.topic),
            _string(connection.ext.serialization_format),
            struct.pack("<I", len(metadata)),
            metadata,
        )
        self._channels.append(record)
        self._counts[connection.id] = self.done.get(connection.id, 0)
        if not self._going_on:
            self._add(record)

    def write(self, connection: Connection, timestamp: int, data: bytes | memoryview) -> None:
        """Adds a message."""
        entries = self._entries.setdefault(connection.id, [])
        entries.append(mcap.INDEX_ENTRY.pack(timestamp, self._size))
        head = mcap.MESSAGE_HEADER.pack(connection.id, 0, timestamp, timestamp)
        self._add(mcap.RECORD.pack(mcap.MESSAGE, len(head) + len(data)) + head, data)
        self._counts[connection.id] += 1
        self._chunk_first, self._chunk_last = min(self._chunk_first, timestamp), max(self._chunk_last, timestamp)
        if self._size >= CHUNK_SIZE:
            self._end_chunk()

    def _end_chunk(self) -> None:
        crc = 0
        for part in self._parts:
            crc = zlib.crc32(part, crc)
        stored, parts = self._size, self._parts
        if self._zstd:
            packed = zstd.compress(b"".join(parts))
            stored, parts = len(packed), [packed]
        times = (self._chunk_first, self._chunk_last) if self._entries else (0, 0)
        head = mcap.CHUNK_HEADER.pack(*times, self._size, crc) + _string("zstd" if self._zstd else "")
        head += struct.pack("<Q", stored)
        offset = self._file.tell()
        self._put(mcap.RECORD.pack(mcap.CHUNK, len(head) + stored) + head, *parts)
        end, indexes = self._file.tell(), b""
        places: dict[int, tuple[int, int]] = {}
        for channel, entries in self._entries.items():
            places[channel] = end + len(indexes), len(entries)
            content = b"".join(entries)
            indexes += _record(mcap.MESSAGE_INDEX, struct.pack("<HI", channel, len(content)), content)
        self._put(indexes)
        compression = "zstd" if self._zstd else ""
        data_offset = offset + mcap.RECORD.size + len(head)
        after = end + len(indexes)
        whole = mcap.Chunk(offset, data_offset, stored, after, *times, self._size, crc, compression, places)
        self._indexes.append(_chunk_index(whole))
        self._first, self._last = min(self._first, self._chunk_first), max(self._last, self._chunk_last)
        if after - self._synced > SYNC_SIZE:
            os.fsync(self._file.fileno())
            self._synced = after
        self._begin_chunk()

    def close(self, version: int, metadata: str) -> None:
        """Ends the file with its index; its bytes are on the disk then."""
        if self._size:
            self._end_chunk()
        metadata_at = self._file.tell()
        pairs = _string("serialized_metadata") + _string(metadata)
        record = _record(mcap.METADATA, _string("rosbag2"), struct.pack("<I", len(pairs)), pairs)
        self._put(record, _record(mcap.DATA_END, struct.pack("<I", 0)))
        counts = sorted(self._counts.items())
        statistics = struct.pack("<QHIIII", sum(self._counts.values()), len(self._schemas), len(counts), 0, 1,
                                 len(self._indexes))  # fmt: skip
        statistics += struct.pack("<QQI", self._first if self._first < _NO_TIME else 0, self._last, 10 * len(counts))
        statistics += b"".join(struct.pack("<HQ", *pair) for pair in counts)
        place = struct.pack("<QQ", metadata_at, len(record)) + _string("rosbag2")
        groups = {
            mcap.SCHEMA: b"".join(schema for _, schema in self._schemas.values()),
            mcap.CHANNEL: b"".join(self._channels),
            mcap.CHUNK_INDEX: b"".join(self._indexes),
            mcap.METADATA_INDEX: _record(mcap.METADATA_INDEX, place),
            mcap.STATISTICS: _record(mcap.STATISTICS, statistics),
        }
        summary_at = at = self._file.tell()
        offsets = b""
        for opcode, group in groups.items():
            if group:
                offsets += _record(mcap.SUMMARY_OFFSET, struct.pack("<BQQ", opcode, at, len(group)))
            self._put(group)
            at += len(group)
        self._put(offsets, _record(mcap.FOOTER, struct.pack("<QQI", summary_at, at, 0)), mcap.MAGIC)
        os.fsync(self._file.fileno())
        self._file.close()
        self._unfinished.replace(self.path)

    def abort(self) -> None:
        """Leaves the file as it is, to be gone on with."""
        self._file.close()


def _chunk_index(chunk: mcap.Chunk) -> bytes:
    """The record that stands for a chunk in the index at the end."""
    indexes_at = chunk.data_offset + chunk.data_length
    places = b"".join(struct.pack("<HQ", channel, at) for channel, (at, _) in chunk.indexes.items())
    return _record(
        mcap.CHUNK_INDEX,
        struct.pack("<QQQQI", chunk.start_time, chunk.end_time, chunk.offset, indexes_at - chunk.offset, len(places)),
        places,
        struct.pack("<Q", chunk.end - indexes_at),
        _string(chunk.compression),
        struct.pack("<QQ", chunk.data_length, chunk.size),
    )


class BagWriter(Writer):
    """The Writer of `rosbags`, with MCAP that can be gone on with, and SQLite under any name."""

    STORAGE_PLUGINS = {StoragePlugin.SQLITE3: SqliteWriter, StoragePlugin.MCAP: McapStorage}  # noqa: RUF012

    def go_on(self) -> int:
        """After every connection is added: takes over what the file holds; how many messages that are."""
        assert isinstance(self.storage, McapStorage)
        self.counts.update(self.storage.done)
        if self.storage.done:
            self.min_timestamp, self.max_timestamp = self.storage.times
        return sum(self.storage.done.values())
