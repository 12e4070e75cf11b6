"""Threads in a row that hand items on, with a bound on what waits between them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

#: Bytes that may wait between two threads: a second of a large camera, or one image of any size.
ROOM = 32 << 20
#: Items that may wait, of any size.
ITEMS = 256

T = TypeVar("T")


class Stopped(Exception):
    """Another thread has failed or the replay is over: end, and say nothing."""


class Line:
    """What the threads of a replay share: the first failure of any of them ends all.

    Attributes:
        failure: that of the first thread that failed.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.failure: BaseException | None = None
        self.stopped = False
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Runs a stage in a thread of its own."""

        def run() -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:
                self.stop(error)

        thread = threading.Thread(target=run, name=f"replay_{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self, failure: BaseException | None = None) -> None:
        """Ends every thread soon."""
        with self.changed:
            if not self.stopped:
                self.failure = failure
            self.stopped = True
            self.changed.notify_all()

    def join(self) -> None:
        """Waits for every thread; raises what one of them failed with."""
        for thread in self._threads:
            thread.join()
        self.check()

    def check(self) -> None:
        """Raises what a thread failed with."""
        if self.failure is not None:
            raise self.failure


class Belt(Generic[T]):
    """From one thread to the next, in order; who gives waits while too much is on it."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._ended = False

    def put(self, item: T, size: int) -> None:
        """Hands an item on, ``size`` being the bytes that it holds.

        Raises:
            Stopped: if nobody takes any more.
        """
        changed = self._line.changed
        with changed:
            changed.wait_for(lambda: self._line.stopped or not self._items or self._has_room(size))
            if self._line.stopped:
                raise Stopped
            self._items.append((item, size))
            self._bytes += size
            changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return self._bytes + size <= ROOM and len(self._items) < ITEMS

    def end(self) -> None:
        """Nothing more comes."""
        with self._line.changed:
            self._ended = True
            self._line.changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        changed = self._line.changed
        while True:
            with changed:
                changed.wait_for(lambda: self._line.stopped or self._items or self._ended)
                if self._line.stopped:
                    raise Stopped
                if not self._items:
                    return
                item, size = self._items.popleft()
                self._bytes -= size
                changed.notify_all()
            yield item
