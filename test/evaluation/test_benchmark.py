"""The paper's benchmark: its protocol, its figures, and every kind of model run through it."""

import io
import shutil

import cv2
import numpy as np
import pytest
from rich.console import Console

from dsca_ros.depth.imresize import to_uint8
from dsca_ros.depth.levels import BEST_PSNR, NOISE
from dsca_ros.engine.zoo import find_model
from dsca_ros.evaluation import benchmark_pictures
from dsca_ros.evaluation.benchmark import (
    BICUBIC,
    DEPTH_RANGE,
    SEEDS,
    BenchmarkError,
    Method,
    averages,
    benchmark_models,
    bicubic,
    case_of,
    load_maps,
    measure,
    model_method,
    plain,
    self_ensemble,
    shrink,
)
from dsca_ros.evaluation.benchmark_run import BenchmarkSettings, run_benchmark
from dsca_ros.evaluation.published import AVERAGES, NAMES, PAPER

#: Two are enough here; all of them are drawn in test_cli.py.
DRAWN = ("art", "tsukuba")
KEYS = ["model", "scale", "noisy", "image", "psnr_db", "pe_pct", "seconds"]


@pytest.fixture
def maps(ten_maps):
    return load_maps(ten_maps)


def nearest(scale: int):
    return lambda low: low.repeat(scale, axis=0).repeat(scale, axis=1)


# --- the maps -----------------------------------------------------------------------------------


def test_the_ten_maps_are_read_in_the_papers_order(maps):
    assert list(maps) == list(NAMES)
    assert all(image.dtype == np.uint8 and image.ndim == 2 for image in maps.values())


def broken(ten_maps, tmp_path, name: str, write) -> None:
    shutil.copytree(ten_maps, tmp_path / "maps")
    path = tmp_path / "maps" / f"{name}.png"
    path.unlink()
    write(path)


@pytest.mark.parametrize(
    ("write", "cause"),
    [
        (lambda path: None, r"no dolls\.png; the ten maps are art, books"),
        (lambda path: path.write_text("this is text"), r"dolls\.png: not an image; expected an 8-bit map"),
        (lambda path: cv2.imwrite(str(path), np.zeros((9, 9), np.uint16)), r"dolls\.png: uint16 .*expected an 8-bit"),
        (lambda path: cv2.imwrite(str(path), np.zeros((9, 9, 3), np.uint8)), r"dolls\.png: uint8 .*one channel"),
    ],
    ids=["missing", "text", "16 bit", "colour"],
)
def test_a_folder_that_is_not_the_benchmark_is_named_in_one_line(ten_maps, tmp_path, write, cause):
    broken(ten_maps, tmp_path, "dolls", write)
    with pytest.raises(BenchmarkError, match=cause) as raised:
        load_maps(tmp_path / "maps")
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BenchmarkError, match=r"nowhere: no such folder; --data names"):
        load_maps(tmp_path / "nowhere")


# --- the degradation ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_map_is_cut_to_a_multiple_and_shrunk_by_the_scale(maps, scale):
    for image in maps.values():
        exact, low = shrink(image, scale, None)
        assert low.shape == (image.shape[0] // scale, image.shape[1] // scale) and low.dtype == np.uint8
        np.testing.assert_array_equal(exact, image[: low.shape[0] * scale, : low.shape[1] * scale])


def test_shrinking_a_constant_by_hand():
    exact, low = shrink(np.full((9, 11), 77, np.uint8), 2, None)
    assert exact.shape == (8, 10) and (low == 77).all()


def test_noise_is_a_function_of_the_seed_and_falls_on_a_stored_map():
    image = np.full((400, 400), 120, np.uint8)
    noisy = [shrink(image, 2, seed)[1].astype(float) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    assert (noisy[0] - 120).std() == pytest.approx(NOISE, rel=0.03)
    # The exact map stays exact.
    np.testing.assert_array_equal(shrink(image, 2, 0)[0], image)


# --- methods ------------------------------------------------------------------------------------


def test_a_method_that_makes_no_error_has_the_best_figures():
    (result,) = measure(Method("copy", 2, False, nearest(2)), {"art": np.full((20, 20), 50, np.uint8)})
    assert (result.model, result.scale, result.noisy, result.image) == ("copy", 2, False, "art")
    assert result.psnr_db == pytest.approx(BEST_PSNR) and result.pe_pct == 0.0 and result.seconds >= 0.0


def test_without_noise_a_map_is_measured_once_and_with_noise_once_a_seed(maps):
    seen = []

    def enlarge(low: np.ndarray) -> np.ndarray:
        seen.append(low)
        return nearest(4)(low)

    assert len(list(measure(Method("m", 4, False, enlarge), maps))) == 10 == len(seen)
    seen.clear()
    results = list(measure(Method("m", 4, True, enlarge), maps))
    assert len(results) == 10 and len(seen) == 10 * SEEDS
    assert len({low.tobytes() for low in seen}) == len(seen)


def test_the_figures_under_noise_are_means_over_the_seeds():
    image = np.full((32, 32), 100, np.uint8)
    off = iter([10, 20])  # levels, of every pixel
    method = Method("m", 2, True, lambda low: np.full((32, 32), 100 + next(off), np.uint8))
    (result,) = measure(method, {"art": image}, seeds=2)
    each = [10 * np.log10(255**2 / error**2) for error in (10, 20)]
    assert result.psnr_db == pytest.approx(np.mean(each)) and result.pe_pct == 100.0
    (row,) = averages([result])
    assert row["psnr_db"] == pytest.approx(np.mean(each), abs=1e-3)
    assert row["psnr_db_std"] == pytest.approx(np.std(each), abs=1e-3) and row["seeds"] == 2


def test_averages_are_over_the_maps_for_each_method_and_case():
    def off_by(error: int, scale: int):
        return Method(f"off {error}", scale, False, lambda low: nearest(scale)(low) + np.uint8(error))

    two = {"art": np.full((8, 8), 100, np.uint8), "books": np.full((16, 16), 100, np.uint8)}
    rows = averages([*measure(off_by(4, 2), two), *measure(off_by(5, 2), two), *measure(off_by(5, 4), two)])
    assert [(row["model"], row["scale"], row["noisy"]) for row in rows] == [
        ("off 4", 2, False),
        ("off 5", 2, False),
        ("off 5", 4, False),
    ]
    assert [row["pe_pct"] for row in rows] == [0.0, 100.0, 100.0]
    assert rows[0]["psnr_db"] == pytest.approx(10 * np.log10(255**2 / 16), abs=1e-3)


def test_a_result_for_json_has_its_keys_and_four_digits():
    (result,) = measure(bicubic(2, False), {"art": np.eye(8, dtype=np.uint8)})
    found = plain(result)
    assert list(found) == KEYS
    assert found["psnr_db"] == round(result.psnr_db, 4)


def lean(low: np.ndarray) -> np.ndarray:
    """Larger, and brighter towards its right: depends on how a map lies."""
    return nearest(2)(low) + np.linspace(0.0, 8.0, 2 * low.shape[1])


def test_the_ensemble_of_a_symmetric_method_is_the_method(rng):
    low = rng.integers(0, 256, (7, 10), dtype=np.uint8)
    found = self_ensemble(nearest(2), low)
    assert found.shape == (14, 20)
    np.testing.assert_allclose(found, nearest(2)(low))
    enlarge = bicubic(4, False).enlarge  # rounds half up in every direction
    np.testing.assert_allclose(self_ensemble(enlarge, low), enlarge(low), atol=1e-6)


def test_the_ensemble_of_any_method_is_symmetric(rng):
    low = rng.integers(0, 200, (7, 10), dtype=np.uint8)
    found = self_ensemble(lean, low)
    np.testing.assert_allclose(found, nearest(2)(low) + 4.0)  # as much brighter to every side
    np.testing.assert_allclose(self_ensemble(lean, low[:, ::-1]), found[:, ::-1])
    np.testing.assert_allclose(self_ensemble(lean, low.T), found.T)


def test_the_ensemble_lays_a_map_in_eight_ways(rng):
    low, seen = rng.integers(0, 256, (6, 6), dtype=np.uint8), []

    def enlarge(laid: np.ndarray) -> np.ndarray:
        assert laid.flags.c_contiguous
        seen.append(laid.tobytes())
        return laid

    self_ensemble(enlarge, low)
    assert len(set(seen)) == 8


def test_a_model_for_maps_is_measured_on_levels(use_level_models, maps):
    file = find_model("maps", 2)
    method, engine = model_method(file, "onnxruntime", 1)
    low = shrink(maps["art"], 2, None)[1]
    np.testing.assert_array_equal(method.enlarge(low), engine.infer(low, DEPTH_RANGE))
    assert (method.name, method.case) == ("maps", (2, False))
    engine.close()


def test_a_model_for_depth_is_measured_on_disparity_as_inverse_depth(use_level_models, maps):
    method, engine = model_method(find_model("tiny", 2), "onnxruntime", 1)
    assert (method.enlarge(np.full((9, 8), 100, np.uint8)) == 100).all()
    low = shrink(maps["art"], 2, None)[1]
    result = method.enlarge(low)
    assert result.dtype == np.uint8 and result.shape == (2 * low.shape[0], 2 * low.shape[1])
    # What goes through depth and back stays within the levels around it.
    around = np.lib.stride_tricks.sliding_window_view(np.pad(low, 1, mode="edge"), (3, 3))
    assert (result >= nearest(2)(around.min(axis=(2, 3)))).all()
    assert (result <= nearest(2)(around.max(axis=(2, 3)))).all()
    expected = engine.infer(100.0 / low.astype(np.float32), DEPTH_RANGE)
    np.testing.assert_array_equal(result, to_uint8(100.0 / expected))
    engine.close()


def test_every_level_is_a_depth_in_range_and_comes_back(use_level_models):
    method, engine = model_method(find_model("tiny", 2), "onnxruntime", 1)
    for level in (0, 1, 2, 128, 255):
        assert (method.enlarge(np.full((8, 8), level, np.uint8)) == max(level, 1)).all()
    engine.close()


def test_the_ensemble_of_a_model_is_another_method(use_level_models, maps):
    file = find_model("maps", 2)
    method, engine = model_method(file, "onnxruntime", 1, ensemble=True)
    low = shrink(maps["teddy"], 2, None)[1]
    expected = self_ensemble(lambda laid: engine.infer(laid.astype(np.float32), DEPTH_RANGE), low)
    np.testing.assert_array_equal(method.enlarge(low), to_uint8(expected))
    assert method.name == "maps + ensemble"
    engine.close()


def test_models_trained_on_noise_are_measured_under_noise(use_level_models):
    assert case_of(find_model("maps-noisy", 8)) == (8, True)
    assert case_of(find_model("maps", 4)) == (4, False)


def test_without_names_all_models_for_maps_are_measured(use_level_models):
    found = benchmark_models([], [2, 4, 8], "fp32")
    assert {(m.model, m.scale) for m in found} == {("maps", 2), ("maps", 4), ("maps-noisy", 8)}
    assert [(m.model, m.scale) for m in benchmark_models([], [4], "fp16")] == [("maps", 4)]
    assert {(m.model, m.scale) for m in benchmark_models(["tiny"], [2, 4], "fp32")} == {("tiny", 2), ("tiny", 4)}


@pytest.mark.parametrize(
    ("models", "scales", "cause"),
    [(["huge"], [2], "no model 'huge' at scale 2"), (["tiny", "huge"], [2], "'huge'"), (["maps"], [8], "'maps'.*8")],
    ids=str,
)
def test_models_that_do_not_exist_are_named(use_level_models, models, scales, cause):
    with pytest.raises(BenchmarkError, match=cause):
        benchmark_models(models, scales, "fp32")


def test_no_model_for_maps_at_all_is_said(use_tiny_models):
    with pytest.raises(BenchmarkError, match="no model of the benchmark's domain"):
        benchmark_models([], [2], "fp32")


# --- a whole run --------------------------------------------------------------------------------


def run(folder, **settings):
    chosen = {"models": [], "scales": [2, 4, 8], "engine": "onnxruntime", "threads": 1} | settings
    return run_benchmark(folder, BenchmarkSettings(**chosen), Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def whole_run(level_models, ten_maps, tmp_path_factory):
    """Figures and pictures of a run with everything."""
    pytest.importorskip("torch")
    pictures = tmp_path_factory.mktemp("run") / "new" / "pictures"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DSCA_MODELS", str(level_models))
        patched.setattr(benchmark_pictures, "DRAWN", DRAWN)
        models = ["maps", "maps-noisy", "tiny"]
        return run(ten_maps, models=models, ensemble=True, pictures=pictures), pictures


def test_every_method_is_measured_on_every_map(whole_run):
    figures, _ = whole_run
    assert set(figures) == {"results", "average", "cost", "published"}
    cases = [(2, False), (4, False)]
    expected = {
        *((name, *case) for case in cases for name in (BICUBIC, "maps", "maps + ensemble", "tiny", "tiny + ensemble")),
        *((name, 8, True) for name in (BICUBIC, "maps-noisy", "maps-noisy + ensemble")),
    }
    found = [(row["model"], row["scale"], row["noisy"]) for row in figures["results"]]
    assert set(found) == expected and len(found) == 10 * len(expected)
    for row in figures["results"]:
        assert list(row) == KEYS
        assert np.isfinite(row["psnr_db"]) and 0 <= row["pe_pct"] <= 100 and row["seconds"] >= 0
    assert {row["image"] for row in figures["results"]} == set(NAMES)


def test_averages_are_those_of_the_results(whole_run):
    figures, _ = whole_run
    for row in figures["average"]:
        key = row["model"], row["scale"], row["noisy"]
        ten = [r for r in figures["results"] if (r["model"], r["scale"], r["noisy"]) == key]
        assert len(ten) == 10
        for figure in ("psnr_db", "pe_pct"):
            assert row[figure] == pytest.approx(np.mean([r[figure] for r in ten]), abs=2e-4)
        assert ("psnr_db_std" in row) == row["noisy"]
    assert len({(r["model"], r["scale"], r["noisy"]) for r in figures["average"]}) == len(figures["average"]) == 13


def test_the_cost_of_every_model_is_counted(whole_run):
    figures, _ = whole_run
    assert {(row["model"], row["scale"]) for row in figures["cost"]} == {
        ("maps", 2), ("maps", 4), ("maps-noisy", 8), ("tiny", 2), ("tiny", 4)
    }  # fmt: skip
    for row in figures["cost"]:
        assert list(row) == ["model", "scale", "parameters", "gflop", "seconds", "engine"]
        assert row["parameters"] > 500 and row["gflop"] > 0
        assert row["seconds"] is None  # no map of the size whose cost is stated was there
        assert "ONNX Runtime" in row["engine"]


def test_the_papers_figures_stand_beside(whole_run):
    figures, _ = whole_run
    assert len(figures["published"]) == sum(len(cells) for cells in AVERAGES.values())
    (row,) = (r for r in figures["published"] if r["model"] == "the paper" and r["scale"] == 4)
    assert row == {"model": "the paper", "scale": 4, "noisy": False, "psnr_db": 50.82, "pe_pct": 0.49}


def test_the_papers_averages_are_those_of_its_maps():
    """Typing errors in 80 figures would be found."""
    for case, cells in PAPER.items():
        assert len(cells) == len(NAMES)
        psnr, pe = np.mean(cells, axis=0)
        published = AVERAGES["the paper"][case]
        assert psnr == pytest.approx(published[0], abs=0.02) and pe == pytest.approx(published[1], abs=0.02), case


def test_a_picture_is_drawn_of_some_maps_in_every_case(whole_run):
    _, pictures = whole_run
    expected = {f"{name}-{case}.png" for name in DRAWN for case in ("x2", "x4", "x8-noisy")}
    assert {path.name for path in pictures.iterdir()} == expected
    for path in pictures.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
        image = cv2.imread(str(path))
        assert min(image.shape[:2]) > 300 and image.std() > 20


def test_unasked_nothing_is_drawn_and_no_ensemble_measured(use_level_models, ten_maps, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures = run(ten_maps, scales=[2])
    assert {row["model"] for row in figures["results"]} == {BICUBIC, "maps"}
    assert not list(tmp_path.iterdir())


def test_engines_agree_on_the_figures(use_level_models, ten_maps):
    pytest.importorskip("torch")
    one, other = (run(ten_maps, scales=[2], engine=engine)["average"] for engine in ("onnxruntime", "torch"))
    for a, b in zip(one, other, strict=True):
        assert a["psnr_db"] == pytest.approx(b["psnr_db"], abs=0.01)
        assert a["pe_pct"] == pytest.approx(b["pe_pct"], abs=0.1)


def test_half_precision_is_measured_where_it_is_asked_for(use_level_models, ten_maps):
    pytest.importorskip("torch")
    figures = run(ten_maps, scales=[2], precision="fp16", engine="torch")
    assert "fp16" in figures["cost"][0]["engine"]


# --- against the paper --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def middlebury(shared_data):
    return load_maps(shared_data("benchmark/middlebury10"))


@pytest.mark.parametrize(
    ("case", "psnr", "pe", "close"),
    [
        ((4, False), 39.86, 4.31, (0.03, 0.03)),
        ((8, False), 36.75, 7.93, (0.03, 0.03)),
        # Within what the seeds of the noise make.
        ((8, True), 32.63, 6.94, (0.06, 0.15)),
    ],
    ids=str,
)
def test_bicubic_is_that_of_the_papers_tables(middlebury, case, psnr, pe, close):
    (row,) = averages(measure(bicubic(*case), middlebury))
    assert row["psnr_db"] == pytest.approx(psnr, abs=close[0])
    assert row["pe_pct"] == pytest.approx(pe, abs=close[1])
    # The protocol was recovered from these: what the paper prints is not far.
    published = AVERAGES["Bicubic"][case]
    assert row["psnr_db"] == pytest.approx(published[0], abs=0.06)
    assert row["pe_pct"] == pytest.approx(published[1], abs=0.15)
