"""The command ``dsca``. Each subcommand parses its options and calls one function elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import typer
from rich.console import Console

from dsca_ros.upsampler import DEFAULT_MODEL, DEFAULT_RANGE, DEFAULT_SCALE

app = typer.Typer(
    name="dsca",
    help="Depth super-resolution for depth cameras.",
    no_args_is_help=True,
    add_completion=False,
)
# Not as arguments: Ubuntu 22.04's typer has neither, and needs neither.
app.pretty_exceptions_enable = False
app.rich_markup_mode = None
console = Console(stderr=True)

JSON = typer.Option(None, "--json", metavar="FILE", help="Write the figures to FILE as JSON; - is standard output.")
MODEL = typer.Option(DEFAULT_MODEL, help="Name of the model; `dsca info` lists them.")
ENGINE = typer.Option("auto", help="What runs the model; `dsca info` lists them.")
SCALE = typer.Option(DEFAULT_SCALE, help="Output size over input size: 2, 4 or 8.")
THREADS = typer.Option(0, min=0, help="Threads of one inference on a CPU; 0: the number of cores.")


def fail(text: str) -> NoReturn:
    """Ends the command with one line and exit status 1."""
    # Not through rich: it would break the line, and read [brackets] in paths as markup.
    print(f"dsca: {text}", file=sys.stderr)
    raise typer.Exit(1)


def write_json(figures: Any, target: str | None) -> None:
    """Writes figures where --json says."""
    write_text(json.dumps(figures, indent=2) + "\n", target)


def write_text(text: str, target: str | None) -> None:
    """Writes to a file, or to standard output for ``-``; a broken-off write leaves no half file."""
    if target is None:
        return
    if target == "-":
        sys.stdout.write(text)
        return
    path = Path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")


def write_markdown(text: str, target: str | None) -> None:
    """As `write_text`; ``FILE#PART`` exchanges what stands between ``<!-- PART -->`` and ``<!-- end PART -->``."""
    path, _, part = (target or "").partition("#")
    if target is None or not part:
        write_text(text, target)
        return
    try:
        document = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read {path} ({error})")
    try:
        start, end = f"<!-- {part} -->\n", f"<!-- end {part} -->"
        before, rest = document.split(start)
        _, after = rest.split(end)
    except ValueError:
        fail(f"{path} has no one part between <!-- {part} --> and <!-- end {part} -->")
    write_text(before + start + text + end + after, path)


def parse_size(text: str) -> tuple[int, int]:
    """``WxH`` to (width, height)."""
    width, _, height = text.lower().partition("x")
    try:
        size = int(width), int(height)
    except ValueError:
        size = (0, 0)
    if min(size) < 8 or max(size) > 4096:
        raise typer.BadParameter(f"{text!r} is no size; give WIDTHxHEIGHT such as 320x240, 8 to 4096 each")
    return size


@app.command()
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
        console.print(f"picture: {picture}", highlight=False)
    if figures["output_hz"] < 0.95 * rate or figures["dropped_pct"] >= 5.0:
        fail(
            f"{figures['output_hz']} Hz came out of {rate:g} Hz wanted, {figures['dropped_pct']} % dropped: "
            "this machine is too slow or too busy for it; try a smaller --size, --scale or --rate"
        )


@app.command()
def upscale(
    source: Path = typer.Argument(..., help="A 16-bit PNG, an .npy, or a folder of them."),
    target: Path = typer.Argument(..., help="The result, or a folder for a folder."),
    model: str = MODEL,
    scale: int = SCALE,
    unit: float = typer.Option(0.001, help="Metres a step of integer images: 0.001 is mm, 0.0001 is 0.1 mm."),
    min_depth: float = typer.Option(DEFAULT_RANGE[0], help="Nearest depth taken as valid, metres."),
    max_depth: float = typer.Option(DEFAULT_RANGE[1], help="Farthest depth taken as valid, metres."),
    fill_holes: str = typer.Option("none", help="Holes to fill: none, all, or up to so many pixels across."),
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
        with Upsampler(
            model, scale, engine, threads=threads, depth_range=depth_range, fill_holes=holes
        ) as upsampler:
            for path, result in track(jobs, "upscaling", console=console, transient=True, disable=len(jobs) == 1):
                image = read_depth(path, unit)
                write_depth(result, upsampler(image.metres), image, unit)
    except (DepthFileError, EngineError) as error:
        fail(str(error))
    console.print(f"{len(jobs)} image{'s' * (len(jobs) > 1)} ×{scale} to {target}", highlight=False)


@app.command()
def evaluate(
    data: Path | None = typer.Option(None, metavar="DIR", help="The paper's benchmark: the folder with its ten maps."),
    fidelity: list[str] = typer.Option(
        None, metavar="DIR", help="Is it true? A folder of depth frames, or `synthetic`; may be given several times."
    ),
    model: list[str] = typer.Option(
        None, help=f"May be given several times; default {DEFAULT_MODEL}, with --data all of the benchmark's."
    ),
    scale: list[int] = typer.Option(None, help="May be given several times; default 2, with --data 2, 4 and 8."),
    sensor: list[str] = typer.Option(["stereo", "kinect_v1", "tof"], help="Sensor models; may be given several times."),
    scenes: int = typer.Option(24, min=1, help="Held-out synthetic rooms."),
    size: str = typer.Option("320x240", metavar="WxH", help="Size of the low-resolution image."),
    frames: int = typer.Option(8, min=1, help="With --fidelity: frames of each set."),
    engine: str = ENGINE,
    threads: int = THREADS,
    precision: str = typer.Option("fp32", help="fp32 or fp16."),
    ensemble: bool = typer.Option(False, "--ensemble", help="With --data: also the mean of eight ways to lay a map."),
    pictures: Path = typer.Option(None, metavar="DIR", help="With --data or --fidelity: draw pictures."),
    json_file: str = JSON,
    markdown: str = typer.Option(
        None, metavar="FILE", help="Write the tables as Markdown; FILE#PART replaces PART of a document; - is stdout."
    ),
) -> None:
    """Models against the usual ways to enlarge depth: on rooms no model was trained on; with --data on the paper's
    benchmark beside the paper's own figures; with --fidelity on recorded and exact depth.

    Example: dsca evaluate --model dsca-nano --scale 4 --json -

    Example: dsca evaluate --data middlebury10 --scale 4 --scale 8 --pictures pictures

    Example: dsca evaluate --fidelity recordings/d435 --fidelity synthetic --json fidelity.json
    """
    from dsca_ros.engine.base import EngineError

    tables = Console(file=sys.stderr if "-" in (json_file, markdown) else sys.stdout)
    try:
        if fidelity and data is not None:
            raise typer.BadParameter("--data and --fidelity are two evaluations: give one of them")
        if fidelity:
            from dsca_ros.evaluation.fidelity_report import fidelity_markdown, fidelity_tables
            from dsca_ros.evaluation.fidelity_run import FidelitySettings, run_fidelity

            asked = FidelitySettings(
                model or [], scale or [2, 4], frames, engine, precision, threads, pictures
            )
            figures, networks = run_fidelity(fidelity, asked, console)
            tables.print(fidelity_tables(figures, networks))
            write_json(figures, json_file)
            write_markdown(fidelity_markdown(figures, networks), markdown)
        elif data is None:
            models, scales = model or [DEFAULT_MODEL], scale or [DEFAULT_SCALE]
            results = _held_out(tables, models, scales, sensor, scenes, parse_size(size), engine, precision, threads)
            write_json({"results": results}, json_file)
            from dsca_ros.evaluation.report import markdown_table

            write_markdown(markdown_table(results), markdown)
        else:
            from dsca_ros.evaluation.benchmark_report import benchmark_markdown, benchmark_tables
            from dsca_ros.evaluation.benchmark_run import BenchmarkSettings, run_benchmark

            scales = scale or [2, 4, 8]
            settings = BenchmarkSettings(model or [], scales, engine, precision, threads, ensemble, pictures)
            figures = run_benchmark(data, settings, console)
            tables.print(benchmark_tables(figures))
            write_json(figures, json_file)
            write_markdown(benchmark_markdown(figures), markdown)
    except (EngineError, ValueError) as error:  # SetError and BenchmarkError are ValueErrors
        fail(str(error))


def _held_out(
    tables: Console,
    models: list[str],
    scales: list[int],
    sensors: list[str],
    scenes: int,
    size: tuple[int, int],
    engine: str,
    precision: str,
    threads: int,
) -> list[dict[str, Any]]:
    """Models on held-out synthetic rooms; prints a table for each."""
    from rich.progress import track

    from dsca_ros.evaluation.compare import compare
    from dsca_ros.evaluation.held_out import held_out_samples
    from dsca_ros.evaluation.report import error_table
    from dsca_ros.upsampler import Upsampler

    width, height = size
    results = []
    for model in models:
        for scale in scales:
            with Upsampler(model, scale, engine, precision, threads) as upsampler:
                for name in sensors:
                    samples = held_out_samples(upsampler, scale, name, scenes, width, height)
                    counted = track(samples, f"{name} ×{scale}", total=scenes, console=console, transient=True)
                    errors = compare(counted)
                    results.append({"sensor": name, "model": model, "scale": scale, "scenes": scenes, "error": errors})
                    tables.print(error_table(errors, f"{model} ×{scale}, {name} {width}×{height}, {scenes} rooms"))
    return results


@app.command()
def sensors(
    folders: list[Path] = typer.Argument(..., metavar="DIR...", help="Folders of depth frames, or of such folders."),
    model: str = typer.Option("", help="Sensor model of the camera; default: by the folder's name, where it is known."),
    frames: int = typer.Option(5, min=1, help="Frames of each set, and synthetic rooms for its model."),
    pictures: Path = typer.Option(None, metavar="DIR", help="Draw the fit."),
    json_file: str = JSON,
    markdown: str = typer.Option(
        None, metavar="FILE", help="Write the table as Markdown; FILE#PART replaces PART of a document; - is stdout."
    ),
) -> None:
    """Noise, quantisation and holes of recorded frames, beside the same of the camera's model.

    Example: dsca sensors recordings/d435 --model stereo --pictures pictures
    """
    from dsca_ros.evaluation.sensor_report import sensor_markdown, sensor_tables
    from dsca_ros.evaluation.sensor_run import SensorSettings, run_sensors

    try:
        figures = run_sensors([str(folder) for folder in folders], SensorSettings(model, frames, pictures), console)
    except (ValueError, OSError) as error:  # SetError is a ValueError
        fail(str(error))
    Console(file=sys.stderr if "-" in (json_file, markdown) else sys.stdout).print(sensor_tables(figures))
    write_json(figures, json_file)
    write_markdown(sensor_markdown(figures), markdown)


@app.command()
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


@app.command()
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
        count, freed = cache.clean()
        console.print(f"{count} engines removed from {cache.folder}, {freed / 1e6:.1f} MB", highlight=False)
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


@app.command()
def train(
    recipe: Path = typer.Argument(..., help="A recipe, see config/train/."),
    resume: bool = typer.Option(False, "--resume", help="Go on from the last checkpoint."),
    folder: Path = typer.Option(None, help="Where checkpoint, log and curve go; default runs/NAME."),
    data: Path = typer.Option(None, help="The folder of the maps' folders, for recipes that train on maps."),
    threads: int = typer.Option(1, min=1, help="Threads of torch; one process a core trains most."),
    compiled: bool = typer.Option(
        None, "--compile/--no-compile", help="Fuse the network with torch.compile, which needs a C++ compiler."
    ),
) -> None:
    """Trains a model. Interrupt it at will: --resume goes on exactly.

    Example: dsca train config/train/dsca-nano.yaml --resume
    """
    try:
        import torch

        from dsca_ros.training.maps import MapError
        from dsca_ros.training.progress import TrainingProgress
        from dsca_ros.training.recipe import Recipe, RecipeError
        from dsca_ros.training.train import train as run
    except ImportError as error:
        fail(f"training needs torch ({error}); remedy: pip install 'dsca_ros[train]'")
    torch.set_num_threads(threads)
    try:
        chosen = Recipe.load(recipe)
        where = folder or Path("runs") / chosen.name
        with TrainingProgress(console, chosen) as progress:
            checkpoint = run(chosen, where, resume, progress, data=data, compiled=compiled)
    except (MapError, RecipeError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        kept = (where / "checkpoint.pt").exists()
        fail("interrupted" + f"; what was trained is in {where}: go on with --resume" * kept)
    console.print(f"checkpoint: {checkpoint}; export it with: dsca export {checkpoint}", highlight=False)


@app.command()
def export(
    source: Path = typer.Argument(..., help="A checkpoint (.pt) or weights (.safetensors)."),
    folder: Path = typer.Option(Path("models"), help="The models folder; its manifest is brought up to date."),
) -> None:
    """Exports a trained network to ONNX, fp32 and mixed fp16, the whole algorithm in the graph.

    Example: dsca export runs/dsca-nano-x4/checkpoint.pt
    """
    try:
        from dsca_ros.engine.export import ExportError, export_model
    except ImportError as error:
        fail(f"export needs torch, onnx and safetensors ({error}); remedy: pip install 'dsca_ros[train]'")
    try:
        written = export_model(source, folder)
    except ExportError as error:
        fail(str(error))
    for path in written:
        console.print(f"{path}  {path.stat().st_size / 1e3:.0f} kB", highlight=False)


main: Callable[[], None] = app

if __name__ == "__main__":
    main()
