"""What an error says, in one line."""

import pytest

from dsca_ros.reason import reason_of


@pytest.mark.parametrize(
    "error, line",
    [(ValueError("no depth"), "no depth"), (OSError("\n  a disk\nis full"), "a disk"), (RuntimeError(), "RuntimeError"),
     (KeyError(" "), "' '"), (ValueError(" \n"), "ValueError")],
    ids=repr,
)  # fmt: skip
def test_it_is_the_first_line_or_the_kind(error, line):
    assert reason_of(error) == line
