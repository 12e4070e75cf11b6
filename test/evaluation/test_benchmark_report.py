"""The benchmark's tables."""

import io

import pytest
from rich.console import Console

from dsca_ros.evaluation.benchmark_report import (
    CASES,
    average_rows,
    benchmark_markdown,
    benchmark_tables,
    figure,
    image_rows,
    measured_cases,
)
from dsca_ros.evaluation.published import AVERAGES, NAMES, PAPER


def result(model: str, scale: int, noisy: bool, image: str, psnr: float, pe: float = 1.0) -> dict:
    return {
        "model": model, "scale": scale, "noisy": noisy, "image": image, "psnr_db": psnr, "pe_pct": pe, "seconds": 0.1,
    }  # fmt: skip


def average(model: str, scale: int, noisy: bool, psnr: float, pe: float) -> dict:
    row = {"model": model, "scale": scale, "noisy": noisy, "psnr_db": psnr, "pe_pct": pe}
    return row | ({"seeds": 5, "psnr_db_std": 0.0123, "pe_pct_std": 0.0456} if noisy else {})


FIGURES = {
    "results": [result("dsca-x", 4, False, name, 40.0 + k, 0.5) for k, name in enumerate(NAMES)],
    "average": [
        average("Bicubic", 4, False, 39.861, 4.3123),
        average("dsca-x", 4, False, 51.236, 0.4321),
        average("dsca-x-noisy", 8, True, 38.5, 2.0),
    ],
    "cost": [
        {"model": "dsca-x", "scale": 4, "parameters": 1234567, "gflop": 321.4, "seconds": 1.234, "engine": "E 1"},
        {"model": "dsca-y", "scale": 8, "parameters": None, "gflop": None, "seconds": None, "engine": "E 2"},
    ],
    "published": [],
}


def test_a_cell_is_as_the_paper_prints_it():
    assert figure(39.861, 4.3126).replace(" ", "") == "39.86/4.313"


def test_a_model_and_its_twin_for_noise_share_a_row_below_the_papers():
    rows = average_rows(FIGURES["average"])
    assert [name for name, _, _ in rows] == [*AVERAGES, "Bicubic", "dsca-x"]
    assert [ours for _, _, ours in rows] == [False] * len(AVERAGES) + [True, True]
    assert rows[-1][1] == [figure(51.236, 0.4321), figure(38.5, 2.0)]
    assert all(len(cells) == 2 for _, cells, _ in rows)
    assert {name: cells for name, cells, ours in rows if not ours}["the paper"][0] == figure(50.82, 0.49)


def test_only_cases_that_were_measured_have_a_column():
    assert measured_cases(FIGURES["average"]) == [(4, False), (8, True)]
    noisy = average_rows(FIGURES["average"][2:])
    assert "JID (guided)" not in {name for name, _, _ in noisy}  # the paper has no figure of it under noise
    assert {len(cells) for _, cells, _ in noisy} == {1}


def test_the_table_of_a_case_has_the_papers_row_first_and_a_dash_for_what_is_missing():
    rows = image_rows(FIGURES["results"][1:], (4, False))
    assert [name for name, _, _ in rows] == ["the paper", "dsca-x"]
    assert rows[0][1] == [figure(*cell) for cell in PAPER[4, False]]
    assert rows[1][1] == ["–", *(figure(40.0 + k, 0.5) for k in range(1, 10))]
    assert image_rows(FIGURES["results"], (8, False)) == []


def shown(width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(benchmark_tables(FIGURES))
    return console.file.getvalue()


def test_the_terminal_shows_averages_and_a_row_for_each_map():
    text = shown(120)
    cells = (figure(51.24, 0.432), figure(39.86, 4.312), figure(38.5, 2.0), figure(50.82, 0.49), figure(49.0, 0.5))
    for part in (*cells, "noisy ×8", "the paper"):
        assert part in text
    for name in NAMES:
        assert name in text
    assert "…" not in text


def tables_of(text: str) -> list[list[str]]:
    """The rows of every Markdown table."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert blocks
    return blocks


def test_markdown_tables_are_whole():
    text = benchmark_markdown(FIGURES)
    tables = tables_of(text)
    assert len(tables) == 3  # averages, one case, cost
    for rows in tables:
        assert len({row.count("|") for row in rows}) == 1
        assert set(rows[1]) <= set("|-")
    assert text.endswith("|\n") and text.count("\n### ") + 1 == 3


def test_markdown_has_every_figure_and_marks_what_was_measured_here():
    averages, by_map, cost = tables_of(benchmark_markdown(FIGURES))
    assert averages[-1] == f"| **dsca-x** | {figure(51.236, 0.4321)} | {figure(38.5, 2.0)} |"
    assert averages[2].startswith(f"| Bicubic | {figure(39.91, 4.32)} |")
    assert by_map[0] == "| method | " + " | ".join(NAMES) + " |"
    assert by_map[2].startswith(f"| the paper | {figure(48.88, 0.219)} |")
    assert by_map[3].startswith(f"| **dsca-x** | {figure(40.0, 0.5)} | {figure(41.0, 0.5)} |")
    assert cost[2:] == ["| dsca-x | ×4 | 1,234,567 | 321 | 1.23 | E 1 |", "| dsca-y | ×8 | – | – | – | E 2 |"]


def test_under_noise_the_deviation_between_seeds_is_said():
    text = benchmark_markdown(FIGURES)
    assert "5 seeds" in text and "0.012 dB" in text and "0.046 %" in text
    quiet = benchmark_markdown(FIGURES | {"average": FIGURES["average"][:2], "cost": []})
    assert "seeds" not in quiet and "Cost" not in quiet


@pytest.mark.parametrize("case", list(CASES))
def test_every_case_has_figures_of_the_paper(case):
    assert case in PAPER and case in AVERAGES["the paper"]
