"""What is loaded runs no code, what runs tells nobody, and what is written stays where it was asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from dsca_ros.engine.base import EngineError
from dsca_ros.engine.zoo import MANIFEST, ModelFile, list_models

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "dsca_ros").rglob("*.py"))

# --- no network ---------------------------------------------------------------------------------

#: Runs `dsca` and writes down whatever looks for or connects to another machine; an error would be swallowed.
WATCHED = """
import sys

def watch(event, arguments):
    local = ("127.0.0.1", "::1", "localhost", "0.0.0.0")
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        told = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        told = arguments[1][0]
    elif event in ("urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect"):
        told = str(arguments)
    else:
        return
    if told not in local:
        print("network:", event, told, file=sys.stderr, flush=True)

sys.addaudithook(watch)
{what}
"""
DSCA = "import runpy; sys.argv = ['dsca', *sys.argv[1:]]; runpy.run_module('dsca_ros.cli', run_name='__main__')"


def watched(home: Path, what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python process with a home of its own, where telemetry would leave its files."""
    usual = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    env = usual | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "MPLCONFIGDIR": str(home / "mpl")}
    script = WATCHED.format(what=what)
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=env)


def test_the_watch_sees_who_calls_out(tmp_path: Path) -> None:
    call = "import socket\ntry: socket.create_connection(('example.invalid', 80))\nexcept OSError: pass"
    assert "network: socket.getaddrinfo example.invalid" in watched(tmp_path, call).stderr


@pytest.mark.parametrize("engine", ["auto", "onnxruntime", "openvino"])
def test_upscaling_calls_nobody_and_leaves_nothing_of_others(tmp_path: Path, tiny_models: Path, engine: str) -> None:
    if importlib.util.find_spec("openvino") is None and engine == "openvino":
        pytest.skip("no openvino here")
    depth = tmp_path / "in.npy"
    np.save(depth, np.full((24, 32), 2.0, np.float32))
    home = tmp_path / "home"
    home.mkdir()
    arguments = ["upscale", str(depth), str(tmp_path / "out.npy"), "--engine", engine]
    done = watched(home, DSCA, *arguments)
    assert done.returncode == 0, done.stderr
    assert "network:" not in done.stderr, done.stderr
    # The native parts are not seen by the watch; what would report to their makers keeps an identifier on disk.
    assert [path for path in home.rglob("*") if path.is_file() and "mpl" not in path.parts] == []


def test_info_calls_nobody(tmp_path: Path) -> None:
    done = watched(tmp_path, DSCA, "info")
    assert done.returncode == 0, done.stderr
    assert "network:" not in done.stderr, done.stderr


def test_what_could_call_out_is_not_imported_by_this_package() -> None:
    calls_out = re.compile(
        r"^\s*(?:import|from) (?:urllib(?!\.parse)|http|requests|socket|ftplib|smtplib|aiohttp|httpx)\b", re.M
    )
    assert [path.name for path in SOURCES if calls_out.search(path.read_text())] == []


# --- no code in data ----------------------------------------------------------------------------


def test_nothing_is_loaded_in_a_way_that_runs_code() -> None:
    text = {path.name: path.read_text() for path in SOURCES}
    for name, source in text.items():
        for call in re.findall(r"torch\.load\((.*)\)", source):
            assert "weights_only=True" in call, name
        forbidden = (
            r"allow_pickle=True|yaml\.(\w*load\w*\(|(Full|Unsafe|C)?Loader)|\b(eval|exec)\(|^import pickle|shell=True"
        )
        # torch's `module.eval()` runs nothing.
        found = [match[0] for match in re.finditer(forbidden, source.replace(".eval(", "."), re.M)]
        assert not found, (name, found)
    assert any("torch.load(" in source for source in text.values())


class Bomb:
    """What a pickle may hold: a call."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_checkpoint_that_holds_a_call_is_refused_and_the_call_not_made(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from dsca_ros.training.recipe import RecipeError
    from dsca_ros.training.train import load_checkpoint

    marker = tmp_path / "called"
    for write in (torch.save, lambda what, path: path.write_bytes(pickle.dumps(what))):
        write({"recipe": Bomb(marker)}, tmp_path / "checkpoint.pt")
        with pytest.raises(RecipeError, match="not a checkpoint"):
            load_checkpoint(tmp_path / "checkpoint.pt")
        assert not marker.exists()
    with open(tmp_path / "checkpoint.pt", "rb") as file:  # the bomb is one
        pickle.load(file)
    assert marker.exists()


def test_an_array_that_holds_a_call_is_refused_and_the_call_not_made(tmp_path: Path) -> None:
    from dsca_ros.depth.files import read_depth

    marker, path = tmp_path / "called", tmp_path / "depth.npy"
    np.save(path, np.array([[Bomb(marker)]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=re.escape(path.name)):
        read_depth(path, 0.001)
    assert not marker.exists()


def graph_with_weights_at(location: str, path: Path) -> ModelFile:
    """A graph that names a file of its weights, and is as its manifest says."""
    onnx = pytest.importorskip("onnx")
    weights = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "4"}.items():
        weights.external_data.add(key=key, value=value)
    shapes = {"depth": [1, 1, "height", "width"], "result": [1, 1, "height", "width"]}
    depth, result = (onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items())
    add = onnx.helper.make_node("Add", ["depth", "w"], ["result"])
    graph = onnx.helper.make_graph([add], "graph", [depth], [result], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return ModelFile("graph", 1, "fp32", path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("engine", ["OnnxRuntimeEngine", "OpenVinoEngine"])
def test_a_graph_does_not_reach_for_files_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Whatever file it named as its weights, that one's bytes would come out as depth."""
    module = pytest.importorskip(f"dsca_ros.engine.{engine.removesuffix('Engine').lower()}")
    load = getattr(module, engine)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for secret in (tmp_path / "secret", folder / "secret"):
        secret.write_bytes(np.float32(40).tobytes())
    for location in ("../secret", str(tmp_path / "secret")):
        with pytest.raises(EngineError, match=r"graph\.onnx: .*(External data path|outside)"):
            load(graph_with_weights_at(location, folder / "graph.onnx"), 1)
    if engine == "OpenVinoEngine":  # in the working folder it may; so the graph is one that can be loaded
        load(graph_with_weights_at("secret", folder / "graph.onnx"), 1).close()


# --- what ships is what was made ----------------------------------------------------------------


def test_every_model_that_ships_is_the_one_in_the_manifest() -> None:
    """Hashes are checked whenever a model is opened; see also test_zoo.py."""
    models = list_models(ROOT / "models")
    for model in models:
        assert model.read()
    listed = {model.path.name for model in models}
    assert listed == {path.name for path in (ROOT / "models").glob("*.onnx")}


def test_a_checkpoint_does_not_decide_on_a_folder(
    tmp_path: Path, tiny_network: object, save_checkpoint: object
) -> None:
    pytest.importorskip("torch")
    from dsca_ros.training.recipe import Recipe, RecipeError, ViewData

    source = save_checkpoint(tmp_path / "checkpoint.pt", "tiny", tiny_network(2), ViewData())
    import torch

    plain = torch.load(source, weights_only=True)["recipe"]
    assert Recipe.from_dict(plain).name == "tiny-x2"
    for name in ("../elsewhere", "/elsewhere", "a/b", "", "..", "a\nb"):
        with pytest.raises(RecipeError, match="make a name"):
            Recipe.from_dict(plain | {"model": name})


def test_a_manifest_does_not_decide_on_a_folder(tmp_path: Path) -> None:
    entry = {"file": "../secret", "sha256": "0" * 64}
    manifest = {"models": {"tiny": {"domain": "depth", "scales": {2: {"fp32": entry}}}}}
    (tmp_path / MANIFEST).write_text(yaml.safe_dump(manifest))
    with pytest.raises(RuntimeError, match="is no name"):
        list_models(tmp_path)
    assert ModelFile("tiny", 2, "fp32", tmp_path / "a.onnx", "").weights.parent == tmp_path


# --- dependencies -------------------------------------------------------------------------------


#: pycuda is compiled against the CUDA that is there, onnxscript follows torch, and ROS's distribution names its parts'.
ANY_VERSION = re.compile(r"(pycuda|onnxscript)$|ros-(jazzy|kilted)-")


def test_what_is_needed_at_run_time_is_pinned_by_range_with_the_reason() -> None:
    setup = (ROOT / "setup.py").read_text()
    needed = setup.partition("install_requires=[")[2].partition("]")[0].strip().splitlines()
    assert len(needed) >= 7
    for line in needed:
        assert re.fullmatch(r'\s*"[\w-]+>=[\d.]+",  # \w.+', line), line
    extras = setup.partition("extras_require={")[2].partition('"test":')[0]
    # A requirement, and not the extra's own name.
    names = re.findall(r'"([\w-]+[^"]*)"(?!:)', extras)
    assert len(names) >= 15
    for name in names:
        assert ">=" in name or ANY_VERSION.match(name), name
        assert ANY_VERSION.match(name) or re.search(rf'#[^"]+\n[^#]*"{re.escape(name)}"', extras), f"{name}: why?"


def test_how_to_report_is_said() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for word in ("privately", "weights_only", "ORT_DISABLE_TELEMETRY", "manifest.yaml"):
        assert word in text
