"""The benchmark's figures as tables: on the terminal, and as Markdown."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table

from dsca_ros.evaluation.published import AVERAGES, NAMES, PAPER, Case

CASES: dict[Case, str] = {(2, False): "×2", (4, False): "×4", (8, False): "×8", (8, True): "noisy ×8"}


def figure(psnr_db: float, pe_pct: float) -> str:
    """A cell: PSNR/PE."""
    return f"{psnr_db:.2f}/{pe_pct:.3f}"


def measured_cases(averages: list[dict[str, Any]]) -> list[Case]:
    """The cases something was measured on, in the order of `CASES`."""
    there = {(row["scale"], row["noisy"]) for row in averages}
    return [case for case in CASES if case in there]


def average_rows(averages: list[dict[str, Any]]) -> list[tuple[str, list[str], bool]]:
    """The table of averages: method, a cell for each measured case, and whether it was measured here.

    A model and its twin for noise share a row. The paper's rows come first.
    """
    cases = measured_cases(averages)
    rows = [
        (name, [figure(*cells[case]) if case in cells else "–" for case in cases], False)
        for name, cells in AVERAGES.items()
        if cells.keys() & set(cases)
    ]
    measured: dict[str, dict[Case, str]] = {}
    for row in averages:
        name = row["model"].replace("-noisy", "")
        measured.setdefault(name, {})[(row["scale"], row["noisy"])] = figure(row["psnr_db"], row["pe_pct"])
    rows += [(name, [cells.get(case, "–") for case in cases], True) for name, cells in measured.items()]
    return rows


def image_rows(results: list[dict[str, Any]], case: Case) -> list[tuple[str, list[str], bool]]:
    """The table of one case, map by map in the order of `NAMES`; the paper's row first."""
    measured: dict[str, dict[str, str]] = {}
    for row in results:
        if (row["scale"], row["noisy"]) == case:
            measured.setdefault(row["model"], {})[row["image"]] = figure(row["psnr_db"], row["pe_pct"])
    if not measured:
        return []
    published = [("the paper", [figure(*cell) for cell in PAPER[case]], False)]
    return published + [(name, [cells.get(i, "–") for i in NAMES], True) for name, cells in measured.items()]


def benchmark_tables(figures: dict[str, Any]) -> Group:
    """What `dsca evaluate --data` shows."""
    table = Table(title="average over the ten maps, PSNR dB / PE %; bold: measured here", title_justify="left")
    table.add_column("method", no_wrap=True)
    for case in measured_cases(figures["average"]):
        table.add_column(CASES[case], justify="right")
    for name, cells, ours in average_rows(figures["average"]):
        table.add_row(name, *cells, style="bold" if ours else "")
    parts: list[Table] = [table]
    for case, heading in CASES.items():
        rows = image_rows(figures["results"], case)
        if not rows:
            continue
        # A row a map: ten columns do not fit a terminal.
        each = Table(title=f"{heading}, PSNR dB / PE %", title_justify="left")
        each.add_column("map")
        for name, _, ours in rows:
            each.add_column(name, justify="right", style="bold" if ours else "")
        for index, image in enumerate(NAMES):
            each.add_row(image, *(cells[index] for _, cells, _ in rows))
        parts.append(each)
    return Group(*parts)


def benchmark_markdown(figures: dict[str, Any]) -> str:
    """The same as Markdown, with the cost of every model."""
    parts = ["### Averages over the ten maps (PSNR dB / PE %)", ""]
    parts += _markdown(
        ["method", *(CASES[case] for case in measured_cases(figures["average"]))], average_rows(figures["average"])
    )
    under_noise = [row for row in figures["average"] if row["noisy"]]
    if under_noise:
        psnr, pe = (max(row[key] for row in under_noise) for key in ("psnr_db_std", "pe_pct_std"))
        parts += ["", f"Under noise: means over {under_noise[0]['seeds']} seeds of the noise, "]
        parts[-1] += f"with a standard deviation between seeds of up to {psnr:.3f} dB and {pe:.3f} %."
    for case, heading in CASES.items():
        rows = image_rows(figures["results"], case)
        if rows:
            parts += ["", f"### {heading}, map by map (PSNR dB / PE %)", "", *_markdown(["method", *NAMES], rows)]
    if figures["cost"]:
        parts += ["", "### Cost of one 1080×1320 result", ""]
        heads = ["model", "scale", "parameters", "GFLOP", "seconds", "engine"]
        parts += _markdown(heads, [(row["model"], _cost_cells(row), False) for row in figures["cost"]])
    return "\n".join(parts) + "\n"


def _cost_cells(row: dict[str, Any]) -> list[str]:
    formats = {"parameters": ",", "gflop": ".0f", "seconds": ".2f"}
    counted = ["–" if row[key] is None else format(row[key], spec) for key, spec in formats.items()]
    return [f"×{row['scale']}", *counted, row["engine"]]


def _markdown(heads: list[str], rows: list[tuple[str, list[str], bool]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [f"| {f'**{name}**' if ours else name} | " + " | ".join(cells) + " |" for name, cells, ours in rows]
    return lines
