"""Bags that are no bags, damaged ones, and places that cannot be written: one line, or what can be saved."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import bag_files as bags
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from dsca_ros.depth.units import like
from dsca_ros.replay import mcap_scan
from dsca_ros.replay.bags import Bag
from dsca_ros.replay.errors import ReplayError
from dsca_ros.replay.mcap_writer import McapStorage
from dsca_ros.replay.run import replay_bag
from dsca_ros.upsampler import Upsampler


def many_chunks(tmp_path: Path, frames: int = 40) -> tuple[Path, Path]:
    """A bag of several chunks, and its file."""
    folder = bags.make_bag(tmp_path / "in", frames=frames, width=320, height=240, compression=CompressionMode.STORAGE)
    path = folder / "in.mcap"
    assert len(mcap_scan.scan(path).chunks) >= 4
    return folder, path


@pytest.fixture
def fast(monkeypatch):
    """Results at once: what is tested is which frames come."""
    monkeypatch.setattr(Upsampler, "__call__", lambda self, depth: np.repeat(np.repeat(depth, 2, 0), 2, 1))


def times(path: Path) -> list[int]:
    return [time for time, _ in bags.of_topic(path, bags.RESULT_TOPIC)]


def all_times(frames: int = 40) -> list[int]:
    return [bags.START + i * bags.PERIOD for i in range(frames)]


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_cut_off_recording_is_read_to_its_end(tmp_path, settings, fast, as_folder):
    folder, path = many_chunks(tmp_path)
    os.truncate(path, mcap_scan.scan(path).chunks[-1].data_offset + 100)
    report = replay_bag(folder if as_folder else path, tmp_path / "out", settings)
    there = times(tmp_path / "out")
    assert there == all_times()[: len(there)] and 20 < len(there) < 40
    assert report.failed and report.lost_bytes > 0
    assert report.frames_out == len(there)


@pytest.mark.parametrize("number", [0, 2])
def test_a_damaged_chunk_in_the_middle_costs_its_messages_only(tmp_path, settings, fast, number):
    folder, path = many_chunks(tmp_path)
    chunk = mcap_scan.scan(path).chunks[number]
    with path.open("r+b") as file:
        file.seek(chunk.data_offset + chunk.data_length // 2)
        file.write(bytes(64))
    report = replay_bag(folder, tmp_path / "out", settings)
    inside = [t for t in all_times() if chunk.start_time <= t <= chunk.end_time]
    there = times(tmp_path / "out")
    assert set(all_times()) - set(there) <= set(inside)
    assert set(all_times()) - set(there)
    assert there == sorted(set(there))
    assert report.lost_messages == sum(count for _, count in chunk.indexes.values())
    assert report.failed


def test_messages_that_are_gone_from_a_chunk_without_a_checksum_are_counted(tmp_path, settings, fast):
    """The index tells of them; the library's reader passes over what it does not know."""
    folder = bags.make_bag(tmp_path / "in")
    (path,) = folder.glob("*.mcap")
    (chunk,) = mcap_scan.scan(path).chunks
    with path.open("r+b") as file:
        content, at = mcap_scan.unpack_chunk(file, chunk), 0
        while content[at] != mcap_scan.MESSAGE:
            at += mcap_scan.RECORD.size + mcap_scan.RECORD.unpack_from(content, at)[1]
        file.seek(chunk.data_offset + at)
        file.write(b"\x7f")
    report = replay_bag(folder, tmp_path / "out", settings)
    assert (report.lost_messages, report.frames_out) == (1, bags.FRAMES)
    assert report.failed and report.problem == "its index tells of more messages than there are"


def test_a_length_that_makes_no_sense_is_told(tmp_path, settings):
    path = next(bags.make_bag(tmp_path / "in").glob("*.mcap"))
    with path.open("r+b") as file:
        file.seek(len(mcap_scan.MAGIC) + 1)
        file.write(struct.pack("<Q", 1 << 60))
    with pytest.raises(ReplayError, match="no message that can be read: a length in it makes no sense"):
        replay_bag(path, tmp_path / "out", settings)


def test_a_qos_that_cannot_be_read_is_none(tmp_path, settings, fast):
    """And not that of the topic before; of a file without its index, which goes by what the channels say."""
    folder = bags.make_bag(tmp_path / "in", profile=bags.LATCHED)
    (path,) = folder.glob("*.mcap")
    data = path.read_bytes()[: mcap_scan.scan(path).good_end]
    path.write_bytes(data.replace(b"- avoid_ros", b"} avoid_ros"))
    with Bag(path) as bag:
        assert bag.loss.problem and [t.name for t in bag.topics if t.latched] == ["/tf_static"]
        assert [t.name for t in bag.topics if t.qos] == ["/tf_static"]  # as where it is not told


def test_a_missing_index_is_not_needed(tmp_path, settings, fast):
    folder, path = many_chunks(tmp_path)
    whole = mcap_scan.scan(path)
    os.truncate(path, whole.good_end)
    (folder / "metadata.yaml").unlink()
    report = replay_bag(folder, tmp_path / "out", settings)
    assert times(tmp_path / "out") == all_times()
    assert report.failed and ("magic" in report.problem or "metadata" in report.problem)


def test_messages_outside_chunks_are_read(tmp_path, settings, fast):
    """As a recorder for speed writes them; cut off in the middle of one."""
    source = bags.make_bag(tmp_path / "in") / "in.mcap"
    beginning = b"".join([mcap_scan.MAGIC, mcap_scan.RECORD.pack(1, 12), struct.pack("<I", 4), b"ros2", bytes(4)])
    with source.open("rb") as file:
        content = b"".join(mcap_scan.unpack_chunk(file, chunk) for chunk in mcap_scan.scan(source).chunks)
    loose = tmp_path / "loose.mcap"
    loose.write_bytes(beginning + content[:-10])
    report = replay_bag(loose, tmp_path / "out", settings)
    assert times(tmp_path / "out") == all_times(bags.FRAMES)
    assert report.failed


def test_a_damaged_database_gives_what_it_has(tmp_path, settings, fast):
    folder = bags.make_bag(tmp_path / "in", frames=60, width=160, height=120, storage=StoragePlugin.SQLITE3)
    path = folder / "in.db3"
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(bytes(4096) + os.urandom(8 * 4096))
    try:
        report = replay_bag(folder, tmp_path / "out", settings)
    except ReplayError as error:
        assert "cannot be read" in str(error)
    else:
        assert report.failed or len(times(tmp_path / "out")) == 60


@pytest.mark.parametrize("compression", [None, Writer1.CompressionFormat.BZ2, Writer1.CompressionFormat.LZ4])
def test_a_cut_off_ros1_bag_is_read_to_its_end(tmp_path, settings, fast, compression):
    """It never got its index, and its last chunk is cut."""
    path = bags.make_ros1_bag(tmp_path / "in.bag", frames=40, width=320, height=240, compression=compression)
    os.truncate(path, path.stat().st_size * 3 // 5)
    report = replay_bag(path, tmp_path / "out", settings)
    there = times(tmp_path / "out")
    assert there == all_times()[: len(there)] and 10 < len(there) < 35
    assert report.failed and report.lost_bytes > 0
    pixels = bags.decoded(tmp_path / "out", bags.IMAGE_TOPIC, bags.IMAGE)
    whole = bags.decoded(
        bags.make_bag(tmp_path / "same", len(there), width=320, height=240), bags.IMAGE_TOPIC, bags.IMAGE
    )
    assert all((a.data == b.data).all() for a, b in zip(pixels, whole))


def test_a_damaged_chunk_of_a_ros1_bag_costs_its_messages_only(tmp_path, settings, fast):
    path = bags.make_ros1_bag(
        tmp_path / "in.bag", frames=40, width=320, height=240, compression=Writer1.CompressionFormat.BZ2
    )
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(64))
    report = replay_bag(path, tmp_path / "out", settings)
    there = times(tmp_path / "out")
    assert set(there) < set(all_times()) and there == sorted(set(there)) and len(there) > 20
    assert report.failed and report.lost_messages >= 40 - len(there)


def test_a_ros1_bag_with_nothing_to_be_read_is_refused(tmp_path, settings):
    path = bags.make_ros1_bag(tmp_path / "in.bag")
    os.truncate(path, 4200)
    with pytest.raises(ReplayError, match="no message that can be read"):
        replay_bag(path, tmp_path / "out", settings)
    assert {p.name for p in tmp_path.iterdir()} == {"in.bag"}


def test_a_type_that_cannot_be_understood_costs_its_topic_only(tmp_path, settings, fast):
    """Of ROS 1, whose messages cannot be told in ROS 2 without their type."""
    types = bags.store(ros1=True)
    with Writer1(tmp_path / "in.bag") as writer:
        strange = writer.add_connection("/strange", "my_msgs/msg/Strange", msgdef="Missing x\n", md5sum=32 * "0")
        depth = writer.add_connection(bags.IMAGE_TOPIC, bags.IMAGE, typestore=types)
        for index in range(3):
            message = bags.image(like(bags.depth(index), np.uint16), bags.START, ros1=True)
            writer.write(strange, bags.START + index, bytes(8))
            writer.write(depth, bags.START + index, types.serialize_ros1(message, bags.IMAGE))
    report = replay_bag(tmp_path / "in.bag", tmp_path / "out", settings)
    assert (report.frames_out, report.lost_messages, report.failed) == (3, 3, True)
    assert "my_msgs/msg/Strange of /strange has a definition that cannot be read" in report.problem


def no_bag(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("hello")
    return path


def empty(tmp_path: Path) -> Path:
    path = tmp_path / "in.mcap"
    path.write_bytes(b"")
    return path


def something_else(tmp_path: Path) -> Path:
    path = tmp_path / "in.mcap"
    path.write_bytes(b"PK\3\4" + bytes(100))
    return path


def not_ended(tmp_path: Path) -> Path:
    return bags.make_ros1_bag(tmp_path / "in.bag").rename(tmp_path / "in.bag.active")


def missing(tmp_path: Path) -> Path:
    return tmp_path / "nothing"


@pytest.mark.parametrize(
    "make, text",
    [(no_bag, "is not a bag"), (empty, "is empty"), (something_else, "is not a bag, though"),
     (missing, "does not exist"), (not_ended, "was not ended; name it in.bag")],
)  # fmt: skip
def test_what_is_no_bag_is_told(tmp_path, settings, make, text):
    with pytest.raises(ReplayError, match=text):
        replay_bag(make(tmp_path), tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_no_room_to_unpack_a_bag_is_told(tmp_path, settings, monkeypatch):
    source = bags.make_bag(tmp_path / "in", compression=CompressionMode.FILE)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(ReplayError, match=r"no room to unpack it in .*; remedy: TMPDIR"):
        replay_bag(source, tmp_path / "out", settings)


def test_a_bag_without_depth_lists_what_there_is(tmp_path, settings):
    types = bags.store()
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        battery = writer.add_connection("/battery", bags.CUSTOM, typestore=types)
        writer.write(battery, 1, types.serialize_cdr(types.types[bags.CUSTOM](1.0, "x"), bags.CUSTOM))
    with pytest.raises(ReplayError, match=r"no depth topic; there is: /battery \(robot_msgs"):
        replay_bag(tmp_path / "in", tmp_path / "out", settings)


@pytest.mark.parametrize(
    "topic, text", [("/battery", "is robot_msgs/msg/Battery, not depth"), ("/nothing", "has no topic /nothing")]
)
def test_a_topic_that_is_no_depth_is_told(tmp_path, settings, topic, text):
    source = bags.make_bag(tmp_path / "in")
    with pytest.raises(ReplayError, match=text):
        replay_bag(source, tmp_path / "out", replace(settings, topics=(topic,)))


def test_a_named_colour_image_is_no_depth(tmp_path, settings):
    types = bags.store()
    picture = bags.image(like(bags.depth(0), np.uint16), bags.START)
    picture.encoding = "bgr8"
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        colour = writer.add_connection("/color", bags.IMAGE, typestore=types)
        writer.write(colour, bags.START, types.serialize_cdr(picture, bags.IMAGE))
    with pytest.raises(ReplayError, match="'bgr8' is unknown"):
        replay_bag(tmp_path / "in", tmp_path / "out", replace(settings, topics=("/color",)))


def test_a_damaged_frame_is_skipped_and_counted(tmp_path, settings):
    types = bags.store()
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/depth/image_raw", bags.IMAGE, typestore=types)
        for index in range(3):
            message = bags.image(like(bags.depth(index), np.uint16), bags.START + index)
            message.height += index == 1
            writer.write(topic, bags.START + index, types.serialize_cdr(message, bags.IMAGE))
    report = replay_bag(tmp_path / "in", tmp_path / "out", settings)
    assert (report.frames_in, report.frames_out, report.skipped) == (3, 2, {"short_data": 1})
    assert not report.failed  # the recording is whole; what the camera sent was not


def test_an_output_that_exists_is_refused_and_replaced_on_demand(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    old = bags.make_bag(tmp_path / "out", frames=1) / "metadata.yaml"
    before = old.read_text()
    with pytest.raises(ReplayError, match="out exists; --force"):
        replay_bag(source, tmp_path / "out", settings)
    assert old.read_text() == before
    replay_bag(source, tmp_path / "out", settings, force=True)
    assert times(tmp_path / "out") == all_times(bags.FRAMES)
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out"}


@pytest.mark.parametrize("force, resume", [(False, False), (True, False), (False, True)])
def test_what_is_no_bag_is_never_replaced(tmp_path, settings, force, resume):
    """A folder of bags, say, that was meant to hold this one's result, too."""
    source, results = bags.make_bag(tmp_path / "in"), tmp_path / "results"
    bags.make_bag(results / "another", frames=1)
    (tmp_path / "notes").write_text("precious")
    for target in (results, tmp_path / "notes"):
        with pytest.raises(ReplayError, match="is not a bag: it is not replaced"):
            replay_bag(source, target, settings, force, resume)
    assert (results / "another" / "metadata.yaml").is_file() and (tmp_path / "notes").read_text() == "precious"


def test_an_output_without_a_name_is_refused(tmp_path, settings, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ReplayError, match="no name for a bag"):
        replay_bag(bags.make_bag(tmp_path / "in"), Path(), settings, force=True)


@pytest.mark.parametrize("compress", ["none", "zstd"])
def test_a_result_without_a_message_is_a_bag(tmp_path, settings, compress):
    """Times of nothing are zero, as the format has it."""
    types = bags.store()
    message = bags.image(like(bags.depth(0), np.uint16), bags.START)
    message.height += 1
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/depth/image_raw", bags.IMAGE, typestore=types)
        writer.write(topic, bags.START, types.serialize_cdr(message, bags.IMAGE))
    replay_bag(tmp_path / "in", tmp_path / "out", replace(settings, only_new=True, compress=compress))
    (chunk,) = mcap_scan.scan(tmp_path / "out" / "out.mcap").chunks
    assert (chunk.start_time, chunk.end_time) == (0, 0)
    assert set(bags.connections(tmp_path / "out")) == {"/depth_sr/image_raw"}


@pytest.mark.parametrize("target", ["in", "in/out", "."])
def test_an_output_in_the_input_is_refused(tmp_path, settings, target):
    source = bags.make_bag(tmp_path / "in")
    with pytest.raises(ReplayError, match="lie in one another"):
        replay_bag(source, tmp_path / target, settings, force=True)
    assert len(list(bags.read(source))) == 1 + 3 * bags.FRAMES


def test_no_permission_is_told(tmp_path, settings, monkeypatch):
    source = bags.make_bag(tmp_path / "in")

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write everywhere
    with pytest.raises(ReplayError, match="no permission; choose another place"):
        replay_bag(source, tmp_path / "closed" / "out", settings)


def test_a_place_that_is_no_folder_is_told(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    (tmp_path / "file").write_text("")
    with pytest.raises(ReplayError, match="cannot be written"):
        replay_bag(source, tmp_path / "file" / "out", settings)


def test_a_full_disk_keeps_what_is_done_and_goes_on(tmp_path, settings, fast, monkeypatch):
    source, _ = many_chunks(tmp_path)
    replay_bag(source, tmp_path / "wanted" / "out", settings)
    put, left = McapStorage._put, [3 << 20]

    def full(self, *parts):
        for part in parts:
            if len(part) > left[0]:
                put(self, bytes(memoryview(part)[: left[0]]))  # what still fits
                raise OSError(errno.ENOSPC, "No space left on device")
            left[0] -= len(part)
            put(self, part)

    monkeypatch.setattr(McapStorage, "_put", full)
    with pytest.raises(ReplayError, match=r"no room left .* --resume"):
        replay_bag(source, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(McapStorage, "_put", put)
    report = replay_bag(source, tmp_path / "out", settings, resume=True)
    assert 0 < report.taken_over < 40
    assert (tmp_path / "out" / "out.mcap").read_bytes() == (tmp_path / "wanted" / "out" / "out.mcap").read_bytes()
