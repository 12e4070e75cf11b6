"""Training data for the benchmark: maps of 0-255, shrunk as the benchmark shrinks its own.

Maps come from the folders of recorded and rendered depth a recipe names, and from
`disparity_scene` without end. Every batch is a function of (seed, step) alone, so a resumed run
sees what an undisturbed one would have seen.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from dsca_ros.aside import written_aside
from dsca_ros.depth.files import READ_ERRORS
from dsca_ros.depth.imresize import imresize, to_uint8
from dsca_ros.depth.levels import NOISE
from dsca_ros.reason import reason_of
from dsca_ros.training.batch import Batch
from dsca_ros.training.disparity_scenes import disparity_scene

PROCEDURAL = "procedural"
#: Kept for validation: no patch of these scenes is trained on.
HELD_OUT = ("middlebury2006_67", "baby2", "flowerpots", "midd2", "middlebury2001_61")
#: Of those, what validation looks at: (folder, file).
VALIDATED = (
    ("middlebury", "middlebury2006_67"),
    ("middlebury", "middlebury2001_61"),
    ("middlebury2006_third", "flowerpots_disp1"),
    ("middlebury2006_third", "midd2_disp1"),
    ("middlebury2006_third", "baby2_disp5"),
)
VALIDATION_SEED = 0x5EED
#: Share of the patches that stand for the border of a map.
BORDER_SHARE = 0.2
#: A second view of a scene of the benchmark (Venus), which lies among the training maps.
IN_BENCHMARK = ("middlebury2001_64",)


class MapError(ValueError):
    """Training maps that cannot be used; the text says what to do."""


@dataclass(frozen=True)
class MapFolder:
    """How a folder of maps is read.

    Attributes:
        step: a stored number times this is the value; floats are divided by it and rounded.
        depth: values are depth, and are brought to 0-255 anew for every patch; else they are
            disparity on 0-255 already.
        as_is: for depth: the share of patches that show depth itself; the others show its inverse.
    """

    step: float
    depth: bool
    as_is: float = 0.0


FOLDERS = {
    "middlebury": MapFolder(1.0, depth=False),
    "middlebury2006_third": MapFolder(1.0, depth=False),
    "sintel": MapFolder(1 / 64, depth=True, as_is=0.5),
    "livingroom": MapFolder(1.0, depth=True),
}


def read_map(path: Path, folder: MapFolder) -> np.ndarray:
    """A map in its folder's steps, uint8 or uint16; 0 is unknown."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                image = file[file.files[0]]
        else:
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except READ_ERRORS as error:
        reason = reason_of(error)
        raise MapError(f"{path}: cannot be read ({reason})") from None
    if image is None or image.ndim != 2 or image.size == 0:
        raise MapError(f"{path}: not a map of one channel; expected a PNG or npz of depth or disparity")
    if image.dtype.kind == "f":
        image = np.floor(np.nan_to_num(image) / folder.step + 0.5)
    if not folder.depth and image.max() > 255:
        raise MapError(f"{path}: not an 8-bit map (values up to {image.max():g})")
    return np.clip(image, 0, 65535).astype(np.uint16 if folder.depth else np.uint8)


def load_folder(data: Path, name: str, cache: Path) -> dict[str, np.ndarray]:
    """The maps of ``data/name`` by file stem, decoded once and kept in ``cache``."""
    paths = sorted(p for p in (data / name).glob("*") if p.suffix in (".png", ".npz"))
    if not paths:
        raise MapError(f"{data / name}: no maps (PNG or npz) there; --data names the folder that holds {name}/")
    key = hashlib.sha256(json.dumps([(p.name, p.stat().st_size) for p in paths]).encode()).hexdigest()[:16]
    cached = cache / f"maps-{name}-{key}.npz"
    if not cached.exists():
        maps = {path.stem: read_map(path, FOLDERS[name]) for path in paths}
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Two trainings may want the same maps at once.
            with written_aside(cached) as partial, partial.open("wb") as file:
                np.savez(file, **maps)  # type: ignore[arg-type]
        except OSError as error:
            raise MapError(f"cannot write {cached} ({error.strerror}); make room, or name another --folder") from None
    try:
        with np.load(cached) as stored:
            return {stem: stored[stem] for stem in stored.files}
    except READ_ERRORS:
        raise MapError(f"{cached} is damaged: remove it, and it is made anew") from None


def held_out(stem: str) -> bool:
    """Whether a map is kept for validation."""
    return stem.startswith(HELD_OUT)


@dataclass(frozen=True)
class PatchSettings:
    """What a batch looks like.

    Attributes:
        scale: 2, 4 or 8.
        size: side of a patch in output pixels, a multiple of the scale.
        shares: how often a patch comes from each folder of `FOLDERS` or from `PROCEDURAL`.
        noisy: the benchmark's noise is added to what the network sees.
        candidates: of so many patches drawn the one with most edges is taken: most of a map is
            smooth, and soon learnt.
        fill_unknown: disparity that is not known is filled in before patches are taken, and errors there do not
            count; else no patch has a pixel of it. Nearly every step in depth has some beside it, so that without
            this few are trained on.
    """

    scale: int
    size: int
    shares: dict[str, float]
    noisy: bool = False
    candidates: int = 2
    fill_unknown: bool = False


class PatchSource:
    """Batches of patches of the training maps."""

    def __init__(self, settings: PatchSettings, data: Path | None, cache: Path) -> None:
        self.settings = settings
        self.names = sorted(settings.shares)
        total = sum(settings.shares.values())
        self.shares = [settings.shares[name] / total for name in self.names]
        # A patch comes with a margin of two low-resolution pixels around it.
        self.side = settings.size + 4 * settings.scale
        self.maps: dict[str, list[np.ndarray]] = {}
        #: Of every map: where errors count.
        self.counted: dict[str, list[np.ndarray]] = {}
        unknown = set(self.names) - {*FOLDERS, PROCEDURAL}
        if unknown:
            raise MapError(f"no source of maps named {min(unknown)!r}; there are: {', '.join([*FOLDERS, PROCEDURAL])}")
        for name in self.names:
            if name == PROCEDURAL:
                continue
            if data is None:
                raise MapError(f"this recipe trains on maps of {name!r}: give the folder that holds it with --data")
            maps = load_folder(data, name, cache)
            kept = [m for stem, m in maps.items() if not held_out(stem) and stem not in IN_BENCHMARK]
            kept = [m for m in kept if min(m.shape) >= self.side]
            self.counted[name] = [m > 0 for m in kept]
            fills = settings.fill_unknown and not FOLDERS[name].depth
            self.maps[name] = [fill_unknown(m) for m in kept] if fills else kept
            if not self.maps[name]:
                raise MapError(f"{data / name}: no map of {self.side} pixels a side to train on; lower the size")

    def batch(self, count: int, seed: int, step: int) -> Batch:
        """``count`` patches: what the network sees and the targets of every stage, levels of 0-255."""
        s = self.settings
        rng = np.random.default_rng([seed, step, 0xD15])
        patches, counted = (np.stack(planes) for planes in zip(*(self.patch(rng) for _ in range(count))))
        batch = degrade(patches, s.scale, 2 * s.scale, NOISE if s.noisy else 0.0, rng, BORDER_SHARE)
        return replace(batch, counted=counted_targets(counted, s.scale, 2 * s.scale)) if s.fill_unknown else batch

    def patch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A patch with its margin, uint8, and where in it errors count, bool."""
        name = self.names[rng.choice(len(self.names), p=self.shares)]
        candidates = []
        for _ in range(30):
            if name == PROCEDURAL:
                break  # made of edges as it is
            index = rng.integers(len(self.maps[name]))
            window = random_window(rng, self.maps[name][index].shape, self.side)
            crop = self.maps[name][index][window]
            if crop.all():
                candidates.append((to_levels(rng, crop, FOLDERS[name]), self.counted[name][index][window]))
                if len(candidates) == self.settings.candidates:
                    break
        if not candidates:  # or thirty crops with unknown pixels in a row
            candidates.append((disparity_scene(rng, self.side), np.ones((self.side, self.side), bool)))
        patch, counted = random_flip(rng, *max(candidates, key=lambda candidate: edge_share(candidate[0])))
        return patch, counted


def random_window(rng: np.random.Generator, shape: tuple[int, ...], side: int) -> tuple[slice, slice]:
    """Where a crop of a map of at least ``side`` pixels lies: of every pixel, or of every second to fourth."""
    most = min(4, min(shape) // side)
    factor = int(rng.choice([1, 2, 3, 4][:most], p=normalised([0.55, 0.25, 0.12, 0.08][:most])))
    top, left = (int(rng.integers(n - (side - 1) * factor)) for n in shape)
    reach = (side - 1) * factor + 1
    return slice(top, top + reach, factor), slice(left, left + reach, factor)


def normalised(shares: list[float]) -> np.ndarray:
    """Shares that sum to one."""
    return np.asarray(shares) / sum(shares)


def to_levels(rng: np.random.Generator, crop: np.ndarray, folder: MapFolder) -> np.ndarray:
    """A crop in a folder's steps to uint8 levels."""
    if not folder.depth:
        chance = rng.random()
        if chance < 0.1:  # few levels, far apart, as some of Middlebury's first maps have
            step = int(rng.choice([2, 4, 8, 16]))
            return np.minimum(crop // step * step, 255).astype(np.uint8)
        if chance < 0.25:
            gain = rng.uniform(0.5, 1.5)
            return to_uint8(gain * crop + rng.uniform(0, max(0.0, 255 - gain * crop.max())))
        return crop
    value = crop.astype(np.float32)
    if rng.random() >= folder.as_is:
        value = 1.0 / value
    low, high = np.percentile(value[::4, ::4], (2, 98))
    gain = np.exp(rng.uniform(np.log(25.0), np.log(235.0)))
    return to_uint8(rng.uniform(5, 250 - gain) + gain * (value - low) / max(high - low, 1e-9))


def edge_share(patch: np.ndarray) -> float:
    """Share of pixels with a step of three levels or more to the next."""
    value = patch.astype(np.int16)
    return float((np.abs(np.diff(value, axis=1)) > 2).mean() + (np.abs(np.diff(value, axis=0)) > 2).mean())


def random_flip(rng: np.random.Generator, *planes: np.ndarray) -> tuple[np.ndarray, ...]:
    """One of the eight ways to lay a square, for all planes the same."""
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    turned = (np.rot90(plane, turns) for plane in planes)
    return tuple(plane.T if mirrored else plane for plane in turned)


def degrade(
    patches: np.ndarray, scale: int, margin: int, noise: float, rng: np.random.Generator, border_share: float = 0.0
) -> Batch:
    """The benchmark's degradation, and what every stage should put out.

    Args:
        patches: [B, n, n] uint8, with ``margin`` pixels (a multiple of the scale) on every side that
            are seen by the kernel and then cut off.
        scale: 2, 4 or 8.
        noise: standard deviation in levels, added to the low resolution before it is rounded.
        border_share: share of the patches shrunk as if they were whole maps, mirrored at their borders.
    """
    exact = patches.astype(np.float64)
    inner = exact[:, margin:-margin, margin:-margin]
    at_border = (rng.random(len(patches)) < border_share)[:, None, None]

    def shrunk(factor: int) -> np.ndarray:
        kept = slice(margin // factor, (patches.shape[-1] - margin) // factor)
        within = imresize(exact, Fraction(1, factor))[:, kept, kept]
        return np.where(at_border, imresize(inner, Fraction(1, factor)), within) if border_share else within

    low = shrunk(scale)
    if noise:
        low = to_uint8(low) + rng.normal(0.0, noise, low.shape)
    factors = [scale // 2**k for k in range(1, scale.bit_length() - 1)]
    targets = [*(shrunk(factor) for factor in factors), inner]
    return Batch(_maps(to_uint8(low)), [_maps(target) for target in targets])


def counted_targets(counted: np.ndarray, scale: int, margin: int) -> list[np.ndarray]:
    """For every stage 1 where all pixels of the patch under one of its target count, else 0; see `degrade`.

    Args:
        counted: [B, n, n] bool.
    """
    inner = counted[:, margin:-margin, margin:-margin]
    count, side, _ = inner.shape
    factors = [scale // 2**k for k in range(1, scale.bit_length())]
    return [_maps(np.all(inner.reshape(count, side // f, f, side // f, f), axis=(2, 4))) for f in factors]


def _maps(images: np.ndarray) -> np.ndarray:
    """[B, n, n] to [B, 1, n, n] float32."""
    return np.ascontiguousarray(images[:, None], np.float32)


def validation_maps(data: Path | None, cache: Path, scale: int) -> list[np.ndarray]:
    """Maps no patch is taken from, uint8, cut to a multiple of ``scale``, no pixel unknown.

    Of each kind of Middlebury map; without ``data``, procedural ones.
    """
    if data is None:
        maps = [disparity_scene(np.random.default_rng([VALIDATION_SEED, k]), 320) for k in range(4)]
    else:
        maps = []
        for name, stem in VALIDATED:
            there = load_folder(data, name, cache)
            if stem not in there:
                raise MapError(f"{data / name}: no map {stem}, which validation looks at")
            maps.append(fill_unknown(there[stem]))
    return [m[: m.shape[0] // scale * scale, : m.shape[1] // scale * scale] for m in maps]


def fill_unknown(image: np.ndarray) -> np.ndarray:
    """Fills pixels of 0 with the farther (smaller) of the two known values beside them in their row.

    What is unknown to a stereo pair is mostly background that one camera could not see. Rows without
    any value take the row above them, or the first one below.
    """
    filled = image.copy()
    known_rows = np.flatnonzero(image.any(axis=1))
    if not known_rows.size:
        raise MapError("a map without a known pixel")
    for row in known_rows:
        line = filled[row]
        known, unknown = np.flatnonzero(line), np.flatnonzero(line == 0)
        after = np.searchsorted(known, unknown)
        left, right = known[np.maximum(after - 1, 0)], known[np.minimum(after, known.size - 1)]
        line[unknown] = np.minimum(line[left], line[right])
    above = np.maximum.accumulate(np.where(image.any(axis=1), np.arange(len(image)), -1))
    return filled[np.where(above >= 0, above, known_rows[0])]
