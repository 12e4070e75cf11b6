"""What the reader and the writer of `rosbags` need for ROS 2 bags as they come: any file name, any QoS, damage."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionMode, Reader, ReaderError
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader, Sqlite3Writer

#: What reading a damaged database raises.
DAMAGED = (ReaderError, apsw.Error, OSError, ValueError, TypeError, LookupError)


def _address(path: Any) -> Path:
    """A path as it is written in an address."""
    return Path(quote(os.fsencode(path)))


class SqliteReader(Sqlite3Reader):
    """A database; its name may have the characters that mean something in an address."""

    def open(self) -> None:
        """Opens it to be read."""
        path = self.path
        self.path = _address(path)
        try:
            super().open()
        finally:
            self.path = path


class SqlitePart(SqliteReader):
    """One of the databases of a bag; where it is damaged the others go on.

    Attributes:
        problem: what is wrong with it, as far as it was read.
    """

    problem = ""

    def open(self) -> None:
        """Opens it to be read; one that cannot be is empty."""
        try:
            super().open()
        except PermissionError:
            raise
        except DAMAGED as error:
            self.problem = str(error)
            self.dbconn, self.connections = None, []

    def close(self) -> None:
        """Closes it."""
        if self.dbconn is not None:
            super().close()

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Generator[tuple[Connection, int, bytes], None, None]:
        """Its messages, up to where it is damaged."""
        try:
            yield from super().messages(connections, start, stop)
        except DAMAGED as error:
            self.problem = str(error)


class FolderReader(DirectoryReader):
    """A folder with a metadata.yaml."""

    STORAGE_PLUGINS: Any = {  # noqa: RUF012
        **DirectoryReader.STORAGE_PLUGINS,
        "sqlite3": SqlitePart,
    }

    @property
    def problem(self) -> str:
        """What is wrong with a part of it, as far as it was read."""
        return next((part.problem for part in self.storages if isinstance(part, SqlitePart) and part.problem), "")

    def open(self) -> None:
        """Opens it; what the metadata says of a topic's QoS holds, as for rosbag2, whatever its file says."""
        super().open()
        if self.problem and not any(storage.connections for storage in self.storages):
            problem = self.problem
            self.close()
            raise ReaderError(problem)
        for storage in self.storages:
            for place, connection in enumerate(storage.connections):
                topic = connection.topic, connection.msgtype
                told = [known.ext for known in self.connections if (known.topic, known.msgtype) == topic]
                if told and connection.ext not in told:
                    storage.connections[place] = connection._replace(ext=told[0])


class BagReader(Reader):
    """A bag's folder or file."""

    STORAGE_PLUGINS: Any = {  # noqa: RUF012
        **Reader.STORAGE_PLUGINS,
        "dir": FolderReader,
        ".db3": SqliteReader,
    }

    @property
    def problem(self) -> str:
        """What is wrong with a part of it, as far as it was read."""
        return self.storage.problem if isinstance(self.storage, FolderReader) else ""

    def leave_packed(self) -> bool:
        """Once open: messages that are compressed each are given so; whether they are.

        Unpacked here, one that is damaged would end the reading.
        """
        packed = self.compression_mode == "message"
        if packed:
            self.storage.metadata = self.storage.metadata._replace(compression_mode=None)
        return packed


class SqliteWriter(Sqlite3Writer):
    """A database; its name may have the characters that mean something in an address."""

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(_address(path), compression)
        self.path = path / f"{path.name}.db3"
