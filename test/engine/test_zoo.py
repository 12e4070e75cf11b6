"""Finding models, and what is said where they are missing or broken."""

import shutil
import sys

import pytest

from dsca_ros.engine.base import EngineError
from dsca_ros.engine.factory import create_engine
from dsca_ros.engine.zoo import MANIFEST, find_model, list_models, models_folder


@pytest.fixture
def broken(tiny_models, tmp_path, monkeypatch):
    """A copy of the models folder, to be broken."""
    folder = tmp_path / "models"
    shutil.copytree(tiny_models, folder)
    monkeypatch.setenv("DSCA_MODELS", str(folder))
    return folder


def without(monkeypatch, *packages: str) -> None:
    """Makes packages look as if they were not installed."""
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"dsca_ros.engine.{package}", raising=False)


def test_the_environment_names_the_folder(use_tiny_models):
    assert models_folder() == use_tiny_models
    assert {model.model for model in list_models()} == {"tiny"}


def test_a_folder_of_the_environment_without_models_is_an_error(tmp_path, monkeypatch):
    """Other models than those asked for must not run silently."""
    monkeypatch.setenv("DSCA_MODELS", str(tmp_path / "mistyped"))
    with pytest.raises(EngineError, match="mistyped"):
        models_folder()


def test_a_model_is_found_by_name_scale_and_precision(use_tiny_models):
    model = find_model("tiny", 4, "fp16")
    assert (model.model, model.scale, model.precision) == ("tiny", 4, "fp16")
    assert model.path == use_tiny_models / "tiny-x4-fp16.onnx"
    assert model.name == "tiny x4 (fp16)"


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (("huge", 2, "fp32"), ["'huge'", "tiny x2", "tiny x4"]),
        (("tiny", 8, "fp32"), ["scale 8", "tiny x2", "tiny x4"]),
        (("tiny", 2, "int8"), ["int8", "fp16", "fp32"]),
    ],
)
def test_an_unknown_model_names_those_there_are(use_tiny_models, wanted, named):
    with pytest.raises(EngineError) as raised:
        find_model(*wanted)
    for part in named:
        assert part in str(raised.value)


def test_an_unknown_engine_names_those_there_are(use_tiny_models):
    with pytest.raises(EngineError, match=r"'warp'.*auto.*onnxruntime"):
        create_engine("warp", "tiny", 2)


@pytest.mark.parametrize(
    ("engine", "runs"), [("openvino", "OpenVINO"), ("onnxruntime", "ONNX Runtime"), ("torch", "torch")]
)
def test_an_engine_is_made_by_name(use_tiny_models, engine, runs):
    if engine != "onnxruntime":
        pytest.importorskip(engine)
    made = create_engine(engine, "tiny", 4, threads=1)
    assert made.scale == 4 and runs in made.description
    made.close()


def test_an_engine_that_cannot_run_says_why_and_what_to_do(use_tiny_models, monkeypatch):
    without(monkeypatch, "onnxruntime", "openvino", "torch")
    for engine in ("auto", "onnxruntime"):
        with pytest.raises(EngineError, match="pip install onnxruntime"):
            create_engine(engine, "tiny", 2)
    for engine in ("auto", "torch"):
        with pytest.raises(EngineError, match=r"no torch here.*pip install 'dsca_ros\[train\]'"):
            create_engine(engine, "tiny", 2)


def test_torch_runs_where_there_is_no_other(use_tiny_models, monkeypatch):
    pytest.importorskip("torch")
    without(monkeypatch, "onnxruntime", "openvino")
    assert create_engine("auto", "tiny", 2).description.startswith("torch ")


@pytest.mark.parametrize("engine", ["auto", "onnxruntime", "torch"])
def test_a_model_for_levels_is_refused_for_depth_in_one_line(use_level_models, engine):
    with pytest.raises(EngineError, match=r"maps takes levels and not depth: .*dsca info") as raised:
        create_engine(engine, "maps", 2)
    assert "\n" not in str(raised.value)


def test_who_asks_for_a_domain_gets_that_domain(use_level_models):
    assert {(model.model, model.domain) for model in list_models()} == {
        ("tiny", "depth"),
        ("maps", "levels"),
        ("maps-noisy", "levels"),
    }
    create_engine("auto", "maps", 2, threads=1, domain="levels").close()
    for model in ("maps", "tiny"):
        create_engine("auto", model, 2, threads=1, domain=None).close()
    with pytest.raises(EngineError, match="tiny takes depth and not levels"):
        create_engine("auto", "tiny", 2, domain="levels")


def test_a_truncated_model_is_found_before_it_runs(broken):
    path = broken / "tiny-x2-fp32.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EngineError, match=r"tiny-x2-fp32\.onnx is damaged"):
        create_engine("auto", "tiny", 2)
    create_engine("auto", "tiny", 4, threads=1)  # the others still run


def test_a_changed_model_is_found_before_it_runs(broken):
    path = broken / "tiny-x4-fp32.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(EngineError, match="damaged"):
        create_engine("auto", "tiny", 4)


def test_a_missing_model_is_named(broken):
    (broken / "tiny-x2-fp32.onnx").unlink()
    with pytest.raises(EngineError, match=r"tiny-x2-fp32\.onnx is missing"):
        create_engine("auto", "tiny", 2)


@pytest.mark.parametrize(
    "text",
    [
        "models: [",
        "- a\n- b",
        "models: {tiny: 5}",
        "models: {tiny: {2: {fp32: {file: a, sha256: b}}}}",
        "models: {tiny: {scales: {2: {fp32: {file: a, sha256: b}}}}}",
        "models: {tiny: {domain: depth, scales: {2: {fp32: {file: a}}}}}",
        "models: {tiny: {domain: depth, scales: {two: {fp32: {file: a, sha256: b}}}}}",
    ],
    ids=repr,
)
def test_a_broken_manifest_is_named_in_one_line(broken, text):
    (broken / MANIFEST).write_text(text)
    with pytest.raises(EngineError, match=MANIFEST) as raised:
        find_model("tiny", 2)
    assert "\n" not in str(raised.value)
