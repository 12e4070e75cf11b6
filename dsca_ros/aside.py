"""Files that are whole: written under a name beside their own, and renamed at the end."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"


@contextlib.contextmanager
def written_aside(path: Path, sync: bool = False) -> Iterator[Path]:
    """A name to write to, beside ``path``, whose place it takes when the block is left.

    Until then what was there stays, and when the block fails it is all that is left. Several may write the same
    file at once: the last one to end stays.

    Args:
        path: of the file; its folder is there.
        sync: wait for the disk first, so that not even a power cut leaves half of it.

    Raises:
        OSError: if the file cannot be put in its place.
    """
    partial = path.with_name(f"{path.stem}{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        if sync:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
