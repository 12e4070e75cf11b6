"""The command line, each command once from end to end, and what it says when it cannot."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from dsca_ros.cli import app
from dsca_ros.engine import gpu

COMMANDS = ["demo", "upscale", "replay", "play", "evaluate", "sensors", "info", "build", "bench", "train", "export"]
RECIPE = {
    "model": "small-test", "scale": 2, "steps": 2, "batch": 1, "warm_up": 1,
    "network": {"channels": [6], "blocks": [1], "unshuffle": 2, "residual_gain": 0.05},
    "data": {"kind": "views", "crop": 24, "views": 2},
}  # fmt: skip
MAPS = {
    "model": "small-maps", "scale": 2, "steps": 2, "batch": 1, "warm_up": 1, "optimiser": "muon",
    "network": {"channels": [8], "blocks": [1], "residual_gain": 8.0},
    "data": {"kind": "maps", "size": 16},
}  # fmt: skip


@pytest.fixture
def dsca(use_tiny_models, monkeypatch, tmp_path, capsys):
    """Runs a command in an empty folder: (exit status, stdout, stderr). An exception is no exit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            app([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return exit_.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def tiny(dsca):
    """`dsca upscale` with the model of the tests."""

    def run(*arguments: object) -> tuple[int, str, str]:
        return dsca("upscale", "--model", "tiny", "--threads", 1, *arguments)

    return run


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "dsca_ros.cli", *arguments],
        capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip


def millimetres(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def failed(result: tuple[int, str, str]) -> str:
    """The last line on stderr of a command that failed; only a progress bar may be before it."""
    status, out, err = result
    assert (status, out) == (1, "")
    *before, line = err.splitlines()
    assert line.startswith("dsca: ") and len(before) <= 1
    return line


# --- help and usage -----------------------------------------------------------------------------


def test_every_command_is_known_here(dsca):
    assert {command.callback.__name__ for command in app.registered_commands} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(dsca, command):
    status, out, _ = dsca(command, "--help")
    assert status == 0 and f"Example: dsca {command}" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale"],
        ["upscale", "a.png"],
        ["upscale", "a.png", "b.png", "--scale", "two"],
        ["upscale", "a.png", "b.png", "--threads", "-1"],
        ["upscale", "a.png", "b.png", "--unit", "0"],
        ["upscale", "a.png", "b.png", "--unit", "nan"],
        ["upscale", "a.png", "b.png", "--min-depth", "0"],
        ["upscale", "a.png", "b.png", "--min-depth", "3", "--max-depth", "2"],
        ["evaluate", "--size", "320"],
        ["evaluate", "--scenes", "0"],
        ["evaluate", "--peers", "."],
        ["demo", "--size", "4x4"],
        ["demo", "--rate", "0"],
        ["build", "--encoding", "8UC1"],
        ["build", "--precision", "int8"],
        ["build", "--size", "640"],
        ["build", "--workspace", "0"],
        ["train"],
        ["export", "--nonsense", "a.pt"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(dsca, arguments):
    status, out, err = dsca(*arguments)
    assert status == 2 and out == "" and "Error" in err


# --- upscale ------------------------------------------------------------------------------------


def test_upscale_a_png(tiny, depth_image, tmp_path):
    depth = np.rint(depth_image(18, 24) * 1000).astype(np.uint16)
    cv2.imwrite("in.png", depth)
    status, _, err = tiny("in.png", "out.png")
    assert status == 0 and "1 image ×2" in err
    result = millimetres(tmp_path / "out.png")
    assert result.shape == (36, 48) and result.dtype == np.uint16
    from dsca_ros.upsampler import Upsampler

    expected = Upsampler("tiny", 2, threads=1)(depth).astype(int)
    np.testing.assert_array_equal(result > 0, expected > 0)
    # Files go by way of metres: what lies halfway between two millimetres may be rounded to either.
    assert np.abs(result - expected).max() <= 1 and (result != expected).mean() < 0.01


def test_upscale_fills_holes_on_request(tiny, tmp_path):
    depth = np.full((18, 24), 2000, np.uint16)
    depth[4:7, 4:12] = 0
    cv2.imwrite("in.png", depth)
    for given, whole in (("none", False), ("2", False), ("3", True), ("all", True)):
        assert tiny("in.png", "out.png", "--fill-holes", given)[0] == 0
        assert (millimetres(tmp_path / "out.png") == 2000).all() == whole
    status, _, err = tiny("in.png", "out.png", "--fill-holes", "some")
    assert status == 2 and "none, all or a number of pixels" in err


def test_upscale_keeps_the_unit(tiny, depth_image, tmp_path):
    depth = depth_image(18, 24)
    cv2.imwrite("mm.png", np.rint(depth * 1000).astype(np.uint16))
    cv2.imwrite("fine.png", np.rint(depth * 1000).astype(np.uint16) * 10)
    tiny("mm.png", "mm-out.png")
    status, _, _ = tiny("fine.png", "fine-out.png", "--unit", "0.0001")
    assert status == 0
    fine = millimetres(tmp_path / "fine-out.png").astype(float)
    np.testing.assert_allclose(fine / 10, millimetres(tmp_path / "mm-out.png"), atol=0.6)


def test_upscale_a_float_npy(tiny, depth_image, tmp_path):
    np.save("in.npy", depth_image(9, 8))
    assert tiny("in.npy", "out.npy", "--scale", 4)[0] == 0
    result = np.load(tmp_path / "out.npy")
    assert result.shape == (36, 32) and result.dtype == np.float32 and (result > 0).mean() > 0.5


def test_upscale_a_folder_of_frames_of_any_size(tiny, tmp_path):
    (tmp_path / "in").mkdir()
    for k, size in enumerate([(12, 16), (12, 16), (9, 10)]):
        cv2.imwrite(f"in/{k}.png", np.full(size, 1000 + k, np.uint16))
    status, _, err = tiny("in", "out")
    assert status == 0 and "3 images ×2" in err
    for k, size in enumerate([(24, 32), (24, 32), (18, 20)]):
        np.testing.assert_array_equal(millimetres(tmp_path / "out" / f"{k}.png"), np.full(size, 1000 + k))


def test_upscale_takes_the_range(tiny, tmp_path):
    np.save("in.npy", np.full((8, 8), 3.0, np.float32))
    assert tiny("in.npy", "out.npy", "--max-depth", 2)[0] == 0
    assert not np.load(tmp_path / "out.npy").any()


def test_an_all_invalid_image_gives_one(tiny, tmp_path):
    cv2.imwrite("in.png", np.full((8, 8), 65535, np.uint16))
    assert tiny("in.png", "out.png")[0] == 0
    assert not millimetres(tmp_path / "out.png").any()


def test_a_missing_file_is_named(tiny):
    assert "none.png" in failed(tiny("none.png", "out.png"))


@pytest.mark.parametrize("name", ["text.png", "empty.png", "empty.npy", "[red]text.png"])
def test_a_damaged_file_is_named_and_nothing_written(tiny, tmp_path, name):
    (tmp_path / name).write_text("" if "empty" in name else "this is text")
    assert name in failed(tiny(name, "out.png"))
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_models_scales_and_engines_that_do_not_exist_name_those_that_do(dsca):
    np.save("in.npy", np.ones((8, 8), np.float32))
    upscale = ("upscale", "in.npy", "out.npy")
    assert "tiny x2" in failed(dsca(*upscale))  # the default model is not in this folder
    assert "tiny x4" in failed(dsca(*upscale, "--model", "tiny", "--scale", 8))
    assert "onnxruntime" in failed(dsca(*upscale, "--model", "tiny", "--engine", "warp"))


def test_a_failure_of_a_real_process_has_no_traceback(tmp_path, use_tiny_models):
    done = in_a_process("upscale", str(tmp_path / "none.png"), str(tmp_path / "out.png"))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"dsca: {tmp_path / 'none.png'}: no such file or folder\n"


# --- info and evaluate --------------------------------------------------------------------------


def on_cpu() -> str:
    """What ``auto`` is on a machine without a GPU."""
    return "openvino" if importlib.util.find_spec("openvino") else "onnxruntime"


def test_info_as_json_of_a_real_process(use_tiny_models):
    done = in_a_process("info", "--json", "-")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)  # nothing else is on standard output
    assert figures["auto"] == on_cpu()
    assert {(m["model"], m["scale"]) for m in figures["models"]} == {("tiny", 2), ("tiny", 4)}


def test_info_for_people_and_to_a_file(dsca, tmp_path):
    status, out, _ = dsca("info", "--json", "new/info.json")
    assert status == 0 and "auto takes this" in out and "tiny" in out
    assert json.loads((tmp_path / "new" / "info.json").read_text())["auto"] == on_cpu()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["info.json"]


def test_info_without_models_says_so(dsca, monkeypatch, tmp_path):
    monkeypatch.setenv("DSCA_MODELS", str(tmp_path))
    assert "DSCA_MODELS" in failed(dsca("info"))


@pytest.fixture
def no_driver(monkeypatch):
    """A machine without an NVIDIA driver."""

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(gpu, "ctypes", SimpleNamespace(CDLL=missing))
    gpu.find_driver.cache_clear()


def test_info_without_a_gpu_says_why_and_what_to_do(dsca, no_driver):
    status, out, _ = dsca("info", "--json", "info.json")
    assert status == 0 and "GPU: no NVIDIA driver" in out
    figures = json.loads(Path("info.json").read_text())
    assert (figures["gpus"], figures["driver_cuda"]) == ([], None)
    assert figures["no_gpu"].startswith("no NVIDIA driver") and "remedy: " in figures["no_gpu"]
    rows = {row["engine"]: row for row in figures["engines"]}
    for name in ("tensorrt", "onnxruntime-cuda"):
        assert not rows[name]["usable"] and rows[name]["why_not"] == figures["no_gpu"]
    assert rows["onnxruntime"]["usable"] and rows["onnxruntime"]["why_not"] is None
    assert {"tensorrt", "tensorrt_rtx", "pycuda"} <= set(figures["packages"])


def test_info_lists_the_gpus(dsca, monkeypatch):
    from dsca_ros.engine import factory
    from dsca_ros.evaluation import report

    gpus = gpu.Gpu("NVIDIA RTX 4000", (8, 9), 20 << 30), gpu.Gpu("NVIDIA T4", (7, 5), 15 << 30)
    for module in (factory, report):
        monkeypatch.setattr(module, "find_driver", lambda: gpu.Driver((12, 8), gpus))
    status, out, _ = dsca("info", "--json", "info.json")
    assert status == 0
    assert "GPU: NVIDIA RTX 4000 (sm89, 20480 MiB), NVIDIA T4 (sm75, 15360 MiB); the driver runs CUDA 12.8" in out
    figures = json.loads(Path("info.json").read_text())
    assert figures["gpus"] == [
        {"name": "NVIDIA RTX 4000", "target": "sm89", "bytes": 20 << 30},
        {"name": "NVIDIA T4", "target": "sm75", "bytes": 15 << 30},
    ]
    assert (figures["driver_cuda"], figures["no_gpu"]) == ("12.8", None)


def test_json_that_cannot_be_written(dsca, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot write file/info.json" in failed(dsca("info", "--json", "file/info.json"))


@pytest.mark.parametrize("target", ["", "/", "folder"], ids=repr)
def test_json_that_is_no_name_of_a_file(dsca, tmp_path, target):
    (tmp_path / "folder").mkdir()
    assert "that is no name of a file" in failed(dsca("info", "--json", target))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_leaves_no_half_figures(dsca, tmp_path, monkeypatch):
    def full(self: Path, *_: object, **__: object) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        assert "No space left" in failed(dsca("info", "--json", "info.json"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--json", "file/figures.json"], "cannot write file/figures.json"),
        (["--markdown", "none.md#part"], "cannot read none.md"),
        (["--markdown", "file#part"], "file has no one part"),
        (["--scale", 2, "--scale", 8], "no model 'tiny' at scale 8"),
        (["--sensor", "tof", "--sensor", "sonar"], "no sensor 'sonar'"),
    ],
    ids=str,
)
def test_what_evaluate_cannot_do_is_told_before_measuring(dsca, tmp_path, monkeypatch, arguments, cause):
    from dsca_ros.evaluation import compare

    monkeypatch.setattr(compare, "compare", lambda _: pytest.fail("measured"))
    (tmp_path / "file").touch()
    assert cause in failed(dsca("evaluate", "--model", "tiny", "--scenes", 1, "--size", "32x24", *arguments))


@pytest.mark.parametrize(
    "arguments", [["--json", "-", "--markdown", "-"], ["--ensemble"], ["--pictures", "drawn"]], ids=str
)
def test_options_of_evaluate_that_do_not_go_together(dsca, tmp_path, arguments):
    status, out, _ = dsca("evaluate", "--model", "tiny", "--scenes", 1, "--size", "32x24", *arguments)
    assert (status, out) == (2, "") and not list(tmp_path.iterdir())


def test_what_is_named_twice_is_measured_once(dsca):
    twice = ["--sensor", "ideal", "--scale", 2, "--model", "tiny"] * 2
    status, out, err = dsca("evaluate", "--scenes", 1, "--size", "32x24", "--json", "-", *twice)
    assert status == 0, err
    assert len(json.loads(out)["results"]) == 1


def test_evaluate_as_json_and_markdown(dsca, tmp_path):
    status, out, err = dsca(
        "evaluate", "--model", "tiny", "--scenes", 2, "--size", "32x24",
        "--sensor", "tof", "--sensor", "ideal", "--json", "-", "--markdown", "table.md",
    )  # fmt: skip
    assert status == 0, err
    results = json.loads(out)["results"]
    assert [(r["sensor"], r["scale"], r["scenes"]) for r in results] == [
        ("tof", 2, 2),
        ("ideal", 2, 2),
    ]
    assert "nearest" in err  # the tables are beside the JSON, not in it
    assert list(results[0]["error"]) == ["nearest", "bilinear", "bicubic", "dsca"]
    assert "**tiny**" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("arguments", [["--model", "huge"], ["--model", "tiny", "--sensor", "lidar"]], ids=str)
def test_evaluate_names_what_there_is(dsca, arguments):
    assert "there are" in failed(dsca("evaluate", "--size", "32x24", *arguments))


# --- build --------------------------------------------------------------------------------------

with_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="no TensorRT-RTX here")


@pytest.fixture
def engines(dsca, tmp_path, monkeypatch) -> Path:
    """Where `dsca build` puts engines unless it is told otherwise."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dsca_ros" / "engines"


@with_rtx
def test_engines_are_built_listed_and_removed(dsca, engines):
    pytest.importorskip("onnx")
    build = ("build", "--model", "tiny", "--size", "24x16", "--target", "sm89")
    status, out, err = dsca(*build, "--json", "-")
    assert status == 0, err
    figures = json.loads(out)  # nothing else is on standard output
    (row,) = figures["engines"]
    (path,) = engines.glob("*.engine")
    assert figures["folder"] == str(engines)
    assert row["seconds"] > 0 and row["bytes"] == path.stat().st_size and row["built"] is True
    names = ("model", "scale", "size", "precision", "dtype", "target", "gpu", "flavour", "path")
    assert [row[name] for name in names] == [
        "tiny", 2, "24x16", "fp16", "uint16", "sm89", "", "tensorrt_rtx", str(path)
    ]  # fmt: skip

    status, out, _ = dsca(*build, "--json", "again.json", "--markdown", "table.md")
    assert status == 0 and "tiny ×2" in out and "24x16" in out and f"TensorRT-RTX {row['version']}" in out
    assert json.loads(Path("again.json").read_text())["engines"] == [row | {"built": False}]
    assert "| tiny ×2 | 24x16 | fp16 |" in Path("table.md").read_text()

    status, out, _ = dsca("build", "--list", "--json", "-")
    (listed,) = json.loads(out)["engines"]
    assert status == 0 and listed == {name: value for name, value in row.items() if name != "built"}
    path.with_name(f"another-{path.name}").write_text("hello")
    status, out, _ = dsca("build", "--list")
    assert status == 0 and "uint16" in out and f"another-{path.name}: damaged, will be built anew" in out

    status, out, err = dsca("build", "--clean")
    assert (status, out) == (0, "") and f"2 engines removed from {engines}, {row['bytes'] / 1e6:.1f} MB" in err
    assert list(engines.iterdir()) == []


@with_rtx
def test_what_is_built_is_what_was_asked_for(dsca, engines, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    from dsca_ros.engine import tensorrt_build

    asked = []

    def build(flavour, request, *_):
        asked.append((request.target, request.half, request.workspace, *request.shapes.values()))
        return tensorrt_build.Built(b"engine", 1.0, b"")

    monkeypatch.setattr(tensorrt_build, "build", build)
    status, out, err = dsca(
        "build", "--model", "tiny", "--scale", 2, "--scale", 4, "--size", "24x16", "--size", "32x8",
        "--precision", "fp32", "--target", "sm75", "--target", "sm120", "--encoding", "32FC1", "--workspace", 5,
        "--folder", "made",
    )  # fmt: skip
    assert status == 0, err
    whole = {(t, False, 5 << 20, (1, 1, *size)) for t in ("sm75", "sm120") for size in ((16, 24), (8, 32))}
    assert set(asked) == whole and len(asked) == 2 * len(whole)
    assert out.count("float32") == 8
    assert len(list((tmp_path / "made").glob("tiny-*.engine"))) == 8 and not engines.exists()


def test_an_empty_cache_is_listed_and_cleaned(dsca, engines):
    status, out, _ = dsca("build", "--list", "--json", "-")
    assert status == 0 and json.loads(out) == {"folder": str(engines), "engines": []}
    status, _, err = dsca("build", "--clean")
    assert status == 0 and f"0 engines removed from {engines}" in err
    assert not engines.exists()


@pytest.mark.parametrize(("option", "there_are"), [("--encoding", "16UC1, 32FC1"), ("--precision", "fp32, fp16")])
def test_build_names_what_may_be_given(dsca, option, there_are):
    status, _, err = dsca("build", option, "nonsense")
    assert status == 2 and there_are in err


def test_build_for_this_machine_without_a_gpu_says_what_to_do(dsca, engines, no_driver):
    line = failed(dsca("build", "--model", "tiny"))
    assert "no NVIDIA driver" in line and "--gpus all" in line and "--target sm89" in line
    assert not engines.exists()


@with_rtx
@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--target", "sm61"], "does not build for sm61; it does for: sm75"),
        (["--target", "sm89", "--model", "huge"], "no model 'huge' at scale 2 in fp16; there are: tiny x2 fp16"),
        (["--target", "sm89", "--scale", "8"], "no model 'tiny' at scale 8"),
        (["--target", "sm89", "--target", "turing"], "does not build for turing"),
    ],
    ids=str,
)
def test_build_names_what_there_is(dsca, engines, arguments, cause):
    assert cause in failed(dsca("build", "--model", "tiny", *arguments))
    assert not engines.exists()


# --- the benchmark ------------------------------------------------------------------------------


@pytest.fixture
def with_maps(dsca, level_models, monkeypatch):
    """`dsca` where models for maps are installed beside those for depth."""
    monkeypatch.setenv("DSCA_MODELS", str(level_models))
    return dsca


def test_the_benchmark_as_json_markdown_and_pictures(with_maps, ten_maps, tmp_path):
    pytest.importorskip("torch")
    status, out, err = with_maps(
        "evaluate", "--data", ten_maps, "--scale", 2, "--threads", 1, "--ensemble",
        "--json", "-", "--markdown", "table.md", "--pictures", "pictures",
    )  # fmt: skip
    assert status == 0, err
    figures = json.loads(out)  # nothing else is on standard output
    assert {row["model"] for row in figures["results"]} == {"Bicubic", "maps", "maps + ensemble"}
    assert len(figures["results"]) == 30 and figures["cost"][0]["model"] == "maps"
    assert "maps + ensemble" in err  # the tables
    text = (tmp_path / "table.md").read_text()
    assert "| **maps** |" in text and "the paper" in text and "parameters" in text
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {
        f"{name}-x2.png" for name in ("art", "reindeer", "teddy", "tsukuba")
    }


def test_a_model_for_depth_can_be_measured_on_the_benchmark(with_maps, ten_maps):
    pytest.importorskip("torch")
    status, out, err = with_maps("evaluate", "--data", ten_maps, "--model", "tiny", "--scale", 2, "--threads", 1)
    assert status == 0, err
    assert "tiny" in out and "the paper" in out


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", "."], "no art.png"),
        (["--model", "huge"], "no model 'huge'"),
        (["--model", "tiny", "--scale", "8"], "no model 'tiny' at scale 8"),
        (["--model", "tiny", "--scale", "2", "--scale", "8"], "no model to measure at scale 8"),
        (["--precision", "int8"], "in int8"),
        (["--engine", "warp"], "there is no engine 'warp'"),
    ],
    ids=str,
)
def test_a_benchmark_that_cannot_run_says_why(with_maps, ten_maps, arguments, cause):
    data = [] if "--data" in arguments else ["--data", ten_maps]
    status, out, err = with_maps("evaluate", *data, *arguments)
    assert (status, out) == (1, "")
    assert cause in err.splitlines()[-1] and err.splitlines()[-1].startswith("dsca: ") and "Traceback" not in err


def test_pictures_that_cannot_be_written_are_one_line(with_maps, ten_maps, tmp_path, monkeypatch):
    from dsca_ros.evaluation import benchmark_run

    monkeypatch.setattr(benchmark_run, "cost_row", lambda *_: {})
    (tmp_path / "file").touch()
    status, _, err = with_maps("evaluate", "--data", ten_maps, "--scale", 2, "--pictures", "file")
    assert status == 1 and "file" in err.splitlines()[-1]


def test_a_folder_that_refuses_pictures_is_told_before_measuring(with_maps, ten_maps, monkeypatch):
    from dsca_ros.evaluation import folders

    def full(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(folders.tempfile, "TemporaryFile", full)
    line = failed(with_maps("evaluate", "--data", ten_maps, "--scale", 2, "--pictures", "drawn"))
    assert line == "dsca: drawn cannot be written to (Read-only file system)"


def test_a_disk_that_is_full_while_drawing_is_one_line(with_maps, ten_maps, monkeypatch):
    from dsca_ros.evaluation import benchmark_run

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "drawn/art-x2.png")

    monkeypatch.setattr(benchmark_run, "cost_row", lambda *_: {})
    monkeypatch.setattr(benchmark_run, "draw", full)
    arguments = ["--data", ten_maps, "--model", "maps", "--scale", 2, "--pictures", "drawn", "--threads", 1]
    status, out, err = with_maps("evaluate", *arguments)
    assert (status, out) == (1, "") and "Traceback" not in err
    assert err.splitlines()[-1] == "dsca: [Errno 28] No space left on device: 'drawn/art-x2.png'"


def test_depth_is_not_given_to_a_model_for_maps(with_maps):
    np.save("in.npy", np.ones((8, 8), np.float32))
    for command in (["upscale", "in.npy", "out.npy"], ["evaluate", "--size", "32x24"]):
        assert "maps takes levels and not depth" in failed(with_maps(*command, "--model", "maps"))
    assert not Path("out.npy").exists()


def test_info_says_what_each_model_takes(with_maps, tmp_path):
    status, out, _ = with_maps("info", "--json", "info.json")
    assert status == 0 and "levels" in out and "depth" in out
    models = json.loads((tmp_path / "info.json").read_text())["models"]
    assert {(model["model"], model["domain"]) for model in models} == {
        ("tiny", "depth"), ("maps", "levels"), ("maps-noisy", "levels")
    }  # fmt: skip


# --- fidelity -----------------------------------------------------------------------------------


@pytest.fixture
def sets(depth_image, rng, tmp_path) -> Path:
    """A folder of three sets: exact depth, a camera that stands still, and one frame smaller than a plane."""
    wall = np.full((48, 64), 2.0)
    wall[:, 48:] = 1.0
    frames = {
        "exact": [depth_image(48, 64, noise=0.0)],
        "still": [wall + rng.normal(0.0, 0.003, wall.shape) for _ in range(2)],
        "single": [depth_image(24, 32, noise=0.002)],
    }
    for name, images in frames.items():
        (tmp_path / "sets" / name).mkdir(parents=True)
        for index, image in enumerate(images):
            cv2.imwrite(f"{tmp_path}/sets/{name}/{index}.png", np.round(1000 * image).astype(np.uint16))
    (tmp_path / "sets" / "exact" / "set.yaml").write_text("kind: truth\n")
    (tmp_path / "sets" / "still" / "set.yaml").write_text("still: true\n")
    return tmp_path / "sets"


def test_fidelity_as_json_markdown_and_pictures(dsca, sets, tmp_path):
    status, out, err = dsca(
        "evaluate", "--fidelity", sets, "--frames", 1, "--scale", 2, "--threads", 1,
        "--json", "-", "--markdown", "table.md", "--pictures", "pictures",
    )  # fmt: skip
    assert status == 0, err

    def constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    rows = json.loads(out, parse_constant=constant)["sets"]  # nothing else is on standard output
    usual = ["nearest", "bilinear", "bicubic", "naive bilinear", "naive bicubic"]
    assert [(r["set"], r["scale"], r["method"]) for r in rows] == [
        (name, 2, method)
        for name in ("exact", "single", "still")
        for method in [*usual, *["best choice"] * (name == "exact"), "tiny"]
    ]
    head = {"set", "kind", "method", "scale"}
    truth = {"rmse_mm", "mae_mm", "edge_mae_mm", "flying_pct", "hallucinated_pct", "lost_pct"}
    recorded = {
        "surface_mae_mm", "edge_mae_mm", "flying_pct", "plane_rms_ratio", "steadiness_ratio", "consistency_mm",
    }  # fmt: skip
    for row in rows:
        assert row["kind"] == ("truth" if row["set"] == "exact" else "recorded")
        assert set(row) == head | (truth if row["kind"] == "truth" else recorded)
        unknown = {key for key, value in row.items() if value is None}
        assert unknown == ({"plane_rms_ratio", "steadiness_ratio"} if row["set"] == "single" else set())
    by_name = {(row["set"], row["method"]): row for row in rows}
    assert by_name["still", "bilinear"]["steadiness_ratio"] == 1.0 != by_name["still", "tiny"]["steadiness_ratio"]
    assert by_name["still", "nearest"]["consistency_mm"] == 0.0
    assert by_name["exact", "tiny"]["hallucinated_pct"] == 0.0 < by_name["exact", "tiny"]["rmse_mm"]

    assert "naive bicubic" in err and "still ×2" in err  # the tables
    text = (tmp_path / "table.md").read_text()
    assert text.count("| **tiny** |") == 3 and "### Against exact depth" in text
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in pictures] == [f"{name}-tiny-x2.png" for name in ("exact", "single", "still")]
    for path in pictures:
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and cv2.imread(str(path)).std() > 5


def test_fidelity_of_every_scale_there_is_where_none_is_asked_for(dsca, sets):
    status, out, err = dsca("evaluate", "--fidelity", sets / "single", "--json", "figures.json", "--threads", 1)
    assert status == 0, err
    assert "single ×2" in out and "single ×4" in out
    rows = json.loads(Path("figures.json").read_text())["sets"]
    assert [row["scale"] for row in rows if row["method"] == "tiny"] == [2, 4]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["."], "no depth frames"),
        (["sets/single", "--model", "huge"], "no model 'huge' at scale 2, 4"),
        (["sets/single", "--scale", "8"], "no model for depth at scale 8"),
        (["sets/single", "--engine", "warp"], "there is no engine 'warp'"),
        (["sets/wrong"], "set.yaml: its keys are intrinsics, kind,"),
        (["sets/damaged"], "1.png"),
        (["sets/single", "--peers", "sets"], "sets: no manifest.yaml that can be read; --peers"),
        pytest.param(
            ["sets/single", "--pictures", "file"],
            "file",
        ),
    ],
    ids=str,
)
def test_fidelity_that_cannot_be_measured_says_why(dsca, sets, tmp_path, arguments, cause):
    (tmp_path / "file").touch()
    for name in ("wrong", "damaged"):
        shutil.copytree(sets / "single", sets / name)
    (sets / "wrong" / "set.yaml").write_text("sensor: d435\n")
    (sets / "damaged" / "1.png").write_text("this is text")
    status, out, err = dsca("evaluate", "--threads", 1, "--fidelity", *arguments)
    assert (status, out) == (1, "")
    assert cause in err.splitlines()[-1] and err.splitlines()[-1].startswith("dsca: ") and "Traceback" not in err


# --- train and export ---------------------------------------------------------------------------


@pytest.fixture
def small_views(monkeypatch):
    tasks = pytest.importorskip("dsca_ros.training.tasks")
    full = tasks.ViewSettings
    monkeypatch.setattr(tasks, "ViewSettings", lambda count, **s: full(min(count, 2), 32, 24, **s))
    monkeypatch.setattr(tasks, "VALIDATION_BATCHES", 1)


@pytest.fixture
def small_maps(monkeypatch):
    pytest.importorskip("torch")
    from dsca_ros.training import maps

    full = maps.disparity_scene
    monkeypatch.setattr(maps, "disparity_scene", lambda rng, size: full(rng, min(size, 48)))


def test_from_a_recipe_to_a_model_that_runs(dsca, small_views, tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    status, _, err = dsca("train", "recipe.yaml")
    assert status == 0, err
    checkpoint = Path("runs/small-test-x2/checkpoint.pt")
    assert f"dsca export {checkpoint}" in err and checkpoint.exists()
    status, _, err = dsca("train", "recipe.yaml", "--resume")
    assert status == 0, err

    status, _, err = dsca("export", checkpoint, "--folder", "made")
    assert status == 0, err
    names = {
        "manifest.yaml",
        *(f"small-test-x2{end}" for end in ("-fp32.onnx", "-fp16.onnx", ".safetensors")),
    }
    assert {p.name for p in (tmp_path / "made").iterdir()} == names
    assert all(name in err for name in names - {"manifest.yaml"})

    monkeypatch.setenv("DSCA_MODELS", "made")
    np.save("in.npy", np.full((9, 8), 2.0, np.float32))
    status, _, err = dsca("upscale", "in.npy", "out.npy", "--model", "small-test", "--threads", 1)
    assert status == 0, err
    np.testing.assert_allclose(np.load("out.npy"), 2.0, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"scale": 3}, "2, 4 or 8"),
        ({"stepz": 3}, "stepz"),
        ({"steps": "2e0"}, "steps"),
        ({"crop": 24}, "unknown key 'crop'"),
        ({"data": {"kind": "views", "crop": 500}}, "crop is 500"),
        ({"data": {"kind": "maps", "size": 15}}, "size is 15"),
        ({"data": {"kind": "maps", "shares": {"kitti": 1}}}, "no source of maps named 'kitti'"),
        ({"data": {"kind": "maps", "shares": {"sintel": 1}}}, "give the folder that holds it with --data"),
        ({"start": "none.safetensors"}, "start: none.safetensors"),
    ],
    ids=str,
)
def test_train_names_what_is_wrong_with_a_recipe(dsca, small_views, tmp_path, change, cause):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | change))
    assert cause in failed(dsca("train", "recipe.yaml"))


def test_train_without_a_recipe(dsca):
    pytest.importorskip("torch")
    assert "no such recipe" in failed(dsca("train", "none.yaml"))


def test_resuming_with_another_network_says_so(dsca, small_views, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    assert dsca("train", "recipe.yaml")[0] == 0
    wider = RECIPE | {"network": RECIPE["network"] | {"channels": [8]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(wider))
    assert "checkpoint" in failed(dsca("train", "recipe.yaml", "--resume"))


def test_from_a_recipe_of_maps_to_a_model_for_maps(dsca, small_maps, ten_maps, tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(MAPS))
    status, _, err = dsca("train", "recipe.yaml", "--folder", "run", "--no-compile")
    assert status == 0, err
    assert "held out: psnr_db" in err
    status, _, err = dsca("export", "run/checkpoint.pt", "--folder", "made")
    assert status == 0, err

    monkeypatch.setenv("DSCA_MODELS", "made")
    status, out, err = dsca("evaluate", "--data", ten_maps, "--engine", "torch", "--json", "figures.json")
    assert status == 0, err
    assert "small-maps" in out and "Bicubic" in out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {row["model"] for row in figures["average"]} == {"Bicubic", "small-maps"}


@pytest.mark.parametrize("data", ["nowhere", "."])
def test_train_on_maps_that_are_not_there_says_so(dsca, small_maps, tmp_path, data):
    recipe = MAPS | {"data": {"kind": "maps", "size": 16, "shares": {"middlebury": 1}}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    line = failed(dsca("train", "recipe.yaml", "--data", data))
    assert "middlebury: no maps" in line and "--data" in line


def test_train_on_a_map_that_is_not_8_bit_says_so(dsca, small_maps, tmp_path):
    (tmp_path / "train" / "middlebury").mkdir(parents=True)
    cv2.imwrite("train/middlebury/deep.png", np.full((40, 40), 1000, np.uint16))
    recipe = MAPS | {"data": {"kind": "maps", "size": 16, "shares": {"middlebury": 1}}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert "deep.png: not an 8-bit map" in failed(dsca("train", "recipe.yaml", "--data", "train"))


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint(dsca, small_maps, tmp_path, monkeypatch):
    import torch

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(MAPS | {"validate_every": 1}))

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        status, out, err = dsca("train", "recipe.yaml", "--folder", "run")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("dsca: cannot write run/checkpoint.pt") and "--resume" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.csv"]


def test_an_interruption_says_how_to_go_on(dsca, small_maps, tmp_path, monkeypatch):
    from dsca_ros.training import progress

    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(MAPS))

    def interrupt(self: object, step: int, *_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(progress.TrainingProgress, "step", interrupt)
        status, out, err = dsca("train", "recipe.yaml", "--folder", "run")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == "dsca: interrupted; what was trained is in run: go on with --resume"
    assert dsca("train", "recipe.yaml", "--folder", "run", "--resume")[0] == 0


@pytest.mark.parametrize("name", ["none.pt", "text.pt", "text.safetensors"])
def test_export_of_what_is_none(dsca, tmp_path, name):
    pytest.importorskip("torch")
    if name.startswith("text"):
        (tmp_path / name).write_text("hello")
    assert name in failed(dsca("export", name, "--folder", "made"))


def test_a_file_that_torch_refuses_gets_no_advice_to_run_it(dsca, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "text.pt").write_text("{}")
    assert "damaged, cut short, or something else" in failed(dsca("export", "text.pt", "--folder", "made"))


def test_export_to_what_is_no_folder(dsca, tiny_checkpoint, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot write to file" in failed(dsca("export", tiny_checkpoint, "--folder", "file"))


def test_bench_measures_and_compares_with_an_earlier_run(dsca, use_tiny_models, tmp_path):
    earlier = tmp_path / "bench.json"
    options = (
        "--model",
        "tiny",
        "--scale",
        "2",
        "--size",
        "32x24",
        "--engine",
        "onnxruntime",
        "--runs",
        "3",
        "--part",
        "engines",
    )
    status, out, _ = dsca("bench", *options, "--json", str(earlier))
    assert status == 0 and "tiny" in out
    (row,) = json.loads(earlier.read_text())["engines"]
    assert row["ms"] > 0
    status, out, _ = dsca("bench", *options, "--compare", str(earlier))
    assert status == 0 and "over those of before" in out
    machine = {"processor": "a chip"}
    for content in ([], {"machine": machine, "engines": [{}]}, {"machine": machine, "growth": {"pixels": 1}}):
        earlier.write_text(json.dumps(content))
        status, _, error = dsca("bench", *options, "--compare", str(earlier))
        assert status == 1 and "bench.json is no --json of `dsca bench`" in error
