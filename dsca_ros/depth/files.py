"""Depth images in files: 16-bit PNG and numpy."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dsca_ros.aside import written_aside
from dsca_ros.reason import reason_of

SUFFIXES = (".png", ".npy")
#: What numpy, its zip archives and OpenCV raise for a file that is damaged, or another than its name says.
READ_ERRORS = (
    OSError, EOFError, ValueError, TypeError, AttributeError, IndexError, zipfile.BadZipFile, zlib.error, cv2.error,
)  # fmt: skip


class DepthFileError(ValueError):
    """A file that cannot be read or written as depth; the text says what to do."""


@dataclass(frozen=True)
class DepthImage:
    """Depth from a file, and how the file coded it."""

    metres: np.ndarray  # [H, W] float32, 0 invalid
    dtype: np.dtype


def list_frames(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Pairs of input and output: one for a file, all frames in order for a folder.

    Raises:
        DepthFileError: if there is nothing to do, or an output would overwrite an input.
    """
    if not source.exists():
        raise DepthFileError(f"{source}: no such file or folder")
    if source.is_dir():
        if target.suffix.lower() in SUFFIXES:
            raise DepthFileError(f"{source} is a folder, so {target} must be one too")
        jobs = [
            (p, target / p.name) for p in sorted(source.iterdir()) if p.suffix.lower() in SUFFIXES and not p.is_dir()
        ]
        if not jobs:
            raise DepthFileError(f"{source}: no .png or .npy in this folder")
    else:
        jobs = [(source, target / source.name if target.is_dir() else target)]
    for path, result in jobs:
        if result.suffix.lower() not in SUFFIXES:
            raise DepthFileError(f"{result}: write to .png or .npy")
        if result.exists() and result.samefile(path):
            raise DepthFileError(f"{path} would be overwritten: name another output")
    return jobs


def read_depth(path: Path, unit: float) -> DepthImage:
    """Reads one depth image.

    Args:
        path: a single-channel PNG of 8 or 16 bit, or an .npy or .npz (array ``depth``, or its
            first) of integers or floats (metres).
        unit: metres a step of integer images.
    """
    raw: np.ndarray | None
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                raw = np.asarray(archive["depth" if "depth" in archive.files else archive.files[0]])
        elif path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                raw = np.lib.format.read_array(file, allow_pickle=False)
        else:
            data = np.frombuffer(path.read_bytes(), np.uint8)
            raw = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except READ_ERRORS as error:
        reason = reason_of(error)
        raise DepthFileError(f"{path}: cannot be read ({reason})") from None
    if raw is None:
        raise DepthFileError(f"{path}: not an image that can be read")
    if raw.size == 0:
        raise DepthFileError(f"{path}: shape {raw.shape}; there is no pixel in it")
    if raw.ndim != 2:
        raise DepthFileError(f"{path}: shape {raw.shape}; depth has one channel: is this a colour picture of it?")
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            metres = raw.astype(np.float32)  # first: what float32 cannot hold is infinite, and no depth
        metres = np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0.0))
    elif raw.dtype.kind in "ui":
        full = np.iinfo(raw.dtype).max
        # The largest value is "no reading" in every driver's files; depth never reaches it.
        metres = np.where((raw > 0) & (raw < full), raw * float(unit), 0.0).astype(np.float32)
    else:
        raise DepthFileError(f"{path}: {raw.dtype} is no depth; integers or floats are")
    return DepthImage(metres, raw.dtype)


def write_depth(path: Path, metres: np.ndarray, like: DepthImage, unit: float) -> None:
    """Writes depth in the coding of ``like``, aside first, so that no half file is left.

    Args:
        path: .png or .npy.
        metres: [H, W] float32, 0 invalid.
    """
    integer = like.dtype.kind in "ui"
    if path.suffix.lower() == ".png" or integer:
        # A float .npy written to PNG takes the PNG's coding: 16 bit in the given unit.
        dtype = np.dtype(np.uint16) if path.suffix.lower() == ".png" or not integer else like.dtype
        steps = np.floor(metres / np.float64(unit) + 0.5)
        steps[(steps < 0) | (steps >= np.iinfo(dtype).max)] = 0
        values = steps.astype(dtype)
    else:
        values = metres.astype(like.dtype)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as partial:
            if path.suffix.lower() == ".npy":
                with partial.open("wb") as file:
                    np.save(file, values)
            else:
                partial.write_bytes(cv2.imencode(".png", values)[1].tobytes())
    except OSError as error:
        raise DepthFileError(f"{path}: cannot be written ({error.strerror})") from None
