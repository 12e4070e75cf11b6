"""Many bags: which they are, where each goes, and one after the other or several at a time."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from dsca_ros.engine.base import EngineError
from dsca_ros.replay.bags import SUFFIXES, is_bag
from dsca_ros.replay.errors import Interrupted, ReplayError
from dsca_ros.replay.run import replay_bag
from dsca_ros.replay.settings import ReplaySettings, Report

#: A bag and its output.
Job = tuple[Path, Path]
#: Told of progress: which job, share of its bag, results so far, results a second.
Told = Callable[[int, float, int, float], None]
MISSING = "several bags at a time need dask ({}); remedy: pip install 'dsca_ros[dask]', or leave out --jobs"


def find_jobs(inputs: Sequence[str], output: Path) -> list[Job]:
    """Bags and their outputs.

    Args:
        inputs: bags, folders of bags, and patterns such as ``bags/*.mcap``.
        output: of one bag, the new bag; of several or of a folder, the folder for them.

    Raises:
        ReplayError: if there is no bag, or two would have one output.
    """
    bags: list[Path] = []
    several = len(inputs) > 1
    for text in inputs:
        path = Path(text)
        if not path.exists() and any(letter in text for letter in "*?["):
            several = True
            found = [Path(name) for name in sorted(glob.glob(text, recursive=True)) if is_bag(Path(name))]
            if not found:
                raise ReplayError(f"no bag is named like {text}")
        elif path.is_dir() and not is_bag(path):
            several = True
            found = _bags_in(path)
            if not found:
                raise ReplayError(f"{path} is not a bag, and there is none in it")
        elif path.is_dir() and not (path / "metadata.yaml").exists() and len(_files_in(path)) > 1:
            # Single files side by side, not the parts of one bag.
            several = True
            found = _bags_in(path)
        else:
            found = [path]
        bags += [bag for bag in found if bag not in bags]
    if not several:
        return [(bags[0], output)]
    if output.suffix == ".mcap":
        raise ReplayError(f"{output} is one file, but the input may be several bags; give a folder's name")
    jobs: list[Job] = []
    for bag in bags:
        target = output / (bag.stem if bag.is_file() else bag.name)
        for other, there in jobs:
            if there == target:
                raise ReplayError(f"{other} and {bag} would both be {target}; replay them one after the other")
        jobs.append((bag, target))
    return jobs


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())


def _bags_in(folder: Path) -> list[Path]:
    """Bags at any depth, but none in a bag's folder."""
    if (folder / "metadata.yaml").is_file():
        return [folder]
    inside = [_bags_in(path) for path in sorted(folder.iterdir()) if path.is_dir() and path.suffix != ".partial"]
    return sorted([*_files_in(folder), *(bag for bags in inside for bag in bags)])


def run_jobs(
    jobs: Sequence[Job],
    settings: ReplaySettings,
    at_once: int,
    force: bool,
    resume: bool,
    told: Told,
    scheduler: str = "",
) -> list[Report]:
    """Replays every bag; one that fails does not keep the others from it.

    Args:
        jobs: as `find_jobs` gives them.
        settings: the same for all.
        at_once: bags at a time; several are tasks of a Dask cluster on this machine.
        force: replace outputs.
        resume: go on with what was interrupted.
        told: called with progress.
        scheduler: address of a Dask cluster that runs all of them instead.

    Returns:
        A report a job, in their order; ``error`` tells why one failed.

    Raises:
        ReplayError: if there is no such cluster.
        Interrupted: at Ctrl-C or SIGTERM, where the caller turns them into it.
    """
    if not scheduler and (at_once <= 1 or len(jobs) <= 1):
        return [replay_one(job, settings, force, resume, _of(number, told)) for number, job in enumerate(jobs)]
    try:
        from dsca_ros.replay.cluster import replay_on_cluster
    except ImportError as error:
        raise ReplayError(MISSING.format(error)) from None
    where = scheduler or min(at_once, len(jobs))
    return replay_on_cluster(replay_one, jobs, settings, where, force, resume, told)


def _of(number: int, told: Told) -> Callable[[float, int, float], None]:
    return lambda share, frames, rate: told(number, share, frames, rate)


def replay_one(
    job: Job, settings: ReplaySettings, force: bool, resume: bool, progress: Callable[[float, int, float], None]
) -> Report:
    """Replays a bag; how it failed is told in the report."""
    source, target = job
    try:
        return replay_bag(source, target, settings, force, resume, progress)
    except (ReplayError, EngineError) as error:
        text = str(error)
    except Interrupted:
        raise
    except Exception as error:  # whatever it is: the other bags are done
        text = f"{type(error).__name__}: {error}"
    return Report(str(source), str(target), error=" ".join(text.split()))
