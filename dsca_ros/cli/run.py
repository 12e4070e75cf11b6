"""Running the network: the demo over ROS, and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from dsca_ros.cli.common import ENGINE, FILL_HOLES, JSON, MODEL, SCALE, THREADS, console, fail, parse_size, write_json
from dsca_ros.upsampler import DEFAULT_RANGE


def demo(
    seconds: float = typer.Option(10.0, min=1.0, help="How long to measure."),
    model: str = MODEL,
    scale: int = SCALE,
    size: str = typer.Option("320x240", metavar="WxH", help="Size of the synthetic camera's image."),
    rate: float = typer.Option(30.0, min=1.0, max=240.0, help="Frames per second of the camera."),
    sensor: str = typer.Option("stereo", help="Sensor model: stereo, kinect_v1, tof or ideal."),
    seed: int = typer.Option(None, help="Seed of the synthetic room."),
    engine: str = ENGINE,
    threads: int = THREADS,
    picture: Path = typer.Option(Path("demo/demo.png"), help="Where the picture goes."),
    json_file: str = JSON,
) -> None:
    """Synthetic camera, node and monitor over real ROS topics; then a report and a picture.

    Example: dsca demo --seconds 20 --scale 4 --json demo.json
    """
    width, height = parse_size(size)
    try:
        from dsca_ros.ros.demo import DemoError, DemoSettings, run_demo
    except ImportError as error:
        fail(f"the demo needs ROS 2 ({error}); source your ROS, or install the wheels: pip install 'dsca_ros[ros]'")
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from dsca_ros.depth.camera import Intrinsics
    from dsca_ros.depth.synthetic import DEFAULT_FOV, DEFAULT_SEED, SyntheticStream
    from dsca_ros.engine.base import EngineError
    from dsca_ros.engine.zoo import find_model
    from dsca_ros.evaluation.compare import compare, with_truth
    from dsca_ros.evaluation.pictures import draw_demo
    from dsca_ros.evaluation.report import demo_table

    seed = DEFAULT_SEED if seed is None else seed
    settings = DemoSettings(seconds, model, scale, width, height, rate, sensor, seed, engine=engine, threads=threads)
    try:
        find_model(model, scale)
        stream = SyntheticStream(Intrinsics.from_fov(width, height, DEFAULT_FOV), sensor, settings.frames, seed)
        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn("{task.description}"), BarColumn(), note, TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("starting camera and node", total=1.0, note="")

            def report(stage: str, share: float, seen: int) -> None:
                progress.update(task, description=stage, completed=share, note=f"{seen} frames")

            run = run_demo(settings, report)
            progress.update(task, description="comparing with the truth", total=None)
            samples = with_truth(run.samples, stream)
    except (DemoError, EngineError, LookupError, ValueError) as error:
        fail(str(error))
    figures: dict[str, Any] = {"model": model, "scale": scale, "size": [width, height], "rate_hz": rate}
    figures.update(run.figures())
    figures["engine"] = run.diagnostics.get("engine", "")
    figures["samples"] = len(samples)
    figures["error"] = compare(samples)
    write_json(figures, json_file)
    console.print(demo_table(figures))
    if samples:
        draw_demo(samples, picture, f"{model} ×{scale} over ROS 2, {sensor} camera {width}×{height}")
        console.print(f"picture: {picture}", highlight=False, soft_wrap=True)
    if figures["output_hz"] < 0.95 * rate or figures["dropped_pct"] >= 5.0:
        fail(
            f"{figures['output_hz']} Hz came out of {rate:g} Hz wanted, {figures['dropped_pct']} % dropped: "
            "this machine is too slow or too busy for it; try a smaller --size, --scale or --rate"
        )


def upscale(
    source: Path = typer.Argument(..., help="A 16-bit PNG, an .npy, or a folder of them."),
    target: Path = typer.Argument(..., help="The result, or a folder for a folder."),
    model: str = MODEL,
    scale: int = SCALE,
    unit: float = typer.Option(0.001, help="Metres a step of integer images: 0.001 is mm, 0.0001 is 0.1 mm."),
    min_depth: float = typer.Option(DEFAULT_RANGE[0], help="Nearest depth taken as valid, metres."),
    max_depth: float = typer.Option(DEFAULT_RANGE[1], help="Farthest depth taken as valid, metres."),
    fill_holes: str = FILL_HOLES,
    engine: str = ENGINE,
    threads: int = THREADS,
) -> None:
    """Super-resolves depth files. Integer images keep their unit, float ones are metres.

    Example: dsca upscale depth.png larger.png --scale 2
    """
    from rich.progress import track

    from dsca_ros.depth.files import DepthFileError, list_frames, read_depth, write_depth
    from dsca_ros.depth.holes import hole_size
    from dsca_ros.engine.base import EngineError
    from dsca_ros.upsampler import Upsampler

    if not 0 < min_depth < max_depth:
        raise typer.BadParameter("--min-depth must be positive and less than --max-depth")
    if not 0 < unit < float("inf"):
        raise typer.BadParameter("--unit must be positive")
    try:
        holes = hole_size(fill_holes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        jobs = list_frames(source, target)
        depth_range = min_depth, max_depth
        with Upsampler(model, scale, engine, threads=threads, depth_range=depth_range, fill_holes=holes) as upsampler:
            for path, result in track(jobs, "upscaling", console=console, transient=True, disable=len(jobs) == 1):
                image = read_depth(path, unit)
                write_depth(result, upsampler(image.metres), image, unit)
    except (DepthFileError, EngineError) as error:
        fail(str(error))
    console.print(f"{len(jobs)} image{'s' * (len(jobs) > 1)} ×{scale} to {target}", highlight=False, soft_wrap=True)
