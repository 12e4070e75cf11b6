"""A video of depth beside its result, coloured, with the time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dsca_ros.depth import units
from dsca_ros.replay.errors import ReplayError

#: Sides of a half, pixels; larger images are made smaller.
MAX_WIDTH, MAX_HEIGHT = 960, 960
FRAMES_PER_SECOND = 30.0
#: The colours' ends are these shares of the first frame's depth, and stay so: else they would flicker.
NEAREST, FARTHEST = 0.02, 0.98


class Preview:
    """Writes the video; the first camera's frames alone.

    Args:
        path: ends in ``.mp4``.
        title: stands above.
    """

    def __init__(self, path: Path, title: str) -> None:
        self._path, self._title = path, Path(title).name
        self._partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self._video: cv2.VideoWriter | None = None
        self._size, self._ends = (0, 0), (0.3, 6.0)
        self._topic = ""

    def add(self, topic: str, depth: np.ndarray, result: np.ndarray, time: int) -> None:
        """Adds a frame.

        Args:
            topic: of the depth; others than the first are left out.
            depth: [H, W] of either coding.
            result: [s H, s W] of the same.
            time: since the bag's start, ns.
        """
        self._topic = self._topic or topic
        if topic != self._topic:
            return
        if self._video is None:
            height, width = result.shape
            shrink = min(1.0, MAX_WIDTH / width, MAX_HEIGHT / height)
            metres = units.to_metres(depth)
            if metres.any():
                nearest, farthest = np.quantile(metres[metres > 0], (NEAREST, FARTHEST))
                self._ends = 0.9 * float(nearest), 1.1 * float(farthest)
            # Video codecs want even sides.
            self._size = (2 * round(width * shrink / 2), 2 * round(height * shrink / 2))
            whole = 2 * self._size[0], self._size[1]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._video = cv2.VideoWriter(str(self._partial), cv2.VideoWriter.fourcc(*"mp4v"), FRAMES_PER_SECOND, whole)
            if not self._video.isOpened():
                raise ReplayError(f"{self._path} cannot be written: OpenCV cannot make an mp4 there")
        halves = [
            cv2.resize(coloured(depth, *self._ends), self._size, interpolation=cv2.INTER_NEAREST),
            cv2.resize(coloured(result, *self._ends), self._size, interpolation=cv2.INTER_AREA),
        ]
        picture = np.hstack(halves)
        text = f"{self._title}  {time / 1e9:.2f} s"
        for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(picture, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, thickness, cv2.LINE_AA)
        self._video.write(picture)

    def close(self, whole: bool) -> None:
        """Ends the video, and gives it its name where it is ``whole``."""
        if self._video is None:
            return
        self._video.release()
        self._video = None
        if whole:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)


def coloured(depth: np.ndarray, nearest: float, farthest: float) -> np.ndarray:
    """[H, W, 3] uint8 BGR: red at the nearest, blue at the farthest, metres; black where invalid."""
    metres = units.to_metres(depth)
    with np.errstate(divide="ignore"):
        # As inverse depth, in which near things differ as much as they look.
        share = (1.0 / metres - 1.0 / farthest) / (1.0 / nearest - 1.0 / farthest)
    colours = cv2.applyColorMap((255 * np.clip(share, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)
    colours[metres == 0] = 0
    return colours
