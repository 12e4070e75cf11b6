"""Recordings: through the network offline, and played over DDS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from dsca_ros.cli.common import (
    ENGINE,
    FILL_HOLES,
    JSON,
    MODEL,
    SCALE,
    THREADS,
    check_targets,
    console,
    fail,
    file_to_write,
    write_json,
)
from dsca_ros.depth.holes import hole_size
from dsca_ros.depth.units import MILLIMETRE
from dsca_ros.upsampler import DEFAULT_RANGE

if TYPE_CHECKING:
    from dsca_ros.replay.many import Job
    from dsca_ros.replay.settings import ReplaySettings, Report

#: A bag's length, seconds.
LONGEST = 1e9
MISSING = "bags need the library rosbags ({}); remedy: pip install 'dsca_ros[replay]'"


def replay(
    inputs: list[str] = typer.Argument(..., metavar="IN...", help="Bags, folders of bags, or patterns in quotes."),
    output: Path = typer.Argument(..., metavar="OUT", help="The new bag; of several bags, a folder for them."),
    model: str = MODEL,
    scale: int = SCALE,
    engine: str = ENGINE,
    threads: int = THREADS,
    start: float = typer.Option(0.0, min=0.0, max=LONGEST, help="Seconds left out at the beginning."),
    duration: float | None = typer.Option(None, min=0.001, max=LONGEST, help="Seconds taken from there; default: all."),
    every: int = typer.Option(1, min=1, help="Of so many depth frames one is taken."),
    topic: list[str] = typer.Option(None, help="Depth topic; may be given several times. Default: those found."),
    min_depth: float = typer.Option(DEFAULT_RANGE[0], help="Nearest depth taken as valid, metres."),
    max_depth: float = typer.Option(DEFAULT_RANGE[1], help="Farthest depth taken as valid, metres."),
    depth_unit: float = typer.Option(MILLIMETRE, help="Metres a step of the camera's 16UC1; results are in mm."),
    fill_holes: str = FILL_HOLES,
    points: bool = typer.Option(False, "--points", help="Write points, too."),
    only_new: bool = typer.Option(
        False, "--only-new", help="Results alone; of the bag's own topics only transforms and latched ones."
    ),
    format: str = typer.Option("mcap", help="mcap or sqlite3."),
    compress: str = typer.Option("none", help="none or zstd."),
    preview: Path | None = typer.Option(None, metavar="FILE.mp4", help="A video of input beside result; of one bag."),
    jobs: int = typer.Option(1, min=1, help="Bags at a time, each in a process of its own (needs dask)."),
    scheduler: str = typer.Option("", metavar="ADDRESS", help="Run on this Dask cluster, such as tcp://host:8786."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Tell what would be done, and write nothing."),
    resume: bool = typer.Option(False, "--resume", help="Go on with what was interrupted."),
    force: bool = typer.Option(False, "--force", help="Replace outputs that exist."),
    json_file: str = JSON,
) -> None:
    """Super-resolves the depth in recordings: ROS 2 bags and ROS 1 bags in, ROS 2 bags out.

    Example: dsca replay my_bag my_bag_sr --points

    Example: dsca replay 'recordings/*.mcap' larger --jobs 2 --compress zstd --json report.json
    """
    try:
        from dsca_ros.replay.errors import Interrupted, ReplayError
        from dsca_ros.replay.interrupt import interruptible
        from dsca_ros.replay.many import find_jobs
        from dsca_ros.replay.settings import COMPRESSIONS, FORMATS, ReplaySettings
    except ImportError as error:
        fail(MISSING.format(error))
    for name, value, known in (("--format", format, FORMATS), ("--compress", compress, COMPRESSIONS)):
        if value not in known:
            raise typer.BadParameter(f"{name} is {value!r}; it must be one of: {', '.join(known)}")
    if not 0 < depth_unit < float("inf"):
        raise typer.BadParameter("--depth-unit must be positive")
    try:
        hole_size(fill_holes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not 0 < min_depth < max_depth:
        raise typer.BadParameter("--min-depth must be positive and less than --max-depth")
    if preview is not None and preview.suffix != ".mp4":
        raise typer.BadParameter("--preview must end in .mp4")
    if preview is not None and resume:
        raise typer.BadParameter("--preview shows a whole run; give it without --resume")
    # Before hours of work, not after them.
    check_targets(json_file)
    if preview is not None:
        file_to_write(str(preview))
    settings = ReplaySettings(
        model, scale, engine, threads, (min_depth, max_depth), depth_unit, fill_holes, start, duration, every,
        tuple(topic or ()), points, only_new, format, compress, preview,
    )  # fmt: skip
    try:
        found = find_jobs(inputs, output)
        if preview is not None and len(found) > 1:
            raise typer.BadParameter("--preview is of one bag; give one")
        if dry_run:
            _dry_run(found, settings, force, resume, json_file)
            return
        with interruptible():
            reports = _run(found, settings, jobs, force, resume, scheduler)
    except ReplayError as error:
        fail(str(error))
    except Interrupted:
        fail("interrupted; what is done is kept, and --resume goes on with it")
    write_json({"bags": [report.figures() for report in reports]}, json_file)
    _tell(reports, json_file)
    failed = [report for report in reports if report.failed]
    for report in failed:
        why = report.error or f"{report.input} could not be read whole: {_loss(report)}"
        if len(reports) > 1 and report.error:
            why = f"{report.input}: {why}"
        print(f"dsca: {why}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def lost(messages: int, size: int, problem: str) -> str:
    """What of a bag could not be read, for people."""
    many = f"{messages} messages" if messages else "an unknown number of messages"
    return f"{many} lost{f', {size} bytes' if size else ''} ({problem})"


def _loss(report: Report) -> str:
    return lost(report.lost_messages, report.lost_bytes, report.problem)


def _run(
    found: list[Job], settings: ReplaySettings, jobs: int, force: bool, resume: bool, scheduler: str
) -> list[Report]:
    """All bags, with a bar for each that runs."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from dsca_ros.replay.many import run_jobs

    note = TextColumn("{task.fields[note]}")
    columns = (TextColumn("{task.description}"), BarColumn(), note, TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bars: dict[int, object] = {}

        def told(number: int, share: float, frames: int, rate: float) -> None:
            if number not in bars:
                # The name is no markup, whatever brackets are in it.
                name = found[number][0].name.replace("[", r"\[")
                bars[number] = progress.add_task(name, total=1.0, note="")
            progress.update(bars[number], completed=share, note=f"{frames} frames, {rate:.1f} Hz")  # type: ignore[arg-type]

        return run_jobs(found, settings, jobs, force, resume, told, scheduler)


def _dry_run(found: list[Job], settings: ReplaySettings, force: bool, resume: bool, json_file: str | None) -> None:
    from dsca_ros.engine.base import EngineError
    from dsca_ros.engine.zoo import find_model
    from dsca_ros.replay.errors import ReplayError
    from dsca_ros.replay.output import DONE
    from dsca_ros.replay.run import check_output, plan_bag

    figures, problems = [], 0
    out = Console(file=sys.stderr if json_file == "-" else sys.stdout, highlight=False, markup=False, soft_wrap=True)
    for source, target in found:
        try:
            find_model(settings.model, settings.scale)
            there = check_output(source, target, settings, force, resume)
            if there == DONE:
                out.print(f"{target}: done before")
                continue
            report, frames = plan_bag(source, target, settings)
        except (ReplayError, EngineError) as error:
            print(f"dsca: {error}", file=sys.stderr)
            problems += 1
            continue
        out.print(f"{source} -> {target}: {frames} depth frames, {settings.model} ×{settings.scale}")
        for name, result in report.topics.items():
            out.print(f"  {name} -> {result}")
        there = f"what is there {there}" if there else ""
        for line in filter(None, [there, *report.notes, _loss(report) if report.failed else ""]):
            out.print(f"  {line}")
        problems += report.failed
        figures.append({"frames": frames, **report.figures()})
    write_json({"bags": figures}, json_file)
    if problems:
        raise typer.Exit(1)


def _tell(reports: list[Report], json_file: str | None) -> None:
    """A line or two a bag, for people."""
    out = Console(file=sys.stderr if json_file == "-" else sys.stdout, highlight=False, markup=False, soft_wrap=True)
    for report in reports:
        if report.error:
            continue
        if report.done_before:
            out.print(f"{report.output}: done before")
            continue
        share = report.figures()["share"]
        parts = ", ".join(f"{name} {100 * part:.0f} %" for name, part in share.items())
        taken = f", {report.taken_over} of them from the run before" if report.taken_over else ""
        out.print(f"{report.input} -> {report.output}: {report.frames_in} frames in, {report.frames_out} out{taken}")
        out.print(f"  {report.rate:.1f} Hz, {report.seconds:.1f} s; busy: {parts}; {report.engine}")
        for what, counts in (("skipped", report.skipped), ("without points", report.incomplete)):
            if counts:
                out.print(f"  {what}: {', '.join(f'{count} {cause}' for cause, count in counts.items())}")
        for note in report.notes:
            out.print(f"  {note}")
    good = [report for report in reports if not report.failed]
    if len(reports) > 1:
        out.print(f"{len(good)} of {len(reports)} bags done, {sum(r.frames_out for r in reports)} frames")
