"""`dsca bench`: how long engines and points take, beside what the machine could do at most.

Every figure is a median over many runs with its spread, taken in one go with the machine's own peaks: a large matrix
product and a large copy. Machines are shared and noisy; ratios within one run hold where milliseconds do not.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.filters import smooth_noise
from dsca_ros.depth.resample import METHODS
from dsca_ros.depth.synthetic import DEFAULT_FOV, SyntheticStream
from dsca_ros.depth.units import like, to_metres, to_millimetres
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.factory import ENGINES, create_engine
from dsca_ros.engine.gpu import GpuError, find_driver
from dsca_ros.engine.zoo import DEPTH, ModelFile, is_twin, list_models

#: Runs before the measured ones.
WARM_UP_RUNS = 5
DEPTH_RANGE = (0.1, 10.0)
#: Of points: the share of an image without depth, and of about how many pixels a side the holes are.
HOLES = ((0.0, 12), (0.05, 12), (0.3, 12), (0.05, 1))
#: What is measured at most for one row, seconds.
LONGEST = 20.0
#: Measured where none are named: at x8 a large frame takes seconds on a CPU.
SCALES = (2, 4)


@dataclass(frozen=True)
class BenchRequest:
    """What to measure; an empty list is everything there is, of scales `SCALES`.

    Attributes:
        models, scales, precisions, engines: by name.
        sizes: width and height of the input.
        threads: of one inference on a CPU; 0 takes the number of cores.
        runs: measured runs of each row, fewer if they take long.
        peers: a folder of more models, all of which are measured beside.
    """

    models: list[str]
    scales: list[int]
    precisions: list[str]
    engines: list[str]
    sizes: list[tuple[int, int]]
    threads: int = 0
    runs: int = 50
    peers: Path | None = None

    def rows(self) -> list[tuple[str, ModelFile, tuple[int, int]]]:
        """Engine, model and size of every row.

        Engines that cannot run here, and torch for a graph without weights, are left out, unless asked for by name.

        Raises:
            EngineError: if nothing is left.
        """
        engines = self.engines or [kind.name for kind in ENGINES if kind.missing() is None]
        # A twin is as fast as its model.
        named = self.models
        files = [file for file in list_models() if (file.model in named if named else not is_twin(file.model))]
        if self.peers is not None:
            files += list_models(self.peers)
        rows = [
            (engine, file, size)
            for file in files
            for engine in engines
            for size in self.sizes
            if file.scale in (self.scales or SCALES)
            and (not self.precisions or file.precision in self.precisions)
            and (self.engines or engine != "torch" or file.weights.exists())
        ]
        if not rows:
            raise EngineError("nothing to measure; `dsca info` lists models, scales, precisions and engines")
        return rows


@dataclass(frozen=True)
class Spread:
    """Milliseconds: median, and the tenth and ninetieth percentile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        """Of measured seconds."""
        low, median, high = 1e3 * np.percentile(seconds, [10, 50, 90])
        return cls(round(float(median), 3), round(float(low), 3), round(float(high), 3))


def timed(work: Callable[[], Any], runs: int) -> list[float]:
    """Seconds of each of up to ``runs`` runs, at least three, after some that do not count."""
    started = time.monotonic()
    for _ in range(WARM_UP_RUNS):
        work()
        if time.monotonic() - started > LONGEST / 4:
            break
    seconds: list[float] = []
    started = time.monotonic()
    while len(seconds) < runs and (len(seconds) < 3 or time.monotonic() - started < LONGEST):
        before = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - before)
    return seconds


def machine() -> dict[str, Any]:
    """The processor, and what it does at most: GFLOP/s of a float32 matrix product, GB/s of a copy, by all cores."""
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 1536, 1536), np.float32)
    product = Spread.of(timed(lambda: a @ b, 15))
    source = rng.random(1 << 25, np.float32)
    target = np.empty_like(source)
    copy = Spread.of(timed(lambda: np.copyto(target, source), 15))
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gflop_per_s": round(2 * 1536**3 / product.low / 1e6, 1),
        # Read and written.
        "gb_per_s": round(2 * source.nbytes / copy.low / 1e6, 1),
        "gpu": _gpu(),
    }


def measure(request: BenchRequest, telling: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Measures every row.

    Args:
        request: what to measure.
        telling: told of each row before it is measured.

    Yields:
        ``model, scale, precision, engine, runs_on, size, ms, ms_p10, ms_p90, runs, gflop, memory_mb``; on TensorRT also
        ``up_ms, engine_ms, down_ms``. A row that cannot run has an ``error`` instead.
    """
    for engine, file, (width, height) in request.rows():
        row: dict[str, Any] = {
            "model": file.model,
            "scale": file.scale,
            "precision": file.precision,
            "engine": engine,
            "size": f"{width}x{height}",
        }
        telling(f"{file.name} {row['size']} on {engine}")
        try:
            row.update(_measure_one(engine, file, (height, width), request))
        except EngineError as error:
            row["error"] = str(error)
        yield row


def measure_peers(request: BenchRequest, telling: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """What else enlarges depth: the careful ways that the network is held against, and OpenCV's bicubic as it comes.

    For every scale and size of the request; rows like those of `measure`, the method as ``model``.
    """

    def opencv(depth: np.ndarray, scale: int) -> np.ndarray:
        return cv2.resize(depth, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)

    cv2.setNumThreads(request.threads)
    peers = [(name, "numpy", enlarge) for name, enlarge in METHODS.items()] + [("bicubic", "OpenCV", opencv)]
    for (name, engine, enlarge), scale, (width, height) in itertools.product(
        peers, sorted({file.scale for _, file, _ in request.rows()}), request.sizes
    ):
        telling(f"{name} x{scale} {width}x{height}")
        stream = SyntheticStream(Intrinsics.from_fov(width, height, DEFAULT_FOV), "stereo", 1)
        depth = stream.measured(0)
        spread = Spread.of(seconds := timed(partial(enlarge, depth, scale), request.runs))
        yield {
            **{"model": name, "scale": scale, "precision": "fp32", "engine": engine, "size": f"{width}x{height}"},
            **{"runs_on": f"{engine} (CPU)", "ms": spread.median, "ms_p10": spread.low, "ms_p90": spread.high},
            **{"runs": len(seconds), "gflop": None, "memory_mb": 0.0},
        }


def measure_points(request: BenchRequest, scale: int, telling: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Points of images ``scale`` times the size of the request's, with and without holes, in both codings.

    Yields:
        ``size, coding, holes_pct, hole_side_px, organised {ms, ms_p10, ms_p90}, valid_alone {…}, runs``.
    """
    for (width, height), (holes, side), dtype in itertools.product(request.sizes, HOLES, (np.uint16, np.float32)):
        camera = Intrinsics.from_fov(width, height, DEFAULT_FOV).scaled(scale)
        row: dict[str, Any] = {"size": f"{camera.width}x{camera.height}", "coding": np.dtype(dtype).name}
        row |= {"holes_pct": 100 * holes, "hole_side_px": side}
        telling(f"points of {row['size']}")
        rng = np.random.default_rng(1)
        shape = (camera.height, camera.width)
        blobs = smooth_noise(shape, side, rng)
        depth = like(to_metres(2.0 + 0.5 * smooth_noise(shape, 40, rng)), dtype)
        depth[blobs < np.quantile(blobs, holes)] = 0
        room = np.empty((depth.size, 3), np.float32)
        ways: dict[str, Callable[[], np.ndarray]] = {
            "organised": partial(camera.back_project, depth, room.reshape(*shape, 3)),
            "valid_alone": partial(camera.back_project_valid, depth, 1, partial(_first, room)),
        }
        for name, way in ways.items():
            spread = Spread.of(seconds := timed(way, request.runs))
            row[name] = {"ms": spread.median, "ms_p10": spread.low, "ms_p90": spread.high}
        yield {**row, "runs": len(seconds)}


def _measure_one(engine: str, file: ModelFile, shape: tuple[int, int], request: BenchRequest) -> dict[str, Any]:
    image = _image(file, shape)
    before = _resident_mb()
    running = create_engine(
        engine, file.model, file.scale, file.precision, request.threads, domain=None, folder=file.path.parent
    )
    try:
        seconds = timed(lambda: running.infer(image, DEPTH_RANGE), request.runs)
        memory = _resident_mb() - before
        spread = Spread.of(seconds)
        figures = {
            "runs_on": running.description,
            "ms": spread.median,
            "ms_p10": spread.low,
            "ms_p90": spread.high,
            "runs": len(seconds),
            "gflop": _gflop(file, shape),
            "memory_mb": round(memory, 1),
        }
        parts = getattr(running, "time_parts", None)
        if parts is not None:
            figures.update(parts(shape, image.dtype, request.runs))
        return figures
    finally:
        running.close()


def _first(room: np.ndarray, count: int) -> np.ndarray:
    return room[:count]


def _image(file: ModelFile, shape: tuple[int, int]) -> np.ndarray:
    """What a camera sends, or a map of levels."""
    height, width = shape
    stream = SyntheticStream(Intrinsics.from_fov(width, height, DEFAULT_FOV), "stereo", 1)
    depth = stream.measured(0)
    if file.domain == DEPTH:
        return to_millimetres(depth)
    return np.clip(depth / depth.max() * 255.0, 0, 255).astype(np.uint8)


def _gflop(file: ModelFile, shape: tuple[int, int]) -> float | None:
    """Stated, or counted where torch is there."""
    if file.flop_per_pixel is not None:
        return round(file.flop_per_pixel * shape[0] * shape[1] / 1e9, 3)
    try:
        from dsca_ros.engine.cost import network_cost
        from dsca_ros.engine.export import ExportError
    except ImportError:
        return None
    try:
        return round(network_cost(file, shape)[1], 3)
    except ExportError:
        return None


def _gpu() -> str | None:
    try:
        return find_driver().gpus[0].name
    except GpuError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _resident_mb() -> float:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 1e6
    except OSError:
        return 0.0


#: Of each part: what tells its rows apart, and what of them is compared, keys within keys after a point.
COMPARED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "engines": (("model", "scale", "precision", "engine", "size"), ("ms",)),
    "points": (("size", "coding", "holes_pct", "hole_side_px"), ("organised.ms", "valid_alone.ms")),
    "node": (
        ("model", "scale", "engine", "size"),
        ("peak_hz", "at_camera_rate.latency_ms.p50", "first_frame_s", "import_s"),
    ),
    "replay": (("model", "scale", "engine", "size"), ("hz",)),
    "growth": (("size", "cameras"), ("latency_ms.p50", "memory_mb")),
}


@dataclass(frozen=True)
class Ratio:
    """A figure over that of before: of a part and a row of it, by what tells that apart."""

    part: str
    row: dict[str, Any]
    figure: str
    ratio: float


def compared(new: dict[str, Any], old: dict[str, Any]) -> list[Ratio]:
    """What rows that both runs have are over what they were.

    Raises:
        AttributeError, LookupError, TypeError: if either is no ``--json`` of `dsca bench`.
    """
    found = []
    for part, (names, keys) in COMPARED.items():
        before = {tuple(row[name] for name in names): row for row in _rows(old, part)}
        for row in _rows(new, part):
            was = before.get(tuple(row[name] for name in names), {})
            for key in keys:
                value, earlier = _figure(row, key), _figure(was, key)
                if value and earlier:
                    found.append(Ratio(part, {name: row[name] for name in names}, key, value / earlier))
    return found


def _rows(figures: dict[str, Any], part: str) -> list[dict[str, Any]]:
    rows = figures.get(part, [])
    # One camera of the least size is in both.
    return rows["pixels"] + rows["cameras"][1:] if part == "growth" and rows else rows


def _figure(row: dict[str, Any], key: str) -> float | None:
    """A number in a row; None in one that could not be measured."""
    for name in key.split("."):
        value = row.get(name, {})
        row = value if isinstance(value, dict) else {}
    return None if isinstance(value, dict) else float(value)
