"""How a replay fails."""

from __future__ import annotations


class ReplayError(ValueError):
    """Something a replay cannot work with; the text is one line that says what to do."""


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: what is done so far is kept."""
