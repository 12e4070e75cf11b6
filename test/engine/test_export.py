"""The exported graph against the torch module it comes from."""

import hashlib
import json

import numpy as np
import onnxruntime as ort
import pytest
import yaml

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from dsca_ros.depth import resample  # noqa: E402
from dsca_ros.engine.export import ExportError, export_model, export_onnx, load_weights  # noqa: E402
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from dsca_ros.engine.zoo import LEVELS, list_models  # noqa: E402
from dsca_ros.network.camera_graph import CameraGraph  # noqa: E402
from dsca_ros.network.level_graph import LevelGraph  # noqa: E402
from dsca_ros.training.recipe import MapData  # noqa: E402

RANGE = (0.1, 10.0)
SIZES = [(24, 32), (17, 23), (9, 8), (33, 50), (1, 1), (1, 7)]


@pytest.fixture(scope="module")
def graphs(tiny_models):
    """For each scale and precision: torch and ONNX Runtime."""
    found = {}
    for model in list_models(tiny_models):
        network, _ = load_weights(tiny_models / f"tiny-x{model.scale}.safetensors")
        both = CameraGraph(network).eval(), OnnxRuntimeEngine(model, 1)
        found[model.scale, model.precision] = both
    return found


@torch.no_grad()
def in_torch(graph, depth):
    return graph(torch.from_numpy(depth)[None, None], torch.tensor(RANGE))[0, 0].numpy()


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_onnxruntime_equals_torch(graphs, depth_image, scale, size):
    graph, engine = graphs[scale, "fp32"]
    depth = depth_image(*size, noise=0.2)
    expected, result = in_torch(graph, depth), engine.infer(depth, RANGE)
    assert result.shape == (size[0] * scale, size[1] * scale)
    np.testing.assert_array_equal(result > 0, expected > 0)
    np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", SIZES[:4], ids=str)
def test_half_precision_is_close(graphs, depth_image, scale, size):
    graph, engine = graphs[scale, "fp16"]
    depth = depth_image(*size, noise=0.2)
    expected, result = in_torch(graph, depth), engine.infer(depth, RANGE)
    np.testing.assert_array_equal(result > 0, expected > 0)
    valid = expected > 0
    error = np.abs(result - expected)[valid] / expected[valid]
    assert error.max() < 0.01 and error.mean() < 0.001
    assert error.max() > 0  # it is another graph


def test_the_comparison_is_of_networks_that_do_something(graphs, depth_image):
    """Most pixels are neither plain bilinear nor held at a bound by the guard."""
    depth = depth_image(33, 50, noise=0.2)
    result = graphs[2, "fp32"][1].infer(depth, RANGE)
    inverse = np.divide(1.0, depth, out=np.zeros_like(depth), where=depth > 0)
    plain = resample.bilinear(inverse, 2)
    both = (result > 0) & (plain > 0)
    assert (np.abs(result[both] - 1.0 / plain[both]) > 0.01).mean() > 0.8
    at_bound = np.isin(result[both].round(4), depth[depth > 0].round(4))
    assert at_bound.mean() < 0.3


@pytest.mark.parametrize("invalid", [np.nan, np.inf, -np.inf, -1.0, 65.535])
def test_stray_values_are_holes_in_onnxruntime_too(graphs, depth_image, invalid):
    engine = graphs[2, "fp32"][1]
    depth = depth_image(17, 23)
    spoilt = np.where(depth > 0, depth, np.float32(invalid))
    np.testing.assert_array_equal(engine.infer(spoilt, RANGE), engine.infer(depth, RANGE))


def test_the_graph_has_dynamic_sizes_and_two_inputs(tiny_models):
    path = tiny_models / "tiny-x2-fp32.onnx"
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert {i.name: i.type for i in session.get_inputs()} == {
        "depth": "tensor(float)",
        "depth_range": "tensor(float)",
    }
    for height, width in ((12, 20), (31, 18)):
        depth = np.full((1, 1, height, width), 2.0, np.float32)
        feeds = {"depth": depth, "depth_range": np.array(RANGE, np.float32)}
        (result,) = session.run(["result"], feeds)
        assert result.shape == (1, 1, 2 * height, 2 * width)
        np.testing.assert_allclose(result, 2.0, rtol=1e-6)


def test_half_precision_weighs_less(tiny_models):
    """Only the network is in half precision, but that is nearly all of a file's weights."""
    import onnx

    def halves(name):
        weights = onnx.load(tiny_models / name).graph.initializer
        return sum(np.prod(w.dims) for w in weights if w.data_type == onnx.TensorProto.FLOAT16)

    assert halves("tiny-x2-fp32.onnx") == 0
    assert halves("tiny-x2-fp16.onnx") > 1000


def test_the_manifest_lists_every_file_with_its_hash(tiny_models):
    models = list_models(tiny_models)
    assert {(m.model, m.scale, m.precision) for m in models} == {
        ("tiny", scale, precision) for scale in (2, 4) for precision in ("fp32", "fp16")
    }
    for model in models:
        assert hashlib.sha256(model.path.read_bytes()).hexdigest() == model.sha256


def test_weights_carry_the_recipe_and_lose_only_half_precision(tiny_models, tiny_network):
    network, recipe = load_weights(tiny_models / "tiny-x2.safetensors")
    assert (recipe.model, recipe.scale) == ("tiny", 2)
    original = tiny_network(2).state_dict()
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, original[name], rtol=1e-3, atol=1e-6)


def test_shipped_weights_export_to_the_same_graphs(tiny_models, tmp_path):
    written = export_model(tiny_models / "tiny-x2.safetensors", tmp_path)
    names = {"tiny-x2.safetensors", "tiny-x2-fp32.onnx", "tiny-x2-fp16.onnx"}
    assert {p.name for p in written} == names
    depth = np.random.default_rng(0).uniform(1, 3, (12, 14)).astype(np.float32)
    wanted = "tiny-x2-fp32.onnx"
    old, new = (
        next(OnnxRuntimeEngine(m, 1) for m in list_models(folder) if m.path.name == wanted)
        for folder in (tiny_models, tmp_path)
    )
    np.testing.assert_array_equal(old.infer(depth, RANGE), new.infer(depth, RANGE))


def test_exporting_again_keeps_the_other_entries(tiny_checkpoints, tmp_path):
    entries = {2: {"fp32": {"file": "other.onnx", "sha256": "0" * 64}}}
    other = {"other": {"domain": "levels", "scales": entries}}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({"models": other}))
    export_model(tiny_checkpoints[0], tmp_path)
    manifest = yaml.safe_load((tmp_path / "manifest.yaml").read_text())["models"]
    assert manifest["other"] == other["other"]
    assert set(manifest["tiny"]["scales"]) == {2} and manifest["tiny"]["domain"] == "depth"


@pytest.mark.parametrize(
    "name",
    [
        "none.pt",
        "empty.pt",
        "text.pt",
        "other.pt",
        "list.pt",
        "text.safetensors",
        "other.safetensors",
        "recipe.safetensors",
    ],
)
def test_what_cannot_be_exported_is_named_in_one_line(tmp_path, name):
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("this is neither")
    elif name == "empty.pt":
        path.touch()
    elif name == "other.pt":
        torch.save({"weights": torch.ones(3)}, path)
    elif name == "list.pt":
        torch.save([1, 2], path)
    elif name == "other.safetensors":
        save_file({"x": torch.ones(3)}, path)
    elif name == "recipe.safetensors":
        save_file({"x": torch.ones(3)}, path, {"recipe": "{"})
    with pytest.raises(ExportError, match=name) as raised:
        export_model(path, tmp_path / "models")
    assert "\n" not in str(raised.value)


def test_weights_of_another_shape_are_refused(tmp_path):
    recipe = {"model": "m", "scale": 2, "steps": 1, "network": {"channels": [4], "blocks": [1]}}
    recipe["data"] = {"kind": "views"}
    save_file({"x": torch.ones(3)}, tmp_path / "m.safetensors", {"recipe": json.dumps(recipe)})
    with pytest.raises(ExportError, match=r"m\.safetensors: .*state_dict"):
        load_weights(tmp_path / "m.safetensors")


# --- graphs for maps ----------------------------------------------------------------------------


def test_a_graph_for_maps_takes_levels_alone(level_models):
    session = ort.InferenceSession(str(level_models / "maps-x4-fp32.onnx"), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["levels"]
    for height, width in ((12, 20), (31, 18)):
        (result,) = session.run(["result"], {"levels": np.full((1, 1, height, width), 90.0, np.float32)})
        assert result.shape == (1, 1, 4 * height, 4 * width)
        assert result.min() >= 0 and result.max() <= 255


def test_the_manifest_says_what_a_model_takes(level_models):
    manifest = yaml.safe_load((level_models / "manifest.yaml").read_text())["models"]
    found = {name: (entry["domain"], sorted(entry["scales"])) for name, entry in manifest.items()}
    assert found == {"tiny": ("depth", [2, 4]), "maps": ("levels", [2, 4]), "maps-noisy": ("levels", [8])}


def test_shipped_weights_of_maps_keep_their_domain(level_models, tmp_path):
    export_model(level_models / "maps-x2.safetensors", tmp_path)
    assert {model.domain for model in list_models(tmp_path)} == {"levels"}


@pytest.mark.parametrize("multi_stage", [True, False])
@pytest.mark.parametrize(("block", "attention_scales"), [("plain", 0), ("plain", 3), ("bilayer", 0)])
def test_every_configuration_of_the_ablation_exports(
    tiny_level_network, tmp_path, block, attention_scales, multi_stage
):
    settings = {"block": block, "attention_scales": attention_scales, "multi_stage": multi_stage}
    network = tiny_level_network(4, unshuffle=1, **settings)
    export_onnx(network, tmp_path / "a.onnx", LEVELS)
    session = ort.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    graph = LevelGraph(network)
    for height, width in ((12, 16), (17, 23)):
        levels = np.random.default_rng(0).integers(0, 256, (1, 1, height, width)).astype(np.float32)
        with torch.no_grad():
            expected = graph(torch.from_numpy(levels)).numpy()
        (result,) = session.run(None, {"levels": levels})
        assert result.shape == (1, 1, 4 * height, 4 * width)
        np.testing.assert_allclose(result, expected, atol=1e-3)


def test_a_name_taken_by_another_domain_is_refused_and_nothing_is_written(
    tiny_models, tiny_level_network, save_checkpoint, tmp_path
):
    """A manifest has one domain for all scales of a name."""
    export_model(tiny_models / "tiny-x2.safetensors", tmp_path)
    checkpoint = save_checkpoint(tmp_path / "run" / "checkpoint.pt", "tiny", tiny_level_network(4), MapData())
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(ExportError, match="has a tiny for depth, and this one is for levels"):
        export_model(checkpoint, tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
