"""How a replay fails."""

from __future__ import annotations

_LONGEST = 300


def one_line(error: Exception | str) -> str:
    """What some library says, short enough to be part of a line."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


class ReplayError(ValueError):
    """Something a replay cannot work with; the text is one line that says what to do."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: what is done so far is kept."""
