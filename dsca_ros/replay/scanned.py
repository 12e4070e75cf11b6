"""Files that are read without their index: messages lie in chunks, which may overlap in time."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Generic, NamedTuple, Protocol, TypeVar


class Message(NamedTuple):
    """A message: time in ns, channel, bytes."""

    time: int
    channel: int
    data: bytes


class TimedChunk(Protocol):
    """A chunk: its place in the file, and the first and last time in it, ns."""

    @property
    def offset(self) -> int: ...
    @property
    def start_time(self) -> int: ...
    @property
    def end_time(self) -> int: ...


C = TypeVar("C", bound=TimedChunk)


class ScannedFile(ABC, Generic[C]):
    """A file that was walked through.

    Attributes:
        path: the file.
        chunks: those of which something can be read, in the file's order.
        lost: messages that cannot be read, as far as it can be told.
        lost_bytes: of the file that could not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.chunks: list[C] = []
        self.lost = self.lost_bytes = 0

    @property
    def times(self) -> tuple[int, int]:
        """First and last time of what can be read, ns; (0, -1) where nothing can."""
        first = min((chunk.start_time for chunk in self.chunks), default=0)
        return first, max((chunk.end_time for chunk in self.chunks), default=-1)

    def messages(self) -> Iterator[Message]:
        """Every message that can be read, by time; of the same time in the file's order."""
        with self.path.open("rb") as file:
            for _, _, message in heapq.merge(*(self._of_chunk(file, chunk) for chunk in self.chunks)):
                if message is not None:
                    yield message

    def _of_chunk(self, file: BinaryIO, chunk: C) -> Iterator[tuple[int, tuple[int, int], Message | None]]:
        # The chunk is loaded only when the others have come to its time.
        yield chunk.start_time, (chunk.offset, -1), None
        for number, message in enumerate(sorted(self._load(file, chunk), key=lambda message: message.time)):
            yield message.time, (chunk.offset, number), message

    @abstractmethod
    def _load(self, file: BinaryIO, chunk: C) -> Iterator[Message]:
        """Messages of a chunk, in the file's order."""
