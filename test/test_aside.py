"""Files that are whole or not there."""

import os

import pytest

from dsca_ros.aside import PARTIAL, written_aside


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_takes_its_place_only_when_whole(tmp_path, sync):
    path = tmp_path / "a.json"
    path.write_text("old")
    with written_aside(path, sync) as partial:
        partial.write_text("new")
        assert path.read_text() == "old" and partial.parent == tmp_path and partial.suffix == PARTIAL
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()], ids=repr)
def test_what_cannot_be_written_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(type(error)), written_aside(path) as partial:
        partial.write_text("ne")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_taken_is_an_error(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    with pytest.raises(OSError), written_aside(tmp_path / "a") as partial:
        partial.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_nothing_written_is_an_error_where_a_file_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError), written_aside(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())


def test_two_may_write_the_same_file_and_the_last_to_end_stays(tmp_path):
    path = tmp_path / "a"
    with written_aside(path) as one, written_aside(path) as other:
        assert one != other
        one.write_text("first to start, last to end")
        other.write_text("other")
    assert path.read_text() == "first to start, last to end" and list(tmp_path.iterdir()) == [path]


def test_others_may_read_it_as_any_file_of_the_user(tmp_path):
    before = os.umask(0o027)
    try:
        with written_aside(tmp_path / "a") as partial:
            partial.write_text("new")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
