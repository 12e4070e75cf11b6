"""Many bags: which they are, where each goes, and one process for each of several at a time."""

from __future__ import annotations

import contextlib
import glob
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

from dsca_ros.engine.base import EngineError
from dsca_ros.replay.bags import SUFFIXES, is_bag
from dsca_ros.replay.errors import Interrupted, ReplayError
from dsca_ros.replay.run import replay_bag
from dsca_ros.replay.settings import ReplaySettings, Report

#: A bag and its output.
Job = tuple[Path, Path]
#: Told of progress: which job, share of its bag, results so far, results a second.
Told = Callable[[int, float, int, float], None]
#: How long processes get to end when asked to, seconds.
END_WITHIN = 10.0


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
) -> list[Report]:
    """Replays every bag; one that fails does not keep the others from it.

    Args:
        jobs: as `find_jobs` gives them.
        settings: the same for all.
        at_once: bags at a time, each in a process of its own where there are several.
        force: replace outputs.
        resume: go on with what was interrupted.
        told: called with progress.

    Returns:
        A report a job, in their order; ``error`` tells why one failed.

    Raises:
        Interrupted: at Ctrl-C or SIGTERM, where the caller turns them into it.
    """
    if at_once <= 1 or len(jobs) <= 1:
        return [_try(job, settings, force, resume, _of(number, told)) for number, job in enumerate(jobs)]
    if not settings.threads:
        # Results are the same with any number of threads.
        settings = replace(settings, threads=max(1, len(os.sched_getaffinity(0)) // at_once))
    return _in_processes(jobs, settings, at_once, force, resume, told)


def _of(number: int, told: Told) -> Callable[[float, int, float], None]:
    return lambda share, frames, rate: told(number, share, frames, rate)


def _try(
    job: Job, settings: ReplaySettings, force: bool, resume: bool, progress: Callable[[float, int, float], None]
) -> Report:
    source, target = job
    try:
        return replay_bag(source, target, settings, force, resume, progress)
    except (ReplayError, EngineError) as error:
        return Report(str(source), str(target), error=" ".join(str(error).split()))


def _in_processes(
    jobs: Sequence[Job], settings: ReplaySettings, at_once: int, force: bool, resume: bool, told: Told
) -> list[Report]:
    # Spawned, not forked: engines and their threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    reports: dict[int, Report] = {}
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    waiting = list(enumerate(jobs))
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, job = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(theirs, job, settings, force, resume))
                process.start()
                theirs.close()
                running[ours] = number, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                number, ended = running[ready]
                try:
                    said = ready.recv()
                except EOFError:
                    ended.join()
                    del running[ready]
                    if number not in reports:
                        why = f"its process ended with status {ended.exitcode}"
                        reports[number] = Report(str(jobs[number][0]), str(jobs[number][1]), error=why)
                    continue
                if isinstance(said, Report):
                    reports[number] = said
                else:
                    told(number, *said)
    finally:
        for _, child in running.values():
            child.terminate()
        for _, child in running.values():
            child.join(END_WITHIN)
            if child.is_alive():
                child.kill()
    return [reports[number] for number in range(len(jobs))]


def _work(pipe: Connection, job: Job, settings: ReplaySettings, force: bool, resume: bool) -> None:
    """A process: one bag."""
    parent = os.getppid()
    interruptible()

    def progress(share: float, frames: int, rate: float) -> None:
        if os.getppid() != parent:  # it was killed, and cannot tell us
            raise Interrupted
        with contextlib.suppress(BrokenPipeError):
            pipe.send((share, frames, rate))

    try:
        report = _try(job, settings, force, resume, progress)
        with contextlib.suppress(BrokenPipeError):
            pipe.send(report)
    except Interrupted:
        os._exit(1)


def interruptible() -> None:
    """Makes Ctrl-C and SIGTERM raise `Interrupted` in the main thread."""

    def interrupt(number: int, frame: object) -> NoReturn:
        # A second one must not cut the cleaning up short.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Interrupted

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
