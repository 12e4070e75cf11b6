"""The paper's benchmark: ten disparity maps shrunk, restored by every method, and scored.

The protocol, recovered from the paper's Bicubic rows: the map is cut to a multiple of the scale,
shrunk by MATLAB's bicubic with antialiasing and rounded; the result is rounded too; no border is
left out. PE counts pixels off by five levels or more. With noise (sigma 0.02 * 255 on the shrunk map)
it counts from ten on, and figures are means over several seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dsca_ros.depth.imresize import imresize, to_uint8
from dsca_ros.depth.levels import score_levels, shrink_map
from dsca_ros.engine.base import Engine
from dsca_ros.engine.factory import create_engine
from dsca_ros.engine.zoo import LEVELS, ModelFile, list_models
from dsca_ros.evaluation.published import NAMES, Case

#: Models trained on the benchmark's noise carry this in their names, and are measured under it.
NOISY = "-noisy"
BICUBIC = "Bicubic"
SEEDS = 5
#: Of the paper's tables.
SCALES = (2, 4, 8)
#: Depth models see level v as the inverse depth v / 100 m: a disparity, in the domain they work in.
LEVELS_PER_INVERSE_METRE = 100.0
#: All levels but 0 lie within it.
DEPTH_RANGE = (0.1, 200.0)


class BenchmarkError(ValueError):
    """A benchmark that cannot be run; the text says what to do."""


@dataclass(frozen=True)
class Method:
    """One way to enlarge a map.

    Attributes:
        name: as tables show it.
        scale: output over input size.
        noisy: whether it is measured on noisy maps.
        enlarge: [h, w] uint8 levels to [scale * h, scale * w] uint8 levels.
    """

    name: str
    scale: int
    noisy: bool
    enlarge: Callable[[np.ndarray], np.ndarray]

    @property
    def case(self) -> Case:
        """What it is measured on."""
        return self.scale, self.noisy


@dataclass(frozen=True)
class Result:
    """One map by one method; the mean over the seeds where there is noise."""

    model: str
    scale: int
    noisy: bool
    image: str
    psnr_db: float
    pe_pct: float
    seconds: float
    #: PSNR and PE of every seed.
    seeds: tuple[tuple[float, float], ...] = ()


def load_maps(folder: Path) -> dict[str, np.ndarray]:
    """The ten maps, [H, W] uint8 by name.

    Raises:
        BenchmarkError: if one is missing, is not an 8-bit map, or is smaller than the largest scale.
    """
    if not folder.is_dir():
        raise BenchmarkError(f"{folder}: no such folder; --data names the folder with art.png to venus.png")
    missing = [name for name in NAMES if not (folder / f"{name}.png").is_file()]
    if missing:
        raise BenchmarkError(f"{folder}: no {missing[0]}.png; the ten maps are {', '.join(NAMES)}")
    maps = {}
    for name in NAMES:
        image = cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_UNCHANGED)
        if image is None or image.dtype != np.uint8 or image.ndim != 2:
            what = "not an image" if image is None else f"{image.dtype} of shape {image.shape}"
            raise BenchmarkError(f"{folder / name}.png: {what}; expected an 8-bit map of one channel")
        if min(image.shape) < max(SCALES):
            raise BenchmarkError(f"{folder / name}.png: {image.shape[1]}x{image.shape[0]} pixels are no map to shrink")
        maps[name] = image
    return maps


def shrink(exact: np.ndarray, scale: int, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
    """A map cut to a multiple of the scale, and its low resolution with the noise of a seed, both uint8."""
    exact = exact[: exact.shape[0] // scale * scale, : exact.shape[1] // scale * scale]
    return exact, shrink_map(exact, scale, None if seed is None else np.random.default_rng(seed))


def bicubic(scale: int, noisy: bool) -> Method:
    """The baseline every table starts with."""
    return Method(BICUBIC, scale, noisy, lambda low: to_uint8(imresize(low, scale)))


def model_method(model: ModelFile, engine: str, threads: int, ensemble: bool = False) -> tuple[Method, Engine]:
    """A model on an engine as a method; the caller closes the engine.

    Args:
        model: of any domain.
        engine, threads: see `create_engine`.
        ensemble: average the results of the eight ways to lay the map, at eight times the cost.
    """
    running = create_engine(engine, model.model, model.scale, model.precision, threads, domain=None)

    def once(levels: np.ndarray) -> np.ndarray:
        if model.domain == LEVELS:
            return running.infer(levels.astype(np.float32), DEPTH_RANGE)
        depth = LEVELS_PER_INVERSE_METRE / np.maximum(levels.astype(np.float32), 1.0)
        return LEVELS_PER_INVERSE_METRE / running.infer(depth, DEPTH_RANGE)

    def enlarge(low: np.ndarray) -> np.ndarray:
        return to_uint8(self_ensemble(once, low) if ensemble else once(low))

    name = model.model + (" + ensemble" if ensemble else "")
    return Method(name, *case_of(model), enlarge), running


def self_ensemble(enlarge: Callable[[np.ndarray], np.ndarray], low: np.ndarray) -> np.ndarray:
    """Mean of the results of the eight ways to lay a map, each laid back."""
    total: np.ndarray | float = 0.0
    for transposed in (False, True):
        for turns in range(4):
            laid = np.rot90(low.T if transposed else low, turns)
            back = np.rot90(enlarge(np.ascontiguousarray(laid)), -turns)
            total = total + (back.T if transposed else back).astype(np.float64)
    return np.asarray(total) / 8.0


def benchmark_models(models: list[str], scales: list[int], precision: str) -> list[ModelFile]:
    """The exported graphs to measure: those named, or all that take levels; at the scales named, or at all.

    Raises:
        BenchmarkError: if there is none of a name or a scale.
    """
    chosen = [
        file
        for file in list_models()
        if file.precision == precision
        and file.scale in (scales or SCALES)
        and (file.model in models if models else file.domain == LEVELS)
    ]
    absent = set(models) - {file.model for file in chosen}
    if absent or not chosen:
        what = f"no model {min(absent)!r}" if absent else "no model of the benchmark's domain"
        raise BenchmarkError(
            f"{what} at scale {', '.join(map(str, scales or SCALES))} in {precision}; `dsca info` lists what there is"
        )
    unserved = set(scales) - {file.scale for file in chosen}
    if unserved:
        raise BenchmarkError(f"no model to measure at scale {min(unserved)} in {precision}; `dsca info` lists all")
    return chosen


def case_of(model: ModelFile) -> Case:
    """What a model is measured on: models trained on the benchmark's noise under noise, others without."""
    return model.scale, NOISY in model.model


def measure(method: Method, maps: dict[str, np.ndarray], seeds: int = SEEDS) -> Iterator[Result]:
    """Scores a method on every map."""
    for name, image in maps.items():
        figures = []
        for seed in range(seeds) if method.noisy else [None]:
            exact, low = shrink(image, method.scale, seed)
            started = time.perf_counter()
            result = method.enlarge(low)
            seconds = time.perf_counter() - started
            score = score_levels(result, exact, method.noisy)
            figures.append((score.psnr_db, score.pe_pct, seconds))
        psnr, pe, seconds = (float(mean) for mean in np.mean(figures, axis=0))
        each = tuple((f[0], f[1]) for f in figures)
        yield Result(method.name, method.scale, method.noisy, name, psnr, pe, seconds, each)


def averages(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Means over the maps, a row for each method and case; under noise with the deviation between seeds."""
    groups: dict[tuple[str, int, bool], list[Result]] = {}
    for result in results:
        groups.setdefault((result.model, result.scale, result.noisy), []).append(result)
    rows = []
    for (model, scale, noisy), scored in groups.items():
        by_seed = np.mean([r.seeds for r in scored], axis=0)  # [seeds, 2]
        psnr, pe = np.mean(by_seed, axis=0)
        row = {"model": model, "scale": scale, "noisy": noisy, "psnr_db": _round(psnr), "pe_pct": _round(pe)}
        if noisy:
            psnr_deviation, pe_deviation = np.std(by_seed, axis=0)
            row |= {"seeds": len(by_seed), "psnr_db_std": _round(psnr_deviation), "pe_pct_std": _round(pe_deviation)}
        rows.append(row)
    return rows


def plain(result: Result) -> dict[str, Any]:
    """A result for JSON."""
    data = asdict(result)
    del data["seeds"]
    return {key: _round(value) if isinstance(value, float) else value for key, value in data.items()}


def _round(value: float) -> float:
    return round(float(value), 4)
