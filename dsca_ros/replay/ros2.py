"""What the reader and the writer of `rosbags` need for ROS 2 bags as they come: any file name, any QoS, damage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rosbags.rosbag2 import CompressionMode, Reader
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader, Sqlite3Writer


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


class FolderReader(DirectoryReader):
    """A folder with a metadata.yaml."""

    STORAGE_PLUGINS: Any = {  # noqa: RUF012
        **DirectoryReader.STORAGE_PLUGINS,
        "sqlite3": SqliteReader,
    }

    def open(self) -> None:
        """Opens it; what the metadata says of a topic's QoS holds, as for rosbag2, whatever its file says."""
        super().open()
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
