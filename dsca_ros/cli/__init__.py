"""The command ``dsca``. Each subcommand parses its options and calls one function elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import typer

from dsca_ros.cli import bench, engines, evaluate, models, play, replay, run

app = typer.Typer(
    name="dsca",
    help="Depth super-resolution for depth cameras.",
    no_args_is_help=True,
    add_completion=False,
)
# Not as arguments: Ubuntu 22.04's typer has neither, and needs neither.
app.pretty_exceptions_enable = False
app.rich_markup_mode = None
for command in (
    *(run.demo, run.upscale, replay.replay, play.play, evaluate.evaluate, evaluate.sensors),
    *(engines.info, engines.build, bench.bench, models.train, models.export),
):
    app.command()(command)

main: Callable[[], None] = app
