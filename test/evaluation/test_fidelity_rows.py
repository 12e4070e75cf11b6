"""Figures of methods whose errors are known beforehand, on sets of a few small frames."""

import copy
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from rich.console import Console

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import best_choice, decimate, spread
from dsca_ros.depth.resample import METHODS, bilinear, nearest
from dsca_ros.evaluation import fidelity_run
from dsca_ros.evaluation.fidelity import (
    BEST_CHOICE,
    Network,
    Tally,
    change_between,
    chosen,
    common,
    cut,
    decimated,
    recorded_rows,
    truth_rows,
    usual_methods,
)
from dsca_ros.evaluation.fidelity_pictures import draw_side_view
from dsca_ros.evaluation.fidelity_report import fidelity_markdown
from dsca_ros.evaluation.fidelity_run import FidelitySettings, check_frames, open_sets, run_fidelity, set_rows
from dsca_ros.evaluation.recordings import DepthSet, SetError, open_set

USUAL = ["nearest", "bilinear", "bicubic", "naive bilinear", "naive bicubic"]
TRUTH = ["rmse_mm", "mae_mm", "edge_mae_mm", "flying_pct", "hallucinated_pct", "lost_pct"]
RECORDED = ["surface_mae_mm", "edge_mae_mm", "flying_pct", "plane_rms_ratio", "consistency_mm", "steadiness_ratio"]
Rows = dict[str, dict[str, object]]


def alone(network: Callable) -> dict[str, Network]:
    """A network, `ours`, without a twin."""
    return {"ours": Network(network, network)}


def by_method(rows: list[dict]) -> Rows:
    return {row["method"]: row for row in rows}


def against(truth: np.ndarray, source: np.ndarray, result: np.ndarray) -> Rows:
    """Figures where the network, `ours`, gives ``result``."""
    return by_method(
        truth_rows("set", [(source, truth)], {"ours": lambda _: result}, truth.shape[0] // source.shape[0])
    )


def wall(height: int = 24, width: int = 32, metres: float = 2.0) -> np.ndarray:
    return np.full((height, width), metres, np.float32)


def step(height: int = 24, width: int = 32) -> np.ndarray:
    """1 m on the left, 2 m on the right."""
    depth = wall(height, width)
    depth[:, : width // 2] = 1.0
    return depth


@pytest.fixture
def make_set(tmp_path) -> Callable[..., DepthSet]:
    """Writes frames, their poses and set.yaml."""

    def make(frames: list[np.ndarray], name: str = "set", poses: tuple[np.ndarray, ...] = (), **keys) -> DepthSet:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for index, frame in enumerate(frames):
            np.save(folder / f"{index:03d}.npy", frame.astype(np.float32))
        for index, pose in enumerate(poses):
            np.savetxt(folder / f"{index:03d}.pose.txt", pose)
        if keys:
            (folder / "set.yaml").write_text(yaml.safe_dump(keys))
        return open_set(folder)

    return make


def measured(depth_set: DepthSet, network: Callable = lambda depth: bilinear(depth, 2), frames: int = 8) -> Rows:
    return by_method(recorded_rows(depth_set, frames, alone(network), 2))


# --- parts --------------------------------------------------------------------------------------


def test_a_tally_is_a_mean_of_all_values_added():
    tally = Tally()
    assert tally.mean() is None
    tally.add(np.array([1.0, 2.0, 6.0], np.float32))
    tally.add(np.zeros(0, np.float32))
    tally.add(np.array([True]))
    assert tally.mean() == 2.5 and tally.mean(100.0) == 250.0


@pytest.mark.parametrize(
    ("total", "frames", "expected"),
    [(5, 8, [0, 1, 2, 3, 4]), (5, 5, [0, 1, 2, 3, 4]), (5, 3, [0, 2, 4]), (5, 1, [0]), (61, 4, [0, 20, 40, 60])],
)
def test_frames_are_spread_over_the_set(make_set, total, frames, expected):
    assert chosen(make_set([wall(2, 2)] * total), frames) == expected


def test_cut_to_a_multiple_at_the_bottom_and_on_the_right():
    depth = np.arange(7 * 9).reshape(7, 9)
    np.testing.assert_array_equal(cut(depth, 4), depth[:4, :8])
    np.testing.assert_array_equal(cut(depth[:4, :8], 4), depth[:4, :8])


def test_the_usual_methods_are_those_of_the_tables(depth_image):
    source = depth_image(6, 8)
    methods = usual_methods(4)
    assert list(methods) == USUAL
    for name, method in METHODS.items():
        np.testing.assert_array_equal(methods[name](source), method(source, 4))
    assert (methods["naive bilinear"](source) != methods["bilinear"](source)).any()


def test_compared_is_where_the_careful_the_network_and_the_truth_are_valid():
    results = {name: wall(2, 3) for name in [*USUAL, "ours"]}
    truth = wall(2, 3)
    truth[0, 0] = results["ours"][0, 1] = results["bicubic"][0, 2] = 0.0
    results["naive bilinear"][1] = 0.0  # has no say
    assert common(results, ["ours"], truth).tolist() == [[False] * 3, [True] * 3]


def test_all_are_compared_on_the_pixels_that_every_network_has():
    truth = step()
    whole, half = nearest(decimate(truth, 2), 2), nearest(decimate(truth, 2), 2)
    whole[:, 20:] += np.float32(0.01)
    half[:, 20:] = 0.0
    networks = {"whole": lambda _: whole, "half": lambda _: half}
    rows = by_method(truth_rows("set", [(decimate(truth, 2), truth)], networks, 2))
    assert rows["whole"]["mae_mm"] == rows["half"]["mae_mm"] == rows["nearest"]["mae_mm"] == 0.0
    assert (
        by_method(truth_rows("set", [(decimate(truth, 2), truth)], {"whole": networks["whole"]}, 2))["whole"]["mae_mm"]
        > 3
    )


# --- against exact depth ------------------------------------------------------------------------


def test_an_oracle_has_no_error_at_all(depth_image):
    truth = depth_image(48, 64, noise=0.0)
    rows = against(truth, decimate(truth, 2), truth)
    assert list(rows) == [*USUAL, BEST_CHOICE, "ours"]
    for row in rows.values():
        assert list(row) == ["set", "kind", "method", "scale", *TRUTH]
        assert (row["set"], row["kind"], row["scale"]) == ("set", "truth", 2)
    assert {key: rows["ours"][key] for key in TRUTH[:5]} == dict.fromkeys(TRUTH[:5], 0.0)
    for name in USUAL:
        assert rows[name]["mae_mm"] > 1.0
    full = step(48, 64)  # without holes there is nothing to be lost, either
    assert {key: against(full, decimate(full, 2), full)["ours"][key] for key in TRUTH} == dict.fromkeys(TRUTH, 0.0)


def test_the_best_choice_is_a_floor_for_who_takes_what_was_measured(depth_image):
    truth = depth_image(48, 64, noise=0.0)
    source = decimate(truth, 2)
    row = against(truth, source, nearest(source, 2))[BEST_CHOICE]
    floor = best_choice(source, truth)
    where = (floor > 0) & (truth > 0)
    np.testing.assert_array_equal(floor > 0, nearest(source, 2) > 0)
    assert row["mae_mm"] == pytest.approx(1e3 * np.abs(floor - truth)[where].mean(), rel=1e-3)
    for name in ("nearest", "ours"):
        assert row["mae_mm"] < against(truth, source, nearest(source, 2))[name]["mae_mm"]


def test_errors_are_as_computed_by_hand():
    result = wall()
    result[:, 16:] += np.float32(0.03)
    row = against(wall(), wall(12, 16), result)["ours"]
    assert row["rmse_mm"] == pytest.approx(30.0 * 0.5**0.5, rel=1e-4)
    assert row["mae_mm"] == pytest.approx(15.0, rel=1e-4)
    assert row["flying_pct"] == 50.0
    assert row["edge_mae_mm"] is None  # a wall has none
    assert row["hallucinated_pct"] == row["lost_pct"] == 0.0


def test_frames_count_by_their_pixels():
    result = {2.0: wall(), 3.0: wall(48, 32, 3.03)}
    pairs = [(wall(12, 16), wall()), (wall(24, 16, 3.0), wall(48, 32, 3.0))]
    rows = by_method(truth_rows("set", pairs, {"ours": lambda source: result[float(source[0, 0])]}, 2))
    assert rows["ours"]["mae_mm"] == pytest.approx(20.0, rel=1e-4)
    assert rows["ours"]["rmse_mm"] == pytest.approx(30.0 * (2 / 3) ** 0.5, rel=1e-4)
    assert rows["nearest"]["mae_mm"] == 0.0


def test_at_edges_is_four_pixels_to_both_sides():
    truth = step()  # the edge's pixels are columns 15 and 16
    for columns, expected in ((slice(0, 11), 0.0), (slice(11, 21), 10.0), (slice(21, 32), 0.0), (slice(20, 32), 1.0)):
        result = truth.copy()
        result[:, columns] += np.float32(0.01)
        row = against(truth, decimate(truth, 2), result)["ours"]
        assert row["edge_mae_mm"] == pytest.approx(expected, abs=1e-3)
        assert row["mae_mm"] == pytest.approx(10.0 * (columns.stop - columns.start) / 32, rel=1e-3)


def test_what_smears_an_edge_flies():
    rows = against(step(), decimate(step(), 2), step())
    assert rows["nearest"]["flying_pct"] == 0.0
    for name in ("bilinear", "naive bilinear"):
        assert rows[name]["flying_pct"] == pytest.approx(100 * 2 / 32)  # the two columns at 1.25 and 1.75 m
        assert rows[name]["edge_mae_mm"] == pytest.approx(1e3 * (0.25 + 0.25) / 10)


def test_a_method_that_fills_a_hole_invents():
    source = wall(12, 16)
    source[4:9, 5:12] = 0.0
    rows = against(wall(), source, wall())
    assert rows["ours"]["hallucinated_pct"] == pytest.approx(100 * 3 * 5 / (12 * 16), abs=1e-4)
    assert rows["ours"]["mae_mm"] == rows["ours"]["lost_pct"] == 0.0  # that it guessed well is no excuse
    for name in USUAL:
        assert rows[name]["hallucinated_pct"] == 0.0


def test_a_method_that_drops_depth_loses_it():
    source, result = wall(12, 16), wall()
    result[:6] = 0.0
    source[:2] += np.float32(0.5)  # what others do there is not compared
    rows = against(wall(), source, result)
    assert rows["ours"]["lost_pct"] == pytest.approx(25.0)
    assert rows["nearest"]["lost_pct"] == rows["nearest"]["mae_mm"] == rows["ours"]["hallucinated_pct"] == 0.0


def test_a_method_that_gives_nothing_leaves_nothing_to_compare():
    rows = against(wall(), wall(12, 16), np.zeros((24, 32), np.float32))
    for key in ("rmse_mm", "mae_mm", "edge_mae_mm"):
        assert {row[key] for row in rows.values()} == {None}
    assert rows["ours"]["flying_pct"] is None and rows["ours"]["lost_pct"] == 100.0


def test_where_the_exact_depth_is_unknown_nothing_flies():
    truth = wall()
    truth[:, 16:] = 0.0
    rows = against(truth, wall(12, 16), wall())
    assert rows["ours"]["flying_pct"] == rows["ours"]["mae_mm"] == 0.0


def test_frames_are_decimated_and_the_exact_depth_is_cut(make_set, depth_image):
    exact = make_set([wall(13, 15, 2.0), wall(13, 15, 3.0), wall(13, 15, 4.0)], "exact")
    noisy = [depth_image(13, 15), np.zeros((13, 15)), depth_image(13, 15, seed=1)]
    noisy[1][0, :2] = 3.0  # too little of it is valid
    found = make_set(noisy, "noisy", kind="truth", truth="../exact")
    pairs = list(decimated(found, 8, 2))
    assert len(pairs) == 2
    for (source, truth), index in zip(pairs, (0, 2)):
        np.testing.assert_array_equal(source, decimate(noisy[index], 2))
        np.testing.assert_array_equal(truth, cut(exact.depth(index), 2))
        assert truth.shape == (12, 14) and source.shape == (6, 7)


def test_a_set_of_exact_depth_is_measured_so(make_set, depth_image):
    found = make_set([depth_image(24, 32)], kind="truth")
    rows = set_rows(found, 1, alone(lambda source: nearest(source, 2)), 2)
    assert rows == truth_rows("set", decimated(found, 1, 2), {"ours": lambda source: nearest(source, 2)}, 2)
    figures = by_method(rows)
    assert {key: figures["ours"][key] for key in TRUTH} == {key: figures["nearest"][key] for key in TRUTH}


# --- recorded frames ----------------------------------------------------------------------------


def noisy_wall(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A wall at 2 m with noise of 3 mm."""
    return (2.0 + np.random.default_rng(seed).normal(0.0, 0.003, (height, width))).astype(np.float32)


def test_figures_of_a_still_wall_are_those_of_its_noise(make_set):
    found = make_set([noisy_wall(k) for k in range(3)], still=True)
    rows = measured(found)
    assert list(rows) == [*USUAL, "ours"]
    for row in rows.values():
        assert set(row) == {"set", "kind", "method", "scale", *RECORDED}
        assert (row["set"], row["kind"], row["scale"]) == ("set", "recorded", 2)
    assert rows["nearest"]["consistency_mm"] == 0.0 < rows["bilinear"]["consistency_mm"]
    assert rows["nearest"]["plane_rms_ratio"] == pytest.approx(1.0, abs=1e-3)
    # Weights of 3/4 and 1/4 leave 10/16 of the variance along each axis.
    assert rows["bilinear"]["plane_rms_ratio"] == pytest.approx(10 / 16, rel=0.05)
    assert rows["bilinear"]["steadiness_ratio"] == rows["ours"]["steadiness_ratio"] == 1.0
    assert rows["nearest"]["steadiness_ratio"] == pytest.approx(16 / 10, rel=0.05)
    assert {row["edge_mae_mm"] for row in rows.values()} == {None}
    assert {row["flying_pct"] for row in rows.values()} == {None}  # of the points at edges, of which there are none
    assert all(0.5 < row["surface_mae_mm"] < 5.0 for row in rows.values())


def test_what_a_method_adds_is_seen_on_surfaces_and_in_consistency(make_set):
    rows = measured(make_set([wall()]), lambda depth: nearest(depth, 2) + np.float32(0.005))
    assert rows["ours"]["surface_mae_mm"] == pytest.approx(5.0, rel=1e-3)
    assert rows["ours"]["consistency_mm"] == pytest.approx(5.0, rel=1e-3)
    assert rows["nearest"]["surface_mae_mm"] == rows["nearest"]["consistency_mm"] == 0.0
    assert {row["steadiness_ratio"] for row in rows.values()} == {None}  # one frame
    assert {row["plane_rms_ratio"] for row in rows.values()} == {None}  # smaller than a window


def test_a_restored_edge_counts_apart_and_may_fly(make_set):
    rows = measured(make_set([step()]), lambda depth: nearest(depth, 2))
    assert rows["ours"]["edge_mae_mm"] == rows["ours"]["flying_pct"] == rows["ours"]["surface_mae_mm"] == 0.0
    assert rows["bilinear"]["flying_pct"] == pytest.approx(100 * 2 / 10)  # two of ten columns
    assert rows["bilinear"]["edge_mae_mm"] == pytest.approx(1e3 * (0.25 + 0.25) / 10)
    assert rows["bilinear"]["surface_mae_mm"] == 0.0


def test_sizes_that_are_no_multiple_are_cut(make_set):
    rows = by_method(recorded_rows(make_set([step(25, 35)]), 1, alone(lambda depth: nearest(depth, 4)), 4))
    assert rows["ours"]["consistency_mm"] == 0.0 and rows["ours"]["surface_mae_mm"] is not None


def test_frames_with_next_to_nothing_are_left_out(make_set):
    empty = np.zeros((48, 64))
    empty[0, :50] = 1.0
    rows = measured(make_set([empty, empty], still=True))
    assert {row[key] for row in rows.values() for key in RECORDED} == {None}
    alone = measured(make_set([noisy_wall(0)], "alone"))
    beside = measured(make_set([noisy_wall(0), empty], "beside"))
    assert [{**row, "set": ""} for row in alone.values()] == [{**row, "set": ""} for row in beside.values()]


def test_where_a_camera_moves_and_nobody_knows_how_steadiness_is_unknown(make_set):
    rows = measured(make_set([noisy_wall(0), noisy_wall(1)]))
    assert {row["steadiness_ratio"] for row in rows.values()} == {None}
    assert rows["ours"]["plane_rms_ratio"] is not None


def test_only_still_parts_are_compared(make_set, tmp_path):
    first, second = noisy_wall(0), noisy_wall(1)
    second[10:30, 10:40] = noisy_wall(2)[10:30, 10:40] * 0.7  # something came by
    still = measured(make_set([noisy_wall(0), noisy_wall(1)], "still", still=True), frames=1)
    moved = measured(make_set([first, second], "moved", still=True), frames=1)
    assert moved["nearest"]["steadiness_ratio"] == pytest.approx(still["nearest"]["steadiness_ratio"], rel=0.1)
    found = open_set(tmp_path / "moved")
    assert change(found, nearest) == pytest.approx(2**0.5 * 0.003, rel=0.1) and spread(second - first) > 0.02


CAMERA = Intrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
KNOWN = {"intrinsics": [60.0, 60.0, 31.5, 23.5]}


def slant(x: float, z: float) -> np.ndarray:
    """The wall Z = 1.2 + 0.8 X of the world, from a camera at (x, 0, z): exact depth."""
    u = (np.arange(CAMERA.width) - CAMERA.cx) / CAMERA.fx
    return np.tile((1.2 + 0.8 * x - z) / (1.0 - 0.8 * u), (CAMERA.height, 1)).astype(np.float32)


def at(x: float, z: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[0, 3], pose[2, 3] = x, z
    return pose


def change(found: DepthSet, method: Callable[[np.ndarray, int], np.ndarray] = bilinear) -> float | None:
    first, second = found.depth(0), found.depth(1)
    return change_between(found, 0, first, second, method(first, 2), lambda depth: method(depth, 2), 2)


@pytest.mark.parametrize("there", [(0.05, 0.0), (0.0, 0.1), (-0.04, -0.05)])
def test_known_poses_bring_two_views_together(make_set, there):
    views = [slant(0.0, 0.0), slant(*there)]
    right = change(make_set(views, "a", (at(0.0), at(*there)), **KNOWN))
    unmoved = change(make_set(views, "b", (at(0.0), at(0.0)), **KNOWN))
    inverse = change(make_set(views, "c", (at(*there), at(0.0)), **KNOWN))
    assert right < 0.004
    for wrong in (unmoved, inverse):  # None: so far off that nothing is seen twice
        assert wrong is None or right < 0.5 * wrong
    assert change(make_set(views, "d", (at(0.0),), **KNOWN)) is None  # the other pose is not known
    assert change(make_set(views, "e", (at(0.0), at(*there)))) is None  # the camera is not known


def test_what_one_view_hides_from_the_other_is_no_change(make_set):
    first, second = noisy_wall(0), noisy_wall(1)
    second[:, :26] -= np.float32(1.0)
    found = make_set([first, second], poses=(at(0.0), at(0.0)), **KNOWN)
    assert change(found, nearest) == pytest.approx(2**0.5 * 0.003, rel=0.1)


def test_steadiness_by_poses_is_relative_to_bilinear(make_set):
    views = [noisy_wall(0), noisy_wall(1)]
    shift = 5 * 2.0 / 60.0  # five pixels at 2 m
    found = make_set(views, poses=(at(0.0), at(shift)), **KNOWN)
    rows = measured(found)
    assert rows["bilinear"]["steadiness_ratio"] == 1.0
    assert rows["nearest"]["steadiness_ratio"] == pytest.approx(16 / 10, rel=0.1)
    assert rows["bicubic"]["steadiness_ratio"] > 1.05


@pytest.mark.parametrize("known", ["still", "poses"])
def test_without_a_part_to_compare_steadiness_is_unknown(make_set, known):
    if known == "still":  # everything moves
        found = make_set([noisy_wall(0), noisy_wall(1) + 1.0], still=True)
    else:  # the second view is of elsewhere
        found = make_set([noisy_wall(0), noisy_wall(1)], poses=(at(0.0), at(50.0)), **KNOWN)
    json.dumps(list(measured(found).values()), allow_nan=False)


def test_frames_that_are_the_same_do_not_make_bilinear_steadier_than_itself(make_set):
    rows = measured(make_set([noisy_wall(0), noisy_wall(0)], still=True))
    assert rows["bilinear"]["steadiness_ratio"] in (None, 1.0)


def test_frames_of_different_sizes_with_poses_are_not_compared(make_set):
    views = [noisy_wall(0), noisy_wall(1, 40, 64)]
    rows = measured(make_set(views, poses=(at(0.0), at(0.0)), **KNOWN))
    assert rows["bilinear"]["steadiness_ratio"] is None


def test_recordings_are_measured_as_such(make_set):
    found = make_set([noisy_wall(0)])
    rows = set_rows(found, 1, alone(lambda depth: nearest(depth, 2)), 2)
    assert rows == recorded_rows(found, 1, alone(lambda depth: nearest(depth, 2)), 2)


# --- the run ------------------------------------------------------------------------------------


def test_sets_are_folders_folders_of_them_and_synthetic_rooms(make_set, tmp_path):
    for name in ("one", "many/b", "many/a"):
        make_set([wall()], name)
    (tmp_path / "many" / "notes.txt").touch()
    found = open_sets([str(tmp_path / "one"), "synthetic", str(tmp_path / "many")])
    names = [item if isinstance(item, str) else item.name for item in found]
    assert names == ["one", "synthetic-stereo", "synthetic-kinect_v1", "synthetic-tof", "a", "b"]


@pytest.mark.parametrize("name", ["none", "empty"])
def test_what_is_no_set_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SetError, match=name):
        open_sets([str(tmp_path / name)])


def test_a_set_with_a_mistake_is_not_replaced_by_its_folder_of_exact_depth(make_set, tmp_path):
    make_set([wall()], "set/exact")
    np.save(tmp_path / "set" / "000.npy", wall())
    (tmp_path / "set" / "set.yaml").write_text("kinds: truth\ntruth: exact\n")
    with pytest.raises(SetError, match=r"set\.yaml"):
        open_sets([str(tmp_path / "set")])


@pytest.mark.parametrize("depth", [0.0, 10.5])
def test_a_set_without_any_depth_is_told_so(make_set, depth):
    nothing = make_set([np.full((48, 64), depth)] * 2)
    with pytest.raises(SetError, match=r"no depth in the frames .* 0\.001 m.* 10 m.*set\.yaml"):
        check_frames(nothing, 2)
    check_frames(make_set([np.full((48, 64), depth), wall()], "half"), 2)


SHIPPED, PEERS = Path("shipped"), Path("peers")


@pytest.fixture
def two_networks(monkeypatch) -> list[tuple]:
    """Models `flat` and `plain`, which are nearest and bilinear, in place of those that are installed; and a peer."""
    calls: list[tuple] = []

    class Model:
        def __init__(
            self, model: str, scale: int, engine: str, precision: str, threads: int, depth_range: tuple, folder: Path
        ):
            calls.append((model, scale, engine, precision, threads))
            assert folder == (PEERS if model == "peer" else SHIPPED)
            self.run = (nearest if model == "flat" else bilinear, scale)

        def __enter__(self) -> "Model":
            return self

        def __exit__(self, *_: object) -> None: ...

        def __call__(self, depth: np.ndarray) -> np.ndarray:
            return self.run[0](depth, self.run[1])

    class File:
        def __init__(self, model: str, scale: int, domain: str = "depth", precision: str = "fp32", folder=SHIPPED):
            self.model, self.scale, self.domain, self.precision = model, scale, domain, precision
            self.path = folder / "graph.onnx"

    files = [File("flat", 2), File("flat", 4), File("plain", 2), File("maps", 2, "levels")]
    files.append(File("plain", 2, precision="fp16"))
    monkeypatch.setattr(fidelity_run, "Upsampler", Model)
    peers = [File("peer", 2, folder=PEERS), File("peer", 2, precision="fp16", folder=PEERS)]
    monkeypatch.setattr(fidelity_run, "list_models", lambda folder=None: peers if folder == PEERS else files)
    return calls


@pytest.fixture
def quiet() -> Console:
    return Console(file=io.StringIO())


def test_every_model_at_every_scale_on_every_set(make_set, two_networks, quiet):
    first, second = make_set([step()], "a"), make_set([step()], "b", kind="truth")
    settings = FidelitySettings([], [2, 4], 3, "engine", threads=5)
    figures, networks = run_fidelity([str(first.folder), str(second.folder)], settings, quiet)
    assert networks == {"flat", "plain"}
    assert two_networks == [(m, scale, "engine", "fp32", 5) for m, scale in (("flat", 2), ("plain", 2), ("flat", 4))]
    keys = [(row["set"], row["scale"], row["method"]) for row in figures["sets"]]
    assert len(set(keys)) == len(keys)
    for name, others in (("a", USUAL), ("b", [*USUAL, BEST_CHOICE])):
        assert [m for s, scale, m in keys if (s, scale) == (name, 2)] == [*others, "flat", "plain"]
        assert [m for s, scale, m in keys if (s, scale) == (name, 4)] == [*others, "flat"]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_peers_are_measured_beside_and_are_none_of_the_networks(make_set, two_networks, quiet):
    settings = FidelitySettings(["flat"], [2, 4], 3, peers=PEERS)
    figures, networks = run_fidelity([str(make_set([step()]).folder)], settings, quiet)
    assert networks == {"flat"}
    assert [call[:2] for call in two_networks] == [("flat", 2), ("peer", 2), ("flat", 4)]
    assert [row["method"] for row in figures["sets"] if row["scale"] == 2] == [*USUAL, "flat", "peer"]
    text = fidelity_markdown(figures, networks)
    assert "| peer |" in text and "| **flat** |" in text


@pytest.mark.parametrize(
    ("models", "scales", "precision", "cause"),
    [
        (["huge"], [2], "fp32", "no model 'huge' at scale 2"),
        (["plain"], [4], "fp32", "no model 'plain' at scale 4"),
        (["maps"], [2], "fp32", "no model 'maps'"),
        ([], [8], "fp32", "no model for depth at scale 8"),
        ([], [2, 8], "fp32", "no model to measure at scale 8"),
        ([], [2], "int8", "no model for depth"),
    ],
)
def test_models_that_are_not_there_are_named(make_set, two_networks, quiet, models, scales, precision, cause):
    folder = str(make_set([wall()]).folder)
    with pytest.raises(SetError, match=cause):
        run_fidelity([folder], FidelitySettings(models, scales, precision=precision), quiet)
    assert two_networks == []


def test_two_sets_whose_folders_have_the_same_name_are_both_measured(make_set, two_networks, quiet):
    first, second = make_set([wall()], "d435/depth"), make_set([step()], "tof/depth")
    figures, _ = run_fidelity([str(first.folder), str(second.folder)], FidelitySettings(["flat"], [2]), quiet)
    assert len(figures["sets"]) == 2 * 6


def test_synthetic_rooms_are_held_out_frames_of_a_sensor(monkeypatch):
    asked, ran = [], []

    def frames(scale: int, sensor: str, scenes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        asked.append((scale, sensor, scenes))
        for _ in range(scenes):
            yield wall(12, 16), step()

    def upsample(source: np.ndarray) -> np.ndarray:
        ran.append(source.shape)
        return nearest(source, 2)

    monkeypatch.setattr(fidelity_run, "held_out_frames", frames)
    rows = set_rows("synthetic-tof", 3, alone(upsample), 2)
    assert asked == [(2, "tof", 3)]
    assert ran == [(12, 16)] * 3  # once a frame
    assert {(row["set"], row["kind"]) for row in rows} == {("synthetic-tof", "truth")}
    assert by_method(rows)["ours"]["mae_mm"] == pytest.approx(500.0)


# --- twins --------------------------------------------------------------------------------------


def test_decimated_frames_are_restored_by_the_twin_and_all_else_is_measured_on_the_model(make_set):
    """Planes, consistency and steadiness are of the frame as it is."""
    found = make_set([step(25, 35)])

    def ours(depth: np.ndarray) -> np.ndarray:
        return nearest(depth, 2)

    def twin(depth: np.ndarray) -> np.ndarray:
        return nearest(depth, 2) + np.float32(0.001)

    both = {"ours": Network(ours, twin)}
    row = by_method(recorded_rows(found, 1, both, 2))["ours"]
    itself = by_method(recorded_rows(found, 1, alone(ours), 2))["ours"]
    assert row["surface_mae_mm"] == pytest.approx(itself["surface_mae_mm"] + 1.0, abs=1e-3)
    assert row["consistency_mm"] == itself["consistency_mm"]
    assert set_rows(found, 1, both, 2) == recorded_rows(found, 1, both, 2)
    exact = make_set([wall(24, 36)], "exact", kind="truth")
    assert by_method(set_rows(exact, 1, both, 2))["ours"]["mae_mm"] == pytest.approx(
        by_method(set_rows(exact, 1, alone(ours), 2))["ours"]["mae_mm"] + 1.0, abs=1e-3
    )


@pytest.fixture
def twins(tiny_models, tmp_path, monkeypatch) -> None:
    """The model `tiny`, and beside it a twin at 2."""
    folder = tmp_path / "models"
    shutil.copytree(tiny_models, folder)
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    models = manifest["models"]
    models["tiny-decimated"] = {"domain": "depth", "scales": {2: copy.deepcopy(models["tiny"]["scales"][2])}}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    monkeypatch.setenv("DSCA_MODELS", str(folder))


@pytest.mark.parametrize(
    ("models", "twins_used", "expected"),
    [
        ([], True, {"tiny": "tiny-decimated"}),
        ([], False, {}),
        (["tiny"], True, {"tiny": "tiny-decimated"}),
        (["tiny-decimated"], True, {}),
    ],
)
def test_a_twin_is_measured_with_its_model_and_by_itself_where_it_is_named(
    twins, make_set, models, twins_used, expected
):
    folder = str(make_set([step(25, 35)]).folder)
    settings = FidelitySettings(models, [2], 1, "onnxruntime", twins=twins_used)
    figures, networks = run_fidelity([folder], settings, Console(quiet=True))
    assert figures["twins"] == expected
    assert networks == {models[0] if models else "tiny"}


# --- pictures -----------------------------------------------------------------------------------


@pytest.fixture
def draw(monkeypatch, tmp_path) -> Callable[[DepthSet], list[np.ndarray]]:
    """Draws a set with nearest for the network; the points [N, 2] of every panel."""
    clouds: list[np.ndarray] = []
    scatter = Axes.scatter

    def recorded(self: Axes, x: np.ndarray, y: np.ndarray, **style: object) -> object:
        clouds.append(np.stack([x, y], axis=1))
        return scatter(self, x, y, **style)

    monkeypatch.setattr(Axes, "scatter", recorded)

    def run(depth_set: DepthSet) -> list[np.ndarray]:
        path = tmp_path / "new" / "a.png"
        draw_side_view(depth_set, "ours", lambda depth: nearest(depth, 2), 2, path)
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(cv2.imread(str(path)).shape[:2]) > 300
        return clouds

    return run


def test_the_rows_with_most_edges_are_drawn_from_above(make_set, draw):
    depth = wall(24, 32, 2.0)
    depth[10:16] = step(6, 32)
    depth[12, 3] = 0.0
    # Of the middle frame.
    found = make_set([wall(24, 32, 5.0), depth, wall(24, 32, 5.0)], intrinsics=[20.0, 20.0, 10.0, 12.0])
    seen, smeared, ours = draw(found)
    expected = [((u - 10.0) / 20.0 * z, z) for row in depth[10:16] for u, z in enumerate(row) if z > 0]
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    assert set(ours[:, 1]) == {1.0, 2.0} and len(ours) == 4 * len(seen)
    assert {1.0, 1.25, 1.75, 2.0} <= set(smeared[:, 1].round(4).tolist())  # bilinear's flying pixels
    centre = 2 * (10.0 + 0.5) - 0.5
    np.testing.assert_allclose(ours[:6, 0], [(u - centre) / 40.0 for u in range(6)], atol=1e-5)


def test_a_camera_that_nobody_knows_is_assumed(make_set, draw):
    seen = draw(make_set([step()]))[0]
    left = seen[seen[:, 1] == 1.0][:, 0]
    assert left.min() == pytest.approx(-np.tan(np.radians(30.0)) * 31 / 32)


def test_a_set_without_any_depth_can_be_drawn(make_set, draw):
    assert [len(cloud) for cloud in draw(make_set([np.zeros((24, 32))]))] == [0, 0, 0]


def test_a_flat_wall_is_drawn(make_set, draw):
    assert min(len(cloud) for cloud in draw(make_set([wall()]))) > 0


def test_a_frame_smaller_than_the_scale_is_left_out(make_set):
    found = make_set([wall()[:1, :1]])
    rows = recorded_rows(found, 1, alone(lambda depth: depth.repeat(2, 0).repeat(2, 1)), 2)
    assert all(row["surface_mae_mm"] is None for row in rows)
    assert not list(decimated(found, 1, 2))


def test_frames_are_read_before_anything_is_measured(make_set, two_networks, quiet):
    folder = make_set([wall(), wall(), wall()]).folder
    sorted(folder.glob("*.*"))[1].write_bytes(b"PK junk")
    with pytest.raises(SetError, match="cannot be read"):
        run_fidelity([str(folder)], FidelitySettings(["flat"], [2], 1), quiet)
    assert two_networks == []


def test_exact_depth_of_another_size_is_named(make_set, two_networks, quiet):
    make_set([np.ones((6, 7))], "exact")
    folder = make_set([np.ones((6, 8))], kind="truth", truth="../exact").folder
    with pytest.raises(SetError, match="8x6 pixels, and 7x6 of exact depth"):
        run_fidelity([str(folder)], FidelitySettings(["flat"], [2], 1), quiet)
    assert two_networks == []
