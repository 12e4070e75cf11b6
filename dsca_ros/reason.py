"""What an error says, in one line."""

from __future__ import annotations


def reason_of(error: BaseException) -> str:
    """The first line of an error's text; the name of its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
