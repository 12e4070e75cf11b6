"""Bags of every kind, mutated: what can be read is read, what cannot is told, and nothing else happens.

``DSCA_FUZZ_BAGS=2000`` tries so many of each kind, at random, instead of the same few.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bag_files as bags
import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from dsca_ros.replay import mcap_writer
from dsca_ros.replay import run as runs
from dsca_ros.replay.bags import Topic
from dsca_ros.replay.errors import ReplayError
from dsca_ros.replay.mcap_scan import CHUNK_HEADER, MAGIC, RECORD, scan
from dsca_ros.replay.run import replay_bag
from dsca_ros.replay.settings import ReplaySettings, Report

#: Bags of each kind.
CASES = int(os.environ.get("DSCA_FUZZ_BAGS", 0))
FEW = 20
#: One bag takes milliseconds; seconds.
HANGS_AFTER = 10.0
#: What all of them may add to this process at its largest, bytes.
ALLOWED = 200 * 2**20
SCALE = 2

fuzz = settings(
    derandomize=not CASES,
    database=None,
    deadline=None,
    max_examples=CASES or FEW,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)

# --- small bags ---------------------------------------------------------------------------------


#: Bytes after which a chunk ends: what is damaged in one leaves the others.
CHUNK = 4000


def with_checksums(path: Path) -> Path:
    """As this package writes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mcap_writer, "CHUNK_SIZE", CHUNK)
        replay_bag(bags.make_bag(path.with_name("whole")), path, ReplaySettings(model="tiny", threads=1))
    return path


def without_checksums(path: Path) -> Path:
    """As most recorders write it."""
    (file,) = with_checksums(path).glob("*.mcap")
    data = bytearray(file.read_bytes())
    for chunk in scan(file).chunks:
        at = chunk.offset + RECORD.size + CHUNK_HEADER.size
        data[at - 4 : at] = bytes(4)
    file.write_bytes(data)
    return path


def ros2(**how: object) -> Callable[[Path], Path]:
    return lambda path: bags.make_bag(path, **how)  # type: ignore[arg-type]


def ros1(compression: Writer1.CompressionFormat | None = None) -> Callable[[Path], Path]:
    class Chunked(Writer1):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.chunk_threshold = CHUNK

    def make(path: Path) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bags, "Writer1", Chunked)
            return bags.make_ros1_bag(path.with_suffix(".bag"), compression=compression)

    return make


def alone(path: Path) -> Path:
    """A single MCAP file."""
    bags.make_bag(path)
    return next(path.glob("*.mcap"))


KINDS: dict[str, Callable[[Path], Path]] = {
    "mcap": without_checksums,
    "mcap file": alone,
    "mcap of zstd chunks": ros2(compression=CompressionMode.STORAGE),
    "mcap with checksums": with_checksums,
    "mcap.zstd": ros2(compression=CompressionMode.FILE),
    "compressedDepth": ros2(compressed=True),
    "sqlite3": ros2(storage=StoragePlugin.SQLITE3),
    "sqlite3 of zstd messages": ros2(storage=StoragePlugin.SQLITE3, compression=CompressionMode.MESSAGE),
    "ros1": ros1(),
    "ros1 of bz2 chunks": ros1(Writer1.CompressionFormat.BZ2),
    "ros1 of lz4 chunks": ros1(Writer1.CompressionFormat.LZ4),
}


# --- what happens to them -----------------------------------------------------------------------

LENGTHS = [0, 1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**60, 2**63 - 1, 2**63, 2**64 - 1]


def overwritten(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def length_overwritten(data: bytes, at: int, number: int) -> bytes:
    size = 8 if number >= 2**32 else 4
    return overwritten(data, at, number.to_bytes(size, "little"))


place = st.integers(0, 999).map(lambda share: share / 999)
#: The kind of a change, where, as a share of the file, and what of.
change = st.one_of(
    # In place twice as often: where bytes are moved, little of most files can be read.
    *2
    * [
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("overwrite"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("length"), place, st.sampled_from(LENGTHS)),
    ],
    st.tuples(st.just("zero"), place, st.integers(1, 3000)),
    st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("repeat"), place, st.integers(1, 3000)),
    st.tuples(st.just("remove"), place, st.integers(1, 3000)),
    st.tuples(st.just("cut"), place, st.just(0)),
    # Lengths lie at the beginning of records.
    st.tuples(st.just("length of a record"), place, st.sampled_from(LENGTHS)),
)


def records(data: bytes) -> list[int]:
    """Where lengths of records are, in MCAP files and ROS 1 bags; in chunks that are not compressed, too."""
    found, at = [], len(MAGIC)
    if data.startswith(MAGIC):
        while at + RECORD.size <= len(data):
            opcode, length = RECORD.unpack_from(data, at)
            found.append(at + 1)
            # Into a chunk, behind its own header.
            at += RECORD.size + (40 if opcode == 6 else length)
    elif data.startswith(b"#ROSBAG"):
        at = len(b"#ROSBAG V2.0\n")
        while at + 4 <= len(data):
            (header,) = struct.unpack_from("<I", data, at)
            if at + 8 + header > len(data):
                break
            (length,) = struct.unpack_from("<I", data, at + 4 + header)
            found += [at, at + 4 + header]
            chunk = b"op=\x05" in data[at : at + 4 + header] and b"compression=none" in data[at : at + 4 + header]
            at += 8 + header + (0 if chunk else length)
    return found or [0]


def mutated(data: bytes, changes: list[tuple[str, float, Any]]) -> bytes:
    for kind, share, what in changes:
        at = min(int(share * len(data)), max(0, len(data) - 1))
        if kind == "flip" and data:
            data = overwritten(data, at, bytes([data[at] ^ 1 << what]))
        elif kind == "overwrite":
            data = overwritten(data, at, what)
        elif kind == "zero":
            data = overwritten(data, at, bytes(min(what, len(data) - at)))
        elif kind == "insert":
            data = data[:at] + what + data[at:]
        elif kind == "repeat":
            data = data[: at + what] + data[at:]
        elif kind == "remove":
            data = data[:at] + data[at + what :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "length":
            data = length_overwritten(data, at, what)
        elif kind == "length of a record":
            places = records(data)
            data = length_overwritten(data, places[min(int(share * len(places)), len(places) - 1)], what)
    return data


# --- what comes of them -------------------------------------------------------------------------


class Repeating:
    """In the network's place: every pixel again, as often as the scale says."""

    engine = "none"

    def __init__(self, *arguments: object, **options: object) -> None:
        pass

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(depth, SCALE, axis=0), SCALE, axis=1)

    def __enter__(self) -> Repeating:
        return self

    def __exit__(self, *raised: object) -> None:
        pass


class Sink:
    """In the output's place, which takes ten times as long as all else: it only looks at what is to be written."""

    def __init__(self, *arguments: object) -> None:
        self.writer = self

    def add_topic(self, topic: Topic) -> str:
        assert all(isinstance(text, str) for text in (topic.name, topic.msgtype, topic.definition, topic.encoding))
        return topic.name

    def go_on(self) -> int:
        return 0

    def write(self, connection: str, time: int, data: bytes | memoryview) -> None:
        assert 0 <= time < 2**63
        memoryview(data)

    def finish(self) -> None:
        pass

    leave = finish


@contextmanager
def no_hang() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise TimeoutError(f"not done after {HANGS_AFTER} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, HANGS_AFTER)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def largest() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("kind", KINDS)
def test_any_bag_is_read_or_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = KINDS[kind](tmp_path / "bag")
    monkeypatch.setattr(runs, "Upsampler", Repeating)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    how, out = ReplaySettings(model="tiny", threads=1, points=True), tmp_path / "out"
    whole = replay_bag(original, tmp_path / "undisturbed", how)
    assert not whole.failed and whole.frames_out == bags.FRAMES
    files = sorted(original.iterdir()) if original.is_dir() else [original]
    contents = {path: path.read_bytes() for path in files}
    (storage,) = (path for path in files if path.name != "metadata.yaml")
    outcomes: Counter[str] = Counter()
    before = largest()

    def replay(with_output: bool) -> Report:
        with pytest.MonkeyPatch.context() as patch:
            if not with_output:
                patch.setattr(runs, "Output", Sink)
                patch.setattr(runs, "identity", lambda *of: {})
            return replay_bag(original, out, how, force=True)

    @fuzz
    @given(st.lists(change, min_size=1, max_size=2), st.sampled_from([*3 * [storage], files[-1]]))
    def check(changes: list[tuple[str, float, Any]], changed: Path) -> None:
        for path, content in contents.items():
            path.write_bytes(mutated(content, changes) if path == changed else content)
        try:
            with no_hang():
                report = replay(with_output=CASES > 0 and outcomes.total() % 10 == 0)
        except ReplayError as error:
            assert 0 < len(str(error)) < 2000 and "\n" not in str(error)
            outcomes["refused"] += 1
            return
        outcomes["told" if report.failed else "read"] += 1
        assert report.frames_out + sum(report.skipped.values()) == report.frames_in

    check()
    # Else the changes would try little. A file that is compressed as a whole is all or nothing.
    assert outcomes["refused"] and (outcomes["read"] + outcomes["told"] or kind == "mcap.zstd"), outcomes
    assert largest() - before < ALLOWED
    print(kind, dict(outcomes))
