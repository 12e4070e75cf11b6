"""What the subcommands of ``dsca`` share: options, output, and how a command fails."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

from dsca_ros.aside import written_aside
from dsca_ros.upsampler import DEFAULT_MODEL, DEFAULT_SCALE

console = Console(stderr=True)

JSON = typer.Option(None, "--json", metavar="FILE", help="Write the figures to FILE as JSON; - is standard output.")
MODEL = typer.Option(DEFAULT_MODEL, help="Name of the model; `dsca info` lists them.")
ENGINE = typer.Option("auto", help="What runs the model; `dsca info` lists them.")
SCALE = typer.Option(DEFAULT_SCALE, help="Output size over input size: 2, 4 or 8.")
PEERS = typer.Option(None, metavar="DIR", help="A folder of other models and their manifest, measured beside.")
FILL_HOLES = typer.Option("none", help="Holes to fill: none, all, or up to so many pixels across.")
THREADS = typer.Option(0, min=0, help="Threads of one inference on a CPU; 0: the number of cores.")


def fail(text: str) -> NoReturn:
    """Ends the command with one line and exit status 1."""
    # Not through rich: it would break the line, and read [brackets] in paths as markup.
    print(f"dsca: {text}", file=sys.stderr)
    raise typer.Exit(1)


def write_json(figures: Any, target: str | None) -> None:
    """Writes figures where --json says."""
    write_text(json.dumps(figures, indent=2) + "\n", target)


def check_targets(json_file: str | None, markdown: str | None = None) -> None:
    """Ends the command where what it finds could not be written: before hours of work, not after them."""
    if json_file == markdown == "-":
        raise typer.BadParameter("--json and --markdown cannot both go to standard output")
    if json_file is not None and json_file != "-":
        file_to_write(json_file)
    path, _, part = (markdown or "").partition("#")
    if markdown is not None and path != "-":
        file_to_write(path)
    if part:
        _around(path, part)


def file_to_write(target: str) -> Path:
    """A path where a file can be; any other ends the command."""
    path = Path(target)
    if not path.name or path.is_dir():
        fail(f"cannot write {target or repr(target)}: that is no name of a file")
    beside = next((folder for folder in path.parents if folder.exists()), Path("/"))
    if not beside.is_dir() or not os.access(beside, os.W_OK | os.X_OK):
        fail(f"cannot write {path}: {beside} is no folder that may be written to")
    return path


def write_text(text: str, target: str | None) -> None:
    """Writes to a file, or to standard output for ``-``; a broken-off write leaves no half file."""
    if target is None:
        return
    if target == "-":
        sys.stdout.write(text)
        return
    path = file_to_write(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror}")


def write_markdown(text: str, target: str | None) -> None:
    """As `write_text`; ``FILE#PART`` exchanges what stands between ``<!-- PART -->`` and ``<!-- end PART -->``."""
    path, _, part = (target or "").partition("#")
    if target is None or not part:
        write_text(text, target)
        return
    before, after = _around(path, part)
    write_text(before + text + after, path)


def _around(path: str, part: str) -> tuple[str, str]:
    """What stands in a document before a part and after it, with its marks; one without them ends the command."""
    try:
        document = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read {path} ({error})")
    try:
        start, end = f"<!-- {part} -->\n", f"<!-- end {part} -->"
        before, rest = document.split(start)
        _, after = rest.split(end)
    except ValueError:
        fail(f"{path} has no one part between <!-- {part} --> and <!-- end {part} -->")
    return before + start, end + after


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
