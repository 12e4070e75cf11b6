"""Figures in the documents come from files that commands wrote."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import typer

from dsca_ros.cli import app
from dsca_ros.depth.filters import blur
from dsca_ros.depth.metrics import flying
from dsca_ros.engine.zoo import DEPTH, is_twin, list_models
from dsca_ros.evaluation.bench_chart import relative_errors
from dsca_ros.evaluation.bench_report import bench_markdown
from dsca_ros.evaluation.benchmark_report import benchmark_markdown
from dsca_ros.evaluation.fidelity_report import fidelity_markdown
from dsca_ros.evaluation.recordings import open_set
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


@pytest.mark.parametrize("page", ["fidelity", "fidelity-x8"])
def test_tables_of_fidelity_are_those_of_their_file(page):
    figures = json.loads((DOCS / "results" / f"{page}.json").read_text())
    networks = {model.model for model in list_models() if model.domain == DEPTH and not is_twin(model.model)}
    assert networks <= {row["method"] for row in figures["sets"]}
    assert part((DOCS / f"{page}.md").read_text(), "fidelity") == fidelity_markdown(figures, networks)


def counted_limits(model: str = "dsca-nano", page: str = "fidelity") -> dict[str, str]:
    """How often each limit of docs/fidelity.md holds for a model, as "13 of 16"."""
    rows = json.loads((DOCS / "results" / f"{page}.json").read_text())["sets"]
    by_method = {(row["set"], row["scale"], row["method"]): row for row in rows}
    held: dict[str, list[bool]] = {}

    def note(name: str, value: float | None, limit: float) -> None:
        if value is not None:
            held.setdefault(name, []).append(value <= limit)

    for row in rows:
        if row["method"] != model:
            continue
        usual = {m: by_method[row["set"], row["scale"], m] for m in ("nearest", "bilinear", "bicubic")}
        against_truth = {"mae_mm": 0.9, "edge_mae_mm": 0.8, "rmse_mm": 1.0}
        shares = against_truth if row["kind"] == "truth" else {"surface_mae_mm": 1.0}
        for key, share in shares.items():
            note(key, row[key], share * min(found[key] for found in usual.values()))
        note("planes", row.get("plane_rms_ratio"), 1.0)
        note("steadiness", row.get("steadiness_ratio"), 1.0)
        if row["flying_pct"] is not None:
            flying = min(usual["bilinear"]["flying_pct"] / 3.0, usual["nearest"]["flying_pct"] + 0.2)
            note("flying", row["flying_pct"], flying)
    return {name: f"{sum(results)} of {len(results)}" for name, results in held.items()}


def share_of_best(rows: dict[tuple[str, str], dict], name: str, model: str, key: str) -> float:
    return rows[name, model][key] / min(rows[name, usual][key] for usual in ("nearest", "bilinear", "bicubic"))


def test_what_is_said_of_twins_is_what_was_measured():
    """The table of docs/fidelity.md, from a run of either set of weights on all frames."""
    found = json.loads((DOCS / "results" / "twins.json").read_text())
    rows = {(row["set"], row["method"]): row for row in found["sets"] if row["scale"] == 2}
    assert found["twins"] == {}
    columns = {
        "living room, at edges": ("livingroom", "edge_mae_mm"),
        "Sintel, at edges": ("sintel", "edge_mae_mm"),
        "D4xx, surfaces": ("realsense_d4xx", "surface_mae_mm"),
        "Kinect v1, surfaces": ("kinect_v1", "surface_mae_mm"),
        "rooms by ToF, at edges": ("synthetic-tof", "edge_mae_mm"),
        "rooms by stereo, mean": ("synthetic-stereo", "mae_mm"),
    }
    lines = [["given to", *columns, "Kinect v1, steadiness"], ["---"] * (len(columns) + 2)]
    for model in ("dsca-nano", "dsca-nano-decimated"):
        shares = [f"{share_of_best(rows, name, model, key):.2f}" for name, key in columns.values()]
        lines.append([model, *shares, f"{rows['kinect_v1', model]['steadiness_ratio']:.2f}"])
    expected = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    assert part((DOCS / "fidelity.md").read_text(), "twins") == expected


def test_the_limits_said_to_hold_are_those_that_hold():
    text = " ".join((DOCS / "fidelity.md").read_text().split())
    counted = counted_limits()
    for claim in (
        f"Steadiness holds on {counted['steadiness']}",
        f"planes on {counted['planes']}",
        f"**Mean error** holds on {counted['mae_mm']}",
        f"**Recorded surfaces** hold on {counted['surface_mae_mm']}",
        f"**Flying pixels** hold on {counted['flying']}",
        f"**edges** on {counted['edge_mae_mm'].split()[0]}",
        f"**RMSE** on {counted['rmse_mm'].split()[0]}",
    ):
        assert claim in text, claim


def test_what_is_said_to_hold_of_the_larger_model_holds():
    text = " ".join((DOCS / "fidelity.md").read_text().split())
    counted = counted_limits("dsca-small")
    for key in ("mae_mm", "rmse_mm", "surface_mae_mm", "planes"):
        held, _, total = counted[key].split()
        assert held == total, key
    assert "`dsca-small` holds all of mean error, RMSE, surfaces and planes" in text
    for claim in (
        f"{counted['edge_mae_mm']} at edges",
        f"{counted['flying']} of flying pixels",
        f"{counted['steadiness']} of steadiness",
    ):
        assert claim in text, claim


def test_the_limits_said_to_hold_at_x8_are_those_that_hold():
    text = " ".join((DOCS / "fidelity-x8.md").read_text().split())
    counted = [counted_limits(model, "fidelity-x8") for model in ("dsca-nano", "dsca-small")]

    def told(key: str) -> str:
        (nano, _, total), (small, _, _) = (found[key].split() for found in counted)
        return f"{nano} both" if nano == small else f"{nano} and {small} of {total}"

    for claim in (
        f"mean error on {told('mae_mm').replace(' of 6', ' of 6 sets')}",
        f"edges on {told('edge_mae_mm')}",
        f"RMSE on {told('rmse_mm')}",
        f"recorded surfaces on {told('surface_mae_mm')}",
        f"planes on {told('planes')}",
        f"steadiness on {told('steadiness')}",
        f"flying pixels on {told('flying')}",
    ):
        assert claim in text, claim


@pytest.mark.parametrize("name", ["with-procedural", "without-procedural", "filled"])
def test_validation_figures_of_the_results_are_those_of_the_logs(name):
    with (DOCS / "results" / f"{name}.csv").open() as file:
        *_, last = csv.DictReader(file)
    row = next(line for line in (DOCS / "results.md").read_text().splitlines() if line.startswith(f"| {name} |"))
    assert row == f"| {name} | {float(last['val_psnr_db']):.2f} | {float(last['val_pe_pct']):.3f} |"


@pytest.mark.parametrize("command", ["replay", "play"])
def test_the_document_on_recordings_names_every_option(command):
    text = (DOCS / "replay.md").read_text()
    options = [p.opts[-1] for p in typer.main.get_command(app).commands[command].params if p.opts[-1].startswith("--")]
    assert "--json" in options
    assert [option for option in options if f"{option}`" not in text and f"{option} " not in text] == []


@pytest.mark.parametrize("name", ["bench", "points"])
def test_tables_of_performance_are_those_of_their_file(name: str):
    figures = json.loads((DOCS / "results" / f"{name}.json").read_text())
    assert part((DOCS / "performance.md").read_text(), name) == bench_markdown(figures)


def test_what_a_plain_network_is_said_to_reach_is_what_was_measured():
    errors = relative_errors(json.loads((DOCS / "results" / "fidelity.json").read_text())["sets"])
    text = " ".join((DOCS / "performance.md").read_text().split())
    claim = f"has {errors['espcn', 2]:.2f} of bilinear's mean error at ×2 over all sets of fidelity, and `dsca-nano` "
    alone = relative_errors(json.loads((DOCS / "results" / "twins.json").read_text())["sets"])["dsca-nano", 2]
    claim += f"{errors['dsca-nano', 2]:.2f} with its twin for decimated frames, {alone:.2f} by itself"
    assert claim in text


def test_what_the_simulated_kinects_waves_do_alone_is_what_is_said(shared_data):
    """The noisy twins of the living room: noise smoothed away, what is left of their error is the camera's."""
    noisy, exact = open_set(shared_data("train/livingroom_noisy")), open_set(shared_data("train/livingroom"))
    flies, pixels = 0, 0
    for index in range(len(noisy.frames)):
        measured, truth = noisy.depth(index), exact.depth(index)
        valid = (measured > 0) & (truth > 0) & (np.abs(measured - truth) < 0.06 * truth)
        with np.errstate(divide="ignore", invalid="ignore"):
            off = np.where(valid, 1.0 / measured - 1.0 / truth, 0.0).astype(np.float32)
            waves = blur(off, 12) / np.maximum(blur(valid.astype(np.float32), 12), 1e-3)
            result = np.where(valid, 1.0 / (1.0 / truth + waves), 0.0).astype(np.float32)
        flies += int(flying(result, truth, 2).sum())
        pixels += int(valid.sum())
    assert f"these waves alone make {100.0 * flies / pixels:.1f} % of the points fly" in " ".join(
        (DOCS / "fidelity.md").read_text().split()
    )


def test_the_table_of_the_readme_is_that_of_the_card():
    root = DOCS.parent
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in part_of_card("dsca-nano")]
    sensor_names = {"RealSense D4xx": "stereo", "Kinect v1": "kinect_v1"}
    measured = {(sensor, method): figures for sensor, scale, method, *figures in rows if scale == "×2"}
    seen, sensor = 0, ""
    for line in (root / "README.md").read_text().splitlines():
        cells = [cell.strip(" *") for cell in line.split("|")[1:-1]]
        if len(cells) != 5 or cells[1] not in ("nearest", "bilinear", "dsca-nano"):
            continue
        sensor = sensor_names[cells[0]] if cells[0] else sensor
        rmse, error, flies, _ = measured[sensor, cells[1]]
        assert cells[2:] == [rmse, f"{float(error):.1f}", f"{float(flies.split()[0]):.1f} %"]
        seen += 1
    assert seen == 6


def part_of_card(model: str) -> list[str]:
    """The rows of the figures of a model's card."""
    return part((DOCS.parent / "models" / f"{model}.md").read_text(), "figures").splitlines()[2:]
