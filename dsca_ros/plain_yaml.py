"""YAML of files that may come from anywhere: mappings, lists and plain values, as many as the file has and no more."""

from __future__ import annotations

from typing import Any

import yaml


class _PlainLoader(yaml.SafeLoader):
    """Takes no aliases: ten lines of them are ten thousand million values, once they are merged or shown."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken here", event.start_mark)
        return super().compose_node(parent, index)


def load_plain(text: str) -> Any:
    """What a YAML text says.

    Raises:
        yaml.YAMLError: if it is none, is nested too deeply, or has aliases or values that cannot be.
    """
    try:
        return _PlainLoader(text).get_single_data()
    except (RecursionError, ValueError, OverflowError) as error:  # of a date of month 13, or a number of 5000 digits
        raise yaml.YAMLError(f"a value in it cannot be read ({error})") from None
