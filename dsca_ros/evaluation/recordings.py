"""Sets of depth frames to measure on: folders of recordings, of exact depth, and synthetic rooms.

A folder holds frames as 16-bit PNG, .npy or .npz, in order of name. What else is known about it comes from
``set.yaml`` in it (see `SetInfo`), from the table of public sets below, and from the files cameras' own
tools leave beside frames: intrinsics, and poses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.files import DepthFileError, read_depth
from dsca_ros.plain_yaml import load_plain

SUFFIXES = (".png", ".npy", ".npz")


class SetError(ValueError):
    """A set that cannot be read; the text says what to do."""


@dataclass(frozen=True)
class SetInfo:
    """What is to be known about a folder; the keys of ``set.yaml``.

    Attributes:
        kind: ``recorded``, or ``truth`` for exact depth.
        unit: metres a step of integer images.
        truth: a folder, relative to this one, with the exact depth of frames of the same name.
        max_depth: what lies beyond is taken as invalid, metres.
        still: the camera did not move, so that unchanged parts may be compared from frame to frame.
        intrinsics: fx, fy, cx, cy.
    """

    kind: str = "recorded"
    unit: float = 0.001
    truth: str = ""
    max_depth: float = 10.0
    still: bool = False
    intrinsics: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("recorded", "truth"):
            raise ValueError(f"kind must be recorded or truth, not {self.kind!r}")
        for key in ("unit", "max_depth"):
            value = getattr(self, key)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
                raise ValueError(f"{key} must be a positive number, not {value!r}")
        if not isinstance(self.truth, str):
            raise ValueError(f"truth must name a folder, not {self.truth!r}")
        if not isinstance(self.still, bool):
            raise ValueError(f"still must be true or false, not {self.still!r}")
        if self.intrinsics and (len(self.intrinsics) != 4 or min(self.intrinsics[:2]) <= 0):
            raise ValueError(f"intrinsics must be fx, fy, cx, cy, not {self.intrinsics!r}")


#: Public sets by the name of their folder.
KNOWN = {
    "livingroom": SetInfo("truth", intrinsics=(525.0, 525.0, 319.5, 239.5)),
    "livingroom_noisy": SetInfo("truth", truth="../livingroom", intrinsics=(525.0, 525.0, 319.5, 239.5)),
    "sintel": SetInfo("truth", max_depth=20.0),
    "kinect_v1": SetInfo(intrinsics=(585.0, 585.0, 320.0, 240.0)),
    "realsense_d4xx": SetInfo(still=True, intrinsics=(384.0, 384.0, 322.0, 237.0)),
    "realsense_f200": SetInfo(unit=0.0001),
}


@dataclass(frozen=True)
class DepthSet:
    """A folder of frames."""

    folder: Path
    info: SetInfo
    label: str = ""

    @property
    def name(self) -> str:
        """What tables call it: its label, else the folder's name."""
        return self.label or self.folder.name

    @cached_property
    def frames(self) -> list[Path]:
        """The frames, in order of name."""
        return sorted(p for p in self.folder.iterdir() if is_frame(p))

    def depth(self, index: int) -> np.ndarray:
        """A frame: [H, W] float32 metres, 0 invalid."""
        return self._read(self.frames[index])

    def truth(self, index: int) -> np.ndarray:
        """Exact depth of a frame of a set of kind ``truth``."""
        path = self.frames[index]
        return self._read(self.folder / self.info.truth / path.name) if self.info.truth else self._read(path)

    def _read(self, path: Path) -> np.ndarray:
        metres = read_depth(path, self.info.unit).metres
        return np.where(metres <= self.info.max_depth, metres, np.float32(0.0))

    def camera(self, index: int) -> Intrinsics | None:
        """Intrinsics of a frame, if they are known."""
        height, width = self.depth(index).shape
        values = self.info.intrinsics or intrinsics_beside(self.frames[index])
        return Intrinsics(width, height, *values) if values else None

    def pose(self, index: int) -> np.ndarray | None:
        """[4, 4] camera to world, if it was recorded."""
        name = self.frames[index].name.split(".")[0]
        path = self.folder / f"{name}.pose.txt"
        if not path.exists():
            return None
        try:
            pose = np.loadtxt(path)
        except ValueError:
            return None
        sound = pose.shape == (4, 4) and np.isfinite(pose).all() and abs(np.linalg.det(pose)) > 1e-6
        return pose if sound else None


def is_frame(path: Path) -> bool:
    """Whether a path is a frame by its name, and a file."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def holds_frames(folder: Path) -> bool:
    """Whether a folder is a set itself, and not a folder of sets."""
    return (folder / "set.yaml").exists() or any(is_frame(p) for p in folder.iterdir())


def open_set(folder: Path) -> DepthSet:
    """A folder as a set.

    Raises:
        SetError: if it is no folder, holds no frames, or its set.yaml is wrong.
    """
    if not folder.is_dir():
        raise SetError(f"{folder}: no such folder; give a folder of depth frames")
    info = KNOWN.get(folder.resolve().name, SetInfo())
    described = folder / "set.yaml"
    if described.exists():
        info = _described(described, info)
    found = DepthSet(folder.resolve(), info)
    if not found.frames:
        raise SetError(f"{folder}: no depth frames ({', '.join(SUFFIXES)}) in it")
    try:
        found.depth(0)
        if info.kind == "truth":
            found.truth(0)
    except DepthFileError as error:
        raise SetError(str(error)) from None
    return found


def _described(path: Path, info: SetInfo) -> SetInfo:
    known = {f.name for f in fields(SetInfo)}
    try:
        data = load_plain(path.read_text())
        if not isinstance(data, dict) or set(data) - known:
            raise ValueError(f"its keys are {', '.join(sorted(known))}")
        if "intrinsics" in data:
            data["intrinsics"] = tuple(float(value) for value in data["intrinsics"])
        return replace(info, **data)
    except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
        raise SetError(f"{path}: {' '.join(str(error).split())}") from None


def intrinsics_beside(frame: Path) -> tuple[float, float, float, float] | None:
    """fx, fy, cx, cy from the files that recording tools write: Open3D, ROS, plain 3x3 matrices.

    Raises:
        SetError: if such a file is there and cannot be understood.
    """
    folder = frame.parent
    readers: dict[Path, Callable[[str], np.ndarray]] = {
        folder / "camera.json": _open3d_matrix,
        folder / "camera_info.json": _ros_matrix,
        folder / f"{frame.stem}_intrinsics.txt": _text_matrix,
        folder / "cam.info.txt": lambda text: _text_matrix(text[text.index("Depth camera") :].partition("\n")[2]),
    }
    for path, read in readers.items():
        if path.exists():
            try:
                k = read(path.read_text())
                return float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])
            except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
                raise SetError(f"{path}: no intrinsics in it that can be read; mend it or take it away") from None
    return None


def _open3d_matrix(text: str) -> np.ndarray:
    return np.reshape(json.loads(text)["intrinsic_matrix"], (3, 3)).T  # by columns


def _ros_matrix(text: str) -> np.ndarray:
    data = json.loads(text)
    return np.reshape(data["K"] if "K" in data else data["k"], (3, 3))


def _text_matrix(text: str) -> np.ndarray:
    return np.reshape([float(value) for value in re.findall(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?", text)[:9]], (3, 3))
