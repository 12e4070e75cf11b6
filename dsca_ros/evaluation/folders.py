"""Folders that evaluations write to."""

from __future__ import annotations

import tempfile
from pathlib import Path


class FolderError(ValueError):
    """A folder that cannot be written to."""


def make_folder(folder: Path | None) -> None:
    """Makes a folder for pictures, where one is asked for: before hours of work, not after them.

    Raises:
        FolderError: if it cannot be made, or nothing can be written into it.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{folder} cannot be made a folder ({error.strerror})") from None
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FolderError(f"{folder} cannot be written to ({error.strerror})") from None
