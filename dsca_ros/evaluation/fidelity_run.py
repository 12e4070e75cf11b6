"""`dsca evaluate --fidelity`: sets × models × scales, with progress and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dsca_ros.depth.files import DepthFileError
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.zoo import DEPTH, MANIFEST, ModelFile, is_twin, list_models, twin_of
from dsca_ros.evaluation.fidelity import Network, chosen, decimated, recorded_rows, truth_rows
from dsca_ros.evaluation.folders import make_folder
from dsca_ros.evaluation.held_out import held_out_frames
from dsca_ros.evaluation.recordings import DepthSet, SetError, holds_frames, open_set
from dsca_ros.upsampler import Upsampler

#: Stands for rooms of our own through every sensor model, where exact depth is known.
SYNTHETIC = "synthetic"
SENSORS = ("stereo", "kinect_v1", "tof")
#: The networks take what lies within: from a centimetre on, for the world of a film may be small. Sets leave out what
#: is too far for their camera.
DEPTH_RANGE = (0.01, 20.0)
#: Measured where none are named.
SCALES = (2, 4)


@dataclass(frozen=True)
class FidelitySettings:
    """What to measure and how; see `dsca evaluate --help`."""

    models: list[str]
    scales: list[int]
    frames: int = 8
    engine: str = "auto"
    precision: str = "fp32"
    threads: int = 0
    pictures: Path | None = None
    peers: Path | None = None
    #: Decimated frames go to a model's twin for them, where there is one.
    twins: bool = True


def open_sets(names: list[str]) -> list[DepthSet | str]:
    """The sets of the command line: folders of frames, folders of such folders, `SYNTHETIC`.

    Raises:
        SetError: for the first that is none.
    """
    sets: list[DepthSet | str] = []
    for name in names:
        folder = Path(name)
        if name == SYNTHETIC:
            sets += [f"{SYNTHETIC}-{sensor}" for sensor in SENSORS]
            continue
        inner = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        if inner and not holds_frames(folder):
            sets += [open_set(p) for p in inner]
        else:
            sets.append(open_set(folder))
    return told_apart(sets)


def told_apart(sets: list[DepthSet | str]) -> list[DepthSet | str]:
    """Sets whose folders have one name get their parents' names too: rows and pictures go by name."""
    names = [name_of(s) for s in sets]
    labelled = [
        replace(s, label=f"{s.folder.parent.name}/{s.folder.name}")
        if isinstance(s, DepthSet) and names.count(s.name) > 1
        else s
        for s in sets
    ]
    names = [name_of(s) for s in labelled]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SetError(f"two sets are named {twice}, and rows go by name: give one of them, or rename a folder")
    return labelled


def name_of(depth_set: DepthSet | str) -> str:
    """A set's name in the tables."""
    return depth_set if isinstance(depth_set, str) else depth_set.name


def run_fidelity(names: list[str], settings: FidelitySettings, console: Console) -> tuple[dict[str, Any], set[str]]:
    """Measures, and draws where asked to.

    Returns:
        ``sets[]``, a row for each set, method and scale (see `truth_rows` and `recorded_rows`), ``twins``, the
        models that decimated frames were given to, and what was measured with: ``frames`` of a set at most, ``engine``
        and ``precision``; and the names of the networks among the methods: peers are none of them.

    Raises:
        SetError, EngineError: if a set or a model is not there.
    """
    sets = open_sets(names)
    make_folder(settings.pictures)
    for depth_set in sets:
        if isinstance(depth_set, DepthSet):
            check_frames(depth_set, settings.frames)
    files = _usable(list_models(), settings)
    # A twin is measured with its model, and by itself where it is named.
    models = [file for file in files if (file.model in settings.models if settings.models else not is_twin(file.model))]
    absent = set(settings.models) - {file.model for file in models}
    if absent or not models:
        what = f"no model {min(absent)!r}" if absent else "no model for depth"
        scales = ", ".join(map(str, settings.scales or SCALES))
        raise SetError(f"{what} at scale {scales}; `dsca info` lists what there is")
    unserved = set(settings.scales) - {file.scale for file in models}
    if unserved:
        raise SetError(f"no model to measure at scale {min(unserved)}; `dsca info` lists what there is")
    peers = _usable(_peers(settings.peers), settings) if settings.peers is not None else []
    rows: list[dict[str, Any]] = []
    twins: dict[str, str] = {}
    measured = models + peers
    factors = sorted({file.scale for file in measured})
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(sets) * len(factors))
        for scale in factors:
            with ExitStack() as opened:
                networks: dict[str, Network] = {}
                for model in (file for file in measured if file.scale == scale):
                    twin = twin_of(model, files) if settings.twins else None
                    upsample = opened.enter_context(_opened(model, settings))
                    restore = opened.enter_context(_opened(twin, settings)) if twin else upsample
                    networks[model.model] = Network(upsample, restore)
                    if twin:
                        twins[model.model] = twin.model
                for depth_set in sets:
                    progress.update(task, description=escape(f"×{scale} on {name_of(depth_set)}"))
                    rows += set_rows(depth_set, settings.frames, networks, scale)
                    if settings.pictures is not None and isinstance(depth_set, DepthSet):
                        _draw(depth_set, networks, scale, settings.pictures)
                    progress.advance(task)
    figures = {"frames": settings.frames, "engine": settings.engine, "precision": settings.precision}
    return {**figures, "twins": twins, "sets": rows}, {file.model for file in models}


def _draw(depth_set: DepthSet, networks: Mapping[str, Network], scale: int, folder: Path) -> None:
    from dsca_ros.evaluation.fidelity_pictures import draw_side_view

    for name, network in networks.items():
        path = folder / f"{depth_set.name.replace('/', '-')}-{name}-x{scale}.png"
        draw_side_view(depth_set, name, network.upsample, scale, path)


def _opened(file: ModelFile, settings: FidelitySettings) -> Upsampler:
    s = settings
    return Upsampler(file.model, file.scale, s.engine, file.precision, s.threads, DEPTH_RANGE, folder=file.path.parent)


def _peers(folder: Path) -> list[ModelFile]:
    try:
        return list_models(folder)
    except EngineError:
        raise SetError(f"{folder}: no {MANIFEST} that can be read; --peers names a folder of models with one") from None


def check_frames(depth_set: DepthSet, frames: int) -> None:
    """Reads what will be measured: a damaged frame is told now, not after an hour.

    Raises:
        SetError: for the first that cannot be read, or whose exact depth is of another size; or if all are empty.
    """
    indices = chosen(depth_set, frames)
    recorded = depth_set.info.kind == "recorded"
    following = [index + 1 for index in indices if recorded and index + 1 < len(depth_set.frames)]
    empty = True
    try:
        for index in sorted({*indices, *following, len(depth_set.frames) // 2}):  # the middle one is drawn
            depth = depth_set.depth(index)
            shape, empty = depth.shape, empty and not depth.any()
            exact = shape if recorded else depth_set.truth(index).shape
            if exact != shape:
                raise SetError(
                    f"{depth_set.frames[index]}: {shape[1]}x{shape[0]} pixels, and {exact[1]}x{exact[0]} of exact depth"
                )
    except DepthFileError as error:
        raise SetError(str(error)) from None
    if empty:
        raise SetError(
            f"{depth_set.folder}: no depth in the frames to measure; their unit is taken for {depth_set.info.unit:g} "
            f"m, and what is over {depth_set.info.max_depth:g} m for none; both may be told in a set.yaml there"
        )


def _usable(files: list[ModelFile], settings: FidelitySettings) -> list[ModelFile]:
    """Those for cameras, at the scales and in the precision that are asked for."""
    return [
        file
        for file in files
        if file.domain == DEPTH and file.precision == settings.precision and file.scale in (settings.scales or SCALES)
    ]


def set_rows(
    depth_set: DepthSet | str, frames: int, networks: Mapping[str, Network], scale: int
) -> list[dict[str, Any]]:
    """The rows of one set of any kind; the arguments are those of `recorded_rows`."""
    if isinstance(depth_set, str):
        pairs = held_out_frames(scale, depth_set.removeprefix(f"{SYNTHETIC}-"), frames)
        return truth_rows(depth_set, pairs, {name: network.upsample for name, network in networks.items()}, scale)
    if depth_set.info.kind == "truth":
        restoring = {name: network.restore for name, network in networks.items()}
        return truth_rows(depth_set.name, decimated(depth_set, frames, scale), restoring, scale)
    return recorded_rows(depth_set, frames, networks, scale)
