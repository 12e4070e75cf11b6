"""From a training checkpoint to what ships: weights, ONNX graphs and their entries in the manifest.

Needs torch; running what comes out does not.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dsca_ros.aside import written_aside
from dsca_ros.engine.zoo import DEPTH, LEVELS, MANIFEST, PRECISIONS
from dsca_ros.network.camera_graph import CameraGraph
from dsca_ros.network.dsca import DSCA
from dsca_ros.network.level_graph import LevelGraph
from dsca_ros.plain_yaml import load_plain
from dsca_ros.reason import reason_of
from dsca_ros.training.recipe import MapData, Recipe, RecipeError
from dsca_ros.training.train import load_checkpoint

OPSET = 17


class ExportError(ValueError):
    """Something that cannot be exported; the text says what to do."""


def save_weights(
    checkpoint: Path,
    folder: Path,
    manifest: Path | None = None,
    mean_with: Sequence[Path] = (),
    scales: Sequence[int] = (),
) -> list[Path]:
    """The averaged weights of a checkpoint that validated best, as float16 safetensors, the recipe in their metadata.

    A network for cameras is as good at every smaller scale: its first stages are written as models of their own.

    Args:
        checkpoint: of `dsca train`.
        folder: where to.
        manifest: of the models that the names must agree with; None is the folder's.
        mean_with: checkpoints of other trainings of the same network, from the same start: the mean of all weights is
            written, under the name and the recipe of the first.
        scales: those of the network to write; none: all it serves.
    """
    whole, best = _best(checkpoint)
    _check_name(manifest or folder / MANIFEST, whole)
    about = {"step": str(best["step"])}
    weights, others = best["weights"], []
    for path in mean_with:
        recipe, other = _best(path)
        if (recipe.network, domain_of(recipe)) != (whole.network, domain_of(whole)):
            raise ExportError(f"{path} is of another network than {checkpoint}: there is no mean of them")
        others.append({"recipe": recipe.plain(), "step": other["step"]})
        # Of all so far, each counting alike.
        weights = {key: mean.lerp(other["weights"][key], 1.0 / (len(others) + 1)) for key, mean in weights.items()}
    if others:
        about["mean_with"] = json.dumps(others)
    served = {recipe.scale: recipe for recipe in _smaller_scales(whole)}
    if not set(scales) <= set(served):
        have = " and ".join(f"x{scale}" for scale in served)
        raise ExportError(f"{checkpoint} is a network of {have}: there is no x{min(set(scales) - set(served))} in it")
    written = []
    for recipe in [served[scale] for scale in served if not scales or scale in scales]:
        keys = DSCA(recipe.network).state_dict()
        tensors = {key: weights[key].half().contiguous() for key in keys}
        path = folder / f"{recipe.name}.safetensors"
        save_file(tensors, path, {"recipe": json.dumps(recipe.plain()), **about})
        path.chmod(0o644)  # safetensors writes for the owner alone; other users install it too
        written.append(path)
    return written


def _best(checkpoint: Path) -> tuple[Recipe, dict[str, Any]]:
    """A checkpoint's recipe, and what validated best in it: its ``weights`` and the ``step``."""
    try:
        state = load_checkpoint(checkpoint)
    except RecipeError as error:
        raise ExportError(str(error)) from None
    if not state["best"]:
        raise ExportError(f"{checkpoint}: no validation yet; train on with --resume")
    return Recipe.from_dict(state["recipe"]), state["best"]


def _smaller_scales(recipe: Recipe) -> list[Recipe]:
    """A recipe, and before it that of every smaller scale its first stages serve."""
    if domain_of(recipe) == LEVELS or not recipe.network.multi_stage:
        return [recipe]
    scales = [2**k for k in range(1, recipe.scale.bit_length() - 1)]
    smaller = [
        replace(recipe, scale=scale, network=replace(recipe.network, scale=scale), frozen_stages=0) for scale in scales
    ]
    return [*smaller, recipe]


def load_weights(path: Path) -> tuple[DSCA, Recipe]:
    """A network with the weights that ship, in float32, and the recipe it was trained by."""
    try:
        with safe_open(path, "pt") as file:
            recipe = Recipe.from_dict(json.loads(file.metadata()["recipe"]), str(path))
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (no dict)
        # By shapes alone first: what the recipe says may be larger than any memory.
        with torch.device("meta"):
            shapes = {key: tensor.shape for key, tensor in DSCA(recipe.network).state_dict().items()}
        if shapes != {key: tensor.shape for key, tensor in state.items()}:
            raise ValueError("its tensors are not those of the network in its recipe")
        network = DSCA(recipe.network)
        network.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ExportError(f"{path}: not weights of this package ({reason_of(error)})") from None
    return network.eval(), recipe


def export_onnx(network: DSCA, path: Path, domain: str = DEPTH, half: bool = False) -> None:
    """Writes the whole algorithm as one ONNX graph of dynamic height and width.

    For depth: inputs ``depth`` [1, 1, height, width] float32 metres, 0 or NaN invalid, and
    ``depth_range`` [2] float32 metres; output ``result`` [1, 1, s * height, s * width] float32 metres,
    0 invalid. For levels: ``levels`` to ``result``, float32 within 0-255.

    Args:
        network: with the ``input_channels`` of its domain.
        path: where to.
        domain: `DEPTH` or `LEVELS`.
        half: the network in float16; everything around it stays in float32.
    """
    export_graph(make_graph(network, domain, half), path, domain)


def export_graph(graph: torch.nn.Module, path: Path, domain: str = DEPTH) -> None:
    """Writes a whole algorithm, of whatever network; see `export_onnx`."""
    if domain == LEVELS:
        inputs = {"levels": torch.linspace(0.0, 255.0, 40 * 56).reshape(1, 1, 40, 56)}
    else:
        depth = torch.linspace(0.5, 4.0, 40 * 56).reshape(1, 1, 40, 56)
        depth[..., 10:14, 20:30] = 0.0
        inputs = {"depth": depth, "depth_range": torch.tensor([0.1, 10.0])}
    image = next(iter(inputs))
    axes = {image: {2: "height", 3: "width"}, "result": {2: "result_height", 3: "result_width"}}
    with warnings.catch_warnings():
        # The tracing exporter is the one that keeps sizes dynamic through the padding arithmetic.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["result"],
            dynamic_axes=axes,
        )


def make_graph(network: DSCA, domain: str, half: bool = False) -> torch.nn.Module:
    """The whole algorithm around a network."""
    return LevelGraph(network, half) if domain == LEVELS else CameraGraph(network, half)


def domain_of(recipe: Recipe) -> str:
    """What a recipe's network takes: a camera's depth, or levels of 0-255."""
    return LEVELS if isinstance(recipe.data, MapData) else DEPTH


def export_model(source: Path, folder: Path, mean_with: Sequence[Path] = (), scales: Sequence[int] = ()) -> list[Path]:
    """Exports a checkpoint (.pt) or shipped weights (.safetensors) in every precision.

    Args:
        source: what to export.
        folder: the models folder; its manifest gets or renews the model's entries.
        mean_with, scales: see `save_weights`; of a checkpoint.

    Returns:
        The files written.

    Raises:
        ExportError: if the source is not there, or is neither of the two, or the folder cannot be written to; what
            was in it still is.
    """
    for path in (source, *mean_with):
        if not path.is_file():
            raise ExportError(f"{path}: no such file; give a checkpoint.pt of `dsca train`, or a .safetensors")
        if mean_with and path.suffix == ".safetensors":
            raise ExportError(f"{path}: a mean is of checkpoints of `dsca train`, and weights that ship are rounded")
    if scales and source.suffix == ".safetensors":
        raise ExportError(f"{source} is of one scale: leave --scale out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Aside first: a full disk must not cost the models that are there.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as aside:
            return _export(source, folder, Path(aside), mean_with, scales)
    except (OSError, SafetensorError) as error:
        reason = reason_of(error)
        raise ExportError(f"cannot write to {folder} ({reason}); make room, or name another --folder") from None


def _export(source: Path, folder: Path, aside: Path, mean_with: Sequence[Path], scales: Sequence[int]) -> list[Path]:
    manifest, made = folder / MANIFEST, source.suffix != ".safetensors"
    all_weights = save_weights(source, aside, manifest, mean_with, scales) if made else [source]
    written = list(all_weights)
    exported: list[tuple[Recipe, dict[str, dict[str, str]]]] = []
    for weights in all_weights:
        entries: dict[str, dict[str, str]] = {}
        for precision in PRECISIONS:
            network, recipe = load_weights(weights)
            _check_name(manifest, recipe)
            path = aside / f"{recipe.name}-{precision}.onnx"
            export_onnx(network, path, domain_of(recipe), half=precision == "fp16")
            entries[precision] = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            written.append(path)
        exported.append((recipe, entries))
    placed = [path.replace(folder / path.name) if path.parent == aside else path for path in written]
    for recipe, entries in exported:
        _update_manifest(manifest, recipe, entries)
    return placed


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = (load_plain(path.read_text()) if path.exists() else None) or {"models": {}}
        if not all(isinstance(about["scales"], dict) for about in manifest["models"].values()):
            raise TypeError
    except (UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        raise ExportError(f"{path} is damaged: mend it, or export to another --folder") from None
    return dict(manifest)


def _check_name(path: Path, recipe: Recipe) -> None:
    """All scales of a model take the same: a name that is taken by another domain is refused."""
    there = _read_manifest(path)["models"].get(recipe.model, {}).get("domain", domain_of(recipe))
    if there != domain_of(recipe):
        raise ExportError(
            f"{path.parent} has a {recipe.model} for {there}, and this one is for {domain_of(recipe)}: "
            "give it another name, or export to another --folder"
        )


def _update_manifest(path: Path, recipe: Recipe, entries: dict[str, dict[str, str]]) -> None:
    manifest = _read_manifest(path)
    model = manifest["models"].setdefault(recipe.model, {"domain": domain_of(recipe), "scales": {}})
    model["scales"][recipe.scale] = entries
    text = "# Exported graphs and their hashes; written by `dsca export`.\n" + yaml.safe_dump(manifest)
    with written_aside(path) as partial:
        partial.write_text(text)
