"""The models that ship: names, scales and precisions to files.

``models/manifest.yaml`` lists them, each file with its hash, so that a truncated or foreign file is
found when it is opened and not by the depth it makes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dsca_ros import share
from dsca_ros.engine.base import EngineError, ModelFileError
from dsca_ros.plain_yaml import load_plain

MANIFEST = "manifest.yaml"
PRECISIONS = ("fp32", "fp16")
#: What a model takes: a camera's depth, or the benchmark's maps of 0-255.
DEPTH, LEVELS = "depth", "levels"
#: Ends the name of a model's twin: the same network, with weights for frames that were decimated.
DECIMATED = "-decimated"
#: Names of models and of their files. Engines are kept under them: a name with a folder in it would lead elsewhere,
#: and a longer one fits no file system.
PLAIN_NAME = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
#: What reading a manifest raises that is none; too large a number is among it.
_UNREADABLE = (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True)
class ModelFile:
    """One exported graph."""

    model: str
    scale: int
    precision: str
    path: Path
    sha256: str
    domain: str = DEPTH
    #: Operations for each pixel of the input, where the network is none of this package's, which are counted here.
    flop_per_pixel: float | None = None

    @property
    def weights(self) -> Path:
        """The network's weights, for engines that build the graph themselves."""
        return self.path.with_name(f"{self.model}-x{self.scale}.safetensors")

    @property
    def name(self) -> str:
        """Model and scale as people read them: ``dsca-nano x2 (fp32)``."""
        return f"{self.model} x{self.scale} ({self.precision})"

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            ModelFileError: if the file is missing, or is not the one the manifest lists.
        """
        try:
            data = self.path.read_bytes()
        except OSError:
            raise ModelFileError(f"model file {self.path} is missing: install dsca_ros again") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ModelFileError(
                f"model file {self.path} is damaged (its hash is not the manifest's, "
                f"{len(data)} bytes): install dsca_ros again, or export it again with `dsca export`"
            )
        return data


def models_folder() -> Path:
    """Where the models are: $DSCA_MODELS, or where the package keeps them.

    Raises:
        EngineError: if there is no manifest.
    """
    override = os.environ.get("DSCA_MODELS")
    if override and not (Path(override) / MANIFEST).is_file():
        raise EngineError(f"DSCA_MODELS is {override}, and there is no {MANIFEST} in it")
    manifest = Path(override) / MANIFEST if override else share.find(f"models/{MANIFEST}")
    if manifest is None:
        raise EngineError(f"models/{MANIFEST} is nowhere beside the package: install dsca_ros again")
    return manifest.parent


def list_models(folder: Path | None = None) -> list[ModelFile]:
    """Every exported graph in the manifest."""
    folder = folder or models_folder()
    try:
        manifest = load_plain((folder / MANIFEST).read_text()) or {}
        return [
            ModelFile(
                _plain(model),
                int(scale),
                _plain(precision),
                folder / _plain(entry["file"]),
                entry["sha256"],
                domain,
                cost,
            )
            for model, about in manifest.get("models", {}).items()
            for domain, cost in [(_plain(about["domain"]), _number(about.get("flop_per_pixel")))]
            for scale, precisions in about["scales"].items()
            for precision, entry in precisions.items()
        ]
    except _UNREADABLE as error:
        text = " ".join(str(error).split())
        raise EngineError(f"cannot read {folder / MANIFEST} ({text}): install dsca_ros again") from None


def _plain(name: Any) -> str:
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
        # Nothing else is shown: a few lines of YAML are a list that takes hours to write out.
        shown = repr(name[:80]) if isinstance(name, str) else f"a {type(name).__name__}"
        raise ValueError(f"{shown} is no name; letters, digits, '.', '_' and '-' make one")
    return name


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def is_twin(model: str) -> bool:
    """Whether a model is another's twin for decimated frames."""
    return model.endswith(DECIMATED)


def twin_of(file: ModelFile, files: Iterable[ModelFile]) -> ModelFile | None:
    """The twin of a model for decimated frames among ``files``, of its scale and precision; None without one."""
    wanted = (file.model + DECIMATED, file.scale, file.precision, file.domain)
    return next((other for other in files if (other.model, other.scale, other.precision, other.domain) == wanted), None)


def find_model(model: str, scale: int, precision: str = "fp32", folder: Path | None = None) -> ModelFile:
    """The exported graph of a model's name, scale and precision; None for the folder is `models_folder`.

    Raises:
        EngineError: naming what there is, if there is no such model.
    """
    available = list_models(folder)
    for entry in available:
        if (entry.model, entry.scale, entry.precision) == (model, scale, precision):
            return entry
    there = ", ".join(sorted({f"{e.model} x{e.scale} {e.precision}" for e in available}))
    raise EngineError(f"there is no model {model!r} at scale {scale} in {precision}; there are: {there}")
