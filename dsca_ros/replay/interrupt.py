"""Ctrl-C and SIGTERM as an exception, so that what is open is closed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from dsca_ros.replay.errors import Interrupted


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM raise `Interrupted` in the main thread, once; a second one changes nothing."""
    numbers = signal.SIGINT, signal.SIGTERM

    def interrupt(number: int, frame: object) -> NoReturn:
        # A second one must not cut the cleaning up short.
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
