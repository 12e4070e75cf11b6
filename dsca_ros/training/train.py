"""The training loop: one function, read top to bottom."""

from __future__ import annotations

import copy
import csv
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch

from dsca_ros.aside import written_aside
from dsca_ros.network.dsca import DSCA
from dsca_ros.reason import reason_of
from dsca_ros.training.optimiser import Optimiser
from dsca_ros.training.recipe import Recipe, RecipeError
from dsca_ros.training.tasks import Task, make_task

LOG_COLUMNS = ("step", "seconds", "learning_rate", "loss")


class Reporter(Protocol):
    """What training tells about its progress."""

    def views(self, done: int, total: int) -> None: ...

    def step(self, step: int, total: int, loss: float, validation: dict[str, float] | None) -> None: ...


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))


def train(
    recipe: Recipe,
    folder: Path,
    resume: bool,
    reporter: Reporter,
    stop_at: int | None = None,
    data: Path | None = None,
    compiled: bool | None = None,
    task: Task | None = None,
) -> Path:
    """Trains a model, or goes on with one.

    Args:
        recipe: what to train.
        folder: where the checkpoint, the log and the curve go; data is cached beside it.
        resume: go on from ``folder/checkpoint.pt`` where there is one. The result is the same, bit for
            bit on CPU, as that of a run that was never interrupted.
        stop_at: stop after this step, as an interruption would.
        data: the folder of the maps' folders, for recipes that train on recorded maps.
        compiled: fuse the network with torch.compile; None does so on CUDA.
        task: what is trained, in place of what the recipe names.

    Returns:
        The checkpoint: ``recipe``, ``step``, the averaged weights under ``ema``, and under ``best`` those
        with the best validation.

    Raises:
        RecipeError: if something is wrong with the recipe, the checkpoint or the disk.
        MapError: if something is wrong with the maps.
        KeyboardInterrupt: on Ctrl-C and SIGTERM, once the step is over and the checkpoint written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"{folder} cannot be made a folder ({error.strerror}); name another --folder") from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    checkpoint, log = folder / "checkpoint.pt", folder / "log.csv"
    resumed = _load(checkpoint, recipe, device) if resume and checkpoint.exists() else None
    if resumed is None and checkpoint.exists():
        raise RecipeError(f"{checkpoint} is there already: go on with --resume, or train in another --folder")
    task = task or make_task(recipe, data, folder.parent / "cache", reporter.views)

    torch.manual_seed(recipe.seed)
    network = task.network()
    if recipe.start and resumed is None:
        start_from(network, Path(recipe.start))
    if isinstance(network, DSCA):
        for stage in itertools.islice(network.each_stage(), recipe.frozen_stages):
            stage.requires_grad_(False)
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(network)
    graph, average_graph = task.graph(network), task.graph(average)
    optimiser = Optimiser(network, recipe.optimiser == "muon", recipe.weight_decay)
    first, seconds, running = 0, 0.0, 0.0
    best: dict[str, Any] = {}
    if resumed is not None:
        try:
            network.load_state_dict(resumed["network"])
            average.load_state_dict(resumed["ema"])
            optimiser.load_state_dict(resumed["optimiser"])
        except (KeyError, RuntimeError, ValueError):
            raise RecipeError(f"{checkpoint}: its weights are of another architecture than its recipe") from None
        first, seconds, running, best = (resumed[key] for key in ("step", "seconds", "running", "best"))
        _cut_log(log, first, (*LOG_COLUMNS, *task.columns))
    else:
        _append(log, (*LOG_COLUMNS, *task.columns), mode="w")
    if compiled or (compiled is None and device.type == "cuda"):
        network.compile()

    def save(step: int) -> None:
        state = {
            "recipe": recipe.plain(),
            "step": step,
            "seconds": seconds,
            "running": running,
            "network": network.state_dict(),
            "ema": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "best": best,
        }
        _write(checkpoint, lambda partial: torch.save(state, partial))

    done, last = first, min(recipe.steps, stop_at or recipe.steps)
    clock = time.monotonic() - seconds
    with _StopRequest() as stop, ThreadPoolExecutor(1) as ahead:  # the next batch is made while this one trains
        pending = ahead.submit(task.batch, first)
        for step in range(first, last):
            batch = pending.result().tensors(device)
            pending = ahead.submit(task.batch, step + 1)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = task.loss(graph, batch, step / recipe.steps)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimiser.step(learning_rate(recipe, step))
            with torch.no_grad():
                # A young average forgets fast, or the first weights would linger in it.
                decay = min(recipe.ema, (step + 1) / (step + 10))
                torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1.0 - decay)
            running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()

            done, figures = step + 1, None
            if done % recipe.validate_every == 0 or done == recipe.steps:
                figures = task.validate(average_graph, device)
                seconds = time.monotonic() - clock
                row = [done, round(seconds, 1), learning_rate(recipe, step), running]
                _append(log, row + [figures[name] for name in task.columns])
                if not best or task.badness(figures) <= task.badness(best["figures"]):
                    best = {"step": done, "figures": figures, "weights": copy.deepcopy(average.state_dict())}
                save(done)
            reporter.step(done, recipe.steps, running, figures)
            if stop.requested or done == last:
                seconds = time.monotonic() - clock
                save(done)
                break
    if stop.requested and done < last:
        raise KeyboardInterrupt
    draw_curve(log, folder / "curve.png", recipe.name, task)
    return checkpoint


class _StopRequest:
    """Holds back Ctrl-C and SIGTERM until a step is over, so that a checkpoint never has half of one."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: object) -> None:
        self.requested = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def start_from(network: torch.nn.Module, source: Path) -> None:
    """Takes over what fits of trained weights: those of another scale share their first stages."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(source)
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"start: {source} cannot be read as safetensors ({error})") from None
    own = network.state_dict()
    fitting = {k: v.float() for k, v in weights.items() if k in own and v.shape == own[k].shape}
    if not fitting:
        raise RecipeError(f"start: nothing in {source} fits this network")
    network.load_state_dict(fitting, strict=False)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file aside first: on a full disk the old one is still there."""
    try:
        with written_aside(path, sync=True) as partial:
            write(partial)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        reason = reason_of(error)
        raise RecipeError(f"cannot write {path} ({reason}); make room and go on with --resume") from None


def _append(log: Path, row: Sequence[object], mode: str = "a") -> None:
    try:
        with log.open(mode, newline="") as file:
            csv.writer(file).writerow(row)
    except OSError as error:
        raise RecipeError(f"cannot write {log} ({error.strerror}); make room and go on with --resume") from None


def _cut_log(log: Path, step: int, columns: Sequence[str]) -> None:
    """Drops rows later than the checkpoint: those steps are trained again. A lost log starts anew."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    head = ",".join(columns)
    rows = lines[1:] if lines and lines[0] == head else []
    kept = [row for row in rows if row.partition(",")[0].isdigit() and int(row.partition(",")[0]) <= step]
    _write(log, lambda partial: partial.write_text("\n".join([head, *kept]) + "\n"))


def _load(checkpoint: Path, recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """The checkpoint of an interrupted run of this very recipe."""
    state = load_checkpoint(checkpoint, device)
    trained = Recipe.from_dict(state["recipe"], str(checkpoint)).plain()
    different = [key for key, value in recipe.plain().items() if trained[key] != value]
    if different:
        raise RecipeError(
            f"{checkpoint} is of another recipe ({', '.join(different)} differ): train in another --folder"
        )
    return state


def load_checkpoint(checkpoint: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `train` saved.

    Raises:
        RecipeError: if the file is something else.
    """
    try:
        state = torch.load(checkpoint, map_location=device, weights_only=True)
    except Exception as error:  # torch's unpickler raises nearly anything for a file that is none
        named = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
        # What torch says about others is long, and advises to run code from them.
        reason = str(error) if named else "damaged, cut short, or something else"
        raise RecipeError(f"{checkpoint}: not a checkpoint of `dsca train` ({reason})") from None
    try:
        Recipe.from_dict(state["recipe"], str(checkpoint))
        if not {"step", "seconds", "running", "network", "ema", "optimiser", "best"} <= state.keys():
            raise ValueError("of another version")
        return dict(state)
    except Exception as error:  # a file that torch can read may hold nearly anything
        reason = reason_of(error)
        raise RecipeError(f"{checkpoint}: not a checkpoint of `dsca train` ({reason})") from None


def draw_curve(log: Path, picture: Path, title: str, task: Task) -> None:
    """Learning curve: training loss, and the validation figures beside what they have to beat."""
    from matplotlib.figure import Figure

    with log.open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    if not rows:
        return
    column = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(column["step"], column["loss"])
    # The weights of some terms rise late, and the loss with them.
    left.set(xlabel="step", ylabel="training loss", title=title, ylim=(0, None))
    for index, (name, rival) in enumerate(task.curves):
        right.plot(column["step"], column[name], color=f"C{index}", label=name.removeprefix("val_"))
        right.plot(column["step"], column[rival], "--", color=f"C{index}", label=rival.removeprefix("val_"))
    right.set(xlabel="step", ylabel=task.unit, title="held out")
    right.legend(fontsize=8)
    _write(picture, lambda partial: figure.savefig(partial, dpi=110, format="png"))
