"""SQLite bags as recorders and people leave them: odd names, a log beside them, a damaged message, an edited QoS."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import bag_files as bags
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from dsca_ros.replay.bags import Bag
from dsca_ros.replay.errors import ReplayError
from dsca_ros.replay.run import replay_bag
from dsca_ros.upsampler import Upsampler


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Results at once: what is tested is which messages come."""
    monkeypatch.setattr(Upsampler, "__call__", lambda self, depth: np.repeat(np.repeat(depth, 2, 0), 2, 1))


def database(path: Path, **options) -> Path:
    return bags.make_bag(path, storage=StoragePlugin.SQLITE3, **options) / f"{path.name}.db3"


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "ü b", "a.bag"])
def test_a_name_may_have_what_means_something_elsewhere(tmp_path, settings, name):
    source = tmp_path / name / "in"
    shutil.copytree(database(tmp_path / "in").parent, source)
    replay_bag(source, tmp_path / "out" / name, replace(settings, format="sqlite3"))
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]
    with Bag(tmp_path / "out" / name) as bag:
        assert not bag.loss.problem
        assert sum(topic.total for topic in bag.topics) == len(list(bag.messages())) == 1 + 5 * bags.FRAMES


@pytest.mark.parametrize("number", [0, 2])
def test_a_compressed_message_that_is_damaged_costs_itself_only(tmp_path, settings, number):
    """As the first of its topic it is read twice, and counted once."""
    path = database(tmp_path / "in", compression=CompressionMode.MESSAGE)
    with sqlite3.connect(path) as connection:
        query = "SELECT m.id FROM messages m JOIN topics t ON t.id = m.topic_id WHERE t.name = ? ORDER BY timestamp"
        (row,) = connection.execute(query, (bags.IMAGE_TOPIC,)).fetchall()[number]
        (data,) = connection.execute("SELECT data FROM messages WHERE id = ?", (row,)).fetchone()
        connection.execute("UPDATE messages SET data = ? WHERE id = ?", (data[:20] + bytes(20) + data[40:], row))
    connection.close()
    report = replay_bag(path.parent, tmp_path / "out", settings)
    assert (report.frames_out, report.lost_messages, report.failed) == (bags.FRAMES - 1, 1, True)
    assert len(bags.of_topic(tmp_path / "out", "/battery")) == bags.FRAMES


@pytest.mark.parametrize("as_folder", [False, True])
def test_what_is_still_in_the_log_of_a_database_is_told(tmp_path, settings, as_folder):
    """Of a recorder that was killed; to read it would be to write to the input."""
    path = database(tmp_path / "in")
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp, data FROM messages")
    writer.commit()
    shutil.copytree(path.parent, tmp_path / "killed")
    writer.close()
    killed = tmp_path / "killed" / "in.db3"
    before = {p.name: p.read_bytes() for p in killed.parent.iterdir()}
    report = replay_bag(killed.parent if as_folder else killed, tmp_path / "out", settings)
    assert report.failed and "in.db3-wal; remedy" in report.problem
    assert {p.name: p.read_bytes() for p in killed.parent.iterdir()} == before


@pytest.mark.parametrize("damaged", ["whole", "page"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_part_that_is_damaged_leaves_the_others(tmp_path, settings, number, damaged):
    """Of a bag that was split while it was recorded."""
    whole = database(tmp_path / "in", width=160, height=120)
    second = whole.with_name("in_1.db3")
    shutil.copy(whole, second)
    shift, total = bags.FRAMES * bags.PERIOD, 1 + 3 * bags.FRAMES
    with sqlite3.connect(second) as connection:
        connection.execute("UPDATE messages SET timestamp = timestamp + ?", (shift,))
    connection.close()
    told = whole.with_name("metadata.yaml")
    text = told.read_text().replace("  - in.db3\n", "  - in.db3\n  - in_1.db3\n")
    for count in (1, bags.FRAMES, total):
        text = text.replace(f"message_count: {count}\n", f"message_count: {2 * count} \n")
    told.write_text(text)
    with (whole, second)[number].open("r+b") as file:
        file.seek(0 if damaged == "whole" else whole.stat().st_size // 2 // 4096 * 4096)
        file.write(b"SQLite format 3\0" + bytes(10 * 4096))
    report = replay_bag(whole.parent, tmp_path / "out", settings)
    times = [time for time, _ in bags.of_topic(tmp_path / "out", bags.RESULT_TOPIC)]
    there = {bags.START + (1 - number) * shift + i * bags.PERIOD for i in range(bags.FRAMES)}
    assert there <= set(times) and times == sorted(times)
    kept = len(list(bags.read(tmp_path / "out"))) - 2 * report.frames_out
    assert report.failed and report.problem and report.lost_messages == 2 * total - kept > 0


def test_a_qos_that_was_edited_in_the_metadata_holds(tmp_path, settings):
    """As it does for rosbag2; the storage still has the one before."""
    told = database(tmp_path / "in", profile=bags.LATCHED).with_name("metadata.yaml")
    told.write_text(told.read_text().replace("durability: 1", "durability: 2"))
    report = replay_bag(tmp_path / "in", tmp_path / "out", settings)
    assert (report.frames_out, report.failed) == (bags.FRAMES, False)
    (qos,) = bags.connections(tmp_path / "out")["/tf_static"].ext.offered_qos_profiles
    assert qos.durability.name == "VOLATILE"


def test_a_result_that_cannot_be_read_again_is_no_shorter_database(tmp_path, settings, monkeypatch):
    messages = Bag.messages

    def damaged(self, *arguments):
        for number, message in enumerate(messages(self, *arguments)):
            if ".partial" in str(self.path) and number > 4:
                self.loss.problem = "Input/output error"
                return
            yield message

    monkeypatch.setattr(Bag, "messages", damaged)
    with pytest.raises(ReplayError, match="cannot be read again: Input/output error"):
        replay_bag(bags.make_bag(tmp_path / "in"), tmp_path / "out", replace(settings, format="sqlite3"))
    assert not (tmp_path / "out").exists()
