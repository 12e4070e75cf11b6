"""Recordings over DDS."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import typer

from dsca_ros.cli.common import JSON, console, fail, write_json
from dsca_ros.cli.replay import MISSING, lost


def play(
    bag: Path = typer.Argument(..., help="A ROS 2 bag's folder or file, or a ROS 1 bag."),
    rate: float = typer.Option(1.0, min=0.001, max=1000.0, help="Recorded seconds a second."),
    loop: bool = typer.Option(False, "--loop", help="Start over at the end, until Ctrl-C."),
    clock: bool = typer.Option(False, "--clock", help="Publish the bag's time on /clock, for use_sim_time."),
    topic: list[str] = typer.Option(None, help="Topic to publish; may be given several times. Default: all."),
    wait: list[str] = typer.Option(None, metavar="TOPIC", help="Begin once someone listens to it; several times."),
    json_file: str = JSON,
) -> None:
    """Publishes a bag's topics at its own pace, with the QoS of the recording; where there is no rosbag2.

    Example: dsca play my_bag --rate 0.5 --clock

    Example: dsca play my_bag --loop --wait /camera/camera/depth/image_rect_raw
    """
    try:
        from dsca_ros.replay.bags import Bag
        from dsca_ros.replay.errors import Interrupted, ReplayError
        from dsca_ros.replay.interrupt import interruptible
    except ImportError as error:
        fail(MISSING.format(error))
    try:
        from dsca_ros.ros.play import PlayError, PlayReport, PlaySettings
        from dsca_ros.ros.play import play as publish
    except ImportError as error:
        fail(f"playing needs ROS 2 ({error}); source your ROS, or install the wheels: pip install 'dsca_ros[ros]'")
    from rich.progress import BarColumn, Progress, TextColumn

    settings, report = PlaySettings(rate, loop, clock, tuple(topic or ()), tuple(wait or ())), PlayReport()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    try:
        with interruptible(), Bag(bag) as source, Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("playing", total=1.0, note="")

            def told(share: float, messages: int) -> None:
                progress.update(task, completed=share, note=f"{messages} messages, lap {report.laps + 1}")

            # The way to end a loop.
            with suppress(Interrupted):
                publish(source, settings, report, told)
            loss = source.loss
    except (ReplayError, PlayError) as error:
        fail(str(error))
    except Interrupted:
        fail("interrupted before anything was played")
    figures = {**report.figures(), "lost_messages": loss.messages, "lost_bytes": loss.bytes, "problem": loss.problem}
    write_json(figures, json_file)
    out = sys.stderr if json_file == "-" else sys.stdout
    behind = f"at most {report.late_ms:.1f} ms late"
    print(f"{report.messages} messages of {len(report.topics)} topics in {report.seconds:.1f} s, {behind}", file=out)
    for name, reason in report.left_out.items():
        print(f"  {name} was not published: {reason}", file=out)
    if loss.problem:
        fail(f"{bag} could not be read whole: {lost(loss.messages, loss.bytes, loss.problem)}")
