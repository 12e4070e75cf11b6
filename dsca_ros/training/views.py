"""Training data for cameras: views of procedural scenes, measured anew by random sensors at every step.

The exact depth of a few thousand views is rendered once and kept on disk. What varies at every use
is cheap: the sensor, its noise, the crop, mirroring and the size of the world. Every batch is a
function of (seed, step) alone, so a resumed run sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.scenes import Scene
from dsca_ros.depth.sensors import IdealSensor, Sensor, StereoSensor, TimeOfFlightSensor
from dsca_ros.training.batch import Batch


@dataclass(frozen=True)
class ViewSettings:
    """What the pool of views holds."""

    count: int = 1500
    width: int = 160
    height: int = 120
    min_fov: float = 24.0
    max_fov: float = 75.0
    scale: int = 2
    first_seed: int = 0


class ViewPool:
    """Exact depth of ``count`` views at factors 1, 2, ... scale of the low resolution.

    Args:
        settings: what to render.
        cache: folder for the rendered views; a pool that is there already is not rendered again.
        progress: called with the number of views done so far.
    """

    def __init__(self, settings: ViewSettings, cache: Path, progress: Callable[[int], None] | None = None) -> None:
        self.settings = settings
        self.factors = [2**k for k in range(settings.scale.bit_length())]
        # The renderer is part of what the cache depends on.
        depth = Path(__file__).parent.parent / "depth"
        source = (depth / "scenes.py").read_bytes() + (depth / "camera.py").read_bytes()
        key = hashlib.sha256(json.dumps(asdict(settings)).encode() + source).hexdigest()[:16]
        folder = cache / f"views-{key}"
        if not folder.exists():
            # Aside, then renamed: two trainings may want the same views at once.
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=_made(cache)))
            self._render(partial, progress)
            try:
                partial.rename(folder)
            except OSError:  # the other one was first
                shutil.rmtree(partial)
        self.depth = [np.load(folder / f"x{factor}.npy", mmap_mode="r") for factor in self.factors]
        self.focal = np.load(folder / "focal.npy")

    def _render(self, folder: Path, progress: Callable[[int], None] | None) -> None:
        s = self.settings
        stores = [
            np.lib.format.open_memmap(
                folder / f"x{f}.npy", mode="w+", dtype=np.float32, shape=(s.count, s.height * f, s.width * f)
            )
            for f in self.factors
        ]
        focal = np.empty(s.count)
        for index in range(s.count):
            scene, camera, phase = self.view(index)
            focal[index] = camera.fx
            for factor, store in zip(self.factors, stores):
                store[index] = scene.render(camera.scaled(factor), phase)
            if progress:
                progress(index + 1)
        for store in stores:
            store.flush()
        np.save(folder / "focal.npy", focal)

    def view(self, index: int) -> tuple[Scene, Intrinsics, float]:
        """Scene, low-resolution camera and path phase of a view; three views share a scene."""
        s = self.settings
        rng = np.random.default_rng([s.first_seed, index, 0x71E])
        camera = Intrinsics.from_fov(s.width, s.height, float(rng.uniform(s.min_fov, s.max_fov)))
        return Scene.random(s.first_seed + index // 3), camera, float(rng.random())

    def camera(self, index: int) -> Intrinsics:
        """Low-resolution camera of a view."""
        s, focal = self.settings, float(self.focal[index])
        return Intrinsics(s.width, s.height, focal, focal, (s.width - 1) / 2, (s.height - 1) / 2)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def random_sensor(rng: np.random.Generator) -> Sensor:
    """A depth camera from the range that is sold: mostly stereo, some time of flight, few perfect."""
    draw = rng.random()
    if draw < 0.62:
        return StereoSensor.random(rng)
    return TimeOfFlightSensor.random(rng) if draw < 0.95 else IdealSensor()


def make_batch(pool: ViewPool, size: int, crop: int, seed: int, step: int) -> Batch:
    """The batch of one step: ``size`` crops of ``crop`` x ``crop`` low-resolution pixels."""
    rng = np.random.default_rng([seed, step, 0xBA7C])
    measured: list[np.ndarray] = []
    targets: list[list[np.ndarray]] = [[] for _ in pool.factors[1:]]
    for index in rng.integers(0, pool.settings.count, size):
        camera = pool.camera(index)
        world = np.float32(np.exp(rng.uniform(-0.5, 0.4)))  # the same room as a doll's house or a hall
        low = random_sensor(rng).measure(pool.depth[0][index] * world, camera, rng)
        top = int(rng.integers(0, camera.height - crop + 1))
        left = int(rng.integers(0, camera.width - crop + 1))
        # Mirroring swaps the side the second imager is on: both sides are sold.
        flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
        measured.append(low[top : top + crop, left : left + crop][:, flip])
        for store, target, factor in zip(pool.depth[1:], targets, pool.factors[1:]):
            rows = slice(top * factor, (top + crop) * factor)
            columns = slice(left * factor, (left + crop) * factor)
            target.append(store[index, rows, columns][:, flip] * world)
    return Batch(np.stack(measured)[:, None], [np.stack(t)[:, None] for t in targets])
