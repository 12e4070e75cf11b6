"""A model on synthetic scenes that no model was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from dsca_ros.depth import units
from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import decimate
from dsca_ros.depth.synthetic import DEFAULT_FOV, HELD_OUT_SEED, SyntheticStream
from dsca_ros.evaluation.compare import Sample

#: Scenes before this one served training's validation and the choice of its recipe.
FIRST_SEED = HELD_OUT_SEED + 2000
#: Phase of the path each scene is looked at from, as a frame number of four a lap.
FRAME, FRAMES = 1, 4


def held_out_samples(
    upsample: Callable[[np.ndarray], np.ndarray],
    scale: int,
    sensor: str,
    scenes: int,
    width: int = 320,
    height: int = 240,
    decimated: bool = False,
) -> Iterator[Sample]:
    """One frame of each of ``scenes`` held-out rooms.

    Args:
        upsample: [H, W] uint16 millimetres to [scale * H, scale * W] of the same, as an `Upsampler`.
        scale: output size over input size.
        sensor: name of a model in `SENSORS`.
        scenes, width, height, decimated: see `held_out_frames`.
    """
    for measured, truth in held_out_frames(scale, sensor, scenes, width, height, decimated):
        yield Sample(measured, units.to_metres(upsample(units.to_millimetres(measured))), truth)


def held_out_frames(
    scale: int, sensor: str, scenes: int, width: int = 320, height: int = 240, decimated: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames of ``height`` x ``width`` as measured, and exact at ``scale`` times the size; one of each room.

    With ``decimated`` they are measured at the larger size, and shrunk as librealsense does it.
    """
    camera = Intrinsics.from_fov(width, height, DEFAULT_FOV)
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        stream = SyntheticStream(camera.scaled(scale) if decimated else camera, sensor, FRAMES, seed)
        measured = stream.measured(FRAME)
        if decimated:
            yield decimate(measured, scale), stream.truth(FRAME)
        else:
            yield measured, stream.truth(FRAME, scale)
