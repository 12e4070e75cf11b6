"""What is installed, and engines ahead of time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import typer
from rich.console import Console

from dsca_ros.cli.common import JSON, console, fail, parse_size, write_json, write_markdown
from dsca_ros.upsampler import DEFAULT_MODEL, DEFAULT_SCALE


def info(json_file: str = JSON) -> None:
    """What is installed, which engine would run, and why the others would not.

    Example: dsca info
    """
    from dsca_ros.engine.base import EngineError
    from dsca_ros.evaluation.report import info_table, installation

    try:
        figures = installation()
    except EngineError as error:
        fail(str(error))
    write_json(figures, json_file)
    if json_file != "-":
        Console().print(info_table(figures))


def build(
    model: list[str] = typer.Option([DEFAULT_MODEL], help="May be given several times."),
    scale: list[int] = typer.Option([DEFAULT_SCALE], help="May be given several times."),
    size: list[str] = typer.Option(
        ["640x480"], metavar="WxH", help="Size of the camera's image; may be given several times."
    ),
    precision: list[str] = typer.Option(["fp16"], help="fp16 or fp32; may be given several times."),
    target: list[str] = typer.Option(
        ["current"], help="sm75, sm80, sm86, sm89, sm120, or current: this machine's GPU; may be given several times."
    ),
    encoding: str = typer.Option("16UC1", help="What the camera sends: 16UC1 or 32FC1."),
    workspace: int = typer.Option(1024, min=1, help="Memory that a build may use on the GPU, MiB."),
    folder: Path = typer.Option(None, help="Where engines go; default: where the node looks for them."),
    list_engines: bool = typer.Option(False, "--list", help="List the engines that are there, and build nothing."),
    clean: bool = typer.Option(False, "--clean", help="Remove every engine, and build nothing."),
    json_file: str = JSON,
    markdown: str = typer.Option(
        None, metavar="FILE", help="Write build times as Markdown; FILE#PART replaces PART of a document; - is stdout."
    ),
) -> None:
    """Builds TensorRT engines ahead of time; with TensorRT-RTX also for GPUs that are not in this machine.

    Example: dsca build --size 640x480 --size 848x480 --target sm89 --json -
    """
    from rich.progress import Progress

    from dsca_ros.engine.ahead import AheadRequest, build_ahead, stored_engines
    from dsca_ros.engine.base import EngineError
    from dsca_ros.engine.engine_cache import EngineCache
    from dsca_ros.engine.plans import Plan
    from dsca_ros.engine.zoo import PRECISIONS
    from dsca_ros.evaluation.report import engine_markdown, engine_table

    dtypes: dict[str, np.dtype] = {"16UC1": np.dtype(np.uint16), "32FC1": np.dtype(np.float32)}
    if encoding not in dtypes:
        raise typer.BadParameter(f"--encoding is {encoding!r}; it must be one of: {', '.join(dtypes)}")
    for name in precision:
        if name not in PRECISIONS:
            raise typer.BadParameter(f"--precision is {name!r}; it must be one of: {', '.join(PRECISIONS)}")
    cache = EngineCache(folder)
    if clean:
        try:
            count, freed = cache.clean()
        except OSError as error:
            fail(f"cannot remove {error.filename}: {error.strerror}")
        console.print(
            f"{count} engines removed from {cache.folder}, {freed / 1e6:.1f} MB", highlight=False, soft_wrap=True
        )
        return
    try:
        if list_engines:
            rows = stored_engines(cache)
        else:
            sizes = [parse_size(text) for text in size]
            request = AheadRequest(model, scale, sizes, precision, target, dtypes[encoding], workspace << 20)
            rows = []
            with Progress(console=console, transient=True) as progress:

                def starting(plan: Plan) -> Callable[[str, float], bool]:
                    what = f"{plan.model.name} {plan.shape[1]}x{plan.shape[0]} for {plan.target}"
                    task = progress.add_task(what, total=1.0)

                    def told(phase: str, share: float) -> bool:
                        progress.update(task, completed=share)
                        return True

                    return told

                for row in build_ahead(request, cache, starting):
                    rows.append(row)
    except EngineError as error:
        fail(str(error))
    write_json({"folder": str(cache.folder), "engines": rows}, json_file)
    if rows and not list_engines:
        write_markdown(engine_markdown(rows), markdown)
    if "-" not in (json_file, markdown):
        Console().print(engine_table(rows, cache.folder))
