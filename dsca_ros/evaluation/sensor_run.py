"""`dsca sensors`: what recorded frames tell about their camera, beside the same of its model in `SENSORS`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.files import DepthFileError
from dsca_ros.depth.scenes import Scene
from dsca_ros.depth.sensor_fit import LEAST_WINDOWS, NoisePoint, SensorFit, fit_sensor, noise_at
from dsca_ros.depth.sensors import SENSORS, find_sensor
from dsca_ros.depth.synthetic import HELD_OUT_SEED
from dsca_ros.evaluation.fidelity_run import open_sets
from dsca_ros.evaluation.folders import make_folder
from dsca_ros.evaluation.recordings import DepthSet, SetError

#: The model that stands for a set's camera, by the name of its folder.
MODELS = {
    "realsense_d4xx": "stereo",
    "realsense_planes": "stereo",
    "kinect_v1": "kinect_v1",
    "azure_kinect": "tof",
    "realsense_f200": "realsense_f200",
    "iphone_lidar": "phone_lidar",
}
#: Rooms from this one on are measured on.
FIRST_SEED = HELD_OUT_SEED + 3000
#: Field of view taken where a set does not tell its camera's, degrees.
ASSUMED_FOV = 65.0
#: Walls are nearer and farther by this share of their depth from side to side, and from top to bottom.
SLANT = 0.06
#: Where on the path a room is looked at from.
PHASE = 0.25


@dataclass(frozen=True)
class SensorSettings:
    """What to measure and how; see `dsca sensors --help`."""

    model: str = ""
    frames: int = 5
    pictures: Path | None = None


def run_sensors(names: list[str], settings: SensorSettings, console: Console) -> dict[str, Any]:
    """Measures sets and the models of their cameras, and draws where asked to.

    Returns:
        ``sets[]``, a row for each set, see `measure_set`.

    Raises:
        SetError: if a set is not there or cannot be read.
        ValueError: if there is no such model.
    """
    if settings.model:
        find_sensor(settings.model)
    opened = open_sets(names)
    sets = [found for found in opened if isinstance(found, DepthSet)]
    if len(sets) < len(opened):
        raise SetError("sensors are measured on recorded frames: give folders of them alone")
    make_folder(settings.pictures)
    rows = [
        measure_set(depth_set, settings.model or MODELS.get(depth_set.folder.name, ""), settings.frames)
        for depth_set in track(sets, "measuring", console=console, transient=True)
    ]
    figures = {"sets": rows}
    if settings.pictures is not None:
        from dsca_ros.evaluation.sensor_pictures import draw_sensors

        draw_sensors(figures, settings.pictures / "fit.png")
    return figures


def measure_set(depth_set: DepthSet, model: str, frames: int) -> dict[str, Any]:
    """One set's row.

    Returns:
        ``set``, ``model`` or None, ``frames``, ``recorded`` and ``simulated`` (None without a model) as
        `SensorFit.plain` gives them, each with ``noise_mm`` at the depth ``noise_at_m``, and ``note``.

    Raises:
        SetError: if a frame cannot be read.
    """
    chosen = np.unique(np.linspace(0, len(depth_set.frames) - 1, frames).round().astype(int))
    try:
        seen = [depth_set.depth(int(index)) for index in chosen]
        camera = depth_set.camera(int(chosen[0]))
    except DepthFileError as error:
        raise SetError(str(error)) from None
    recorded = fit_sensor(seen)
    row: dict[str, Any] = {"set": depth_set.name, "model": model or None, "frames": len(seen)}
    simulated = None
    if model:
        camera = camera or Intrinsics.from_fov(seen[0].shape[1], seen[0].shape[0], ASSUMED_FOV)
        simulated = fit_sensor(simulate(model, seen, camera, frames), walls(model, recorded.noise, camera))
    row["noise_at_m"] = compared_at(recorded, simulated)
    row["recorded"] = _figures(recorded, row["noise_at_m"])
    row["simulated"] = _figures(simulated, row["noise_at_m"]) if simulated else None
    notes = [] if model else ["no model of this camera"]
    if recorded.windows < LEAST_WINDOWS:
        notes.append("too few smooth surfaces to tell the noise")
    row["note"] = "; ".join(notes)
    return row


def simulate(model: str, seen: list[np.ndarray], camera: Intrinsics, rooms: int) -> list[np.ndarray]:
    """Synthetic rooms as a model sees them, each scaled to the median depth of one of the frames ``seen``."""
    result = []
    for k in range(rooms):
        like = seen[k % len(seen)]
        exact = Scene.random(FIRST_SEED + k).render(camera, PHASE)
        if (like > 0).any():
            exact *= np.median(like[like > 0]) / np.median(exact)
        result.append(SENSORS[model].measure(exact, camera, np.random.default_rng([FIRST_SEED + k, 0x5E])))
    return result


def walls(model: str, noise: list[NoisePoint], camera: Intrinsics) -> list[np.ndarray]:
    """Bare, slightly slanted walls at the depths of ``noise``, as a model sees them.

    A room that is scaled to a camera's short range has relief on most of its surfaces; a wall has none.
    """
    x, y = np.linspace(-SLANT, SLANT, camera.width), np.linspace(-SLANT, SLANT, camera.height)[:, None]
    slant = ((1.0 + x) * (1.0 + y)).astype(np.float32)
    return [
        SENSORS[model].measure(np.float32(point.depth) / slant, camera, np.random.default_rng([FIRST_SEED, k]))
        for k, point in enumerate(noise)
    ]


def compared_at(recorded: SensorFit, simulated: SensorFit | None) -> float | None:
    """The depth, metres, with most recorded windows where the model's noise is known, too."""
    known = [p for p in recorded.noise if simulated is None or noise_at(simulated.noise, p.depth) is not None]
    return round(max(known, key=lambda point: point.windows).depth, 3) if known else None


def _figures(fit: SensorFit, depth: float | None) -> dict[str, Any]:
    sigma = None if depth is None else noise_at(fit.noise, depth)
    return {"noise_mm": None if sigma is None else round(1e3 * sigma, 3), **fit.plain()}
