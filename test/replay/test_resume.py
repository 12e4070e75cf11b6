"""Interrupted at any moment, a replay leaves nothing under the final name, and goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import bag_files as bags
import pytest

from dsca_ros.replay import mcap_scan, output
from dsca_ros.replay.errors import ReplayError
from dsca_ros.replay.run import replay_bag
from dsca_ros.upsampler import Upsampler

TIMEOUT = 60.0
#: Frames of this bag come to some chunks of results.
FRAMES, SIZE = 30, {"width": 160, "height": 120}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def count_frames(monkeypatch):
    """How many frames the engine has computed."""
    infer, counted = Upsampler.__call__, []

    def counting(self, depth):
        counted.append(depth.shape)
        return infer(self, depth)

    monkeypatch.setattr(Upsampler, "__call__", counting)
    return counted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_replay_goes_on_to_the_same_bytes(tmp_path, settings, number, count_frames):
    source = bags.make_bag(tmp_path / "in", frames=FRAMES, **SIZE)
    replay_bag(source, tmp_path / "wanted" / "out", settings)
    count_frames.clear()
    told, target = tmp_path / "told", tmp_path / "out"
    script = Path(__file__).with_name("slow_replay.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(source), str(target), "26", str(told)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A shell that runs the tests in the background has SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + TIMEOUT
        growing = tmp_path / "out.partial" / "out.mcap"
        # Results are written beside the engine, which waits: until there are some chunks.
        while not (told.exists() and growing.exists() and len(mcap_scan.scan(growing).chunks) >= 2):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 1
        assert "interrupted" in errors and "--resume" in errors and "Traceback" not in errors
    assert not target.exists()
    with pytest.raises(ReplayError, match="--resume goes on"):
        replay_bag(source, target, settings)
    report = replay_bag(source, target, settings, resume=True)
    assert 0 < report.taken_over < FRAMES
    assert len(count_frames) == FRAMES - report.taken_over
    assert bytes_of(target) == bytes_of(tmp_path / "wanted" / "out")
    assert not list(tmp_path.glob("*.partial"))


def test_it_goes_on_in_the_same_format_only(tmp_path, settings):
    """A database is compressed when it is made of a file that is not: a half of each would be no same bytes."""
    source = bags.make_bag(tmp_path / "in")
    settings = replace(settings, compress="zstd")
    interrupt(tmp_path, source, replace(settings, format="sqlite3"))
    with pytest.raises(ReplayError, match="another format"):
        replay_bag(source, tmp_path / "out", settings, resume=True)


def test_all_of_a_bag_is_on_the_disk_before_it_has_its_name(tmp_path, settings, monkeypatch):
    """Else a power cut could leave an empty metadata.yaml under it."""
    synced: set[str] = set()
    sync = os.fsync

    def seen(handle):
        if not (tmp_path / "out").exists():
            synced.add(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        sync(handle)

    monkeypatch.setattr(os, "fsync", seen)
    replay_bag(bags.make_bag(tmp_path / "in", frames=1), tmp_path / "out", settings)
    assert synced >= {"metadata.yaml", "out.mcap", "out"}


@pytest.mark.parametrize("format, points", [("mcap", True), ("sqlite3", False)])
def test_cut_at_any_byte_it_goes_on_to_the_same_messages(tmp_path, settings, rng, format, points):
    source = bags.make_bag(tmp_path / "in", frames=FRAMES, **SIZE)
    settings = replace(settings, points=points, format=format)
    replay_bag(source, tmp_path / "wanted" / "out", settings)
    replay_bag(source, tmp_path / "mcap" / "out", replace(settings, format="mcap"))
    whole = (tmp_path / "mcap" / "out" / "out.mcap").read_bytes()
    for length in [0, 60, *rng.integers(len(whole) // 4, len(whole), 2), len(whole)]:
        interrupt(tmp_path, source, settings)
        (tmp_path / "out.partial" / "out.mcap").write_bytes(whole[: int(length)])
        report = replay_bag(source, tmp_path / "out", settings, resume=True, force=True)
        assert report.frames_out == FRAMES
        if format == "mcap":
            assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "wanted" / "out")
        assert list(bags.read(tmp_path / "out")) == list(bags.read(tmp_path / "wanted" / "out"))


def interrupt(tmp_path: Path, source: Path, settings) -> None:
    """Leaves a partial folder as a replay that is killed at once."""

    class Killed(BaseException):
        pass

    def kill(self, *arguments):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output.Output, "go_on", kill)
        with pytest.raises(Killed):
            replay_bag(source, tmp_path / "out", settings, force=True)


def test_zeros_after_a_power_cut_are_computed_anew(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in", frames=FRAMES, **SIZE)
    replay_bag(source, tmp_path / "wanted" / "out", settings)
    path = tmp_path / "wanted" / "out" / "out.mcap"
    data = bytearray(path.read_bytes())
    chunk = mcap_scan.scan(path).chunks[1]
    data[chunk.data_offset + 1000 : chunk.data_offset + 2000] = bytes(1000)
    interrupt(tmp_path, source, settings)
    (tmp_path / "out.partial" / "out.mcap").write_bytes(data)
    report = replay_bag(source, tmp_path / "out", settings, resume=True)
    assert 0 < report.taken_over < FRAMES / 2
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "wanted" / "out")


def test_killed_between_finishing_and_renaming(tmp_path, settings, count_frames):
    source = bags.make_bag(tmp_path / "in")
    replay_bag(source, tmp_path / "wanted" / "out", settings)
    close = output.BagWriter.close

    def close_and_die(self):
        close(self)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output.BagWriter, "close", close_and_die)
        with pytest.raises(KeyboardInterrupt):
            replay_bag(source, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    count_frames.clear()
    replay_bag(source, tmp_path / "out", settings, resume=True)
    assert not count_frames
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "wanted" / "out")


def test_it_goes_on_with_the_same_settings_and_input_only(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    interrupt(tmp_path, source, settings)
    with pytest.raises(ReplayError, match=r"another .*scale"):
        replay_bag(source, tmp_path / "out", replace(settings, scale=4), resume=True)
    os.utime(source / "in.mcap", (1, 1))
    with pytest.raises(ReplayError, match="another input"):
        replay_bag(source, tmp_path / "out", settings, resume=True)
    replay_bag(source, tmp_path / "out", replace(settings, scale=4), force=True)
    assert not list(tmp_path.glob("*.partial"))


def test_two_replays_do_not_write_the_same_bag(tmp_path, settings):
    source = bags.make_bag(tmp_path / "in")
    interrupt(tmp_path, source, settings)
    import fcntl

    with (tmp_path / "out.partial" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for how in ({"resume": True}, {"force": True}):
            with pytest.raises(ReplayError, match="another replay"):
                replay_bag(source, tmp_path / "out", settings, **how)
    assert (tmp_path / "out.partial" / "replay.json").is_file()


def test_what_is_done_is_not_done_again(tmp_path, settings, count_frames):
    source = bags.make_bag(tmp_path / "in")
    replay_bag(source, tmp_path / "out", settings)
    count_frames.clear()
    report = replay_bag(source, tmp_path / "out", settings, resume=True)
    assert report.done_before and not report.failed and not count_frames
