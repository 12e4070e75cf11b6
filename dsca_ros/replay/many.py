"""Many bags: which they are, where each goes, and one after the other or several at a time."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

from dsca_ros.engine.base import EngineError
from dsca_ros.replay.bags import SUFFIXES, is_bag
from dsca_ros.replay.errors import Interrupted, ReplayError
from dsca_ros.replay.output import PARTIAL
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
    found_at: dict[Path, Path] = {}
    several = len(inputs) > 1
    apart = {output.resolve()}
    for text in inputs:
        path = Path(text)
        if not path.exists() and any(letter in text for letter in "*?["):
            several = True
            found = _named_like(text, apart)
            if not found:
                raise ReplayError(f"no bag is named like {text}")
        elif path.is_dir() and not is_bag(path):
            several = True
            found = _bags_in(path, apart)
            if not found:
                raise ReplayError(f"{path} is not a bag, and there is none in it")
        elif path.is_dir() and not (path / "metadata.yaml").exists() and len(_files_in(path)) > 1:
            # Single files side by side, not the parts of one bag.
            several = True
            found = _bags_in(path, apart)
        else:
            found = [path]
        for bag in found:
            found_at.setdefault(bag.resolve(), bag)
    bags = list(found_at.values())
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


def _named_like(pattern: str, apart: set[Path]) -> list[Path]:
    """Bags by a pattern, but no files of one that is found itself, and nothing in or below ``apart``."""
    paths = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    paths = [path for path in paths if not any(_is_output(part, apart) for part in (path, *path.parents))]
    found = [path for path in paths if is_bag(path)]
    whole = {path for path in found if (path / "metadata.yaml").is_file()}
    return [path for path in found if not whole.intersection(path.parents)]


def _is_output(folder: Path, apart: set[Path]) -> bool:
    return folder.suffix == PARTIAL or folder.resolve() in apart


def _bags_in(folder: Path, apart: set[Path]) -> list[Path]:
    """Bags at any depth, but none in a bag's folder, in ``apart``, or in a folder that holds this one by a link."""
    if (folder / "metadata.yaml").is_file():
        return [folder]
    apart = apart | {folder.resolve()}
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not _is_output(path, apart)]
    return sorted([*_files_in(folder), *(bag for path in folders for bag in _bags_in(path, apart))])


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
