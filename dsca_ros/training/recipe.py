"""A training recipe: everything that decides what a model becomes, in one YAML file."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from dsca_ros.depth.scenes import KINDS
from dsca_ros.network.camera_graph import INPUT_CHANNELS
from dsca_ros.network.dsca import RESIDUAL, WEIGHTS, DSCAConfig
from dsca_ros.network.level_graph import LEVEL_CHANNELS
from dsca_ros.plain_yaml import load_plain
from dsca_ros.reason import reason_of
from dsca_ros.training.loss import DepthWeights
from dsca_ros.training.views import CAMERA_SHARES, CAMERAS, SCENES, FrameShares


class RecipeError(ValueError):
    """A recipe that cannot be read; the text says what is wrong and where."""


def at_least(least: float, **values: float) -> None:
    """Holds numbers of a recipe to what makes sense.

    Raises:
        ValueError: naming the first that does not.
    """
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} must be at least {least:g}, not {value!r}")


@dataclass(frozen=True)
class ViewData:
    """``kind: views``: synthetic rooms seen by models of cameras; see `views` and `loss.DepthWeights`.

    ``cameras`` are shares of the kinds of cameras. ``frames`` say how the frames of a kind come to be, `views.USUAL`
    of kinds not named, and ``fully_shrunk`` how many of the shrunk ones are shrunk by as much as the network enlarges.
    """

    views: int = 1500
    crop: int = 64
    scenes: dict[str, float] = field(default_factory=lambda: dict(SCENES))
    cameras: dict[str, float] = field(default_factory=lambda: dict(CAMERA_SHARES))
    frames: dict[str, FrameShares] = field(default_factory=dict)
    fully_shrunk: float = 0.5
    loss: DepthWeights = field(default_factory=DepthWeights)

    def __post_init__(self) -> None:
        at_least(1, views=self.views, crop=self.crop)
        at_least(0, **{f"loss: {name}": value for name, value in asdict(self.loss).items()})
        for name, given, kinds in (("scenes", self.scenes, list(KINDS)), ("cameras", self.cameras, list(CAMERAS))):
            if set(given) - set(kinds) or not all(isinstance(share, int | float) for share in given.values()):
                raise ValueError(f"{name} must map {', '.join(kinds)} to numbers, not {given!r}")
            at_least(0, **{f"{name}: the share of {kind}": share for kind, share in given.items()})
            at_least(1e-6, **{f"the sum of {name}": sum(given.values())})
        at_least(0, fully_shrunk=self.fully_shrunk)
        for camera, shares in self.frames.items():
            at_least(0, **{f"frames: {camera}: {way}": share for way, share in asdict(shares).items()})
            at_least(1e-6, **{f"the sum of frames: {camera}": sum(asdict(shares).values())})


@dataclass(frozen=True)
class MapData:
    """``kind: maps``: maps of 0-255 under the benchmark's degradation; see `maps` and `loss.supervise_levels`."""

    shares: dict[str, float] = field(default_factory=lambda: {"procedural": 1.0})
    size: int = 128
    noisy: bool = False
    candidates: int = 2
    fill_unknown: bool = False
    squared_weight: float = 0.1
    squared_from: float = 0.6
    stage_weight: float = 0.5

    def __post_init__(self) -> None:
        at_least(1, candidates=self.candidates)
        at_least(8, size=self.size)
        at_least(0, squared_weight=self.squared_weight, squared_from=self.squared_from, stage_weight=self.stage_weight)
        if not self.shares or not all(isinstance(share, int | float) for share in self.shares.values()):
            raise ValueError(f"shares must map names of sources to numbers, not {self.shares!r}")
        at_least(0, **{f"the share of {name}": share for name, share in self.shares.items()})
        at_least(1e-6, **{"the sum of shares": sum(self.shares.values())})


DATA_KINDS: dict[str, type[ViewData] | type[MapData]] = {"views": ViewData, "maps": MapData}


@dataclass(frozen=True)
class Recipe:
    """See config/train/ for commented examples.

    ``weight_decay`` is of Muon's kernels: without it those of a long training grow, and at last run away.
    ``start`` names weights to begin with; the first ``frozen_stages`` of the network stay as they are there.
    """

    model: str
    scale: int
    network: DSCAConfig
    steps: int
    data: ViewData | MapData
    batch: int = 6
    optimiser: str = "adam"
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warm_up: int = 200
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 1
    validate_every: int = 1000
    start: str = ""
    frozen_stages: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.model, re.ASCII):
            # Files are named after it: a checkpoint from elsewhere must not decide on their folder.
            raise ValueError(f"model is {self.model!r:.80}; letters, digits, '.', '_' and '-' make a name")
        at_least(1, steps=self.steps, batch=self.batch, validate_every=self.validate_every)
        at_least(0, frozen_stages=self.frozen_stages)
        if self.frozen_stages >= len(self.network.factors) or (self.frozen_stages and not self.start):
            stages = len(self.network.factors)
            raise ValueError(
                f"frozen_stages is {self.frozen_stages}: needs a start, and one of {stages} stages to train"
            )
        at_least(
            0,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warm_up=self.warm_up,
            ema=self.ema,
            seed=self.seed,
        )
        at_least(1e-9, clip=self.clip)
        if isinstance(self.data, ViewData) and self.data.crop % self.network.multiple:
            raise ValueError(f"crop must be a multiple of unshuffle {self.network.multiple}, not {self.data.crop}")

    @property
    def name(self) -> str:
        """Name of the trained model with its scale, as files carry it."""
        return f"{self.model}-x{self.scale}"

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Reads a recipe.

        Raises:
            RecipeError: with one line naming the file and what to change.
        """
        try:
            data = load_plain(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            if not isinstance(error, FileNotFoundError):
                raise RecipeError(f"{path}: cannot be read ({error})") from None
            raise RecipeError(f"{path}: no such recipe; see config/train/ for examples") from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: not valid YAML: {reason_of(error)}") from None
        return cls.from_dict(data, str(path))

    @classmethod
    def from_dict(cls, data: Any, source: str = "recipe") -> Recipe:
        """A recipe of plain values, as read from YAML or from a checkpoint."""
        data = _checked(data, cls, source, required={"model", "scale", "network", "steps", "data"})
        if data.get("optimiser", "adam") not in ("adam", "muon"):
            raise RecipeError(f"{source}: optimiser must be adam or muon, not {data['optimiser']!r}")
        chosen = data["data"]
        if not isinstance(chosen, dict) or chosen.get("kind") not in list(DATA_KINDS):
            raise RecipeError(f"{source}: data must be a mapping with kind: {' or '.join(DATA_KINDS)}")
        kind = DATA_KINDS[chosen["kind"]]
        values = _checked({k: v for k, v in chosen.items() if k != "kind"}, kind, f"{source}: data")
        if not isinstance(data["network"], dict):
            raise RecipeError(f"{source}: network must be a mapping of keys to values")
        network: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data["network"].items()}
        network["scale"] = data["scale"]
        network["input_channels"] = INPUT_CHANNELS if kind is ViewData else LEVEL_CHANNELS
        network["head"] = WEIGHTS if kind is ViewData else RESIDUAL
        if "loss" in values:
            values["loss"] = DepthWeights(**_checked(values["loss"], DepthWeights, f"{source}: data: loss"))
        if "frames" in values:
            values["frames"] = _frames(values["frames"], f"{source}: data: frames")
        try:
            return cls(**{**data, "data": kind(**values), "network": DSCAConfig(**network)})
        except (TypeError, ValueError) as error:
            raise RecipeError(f"{source}: {error}") from None

    def plain(self) -> dict[str, Any]:
        """The recipe as plain values, as `from_dict` takes them."""
        data = asdict(self)
        data["network"] = {k: list(v) if isinstance(v, tuple) else v for k, v in data["network"].items()}
        kind = next(name for name, kind in DATA_KINDS.items() if isinstance(self.data, kind))
        data["data"] = {"kind": kind, **data["data"]}
        return data


def _frames(data: dict[str, Any], source: str) -> dict[str, FrameShares]:
    unknown = set(data) - set(CAMERAS)
    if unknown:
        raise RecipeError(f"{source}: unknown camera {min(unknown, key=str)!r}; there are {', '.join(CAMERAS)}")
    ways = {way.name for way in fields(FrameShares)}
    return {
        camera: FrameShares(**_checked(shares, FrameShares, f"{source}: {camera}", required=ways))
        for camera, shares in data.items()
    }


def _checked(data: Any, cls: type, source: str, required: frozenset[str] | set[str] = frozenset()) -> dict[str, Any]:
    """A mapping whose keys and plain values fit a dataclass."""
    if not isinstance(data, dict):
        raise RecipeError(f"{source}: expected a mapping of keys to values")
    known = {f.name for f in fields(cls)}
    unknown, missing = set(data) - known, required - set(data)
    if unknown or missing:
        what = f"unknown key {str(min(unknown, key=str))!r}" if unknown else f"missing key {min(missing)!r}"
        raise RecipeError(f"{source}: {what}; the keys are {', '.join(sorted(known))}")
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    for f in fields(cls):
        kind = kinds.get(str(f.type), (dict,) if str(f.type).startswith("dict") else ())
        value = data.get(f.name)
        if kind and f.name in data and (not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind)):
            # A likely one: YAML reads 2e-3, without a point, as text.
            raise RecipeError(f"{source}: {f.name} must be {f.type}, not {value!r}")
    return dict(data)
