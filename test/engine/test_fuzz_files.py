"""Files of every kind, mutated: one line says what is wrong with them, and nothing else happens."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from dsca_ros.engine.base import EngineError, ModelFileError
from dsca_ros.engine.engine_cache import MAGIC, EngineCache, EngineKey, StoredEngine
from dsca_ros.engine.zoo import MANIFEST, ModelFile, find_model, list_models

KEY = EngineKey("nano", 2, "fp16", "ab" * 32, "uint16", 640, 480, "sm89", "", "tensorrt_rtx", "1.7")
#: As of a file that somebody wrote by hand, or that a disk returned.
HOSTILE_TEXT = ["..", "../../etc/passwd", "/etc/passwd", "a/b", "\0", "", "x" * 5000, "~", ".hidden", "a\nb", "ü"]

fuzz = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=300,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(HOSTILE_TEXT),
    st.text(max_size=5),
    st.binary(max_size=5),
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
#: Changes of bytes: where, as a share of the length; and what comes there.
changes = st.lists(st.tuples(st.floats(0.0, 1.0), st.binary(max_size=6)), min_size=1, max_size=4)


def mutated(data: bytes, where: list[tuple[float, bytes]]) -> bytes:
    """Bytes with some of them overwritten; empty ones cut it off there."""
    content = bytearray(data)
    for share, new in where:
        position = int(share * len(content))
        content[position : position + len(new) if new else None] = new
    return bytes(content)


def in_one_line(error: Exception) -> bool:
    return 0 < len(str(error)) < 2000 and "\n" not in str(error)


# --- the manifest -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "models"
    shutil.copytree(tiny_models, folder)
    return folder


def is_read_or_refused(folder: Path, content: bytes) -> None:
    """A manifest gives models within its folder, or an error of one line."""
    (folder / MANIFEST).write_bytes(content)
    try:
        models = list_models(folder)
    except EngineError as error:
        assert in_one_line(error) and MANIFEST in str(error)
        return
    for model in models:
        assert model.path.parent == folder and model.weights.parent == folder
        try:
            data = model.read()
        except ModelFileError as error:
            assert in_one_line(error)
        else:
            assert hashlib.sha256(data).hexdigest() == model.sha256


@fuzz
@given(changes)
@example([(0.0, b"[" * 5000)])
@example([(0.0, b"{a: " * 5000)])
@example([(0.0, b"\xff\xfe")])
@example([(0.0, b"")])
def test_any_manifest_is_read_or_refused(tiny_models: Path, folder: Path, where: list[tuple[float, bytes]]) -> None:
    is_read_or_refused(folder, mutated((tiny_models / MANIFEST).read_bytes(), where))


FIELDS = ["models", "model", "domain", "scales", "scale", "precision", "file", "sha256"]


@fuzz
@given(st.sampled_from(FIELDS), values)
@example("scale", float("inf"))
@example("file", "\0")
@example("file", "../models/tiny-x2-fp32.onnx")
@example("model", "../../elsewhere")
def test_any_value_in_a_manifest_is_taken_or_refused(folder: Path, field: str, value: object) -> None:
    entry: dict[str, object] = {"file": "tiny-x2-fp32.onnx", "sha256": "0" * 64}
    if field in entry:
        entry[field] = value

    def name(this: str, usual: object) -> object:
        return (value if isinstance(value, str | int | float | bool | None) else str(value)) if field == this else usual

    scales: object = {name("scale", 2): {name("precision", "fp32"): entry}}
    about = {"domain": value if field == "domain" else "depth", "scales": value if field == "scales" else scales}
    manifest = {"models": value if field == "models" else {name("model", "tiny"): about}}
    is_read_or_refused(folder, yaml.safe_dump(manifest).encode())


def test_a_manifest_that_grows_when_it_is_shown_is_not_shown(folder: Path) -> None:
    """Nine lines of YAML that are ten thousand million names."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]" for i in range(1, 10)]
    lines += ["models: {tiny: {domain: *a9, scales: {2: {fp32: {file: *a9, sha256: *a9}}}}}"]
    (folder / MANIFEST).write_text("\n".join(lines))
    with pytest.raises(EngineError, match=MANIFEST) as raised:
        list_models(folder)
    assert in_one_line(raised.value)


# --- models -------------------------------------------------------------------------------------


@fuzz
@given(changes)
def test_a_changed_model_is_never_loaded(tiny_models: Path, folder: Path, where: list[tuple[float, bytes]]) -> None:
    original = next(model for model in list_models(tiny_models) if model.precision == "fp32")
    content = mutated(original.path.read_bytes(), where)
    path = folder / "changed.onnx"
    path.write_bytes(content)
    model = ModelFile("tiny", original.scale, "fp32", path, original.sha256)
    if content == original.path.read_bytes():
        assert model.read() == content
        return
    with pytest.raises(ModelFileError, match=r"damaged \(its hash"):
        model.read()


@pytest.mark.parametrize("kind", ["weights", "checkpoint"])
def test_any_weights_are_read_or_refused(tiny_models: Path, tiny_checkpoint: Path, folder: Path, kind: str) -> None:
    pytest.importorskip("torch")
    from dsca_ros.engine.export import ExportError, load_weights
    from dsca_ros.training.recipe import RecipeError
    from dsca_ros.training.train import load_checkpoint

    load, refused, source = (
        (load_weights, ExportError, next(tiny_models.glob("*.safetensors")))
        if kind == "weights"
        else (load_checkpoint, RecipeError, tiny_checkpoint)
    )
    outcomes = []
    rng = np.random.default_rng(11)
    data = source.read_bytes()
    for index in range(150):
        # The head of the file decides how the rest is read: half of the changes fall there.
        last = len(data) if index % 2 else min(len(data), 3000)
        where = [(rng.integers(0, last) / len(data), rng.bytes(int(rng.integers(0, 9)))) for _ in range(1 + index % 3)]
        path = folder / f"changed{source.suffix}"
        path.write_bytes(mutated(data, where))
        try:
            load(path)
            outcomes.append(True)
        except refused as error:
            assert in_one_line(error)
            outcomes.append(False)
    assert 10 < sum(outcomes) < 140  # else the changes would try little


def test_weights_whose_recipe_announces_a_larger_network_are_refused_before_it_is_made(
    tiny_models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shapes are known without it; the largest that a recipe may name would fit into no memory."""
    pytest.importorskip("torch")
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from dsca_ros.engine import export

    made: list[export.DSCA] = []
    network = export.DSCA
    monkeypatch.setattr(export, "DSCA", lambda config: made.append(network(config)) or made[-1])
    source = next(tiny_models.glob("*.safetensors"))
    with safe_open(source, "pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
    for larger in ({"channels": [96]}, {"blocks": [9]}, {"expansion": 9}):
        changed = recipe | {"network": recipe["network"] | larger}
        save_file(load_file(source), folder / "larger.safetensors", {"recipe": json.dumps(changed)})
        with pytest.raises(export.ExportError, match="not those of the network"):
            export.load_weights(folder / "larger.safetensors")
    assert {layer.weight.device.type for net in made for layer in net.modules() if hasattr(layer, "weight")} == {"meta"}


# --- engines on disk ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("cache") / "engines")


@fuzz
@given(changes)
def test_a_changed_engine_is_never_loaded(cache: EngineCache, where: list[tuple[float, bytes]]) -> None:
    stored = StoredEngine(bytes(range(100)), {"seconds": 1.5})
    path = cache.store(KEY, stored)
    whole = path.read_bytes()
    path.write_bytes(mutated(whole, where))
    assert cache.load(KEY) == (stored if path.read_bytes() == whole else None)
    assert len(cache.each()) == 1


@fuzz
@given(st.sampled_from(["key", "facts", "one key", "all"]), values)
@example("all", [])
@example("facts", "none")
def test_an_engine_of_another_shape_is_refused_though_its_hash_is_right(
    cache: EngineCache, field: str, value: object
) -> None:
    about: dict[str, object] = {"key": asdict(KEY), "facts": {}}
    if field == "one key":
        about["key"] = asdict(KEY) | {"model": value}
    elif field != "all":
        about[field] = value
    try:
        whole = json.dumps([about["key"], about["facts"]], sort_keys=True).encode()
        head = json.dumps(value if field == "all" else about | {"sha256": hashlib.sha256(whole).hexdigest()})
    except TypeError:  # no JSON
        return
    cache.folder.mkdir(parents=True, exist_ok=True)
    cache.path(KEY).write_bytes(MAGIC + head.encode() + b"\n")
    found = cache.load(KEY)
    assert found is None or (isinstance(found.facts, dict) and about["key"] == asdict(KEY))
    ((_, known),) = cache.each()
    assert known is None or (known["key"].keys() == asdict(KEY).keys() and isinstance(known["facts"], dict))


def test_an_engine_nested_too_deeply_is_refused(cache: EngineCache) -> None:
    cache.folder.mkdir(parents=True, exist_ok=True)
    cache.path(KEY).write_bytes(MAGIC + b"[" * 200_000 + b"\n")
    assert cache.load(KEY) is None
    assert cache.each() == [(cache.path(KEY), None)]


# --- graphs that somebody else made -------------------------------------------------------------

#: Loads graphs whose hashes are right; a native crash ends this process and not the tests.
LOADER = """
import sys
import numpy as np
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine
from dsca_ros.engine.zoo import list_models
from pathlib import Path
for model in list_models(Path(sys.argv[1])):
    try:
        OnnxRuntimeEngine(model, threads=1).infer(np.full((9, 7), 2.0, np.float32), (0.1, 10.0))
        print("ran", flush=True)
    except EngineError as error:
        assert len(str(error).splitlines()) == 1
        print("refused", flush=True)
"""


def test_graphs_that_were_broken_before_they_were_listed_end_nobody(folder: Path, tiny_models: Path) -> None:
    data = next(m for m in list_models(tiny_models) if (m.scale, m.precision) == (2, "fp32")).path.read_bytes()
    rng = np.random.default_rng(5)
    models = {}
    for index in range(60):
        where = [(rng.random(), rng.bytes(int(rng.integers(0, 5)))) for _ in range(1 + index % 2)]
        path = folder / f"graph{index}.onnx"
        path.write_bytes(mutated(data, where))
        entry = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        models[f"graph{index}"] = {"domain": "depth", "scales": {2: {"fp32": entry}}}
    (folder / MANIFEST).write_text(yaml.safe_dump({"models": models}))
    done = subprocess.run([sys.executable, "-c", LOADER, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()  # ONNX Runtime writes between them
    ran, refused = lines.count("ran"), lines.count("refused")
    assert ran + refused == 60 and ran and refused


def test_a_model_cannot_be_named_out_of_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSCA_MODELS", str(folder))
    entry = {"file": "tiny-x2-fp32.onnx", "sha256": "0" * 64}
    for name in ("../../elsewhere", "/elsewhere", "a/b", ".", ""):
        models = {"tiny": {"domain": "depth", "scales": {2: {"fp32": entry}}}}
        models[name] = models.pop("tiny")
        (folder / MANIFEST).write_text(yaml.safe_dump({"models": models}))
        with pytest.raises(EngineError, match="is no name"):
            find_model(name, 2)
