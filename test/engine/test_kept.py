"""What engines keep for each size of image."""

from __future__ import annotations

import pytest

from dsca_ros.engine.base import EngineError, Kept


def test_a_size_used_again_stays_and_the_oldest_goes() -> None:
    made: list[int] = []
    ended: list[str] = []

    def make(size: int) -> str:
        made.append(size)
        return f"for {size}"

    kept: Kept[int, str] = Kept(ended.append)
    assert [kept.get(size, make) for size in (1, 2, 1, 3, 1)] == ["for 1", "for 2", "for 1", "for 3", "for 1"]
    assert (made, ended) == ([1, 2, 3], ["for 2"])
    kept.clear()
    kept.clear()
    assert sorted(ended) == ["for 1", "for 2", "for 3"]


def test_room_is_made_before_and_what_cannot_be_made_is_not_kept() -> None:
    ended: list[str] = []
    kept: Kept[int, str] = Kept(ended.append)
    for size in (1, 2):
        kept.get(size, str)

    def fail(size: int) -> str:
        assert ended == ["1"]  # a GPU has no memory for three
        raise EngineError("no memory")

    with pytest.raises(EngineError):
        kept.get(3, fail)
    assert kept.get(3, str) == "3"
