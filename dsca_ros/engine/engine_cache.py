"""Built engines on disk: found by everything they depend on, whole or not there.

An engine is one file: a line of magic, a line of JSON about it, and TensorRT's own bytes; the JSON has the hash of
all. It is written aside and renamed, so nobody sees half of one. What cannot be used is built anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from dsca_ros.aside import PARTIAL, written_aside
from dsca_ros.engine.base import EngineError

log = logging.getLogger(__name__)

MAGIC = b"dsca_ros engine 1\n"
SUFFIX, LOCK = ".engine", ".lock"
#: How often a build that waits for another one looks whether that is done, seconds.
LOOK_EVERY = 0.2
#: What this package writes into the folder: engines and, beside them, locks, timings and what is half written.
OURS = re.compile(r"-[0-9a-f]{12}(\w*\.partial|\.(engine|lock|timings|jit))$")


def engines_folder() -> Path:
    """Where engines are kept: ``${XDG_CACHE_HOME:-~/.cache}/dsca_ros/engines``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dsca_ros" / "engines"


@dataclass(frozen=True)
class EngineKey:
    """Everything an engine depends on.

    Attributes:
        model, scale, precision: of the graph.
        graph: SHA-256 of the graph's file.
        dtype: what it takes: ``uint16`` millimetres or ``float32``.
        width, height: of the input.
        target: GPU architecture, such as ``sm89``.
        gpu: name of the GPU, for TensorRT, whose tactics were timed on it; empty for TensorRT-RTX.
        flavour, version: of TensorRT.
    """

    model: str
    scale: int
    precision: str
    graph: str
    dtype: str
    width: int
    height: int
    target: str
    gpu: str
    flavour: str
    version: str

    @property
    def file_name(self) -> str:
        """Readable, and unlike that of every other key."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        size = f"{self.width}x{self.height}"
        parts = (self.model, f"x{self.scale}", self.precision, size, self.dtype, self.target, self.flavour, digest)
        return "-".join(parts) + SUFFIX


@dataclass(frozen=True)
class StoredEngine:
    """An engine and what is known of it: how long it took to build, whether its accuracy was measured, ..."""

    plan: bytes
    facts: dict[str, Any]


class EngineCache:
    """A folder of engines, for any number of processes at once.

    Args:
        folder: where; made when the first engine is stored.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or engines_folder()

    def path(self, key: EngineKey) -> Path:
        """Where the engine of a key is, or would be."""
        return self.folder / key.file_name

    def load(self, key: EngineKey, level: int = logging.WARNING) -> StoredEngine | None:
        """The engine of a key, or None; if what is there cannot be used, that is told at a level of logging."""
        path = self.path(key)
        try:
            data = _read_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.log(level, "cannot read %s (%s): the engine is built anew", path, error.strerror)
            return None
        try:
            about, plan = _unpack(data)
            if about["key"] != asdict(key):
                raise ValueError("it is of another key")
        except ValueError as error:
            log.log(level, "%s is damaged (%s): the engine is built anew", path, error)
            return None
        return StoredEngine(plan, about["facts"])

    def store(self, key: EngineKey, engine: StoredEngine) -> Path | None:
        """Writes an engine under its name, in one step; None, and one warning, if that cannot be."""
        about = {
            "key": asdict(key),
            "facts": engine.facts,
            "sha256": _digest(asdict(key), engine.facts, engine.plan),
        }
        path = self.path(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_readable(path, MAGIC + json.dumps(about).encode() + b"\n" + engine.plan)
        except OSError as error:
            log.warning(
                "cannot keep the engine in %s (%s): it will be built again at the next start; remedy: make room there, "
                "or set XDG_CACHE_HOME to a folder that can be written",
                self.folder,
                error.strerror,
            )
            return None
        return path

    def discard(self, key: EngineKey) -> None:
        """Removes the engine of a key."""
        with contextlib.suppress(OSError):
            self.path(key).unlink()

    @contextlib.contextmanager
    def locked(self, key: EngineKey, waiting: Callable[[], bool]) -> Iterator[None]:
        """Holds the lock of a key: of two that want the same engine the second waits for the first.

        The lock is the kernel's: it ends with the process that holds it, however that ends.

        Args:
            key: what is to be built.
            waiting: called again and again while another process holds the lock; False gives up.

        Raises:
            EngineError: if ``waiting`` says False.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = _open_lock(self.path(key).with_suffix(LOCK))
        except OSError:
            yield  # a folder that cannot be written needs no lock: nothing is shared there
            return
        with file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._sweep(key)
                    break
                except BlockingIOError:
                    if not waiting():
                        raise EngineError("the wait for another process's build was ended") from None
                    time.sleep(LOOK_EVERY)
                except OSError:
                    break  # a file system that knows no locks: at worst two build the same
            yield

    def _sweep(self, key: EngineKey) -> None:
        """Removes what others left half written of a key: with the lock free, whoever wrote it was killed."""
        for partial in self.folder.glob(f"{self.path(key).stem}*{PARTIAL}"):
            with contextlib.suppress(OSError):
                partial.unlink()

    def get(
        self, key: EngineKey, make: Callable[[], StoredEngine], waiting: Callable[[], bool] = lambda: True
    ) -> tuple[StoredEngine, bool]:
        """The engine of a key, built and stored if it is not there, and whether it was built."""
        found = self.load(key)
        if found is not None:
            return found, False
        with self.locked(key, waiting):
            found = self.load(key, logging.DEBUG)  # another process may have been first; damage was told above
            if found is not None:
                return found, False
            made = make()
            self.store(key, made)
            return made, True

    def timing_cache(self, key: EngineKey) -> Path:
        """Where the timings of the builds of one TensorRT for one GPU are kept."""
        digest = hashlib.sha256(f"{key.flavour} {key.version} {key.target} {key.gpu}".encode()).hexdigest()[:12]
        return self.folder / f"{key.flavour}-{key.target}-{digest}.timings"

    def each(self) -> list[tuple[Path, dict[str, Any] | None]]:
        """Every engine here and what is known of it; None for one that is damaged."""
        found: list[tuple[Path, dict[str, Any] | None]] = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if not OURS.search(path.name):
                continue
            try:
                about, _ = _unpack(_read_file(path))
                found.append((path, about))
            except (OSError, ValueError):
                found.append((path, None))
        return found

    def clean(self) -> tuple[int, int]:
        """Removes all that is ours here but locks that are held: number of engines, and bytes of all."""
        count = size = 0
        for path in self.folder.glob("*"):
            # The folder is the user's choice, and may hold files of others.
            if not OURS.search(path.name) or not path.is_file() or (path.suffix == LOCK and _is_held(path)):
                continue
            size += path.stat().st_size
            count += path.suffix == SUFFIX
            path.unlink(missing_ok=True)
        return count, size


def write_readable(path: Path, data: bytes) -> None:
    """Writes a file, in one step, for all users: an engine built for an image of a robot is read by another one.

    Raises:
        OSError: if it cannot; then nothing is left behind.
    """
    with written_aside(path, sync=True) as partial:
        partial.write_bytes(data)
        partial.chmod(0o644)


def _open_lock(path: Path) -> BinaryIO:
    """A lock's file, made if it is not there; nothing is written to it, nor through a link to what is elsewhere."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b", buffering=0)


def _read_file(path: Path) -> bytes:
    """The bytes of a file; of what is none, such as a pipe, which would be waited for, there is an OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no file", str(path))
        return file.read()


def _is_held(path: Path) -> bool:
    """Whether a lock is held, or may be: that of another user cannot be tried, and a link is none of ours."""
    try:
        with _open_lock(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _unpack(data: bytes) -> tuple[dict[str, Any], bytes]:
    """An engine file's JSON and its plan; ValueError if it is not whole."""
    if not data.startswith(MAGIC):
        raise ValueError("not an engine of this package")
    end = data.find(b"\n", len(MAGIC))
    try:
        about = json.loads(data[len(MAGIC) : end])
        plan = data[end + 1 :]
        if _digest(about["key"], about["facts"], plan) != about["sha256"]:
            raise ValueError("truncated or changed")
        if about["key"].keys() != {field.name for field in fields(EngineKey)} or not isinstance(about["facts"], dict):
            raise ValueError("of another version")
    except (AttributeError, KeyError, TypeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError("its head cannot be read") from None
    return about, plan


def _digest(key: dict[str, Any], facts: dict[str, Any], plan: bytes) -> str:
    return hashlib.sha256(json.dumps([key, facts], sort_keys=True).encode() + plan).hexdigest()
