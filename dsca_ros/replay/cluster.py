"""Bags side by side on a Dask cluster: one of this machine's own for the time it takes, or one that is there.

One bag is one task. A task tells of its progress, and of its end, by events: its result would be lost with the worker
that has it, and computed again. It ends, with what is done kept, when it is cancelled or whoever asked for it is gone.
What a result is does not depend on where it was computed.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Future, LocalCluster, as_completed, get_worker

import dsca_ros
from dsca_ros.replay.errors import Interrupted, ReplayError, one_line
from dsca_ros.replay.settings import ReplaySettings, Report

#: A bag and its output.
Job = tuple[Path, Path]
#: What replays one bag: job, settings, force, resume, progress. It raises nothing but `Interrupted`.
Work = Callable[[Job, ReplaySettings, bool, bool, Callable[[float, int, float], None]], Report]
#: How long a scheduler, and then a worker, gets to answer; seconds.
ANSWER_WITHIN = 30.0

#: Of this machine's own cluster: one try a bag, and none of the housekeeping that a few long tasks do not need; it
#: takes a tenth of the cores.
_OWN_CLUSTER = {
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    # It has the C library return an image's memory after each frame, and fetch it anew for the next.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}

#: Tasks that run on this machine at a time; set in a worker.
_sharing = 1


def replay_on_cluster(
    work: Work,
    jobs: Sequence[Job],
    settings: ReplaySettings,
    scheduler: str | int,
    force: bool,
    resume: bool,
    told: Callable[[int, float, int, float], None],
) -> list[Report]:
    """Replays every bag, each in a task of its own.

    Args:
        work: replays one; a function of a module.
        jobs: bags and outputs; their paths hold on every worker.
        settings: the same for all.
        scheduler: a cluster's address, or the number of workers that this machine gets.
        force: replace outputs.
        resume: go on with what was interrupted.
        told: called with progress, from another thread: number of the job, share, results, results a second.

    Returns:
        A report a job, in their order; ``error`` tells why one failed.

    Raises:
        ReplayError: if there is no such cluster, or it cannot do this.
        Interrupted: as it comes; tasks are cancelled then.
    """
    if settings.preview is not None:
        settings = replace(settings, preview=settings.preview.absolute())
    with _connected(scheduler) as client:
        _settle_workers(client)
        name = f"dsca-replay-{uuid.uuid4().hex}"
        numbers: dict[Future, int] = {}
        reports: dict[int, Report] = {}

        def hear(event: tuple[float, Any]) -> None:
            number, what = event[1]
            if isinstance(what, dict):
                reports.setdefault(number, Report(**what))
            else:
                told(number, *what)

        client.subscribe_topic(name, hear)
        try:
            for number, (source, target) in enumerate(jobs):
                there = source.absolute(), target.absolute()
                arguments = (work, there, settings, force, resume, number, name)
                numbers[client.submit(_task, *arguments, key=f"{name}-{number}", pure=False)] = number
            for future in as_completed(list(numbers)):
                number = numbers[future]
                if number not in reports:
                    reports[number] = _report_of(future)
                # As they were given, not as workers see them.
                reports[number].input, reports[number].output = map(str, jobs[number])
        except BaseException:
            # Those that run end with their next frame, or with this machine's cluster.
            client.cancel(list(numbers))
            raise
        finally:
            client.unsubscribe_topic(name)
        return [reports[number] for number in range(len(jobs))]


@contextmanager
def _connected(scheduler: str | int) -> Iterator[Client]:
    if isinstance(scheduler, str):
        try:
            client = Client(scheduler, timeout=ANSWER_WITHIN)
        except (OSError, ValueError) as error:
            raise ReplayError(
                f"no Dask scheduler answers at {scheduler} ({one_line(error)}); start one: dask scheduler"
            ) from None
        with client:
            yield client
        return
    with (
        tempfile.TemporaryDirectory(prefix="dsca-replay-", ignore_cleanup_errors=True) as scratch,
        dask.config.set(_OWN_CLUSTER),
        # Processes of one thread each, no web page, and no limit on memory: a replay keeps its own.
        LocalCluster(
            n_workers=scheduler,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address=None,
            local_directory=scratch,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(_ignore_ctrl_c)
        yield client


async def _ignore_ctrl_c() -> None:
    """In a worker of this machine, in its main thread: the terminal sends Ctrl-C to all, and one of them ends all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _settle_workers(client: Client) -> None:
    """Gives each worker a GPU and its share of the cores, where it has not been given them."""
    try:
        client.wait_for_workers(1, timeout=ANSWER_WITHIN)
    except (OSError, TimeoutError):
        raise ReplayError("the Dask cluster has no worker; start some: dask worker ADDRESS --nthreads 1") from None
    places: dict[str, tuple[int, int]] = {}
    workers = client.scheduler_info(n_workers=-1)["workers"]
    hosts = {worker["host"] for worker in workers.values()}
    for host in hosts:
        here = sorted(address for address, worker in workers.items() if worker["host"] == host)
        tasks = sum(workers[address]["nthreads"] for address in here)
        places.update({address: (rank, tasks) for rank, address in enumerate(here)})
    try:
        versions = client.run(_settle, places)
    except Exception as error:  # of the worker: whatever keeps it from running this
        why = f"{type(error).__name__}: {one_line(error)}"
        raise ReplayError(f"the Dask workers cannot run dsca_ros ({why}); install the same there") from None
    other = sorted({version for version in versions.values() if version != dsca_ros.__version__})
    if other:
        raise ReplayError(f"Dask workers have dsca_ros {other[0]}, this is {dsca_ros.__version__}; install the same")


def _settle(places: dict[str, tuple[int, int]], dask_worker: Any = None) -> str:
    """In a worker, before its first task; returns its version of this package."""
    global _sharing
    rank, _sharing = places.get(dask_worker.address, (0, 1))
    take_gpu(rank, gpus_there())
    return dsca_ros.__version__


def gpus_there() -> list[int]:
    """Numbers of this machine's NVIDIA GPUs, without starting CUDA: what it may see is decided before that."""
    names = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return sorted(int(name) for name in names if name.isdigit())


def take_gpu(rank: int, gpus: Sequence[int]) -> None:
    """Leaves this process one GPU: that of its rank, in turn; an owner's own choice stays."""
    if gpus and "CUDA_VISIBLE_DEVICES" not in os.environ:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpus[rank % len(gpus)])


def _task(
    work: Work, job: Job, settings: ReplaySettings, force: bool, resume: bool, number: int, name: str
) -> dict[str, Any]:
    """One bag, in a worker."""
    worker, key = get_worker(), f"{name}-{number}"
    if not settings.threads:
        # Results are the same with any number of threads.
        settings = replace(settings, threads=max(1, len(os.sched_getaffinity(0)) // _sharing))

    def progress(share: float, frames: int, rate: float) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise Interrupted
        worker.log_event(name, (number, (share, frames, rate)))

    report = asdict(work(job, settings, force, resume, progress))
    worker.log_event(name, (number, report))
    return report


def _report_of(future: Future) -> Report:
    """What came of a task that told nothing: mostly its worker died, or could not even load it."""
    try:
        return Report(**future.result())
    except Exception as error:  # KilledWorker, or whatever the worker raised
        why = f"{type(error).__name__}: {one_line(error)}"
        return Report("", "", error=f"its worker ended ({why}); --resume goes on with it")
