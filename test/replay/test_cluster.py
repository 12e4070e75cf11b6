"""Bags as tasks of a Dask cluster: the same bytes, and what becomes of them when clients and workers die."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import bag_files as bags
import pytest

pytest.importorskip("distributed")

from distributed import Client, LocalCluster

from dsca_ros.replay import cluster as clusters
from dsca_ros.replay.cluster import replay_on_cluster, take_gpu
from dsca_ros.replay.errors import ReplayError
from dsca_ros.replay.many import find_jobs, replay_one, run_jobs
from dsca_ros.upsampler import Upsampler

TIMEOUT = 60.0


def quiet(number, share, frames, rate):
    pass


@pytest.fixture
def cluster(tmp_path):
    """A cluster that somebody else has started: one worker."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path / "dask")
    ) as there:
        yield there


def test_a_cluster_that_is_there_gives_the_same_bytes(tmp_path, settings, cluster, monkeypatch):
    """Paths are given relative to where the command runs, which no worker knows."""
    for name in ("a", "b"):
        bags.make_bag(tmp_path / "in" / name)
    monkeypatch.chdir(tmp_path)
    told = []
    jobs = find_jobs(["in"], Path("there"))
    reports = run_jobs(jobs, settings, 1, False, False, lambda *said: told.append(said), cluster.scheduler_address)
    run_jobs(find_jobs(["in"], Path("here")), settings, 1, False, False, quiet)
    assert [(r.input, r.output, r.frames_out) for r in reports] == [
        ("in/a", "there/a", bags.FRAMES),
        ("in/b", "there/b", bags.FRAMES),
    ]
    for name in ("a", "b"):
        files = [f"{name}.mcap", "metadata.yaml"]
        assert sorted(p.name for p in Path("there", name).iterdir()) == files
        for file in files:
            assert Path("there", name, file).read_bytes() == Path("here", name, file).read_bytes()


def slow_down(seconds: float) -> None:
    infer = Upsampler.__call__

    def slow(self: Upsampler, depth: object) -> object:
        time.sleep(seconds)
        return infer(self, depth)

    Upsampler.__call__ = slow


def is_free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def test_a_client_that_is_killed_leaves_no_task_behind(tmp_path, settings, cluster):
    source = bags.make_bag(tmp_path / "in", frames=600)
    with Client(cluster) as client:
        client.run(slow_down, 0.1)  # a minute, if nothing ended it
    arguments = ["replay", str(source), str(tmp_path / "out"), "--model", "tiny", "--threads", "1"]
    arguments += ["--scheduler", cluster.scheduler_address]
    process = subprocess.Popen([sys.executable, "-m", "dsca_ros.cli", *arguments], stderr=subprocess.DEVNULL)
    lock, growing = tmp_path / "out.partial" / "lock", tmp_path / "out.partial" / "out.mcap"
    deadline = time.monotonic() + TIMEOUT
    try:
        while not growing.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        assert not is_free(lock)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 20
    while not is_free(lock):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (tmp_path / "out").exists() and growing.exists()


def test_ctrl_c_ends_all_of_them_with_one_line_and_resume_goes_on_to_the_same_bytes(tmp_path, settings):
    for name in ("a", "b"):
        bags.make_bag(tmp_path / "in" / name, frames=150, width=160, height=120)
    arguments = ["replay", str(tmp_path / "in"), str(tmp_path / "out"), "--model", "tiny", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dsca_ros.cli", *arguments, "--jobs", "2"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A terminal sends Ctrl-C to all of a group; a shell in the background has it ignored.
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + TIMEOUT
    try:
        while len(list((tmp_path / "out").glob("*.partial/*.mcap"))) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 1
    assert [line for line in errors.splitlines() if line] == [
        "dsca: interrupted; what is done is kept, and --resume goes on with it"
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.partial", "b.partial"]
    for folder, resume in (("out", True), ("undisturbed", False)):
        jobs = find_jobs([str(tmp_path / "in")], tmp_path / folder)
        assert not any(report.failed for report in run_jobs(jobs, settings, 1, False, resume, quiet))
    for name in ("a", "b"):
        there, wanted = (tmp_path / folder / name / f"{name}.mcap" for folder in ("out", "undisturbed"))
        assert there.read_bytes() == wanted.read_bytes()


def die_at_b(job, settings, force, resume, progress):
    if job[0].name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return replay_one(job, settings, force, resume, progress)


def test_a_worker_that_dies_costs_its_bag_only(tmp_path, settings):
    for name in ("a", "b", "c"):
        bags.make_bag(tmp_path / "in" / name)
    jobs = find_jobs([str(tmp_path / "in")], tmp_path / "out")
    reports = replay_on_cluster(die_at_b, jobs, settings, 1, False, False, quiet)
    assert [bool(report.error) for report in reports] == [False, True, False]
    assert "its worker ended" in reports[1].error and "--resume" in reports[1].error
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a", "c"]


def test_no_scheduler_and_no_dask_are_told(tmp_path, settings, monkeypatch):
    bags.make_bag(tmp_path / "in" / "a", frames=1)
    bags.make_bag(tmp_path / "in" / "b", frames=1)
    jobs = find_jobs([str(tmp_path / "in")], tmp_path / "out")
    monkeypatch.setattr(clusters, "ANSWER_WITHIN", 0.5)
    with pytest.raises(ReplayError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_jobs(jobs, settings, 1, False, False, quiet, "tcp://127.0.0.1:9")
    monkeypatch.delitem(sys.modules, "dsca_ros.replay.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ReplayError, match=r"pip install 'dsca_ros\[dask\]'"):
        run_jobs(jobs, settings, 2, False, False, quiet)
    assert not (tmp_path / "out").exists()


def test_workers_take_gpus_in_turn_and_leave_an_owners_choice(monkeypatch):
    def chosen(rank, gpus):
        take_gpu(rank, gpus)
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert chosen(0, []) is None
    for rank, number in ((0, "0"), (1, "2"), (2, "0")):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert chosen(rank, [0, 2]) == number
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert chosen(1, [0, 2]) == "7"
