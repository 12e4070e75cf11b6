"""A camera that does not exist: what a sensor would see along a path through a synthetic room."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.scenes import Scene
from dsca_ros.depth.sensors import find_sensor

#: Scenes from here on are held out: for validation, evaluation and the demo, never for training.
HELD_OUT_SEED = 1_000_000
#: The demo's room: chairs, poles, plants and a lamp.
DEFAULT_SEED = HELD_OUT_SEED + 30
#: Field of view of the synthetic camera, degrees: between a RealSense's and a Kinect's.
DEFAULT_FOV = 70.0
#: Frames of one lap of the path.
DEFAULT_FRAMES = 120


@dataclass(frozen=True)
class SyntheticStream:
    """Frames of a moving synthetic camera, and the exact depth behind each of them.

    The same settings give the same frames in every process, so a monitor knows the truth of a
    frame it was sent.

    Attributes:
        camera: the low-resolution camera.
        sensor: name of a model in `SENSORS`.
        frames: frames of one lap; frame ``frames`` is frame 0 again.
        seed: of the room and of the sensor's noise.
    """

    camera: Intrinsics
    sensor: str = "stereo"
    frames: int = DEFAULT_FRAMES
    seed: int = DEFAULT_SEED
    scene: Scene = field(init=False)

    def __post_init__(self) -> None:
        find_sensor(self.sensor)
        object.__setattr__(self, "scene", Scene.random(self.seed))

    def phase(self, index: int) -> float:
        """Phase of the path at frame ``index``."""
        return (index % self.frames) / self.frames

    def measured(self, index: int) -> np.ndarray:
        """What the sensor gives for frame ``index``: [H, W] float32 metres, 0 invalid."""
        model = find_sensor(self.sensor)
        rng = np.random.default_rng([self.seed, index % self.frames])
        return model.measure(self.scene.render(self.camera, self.phase(index)), self.camera, rng)

    def truth(self, index: int, scale: int = 1) -> np.ndarray:
        """Exact depth of frame ``index`` at ``scale`` times the resolution, float32 metres."""
        return self.scene.render(self.camera.scaled(scale), self.phase(index))
