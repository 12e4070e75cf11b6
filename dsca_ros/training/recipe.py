"""A training recipe: everything that decides what a model becomes, in one YAML file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from dsca_ros.network.camera_graph import INPUT_CHANNELS
from dsca_ros.network.dsca import DSCAConfig


class RecipeError(ValueError):
    """A recipe that cannot be read; the text says what is wrong and where."""


@dataclass(frozen=True)
class Recipe:
    """See config/train/ for commented examples."""

    model: str
    scale: int
    network: DSCAConfig
    steps: int
    batch: int = 6
    crop: int = 80
    learning_rate: float = 2e-3
    warm_up: int = 200
    clip: float = 1.0
    ema: float = 0.999
    surface_weight: float = 0.5
    surface_weight_end: float = 1.25
    squared_weight: float = 0.2
    seed: int = 1
    views: int = 1500
    validate_every: int = 1000

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
            data = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            if not isinstance(error, FileNotFoundError):
                raise RecipeError(f"{path}: cannot be read ({error})") from None
            raise RecipeError(f"{path}: no such recipe; see config/train/ for examples") from None
        except yaml.YAMLError as error:
            raise RecipeError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
        return cls.from_dict(data, str(path))

    @classmethod
    def from_dict(cls, data: Any, source: str = "recipe") -> Recipe:
        """A recipe of plain values, as read from YAML or from a checkpoint."""
        if not isinstance(data, dict):
            raise RecipeError(f"{source}: expected a mapping of keys to values")
        data = dict(data)
        known = {f.name for f in fields(cls)}
        unknown, missing = set(data) - known, {"model", "scale", "network", "steps"} - set(data)
        if unknown or missing:
            what = f"unknown key {min(unknown)!r}" if unknown else f"missing key {min(missing)!r}"
            raise RecipeError(f"{source}: {what}; the keys are {', '.join(sorted(known))}")
        kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
        for f in fields(cls):
            kind = kinds.get(str(f.type))
            if kind and f.name in data and not isinstance(data[f.name], kind):
                # A likely one: YAML reads 2e-3, without a point, as text.
                raise RecipeError(f"{source}: {f.name} must be {f.type}, not {data[f.name]!r}")
        if not isinstance(data["network"], dict):
            raise RecipeError(f"{source}: network must be a mapping of keys to values")
        network: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in dict(data.pop("network")).items()
        }
        network.pop("scale", None), network.pop("input_channels", None)
        try:
            config = DSCAConfig(scale=data["scale"], input_channels=INPUT_CHANNELS, **network)
            return cls(network=config, **data)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"{source}: {error}") from None
