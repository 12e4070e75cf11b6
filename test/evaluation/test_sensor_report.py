"""`dsca sensors`: sets beside the models of their cameras, as figures, tables and a picture."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from dsca_ros.cli import app
from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.sensors import SENSORS
from dsca_ros.evaluation import sensor_run
from dsca_ros.evaluation.recordings import open_set
from dsca_ros.evaluation.sensor_report import sensor_markdown

MEASURES = {
    "noise_mm", "depth_m", "windows", "noise", "noise_growth", "autocorrelation_rows", "autocorrelation_columns",
    "step_domain", "step_per_m", "step_mm", "holes_pct", "holes_beside_steps_pct", "holes_elsewhere_pct",
    "hole_left_px", "hole_right_px", "hole_width_px", "outliers_pct", "mixed_pct",
}  # fmt: skip


@pytest.fixture
def dsca(monkeypatch, tmp_path, capsys):
    """Runs `dsca sensors` in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            app(["sensors", *map(str, arguments)])
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def sets(tmp_path) -> Path:
    """A stereo camera under the name of a known one, a camera nobody knows, and one that sees nothing."""
    camera = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)
    for name, frames in {"realsense_d4xx": 3, "unknown": 1, "blind": 1}.items():
        folder = tmp_path / "sets" / name
        folder.mkdir(parents=True)
        for index in range(frames):
            depth = np.zeros((240, 320), np.float32)
            if name != "blind":
                exact = np.repeat(np.linspace(1.5 + index, 1.8 + index, 320, dtype=np.float32)[None], 240, axis=0)
                exact[80:160, 120:200] = 0.9
                depth = SENSORS["stereo"].measure(exact, camera, np.random.default_rng(index))
            cv2.imwrite(str(folder / f"{index}.png"), np.rint(1000 * depth).astype(np.uint16))
        (folder / "set.yaml").write_text(yaml.safe_dump({"intrinsics": [300.0, 300.0, 159.5, 119.5]}))
    return tmp_path / "sets"


def test_figures_tables_and_picture(dsca, sets, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- sensors -->\nold\n<!-- end sensors -->\nafter\n")
    status, out, err = dsca(
        sets, "--frames", 2, "--json", "-", "--markdown", f"{page}#sensors", "--pictures", "pictures"
    )
    assert status == 0, err
    figures = json.loads(out)  # nothing else is on standard output
    assert [(row["set"], row["model"], row["frames"]) for row in figures["sets"]] == [
        ("blind", None, 1), ("realsense_d4xx", "stereo", 2), ("unknown", None, 1)
    ]  # fmt: skip
    blind, stereo, unknown = figures["sets"]
    for row in (blind, stereo, unknown):
        assert set(row["recorded"]) == MEASURES
    assert unknown["simulated"] is None and "no model" in unknown["note"] and stereo["note"] == ""
    assert blind["recorded"]["noise_mm"] is blind["noise_at_m"] is None and blind["recorded"]["holes_pct"] == 100.0
    assert "too few smooth surfaces" in blind["note"]
    # The set was made by the model that it is held against.
    assert stereo["simulated"]["noise_mm"] == pytest.approx(stereo["recorded"]["noise_mm"], rel=0.2)
    for fit in (stereo["recorded"], stereo["simulated"]):
        assert fit["step_per_m"] == pytest.approx(1 / 32 / 19.2, rel=0.05)
        assert fit["hole_left_px"] > 2 * fit["hole_right_px"]

    assert "Noise and steps" in err and "no model of this camera" in err
    text = page.read_text()
    assert text == f"before\n<!-- sensors -->\n{sensor_markdown(figures)}<!-- end sensors -->\nafter\n"
    assert "old" not in text and text.count("| realsense_d4xx | stereo |") == 2
    assert f"{stereo['recorded']['noise_mm']:.2f} / {stereo['simulated']['noise_mm']:.2f}" in text
    (picture,) = (tmp_path / "pictures").iterdir()
    assert picture.name == "fit.png" and cv2.imread(str(picture)).std() > 5


def test_a_model_can_be_named_and_so_holds_for_every_set(dsca, sets):
    status, out, err = dsca(sets / "unknown", "--model", "tof", "--frames", 1, "--json", "figures.json")
    assert status == 0, err
    (row,) = json.loads(Path("figures.json").read_text())["sets"]
    assert row["model"] == "tof" and row["simulated"]["step_domain"] == "depth" and row["note"] == ""
    assert "unknown" in out and "tof" in out


def test_a_blind_camera_is_held_against_a_model_without_a_crash(dsca, sets):
    status, out, err = dsca(sets / "blind", "--model", "stereo", "--frames", 1, "--pictures", "pictures", "--json", "-")
    assert status == 0, err
    (row,) = json.loads(out)["sets"]
    assert row["recorded"]["noise"] == [] and row["simulated"]["noise"] != []
    assert row["noise_at_m"] is None and "too few smooth surfaces" in row["note"]


def test_models_of_known_sets_exist():
    assert set(sensor_run.MODELS.values()) <= set(SENSORS)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["."], "no depth frames"),
        (["sets/unknown", "--model", "sonar"], "no sensor 'sonar'; there are: stereo"),
        (["sets/damaged"], "1.png"),
        (["sets/unknown", "--pictures", "file"], "file"),
        (["synthetic"], "recorded frames"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_told_in_one_line(dsca, sets, tmp_path, arguments, cause):
    (tmp_path / "file").touch()
    (sets / "damaged").mkdir()
    cv2.imwrite(str(sets / "damaged" / "0.png"), np.full((8, 8), 1000, np.uint16))
    (sets / "damaged" / "1.png").write_text("this is text")
    if arguments == ["."]:
        (tmp_path / "empty").mkdir()
        arguments = ["empty"]
    status, out, err = dsca(*arguments)
    assert (status, out) == (1, "")
    *_, line = err.splitlines()
    assert line.startswith("dsca: ") and cause in line and "Traceback" not in err


def test_usage_errors_exit_with_2(dsca, sets):
    assert dsca()[0] == dsca(sets, "--frames", 0)[0] == 2


def test_recorded_cameras_and_their_models_agree(shared_data):
    """The fit that docs/sensors.md tells of."""
    folder = shared_data("sensor")
    for name, error in {"realsense_d4xx": 0.15, "kinect_v1": 0.15, "azure_kinect": 0.2}.items():
        row = sensor_run.measure_set(open_set(folder / name), sensor_run.MODELS[name], 2)
        recorded, simulated = row["recorded"], row["simulated"]
        assert simulated["noise_mm"] == pytest.approx(recorded["noise_mm"], rel=error), name
        for key in ("autocorrelation_rows", "autocorrelation_columns"):
            assert simulated[key][0] == pytest.approx(recorded[key][0], abs=0.15), name
        assert recorded["step_domain"] == simulated["step_domain"], name
        if recorded["step_per_m"]:
            assert simulated["step_per_m"] == pytest.approx(recorded["step_per_m"], rel=0.02), name
