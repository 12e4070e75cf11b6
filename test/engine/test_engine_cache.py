"""Engines on disk: found by all they depend on, whole or not there, and built by one process at a time."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from dsca_ros.engine import engine_cache
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.engine_cache import (
    LOCK,
    MAGIC,
    PARTIAL,
    SUFFIX,
    EngineCache,
    EngineKey,
    StoredEngine,
    engines_folder,
)

KEY = EngineKey("nano", 2, "fp16", "ab" * 32, "uint16", 640, 480, "sm89", "", "tensorrt_rtx", "1.7")
ENGINE = StoredEngine(bytes(range(0, 256, 5)) + b"\n\n{}", {"seconds": 12.5, "accuracy": {"beyond": 0.001}})


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    monkeypatch.setattr(engine_cache, "LOOK_EVERY", 0.01)


def never() -> StoredEngine:
    raise AssertionError("it was built")


def leftovers(cache: EngineCache) -> list[str]:
    """Everything beside the engines and the locks."""
    return [p.name for p in cache.folder.glob("*") if p.suffix not in (SUFFIX, LOCK)]


def warning(caplog) -> str:
    """The only thing that was said."""
    (record,) = [r for r in caplog.records if r.name.startswith("dsca_ros")]
    assert record.levelno == logging.WARNING and "\n" not in record.getMessage()
    return record.getMessage()


# --- there and back -----------------------------------------------------------------------------


def test_there_and_back(cache, caplog):
    assert cache.load(KEY) is None  # and that there is no folder yet is no warning
    assert cache.store(KEY, ENGINE) == cache.path(KEY)
    assert cache.load(KEY) == ENGINE and EngineCache(cache.folder).load(KEY) == ENGINE
    assert not caplog.records and not leftovers(cache)


def test_an_engine_may_be_empty_or_full_of_newlines(cache):
    for plan in (b"", b"\n", b"\n" * 9, MAGIC):
        cache.store(KEY, StoredEngine(plan, {}))
        assert cache.load(KEY) == StoredEngine(plan, {})


def test_a_later_one_takes_its_place(cache):
    cache.store(KEY, ENGINE)
    later = StoredEngine(ENGINE.plan, ENGINE.facts | {"accuracy": None})
    cache.store(KEY, later)
    assert cache.load(KEY) == later and len(list(cache.folder.iterdir())) == 1


def test_it_is_built_once(cache):
    made = []
    assert cache.get(KEY, lambda: made.append(1) or ENGINE) == (ENGINE, True)
    assert cache.get(KEY, never) == (ENGINE, False) and made == [1]
    cache.discard(KEY)
    cache.discard(KEY)  # again is no error
    assert cache.get(KEY, lambda: ENGINE) == (ENGINE, True)


def test_a_build_that_fails_leaves_nothing_and_no_lock(cache):
    with pytest.raises(EngineError, match="no memory"):
        cache.get(KEY, lambda: (_ for _ in ()).throw(EngineError("no memory")))
    assert not list(cache.folder.glob(f"*{SUFFIX}")) and not leftovers(cache)
    assert cache.get(KEY, lambda: ENGINE, lambda: False) == (ENGINE, True)


# --- the key ------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [field.name for field in fields(EngineKey)])
def test_every_part_of_the_key_tells_engines_apart(cache, field):
    value = getattr(KEY, field)
    other = replace(KEY, **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert other.file_name != KEY.file_name
    cache.store(KEY, ENGINE)
    assert cache.load(other) is None


def test_width_and_height_are_not_the_same(cache):
    assert replace(KEY, width=480, height=640).file_name != KEY.file_name


def test_names_are_for_people_too():
    name = KEY.file_name
    assert name.startswith("nano-x2-fp16-640x480-uint16-sm89-tensorrt_rtx-") and name.endswith(".engine")
    assert EngineKey(**asdict(KEY)).file_name == name  # the same in every process
    script = f"from dsca_ros.engine.engine_cache import EngineKey; print(EngineKey(**{asdict(KEY)!r}).file_name)"
    seeded = os.environ | {"PYTHONHASHSEED": "5"}
    assert subprocess.check_output([sys.executable, "-c", script], text=True, env=seeded).strip() == name


def test_timings_are_shared_by_builds_of_one_tensorrt_for_one_gpu(cache):
    timings = cache.timing_cache(KEY)
    for field in ("model", "graph", "precision", "dtype"):
        assert cache.timing_cache(replace(KEY, **{field: "other"})) == timings
    for field in ("target", "gpu", "flavour", "version"):
        assert cache.timing_cache(replace(KEY, **{field: "other"})) != timings


# --- damage -------------------------------------------------------------------------------------


def is_refused(cache: EngineCache, caplog, key: EngineKey = KEY) -> str:
    caplog.clear()
    assert cache.load(key) is None
    text = warning(caplog)
    assert str(cache.path(key)) in text and "built anew" in text
    return text


def test_every_truncation_is_found(cache, caplog):
    whole = cache.store(KEY, ENGINE).read_bytes()
    head = len(whole) - len(ENGINE.plan)
    for length in (0, 1, len(MAGIC) - 1, len(MAGIC), len(MAGIC) + 1, head - 1, head, head + 1, len(whole) - 1):
        cache.path(KEY).write_bytes(whole[:length])
        is_refused(cache, caplog)
    cache.path(KEY).write_bytes(whole + b"\0")
    is_refused(cache, caplog)


def test_every_changed_byte_is_found(cache, caplog):
    """In what is known of an engine, too: what was measured of it is believed."""
    whole = cache.store(KEY, ENGINE).read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        cache.path(KEY).write_bytes(changed)
        is_refused(cache, caplog)
    cache.path(KEY).write_bytes(whole)
    assert cache.load(KEY) == ENGINE


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"dsca_ros engine 2\n{}\n",
        MAGIC + b"\n",
        MAGIC + b"[]\n",
        MAGIC + b"null\nplan",
        MAGIC + b'{"sha256": 3}\n',
        MAGIC + b'{"key": {}, "facts": {}, "sha256": null}\nplan',
        MAGIC + b"\xff\xfe\n",
    ],
    ids=str,
)
def test_what_is_no_engine_is_told(cache, caplog, content):
    cache.folder.mkdir()
    cache.path(KEY).write_bytes(content)
    is_refused(cache, caplog)


def test_an_engine_under_another_ones_name_is_told(cache, caplog):
    other = replace(KEY, width=848)
    cache.store(other, ENGINE).rename(cache.path(KEY))
    assert "another key" in is_refused(cache, caplog)


def test_what_cannot_be_read_is_told(cache, caplog):
    cache.path(KEY).mkdir(parents=True)
    is_refused(cache, caplog)


def test_a_damaged_engine_is_built_anew(cache, caplog):
    cache.store(KEY, ENGINE)
    cache.path(KEY).write_bytes(b"damaged")
    assert cache.get(KEY, lambda: ENGINE)[1]
    # It is looked for before the lock and under it, and told of once.
    assert "damaged" in warning(caplog)
    caplog.clear()
    assert cache.get(KEY, never) == (ENGINE, False) and not caplog.records


# --- no room ------------------------------------------------------------------------------------


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def forbidden(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize(
    ("module", "name", "refuse"),
    [(os, "fsync", full), (os, "replace", full), (Path, "write_bytes", full), (Path, "write_bytes", forbidden)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_without_room_the_engine_is_used_all_the_same(cache, caplog, monkeypatch, module, name, refuse):
    monkeypatch.setattr(module, name, refuse)
    assert cache.get(KEY, lambda: ENGINE) == (ENGINE, True)
    text = warning(caplog)
    assert str(cache.folder) in text and "remedy: " in text and "XDG_CACHE_HOME" in text
    assert ("No space left" if refuse is full else "Permission denied") in text
    assert not list(cache.folder.glob(f"*{SUFFIX}")) and not leftovers(cache)


def test_a_write_that_is_broken_off_leaves_the_old_engine(cache, monkeypatch):
    cache.store(KEY, ENGINE)
    monkeypatch.setattr(os, "replace", full)
    assert cache.store(KEY, StoredEngine(b"new", {})) is None
    assert cache.load(KEY) == ENGINE and not leftovers(cache)


def test_an_interruption_leaves_no_half_file(cache, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.store(KEY, ENGINE)
    assert list(cache.folder.iterdir()) == []


def test_what_a_killed_process_left_half_written_is_removed_by_the_next_build(cache):
    cache.store(replace(KEY, scale=4), ENGINE)
    halves = [cache.folder / f"{cache.path(key).stem}ab_3{PARTIAL}" for key in (KEY, replace(KEY, scale=4))]
    for half in halves:
        half.write_bytes(b"half")
    assert cache.get(KEY, lambda: ENGINE) == (ENGINE, True)
    assert not halves[0].exists() and halves[1].exists()  # the other may be being written


# --- a folder that others have been in ----------------------------------------------------------


def test_a_lock_that_is_a_link_is_not_written_through(cache, tmp_path):
    other, lock = tmp_path / "precious", cache.path(KEY).with_suffix(LOCK)
    other.write_text("as it was")
    cache.folder.mkdir(parents=True, exist_ok=True)
    lock.symlink_to(other)
    assert cache.get(KEY, lambda: ENGINE) == (ENGINE, True)
    cache.clean()
    assert other.read_text() == "as it was"


#: Does all that there is to do with an engine.
USER = f"""
import sys
from pathlib import Path
from dsca_ros.engine.engine_cache import EngineCache, EngineKey, StoredEngine

cache = EngineCache(Path(sys.argv[1]))
engine, built = cache.get(EngineKey(**{asdict(KEY)!r}), lambda: StoredEngine(b"built", {{}}))
cache.each(), cache.clean()
print(engine.plan.decode(), built)
"""


@pytest.mark.parametrize("suffix", [LOCK, SUFFIX])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_not_waited_for(cache, suffix, make):
    """In a process of its own: whoever opens a pipe waits for its other end."""
    cache.folder.mkdir(parents=True, exist_ok=True)
    make(cache.path(KEY).with_suffix(suffix))
    done = subprocess.run([sys.executable, "-c", USER, str(cache.folder)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "built True\n", done.stderr


def test_where_there_can_be_no_folder_the_engine_is_used_all_the_same(tmp_path, caplog):
    (tmp_path / "file").touch()
    cache = EngineCache(tmp_path / "file" / "engines")
    assert cache.store(KEY, ENGINE) is None
    caplog.clear()
    with cache.locked(KEY, lambda: False):
        pass  # nobody else can be there
    assert cache.each() == [] and cache.clean() == (0, 0) and not caplog.records


def test_a_file_system_without_locks_is_no_error(cache, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert cache.get(KEY, lambda: ENGINE, lambda: False) == (ENGINE, True)
    assert cache.get(KEY, never) == (ENGINE, False)


# --- several processes --------------------------------------------------------------------------

#: Builds the engine of KEY: says when it has begun, and ends when it is told to.
BUILDER = f"""
import sys
from pathlib import Path
from dsca_ros.engine.engine_cache import EngineCache, EngineKey, StoredEngine

def make():
    print("building", flush=True)
    sys.stdin.readline()
    return StoredEngine(b"of the other process", {{}})

engine, built = EngineCache(Path(sys.argv[1])).get(EngineKey(**{asdict(KEY)!r}), make)
print(engine.plan.decode(), built, flush=True)
"""


@pytest.fixture
def builder(cache):
    """A process that is in the middle of building the engine of `KEY`."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(cache.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "building\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def after(count: int, act):
    """To be called while waiting: acts at the ``count``-th time, and gives up long after."""
    calls = []

    def waiting() -> bool:
        calls.append(1)
        if len(calls) == count:
            act()
        return len(calls) < 6000

    waiting.calls = calls
    return waiting


def test_of_two_processes_the_second_waits_and_takes_the_firsts(cache, builder):
    def go_on() -> None:
        assert cache.load(KEY) is None
        builder.stdin.write("\n")
        builder.stdin.flush()

    waiting = after(3, go_on)
    engine, built = cache.get(KEY, never, waiting)
    assert (engine.plan, built) == (b"of the other process", False)
    assert len(waiting.calls) >= 3
    assert builder.stdout.readline() == "of the other process True\n"


def test_a_killed_process_frees_its_lock(cache, builder):
    def kill() -> None:
        builder.send_signal(signal.SIGKILL)
        builder.wait()

    waiting = after(2, kill)
    assert cache.get(KEY, lambda: ENGINE, waiting) == (ENGINE, True)
    assert len(waiting.calls) == 2 and not leftovers(cache)


def test_a_wait_can_be_ended(cache, builder):
    with pytest.raises(EngineError, match="wait"):
        cache.get(KEY, never, lambda: False)
    assert builder.poll() is None  # the other one goes on


def test_another_engine_is_not_waited_for(cache, builder):
    assert cache.get(replace(KEY, scale=4), lambda: ENGINE, lambda: False) == (ENGINE, True)


def test_what_is_there_already_is_not_waited_for(cache, builder):
    cache.store(KEY, ENGINE)
    assert cache.get(KEY, never, lambda: False) == (ENGINE, False)


# --- the folder ---------------------------------------------------------------------------------


def test_the_folder_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert engines_folder() == EngineCache().folder == tmp_path / "cache" / "dsca_ros" / "engines"
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in (lambda: monkeypatch.setenv("XDG_CACHE_HOME", ""), lambda: monkeypatch.delenv("XDG_CACHE_HOME")):
        unset()
        assert engines_folder() == Path(tmp_path) / ".cache" / "dsca_ros" / "engines"


def test_every_engine_is_listed_a_damaged_one_without_facts(cache):
    assert cache.each() == []
    other = replace(KEY, model="another")
    for key in (KEY, other):
        cache.store(key, ENGINE)
    with cache.locked(KEY, lambda: False):
        pass
    cache.timing_cache(KEY).write_bytes(b"timings")
    broken = cache.path(replace(KEY, model="broken"))
    broken.write_bytes(MAGIC)
    (cache.folder / "yolo.engine").write_bytes(b"of another program")
    (another, about), second, (nano, _) = cache.each()
    assert [another, nano] == [cache.path(other), cache.path(KEY)]
    assert about["key"] == asdict(other) and about["facts"] == ENGINE.facts
    assert second == (broken, None)


def test_clean_removes_all_but_held_locks_and_what_is_others(cache):
    assert cache.clean() == (0, 0)
    cache.store(KEY, ENGINE)
    cache.store(replace(KEY, scale=4), ENGINE)
    size = sum(path.stat().st_size for path in cache.folder.iterdir())
    stem = cache.path(KEY).stem
    (cache.folder / f"{stem}{LOCK}").touch()
    timings = cache.timing_cache(KEY)
    ours = (f"{stem}.jit", f"{stem}ab_3_x9z{PARTIAL}", timings.name, f"{timings.stem}k0_77{PARTIAL}")
    for path in (cache.folder / name for name in ours):
        path.write_bytes(b"12345")
        size += 5
    (cache.folder / "folder").mkdir()
    others = {"folder", "notes.txt", "poetry.lock", "video.partial", "train.engine", f"{stem}.engine.bak"}
    for name in others - {"folder"}:
        (cache.folder / name).touch()
    with cache.locked(replace(KEY, scale=8), lambda: False):
        held = cache.path(replace(KEY, scale=8)).with_suffix(LOCK)
        assert cache.clean() == (2, size)
        assert {path.name for path in cache.folder.iterdir()} == others | {held.name}
        with pytest.raises(EngineError), cache.locked(replace(KEY, scale=8), lambda: False):
            pass  # it is held as before
    assert cache.clean() == (0, 0) and {path.name for path in cache.folder.iterdir()} == others


def test_what_a_store_writes_aside_is_known_to_clean(cache, monkeypatch):
    written = []
    monkeypatch.setattr(os, "replace", lambda partial, path: written.append(partial))
    cache.store(KEY, ENGINE)
    assert Path(written[0]).is_file() and Path(written[0]).suffix == PARTIAL
    cache.clean()
    assert list(cache.folder.iterdir()) == []


def test_an_engine_is_for_every_user_to_read(cache):
    cache.store(KEY, ENGINE)
    assert cache.path(KEY).stat().st_mode & 0o777 == 0o644
