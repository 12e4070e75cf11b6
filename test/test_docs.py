"""Figures in the documents come from files that commands wrote."""

import csv
import json
from pathlib import Path

import pytest

from dsca_ros.engine.zoo import DEPTH, list_models
from dsca_ros.evaluation.benchmark_report import benchmark_markdown
from dsca_ros.evaluation.fidelity_report import fidelity_markdown
from dsca_ros.evaluation.sensor_report import sensor_markdown

DOCS = Path(__file__).parents[1] / "docs"


def part(document: str, name: str) -> str:
    """What stands between the marks of a part."""
    _, _, rest = document.partition(f"<!-- {name} -->\n")
    text, end, _ = rest.partition(f"<!-- end {name} -->")
    assert end, f"no part {name}"
    return text


@pytest.mark.parametrize("name", ["benchmark", "ensemble", "ablation"])
def test_tables_of_the_results_are_those_of_their_file(name):
    figures = json.loads((DOCS / "results" / f"{name}.json").read_text())
    assert part((DOCS / "results.md").read_text(), name) == benchmark_markdown(figures)


def test_tables_of_the_sensors_are_those_of_their_file():
    figures = json.loads((DOCS / "results" / "sensors.json").read_text())
    assert part((DOCS / "sensors.md").read_text(), "sensors") == sensor_markdown(figures)


def test_tables_of_fidelity_are_those_of_their_file():
    figures = json.loads((DOCS / "results" / "fidelity.json").read_text())
    networks = {model.model for model in list_models() if model.domain == DEPTH}
    assert networks <= {row["method"] for row in figures["sets"]}
    assert part((DOCS / "fidelity.md").read_text(), "fidelity") == fidelity_markdown(figures, networks)


@pytest.mark.parametrize("name", ["with-procedural", "without-procedural"])
def test_validation_figures_of_the_results_are_those_of_the_logs(name):
    with (DOCS / "results" / f"{name}.csv").open() as file:
        *_, last = csv.DictReader(file)
    row = next(line for line in (DOCS / "results.md").read_text().splitlines() if line.startswith(f"| {name} |"))
    assert row == f"| {name} | {float(last['val_psnr_db']):.2f} | {float(last['val_pe_pct']):.3f} |"
