"""Where results go, so that no half bag has the final name, and an interrupted replay can be gone on with.

All is written in ``OUT.partial``, a folder beside the output, which is renamed at the end:

* ``OUT.mcap``, the bag as it grows. Chunks end where their size says, so it is a beginning of the finished file,
  whatever ended the replay: Ctrl-C, SIGTERM, kill -9, a full disk or a power cut leave whole chunks and at most one
  that is cut off. Nothing else remembers how far the replay came.
* ``replay.json``, what was asked for, of which input.

To go on, the file is cut back to its last whole chunk (checksums tell) and the messages in it are counted. The same
input gives the same messages in the same order, so the run reads the bag from its start, passes over as many results
as there are, without computing them, and appends the next. The result is the file that an undisturbed run writes,
byte for byte. SQLite is made of the finished MCAP file, at the end.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Literal, TextIO

from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore

from dsca_ros.replay import wire
from dsca_ros.replay.bags import Bag, Topic
from dsca_ros.replay.errors import ReplayError
from dsca_ros.replay.mcap_writer import BagWriter

PARTIAL = ".partial"
#: What becomes of what lies at an output already.
NOTHING_THERE, DONE, REPLACED, GONE_ON_WITH = "", "is done", "is replaced", "is gone on with"
#: The newest metadata that Humble's rosbag2 reads, too.
_VERSION: Literal[8] = 8
#: What stands for a hash where a type has no definition.
_NO_HASH = "RIHS01_" + 64 * "0"


class Output:
    """A bag that is being written.

    Args:
        final: the bag's folder, or a file ending in ``.mcap``.
        wanted: what is asked for and of which input; what is there already must be of the same.
        format: ``mcap`` or ``sqlite3``.
        compress: ``none`` or ``zstd``.
        force: start over, and replace an output that is there.
        resume: go on with what is there.

    Raises:
        ReplayError: if it cannot be written there, or one is there already.
    """

    def __init__(
        self, final: Path, wanted: dict[str, Any], format: str, compress: str, force: bool, resume: bool
    ) -> None:
        self.final = final
        self._format, self._compress, self._force = format, compress, force
        look_at(final, format, force, resume)
        self._single_file = final.suffix == ".mcap"
        self.name = final.stem if self._single_file else final.name
        self.folder = _partial(final)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._begin(wanted, resume)
        except OSError as error:
            raise write_error(self.folder, error) from None

    def _begin(self, wanted: dict[str, Any], resume: bool) -> None:
        self.folder.mkdir(exist_ok=True)
        self._lock = self._own(self.folder / "lock")
        if not resume:  # only now: it may be another replay's that runs
            self._start_over()
        told = self.folder / "replay.json"
        if told.exists():
            try:
                before = json.loads(told.read_text())
            except ValueError:
                before = {}
            wanted = json.loads(json.dumps(wanted))
            other = sorted(key for key in {*before, *wanted} if before.get(key) != wanted.get(key))
            if other:
                self._lock.close()
                raise ReplayError(
                    f"{self.folder} was begun with another {', '.join(other)}; give the same, or --force to start over"
                )
        else:
            text = self.folder / "replay.json.new"
            text.write_text(json.dumps(wanted, indent=2) + "\n")
            text.replace(told)
        # Finished but for the renaming: back to where it is gone on with.
        bag = self.folder / self.name
        finished = bag / f"{self.name}.mcap"
        if finished.exists():
            finished.replace(self.folder / finished.name)
        shutil.rmtree(bag, ignore_errors=True)
        shutil.rmtree(self.folder / "sqlite3", ignore_errors=True)
        self.writer = BagWriter(bag, version=_VERSION, storage_plugin=StoragePlugin.MCAP)
        # SQLite compresses each message, when it is made of this.
        if self._compress == "zstd" and self._format == "mcap":
            self.writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self.writer.open()

    def _start_over(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def _own(self, path: Path) -> TextIO:
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ReplayError(f"{self.folder} is being written by another replay") from None
        return lock

    def add_topic(self, topic: Topic) -> Connection:
        """Adds a topic as it was recorded."""
        definition = topic.definition
        if topic.is_idl and not definition.startswith("=" * 80):
            definition = f"{'=' * 80}\nIDL: {topic.msgtype}\n{definition}"
        if not definition and topic.msgtype in wire.store().fielddefs:
            definition = wire.store().generate_msgdef(topic.msgtype, ros_version=2)[0]
        return self.writer.add_connection(
            topic.name,
            topic.msgtype,
            msgdef=definition,
            rihs01=topic.digest or _hash(topic, definition),
            serialization_format=topic.encoding or "cdr",
            offered_qos_profiles=topic.qos,
        )

    def go_on(self) -> int:
        """After the last topic is added: how many messages are there already."""
        return self.writer.go_on()

    def finish(self) -> None:
        """Gives the bag its final name.

        Raises:
            ReplayError: if there is no room or no permission.
        """
        try:
            self.writer.close()
            bag = self.folder / self.name
            if self._format == "sqlite3":
                bag = self._as_sqlite3(bag)
            source = bag / f"{self.name}.mcap" if self._single_file else bag
            for path in (*bag.iterdir(), bag):  # before its name tells that it is whole
                _sync(path)
            if self.final.exists():
                if not self._force:  # it came meanwhile
                    raise _exists(self.final)
                self.final.replace(self.folder / "replaced")
            source.replace(self.final)
            _sync(self.final.parent)
            self._lock.close()
            shutil.rmtree(self.folder)
        except (OSError, sqlite3.Error) as error:
            raise write_error(self.folder, error) from None

    def _as_sqlite3(self, bag: Path) -> Path:
        target = self.folder / "sqlite3" / self.name
        writer = BagWriter(target, version=_VERSION, storage_plugin=StoragePlugin.SQLITE3)
        if self._compress == "zstd":
            writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
        with Bag(bag) as source, writer:
            connections = {}
            for topic, connection in zip(source.topics, self.writer.connections, strict=True):
                connections[topic.number] = writer.add_connection(
                    topic.name,
                    topic.msgtype,
                    msgdef=topic.definition,
                    rihs01=connection.digest,
                    serialization_format=topic.encoding,
                    offered_qos_profiles=topic.qos,
                )
            for message in source.messages():
                writer.write(connections[message.topic], message.time, message.data)
            if source.loss.problem:
                raise OSError(f"what was written cannot be read again: {source.loss.problem}")
        return target

    def leave(self) -> None:
        """Closes what is open; what is done so far stays, to be gone on with."""
        self.writer.abort()
        self._lock.close()


def look_at(final: Path, format: str, force: bool, resume: bool) -> str:
    """What becomes of what lies at an output already: `NOTHING_THERE`, `DONE`, `REPLACED` or `GONE_ON_WITH`.

    Raises:
        ReplayError: if it may not be replaced, or the output cannot have that name.
    """
    if final.name in ("", ".."):
        raise ReplayError(f"{final} is no name for a bag; give the new bag's own")
    if final.suffix == ".mcap" and format != "mcap":
        raise ReplayError(f"{final} ends in .mcap, but --format is {format}; give a folder's name")
    partial = _partial(final)
    if final.exists():
        if not _is_result(final):
            raise ReplayError(f"{final} exists, and is not a bag: it is not replaced; choose another output")
        if resume and not partial.exists():
            return DONE
        if not force:
            raise _exists(final)
    if partial.exists():
        if resume:
            return GONE_ON_WITH
        if not force:
            raise ReplayError(
                f"{partial} is there, of a replay that did not end; --resume goes on with it, --force starts over"
            )
    return REPLACED if final.exists() or partial.exists() else NOTHING_THERE


def _partial(final: Path) -> Path:
    return final.with_name(final.name + PARTIAL)


def _is_result(path: Path) -> bool:
    """Whether a path is what a replay writes, or empty: whatever else it is, it is not ours to be removed."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or not any(path.iterdir())
    return path.suffix == ".mcap"


def _exists(path: Path) -> ReplayError:
    return ReplayError(f"{path} exists; --force replaces it")


def write_error(path: Path, error: Exception) -> ReplayError:
    """What to tell of a write that failed."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in str(error):
        return ReplayError(f"no room left for {path}; make some, and go on with --resume")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ReplayError(f"{path} cannot be written: no permission; choose another place")
    return ReplayError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}")


def _hash(topic: Topic, definition: str) -> str:
    """The hash of a type's definition, which older bags do not tell."""
    try:
        types = get_typestore(Stores.EMPTY)
        if topic.is_idl:
            for part in definition.split("=" * 80 + "\n")[1:]:
                types.register(get_types_from_idl(part.split("\n", 1)[1]))
        else:
            types.register(get_types_from_msg(definition, topic.msgtype))
        return types.hash_rihs01(topic.msgtype)
    except (TypesysError, KeyError, ValueError, IndexError, AssertionError, RecursionError):
        return _NO_HASH


def _sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
