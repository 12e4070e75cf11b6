"""The exported graph against the torch module it comes from."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import yaml

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from dsca_ros.depth import resample  # noqa: E402
from dsca_ros.engine import export  # noqa: E402
from dsca_ros.engine.export import ExportError, export_model, export_onnx, load_weights, save_weights  # noqa: E402
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from dsca_ros.engine.zoo import LEVELS, list_models  # noqa: E402
from dsca_ros.network.blend import HOLD  # noqa: E402
from dsca_ros.network.camera_graph import CameraGraph  # noqa: E402
from dsca_ros.network.dsca import DSCA  # noqa: E402
from dsca_ros.network.level_graph import LevelGraph  # noqa: E402
from dsca_ros.training.recipe import MapData, ViewData  # noqa: E402

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
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def doubtful(tmp_path_factory, tiny_network):
    """For each scale: torch and ONNX Runtime, of networks that decide on validity, too."""
    found = {}
    for scale in (2, 4):
        network = tiny_network(scale, doubt=2.0, taps=(9, 4))
        path = tmp_path_factory.mktemp("doubtful") / "a.onnx"
        export_onnx(network, path)
        found[scale] = CameraGraph(network).eval(), ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return found


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("picture", ["camera", "no holes", "half holes", "0.05 to 60 m", "nothing"])
def test_onnxruntime_equals_torch_whatever_the_network_decides(doubtful, depth_image, rng, scale, picture):
    """Sizes that are odd, of one row, of one pixel; all through the same session."""
    graph, session = doubtful[scale]
    wide = np.array([0.04, 100.0], np.float32)
    for size in SIZES:
        depth = depth_image(*size, noise=0.1)
        if picture == "no holes":
            depth = np.where(depth > 0, depth, np.float32(2.5))
        elif picture == "0.05 to 60 m":
            depth = np.where(depth > 0, np.exp(rng.uniform(-3, 4, size)), 0.0).astype(np.float32)
        elif picture == "half holes":
            depth = np.where(rng.random(size) < 0.5, depth, np.float32(np.nan))
        elif picture == "nothing":
            depth = np.zeros(size, np.float32)
        (result,) = session.run(None, {"depth": depth[None, None], "depth_range": wide})
        with torch.no_grad():
            expected = graph(torch.from_numpy(depth)[None, None], torch.from_numpy(wide)).numpy()
        assert result.shape == expected.shape == (1, 1, size[0] * scale, size[1] * scale)
        np.testing.assert_array_equal(result > 0, expected > 0)
        # Beside a pixel a thousand times as near, the last digit of a weight is that much of the result.
        close = np.isclose(result, expected, rtol=1e-4 if picture == "0.05 to 60 m" else 1e-5, atol=0.0)
        # Of two taps equally far the guard takes one, and the last digit decides which.
        assert (~close).mean() < 1e-4
        np.testing.assert_allclose(result[~close], expected[~close], rtol=2.0 * HOLD)
        if picture == "no holes":  # and none are made
            assert (result > 0).all()
        elif size == (33, 50) and picture != "nothing":
            assert 0.02 < (result > 0).mean() < 0.95


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", SIZES[:4], ids=str)
def test_half_precision_is_close(graphs, depth_image, scale, size):
    graph, engine = graphs[scale, "fp16"]
    depth = depth_image(*size, noise=0.2)
    expected, result = in_torch(graph, depth), engine.infer(depth, RANGE)
    np.testing.assert_array_equal(result > 0, expected > 0)
    valid = expected > 0
    error = np.abs(result - expected)[valid] / expected[valid]
    # Between two surfaces a last digit may decide which one the guard takes.
    assert np.quantile(error, 0.99) < 0.01 and error.mean() < 0.002
    assert error.max() > 0  # it is another graph


def test_the_comparison_is_of_networks_that_do_something(graphs, depth_image):
    """Most pixels are neither plain bilinear nor those of the input, where the guard may put them."""
    depth = depth_image(33, 50, noise=0.2)
    for scale in (2, 4):
        result = graphs[scale, "fp32"][1].infer(depth, RANGE)
        inverse = np.divide(1.0, depth, out=np.zeros_like(depth), where=depth > 0)
        plain = resample.bilinear(inverse, scale)
        both = (result > 0) & (plain > 0)
        assert (np.abs(result[both] - 1.0 / plain[both]) > 0.01).mean() > 0.7
        as_input = np.isin(result[both].round(4), depth[depth > 0].round(4))
        assert as_input.mean() < 0.4


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
    network, recipe = load_weights(tiny_models / "tiny-x4.safetensors")
    assert (recipe.model, recipe.scale) == ("tiny", 4)
    original = tiny_network(4).state_dict()
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


# --- smaller scales -----------------------------------------------------------------------------


@torch.no_grad()
def test_the_first_stage_of_x4_is_the_model_at_x2(tiny_models, tiny_network, depth_image):
    network, recipe = load_weights(tiny_models / "tiny-x2.safetensors")
    assert (recipe.name, recipe.scale, recipe.network.scale) == ("tiny-x2", 2, 2)
    whole, _ = load_weights(tiny_models / "tiny-x4.safetensors")
    depth = torch.from_numpy(depth_image(16, 22))[None, None]
    alone, larger = CameraGraph(network), CameraGraph(whole)
    prepared = larger.prepare(depth, torch.tensor(RANGE))
    first, second = larger.stages(*prepared)
    (only,) = alone.stages(*prepared)
    for name in ("inverse", "there", "validity"):
        assert torch.equal(getattr(only, name), getattr(first, name)), name
    assert second.inverse.shape[-1] == 88


@pytest.mark.parametrize(
    ("scale", "settings", "scales"),
    [(8, {}, [2, 4, 8]), (2, {}, [2]), (4, {"multi_stage": False}, [4]), (4, {"taps": (9, 4), "unshuffle": 1}, [2, 4])],
    ids=str,
)
def test_a_checkpoint_for_cameras_is_written_at_every_scale_it_serves(
    tiny_network, save_checkpoint, tmp_path, scale, settings, scales
):
    network = tiny_network(scale, **settings)
    written = save_weights(save_checkpoint(tmp_path / "c.pt", "m", network, ViewData()), tmp_path)
    assert [path.name for path in written] == [f"m-x{s}.safetensors" for s in scales]
    for path, s in zip(written, scales):
        found, recipe = load_weights(path)
        assert recipe.scale == recipe.network.scale == s
        assert len(found.stages) == len(scales[: scales.index(s) + 1])
        for key, value in found.state_dict().items():
            torch.testing.assert_close(value, network.state_dict()[key], rtol=1e-3, atol=1e-6)


def test_a_checkpoint_for_maps_is_of_its_own_scale_alone(tiny_level_network, save_checkpoint, tmp_path):
    """At every scale the benchmark's degradation is another."""
    checkpoint = save_checkpoint(tmp_path / "c.pt", "m", tiny_level_network(4), MapData())
    assert [path.name for path in save_weights(checkpoint, tmp_path)] == ["m-x4.safetensors"]


def test_the_mean_of_trainings_is_written_under_the_name_of_the_first(tiny_network, save_checkpoint, tmp_path):
    networks = [tiny_network(4) for _ in range(3)]
    for network in networks:
        for value in network.parameters():
            torch.nn.init.normal_(value)
    checkpoints = [
        save_checkpoint(tmp_path / f"{name}.pt", name, network, ViewData())
        for name, network in zip(("one", "two", "three"), networks)
    ]
    written = save_weights(checkpoints[0], tmp_path, mean_with=checkpoints[1:])
    assert [path.name for path in written] == ["one-x2.safetensors", "one-x4.safetensors"]
    found, recipe = load_weights(written[1])
    assert recipe.model == "one"
    for key, value in found.state_dict().items():
        mean = torch.stack([network.state_dict()[key] for network in networks]).mean(dim=0)
        torch.testing.assert_close(value, mean, rtol=1e-3, atol=1e-4)
    with safe_open(written[0], "pt") as file:
        assert [other["recipe"]["model"] for other in json.loads(file.metadata()["mean_with"])] == ["two", "three"]


def test_there_is_no_mean_of_different_networks_nor_of_rounded_weights(
    tiny_network, save_checkpoint, tiny_models, tmp_path
):
    one = save_checkpoint(tmp_path / "one.pt", "one", tiny_network(4), ViewData())
    other = save_checkpoint(tmp_path / "other.pt", "other", tiny_network(4, taps=(9, 4)), ViewData())
    weights = tiny_models / "tiny-x4.safetensors"
    for sources, text in (
        ((one, other), r"other\.pt is of another network than .*one\.pt"),
        ((one, weights), r"tiny-x4\.safetensors: a mean is of checkpoints"),
        ((weights, one), r"tiny-x4\.safetensors: a mean is of checkpoints"),
        ((one, tmp_path / "none.pt"), r"none\.pt: no such file"),
    ):
        with pytest.raises(ExportError, match=text):
            export_model(sources[0], tmp_path / "models", mean_with=sources[1:])
    assert not list((tmp_path / "models").glob("*"))


def test_of_several_scales_one_can_be_exported_and_the_others_stay(tiny_checkpoint, tiny_models, tmp_path):
    export_model(tiny_models / "tiny-x2.safetensors", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("tiny-x2*")}
    written = export_model(tiny_checkpoint, tmp_path, scales=[4])
    assert {path.name for path in written} == {"tiny-x4.safetensors", "tiny-x4-fp32.onnx", "tiny-x4-fp16.onnx"}
    assert {path.name: path.read_bytes() for path in tmp_path.glob("tiny-x2*")} == before
    assert [model.scale for model in list_models(tmp_path) if model.precision == "fp32"] == [2, 4]


def test_a_scale_that_a_network_has_not_is_refused(tiny_checkpoint, tiny_models, tmp_path):
    with pytest.raises(ExportError, match="is a network of x2 and x4: there is no x8 in it"):
        export_model(tiny_checkpoint, tmp_path / "models", scales=[2, 8])
    with pytest.raises(ExportError, match=r"tiny-x4\.safetensors is of one scale: leave --scale out"):
        export_model(tiny_models / "tiny-x4.safetensors", tmp_path / "models", scales=[4])
    assert not list((tmp_path / "models").glob("*"))


def test_the_recipe_of_a_trained_model_is_its_own(tiny_network, save_checkpoint, tmp_path):
    data = ViewData()
    checkpoint = save_checkpoint(tmp_path / "c.pt", "m", tiny_network(4), data)
    state = torch.load(checkpoint, weights_only=True)
    state["recipe"] |= {"start": "first.safetensors", "frozen_stages": 1}
    torch.save(state, checkpoint)
    small, whole = (load_weights(path)[1] for path in save_weights(checkpoint, tmp_path))
    assert (small.frozen_stages, whole.frozen_stages) == (0, 1)


def test_a_network_can_be_trained_on_from_the_model_at_x2(tiny_models):
    """Its weights are those of any network's first stage."""
    network, _ = load_weights(tiny_models / "tiny-x2.safetensors")
    whole = DSCA(load_weights(tiny_models / "tiny-x4.safetensors")[1].network)
    missing = whole.load_state_dict(network.state_dict(), strict=False)
    assert not missing.unexpected_keys and all(key.startswith("stages.1.") for key in missing.missing_keys)


def test_all_scales_are_exported_at_once_and_other_entries_kept(tiny_checkpoint, tmp_path):
    entries = {2: {"fp32": {"file": "other.onnx", "sha256": "0" * 64}}}
    other = {"other": {"domain": "levels", "scales": entries}}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump({"models": other}))
    written = export_model(tiny_checkpoint, tmp_path)
    names = {f"tiny-x{s}{end}" for s in (2, 4) for end in (".safetensors", "-fp32.onnx", "-fp16.onnx")}
    assert {path.name for path in written} == names and len(written) == 6
    assert {path.name for path in tmp_path.iterdir()} == names | {"manifest.yaml"}
    manifest = yaml.safe_load((tmp_path / "manifest.yaml").read_text())["models"]
    assert manifest["other"] == other["other"]
    assert set(manifest["tiny"]["scales"]) == {2, 4} and manifest["tiny"]["domain"] == "depth"


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
    with pytest.raises(ExportError, match=r"m\.safetensors: .*its tensors are not those"):
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


def test_a_full_disk_costs_no_model_that_is_there(tiny_models, tiny_checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "models"
    shutil.copytree(tiny_models, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(graph: object, path: Path, *_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "export_graph", full)
    with pytest.raises(ExportError, match=r"cannot write to .*No space left on device"):
        export_model(tiny_checkpoint, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("text", ["- a list", "models: {m: 3}", "models: [", "models: {m: {scales: 2}}"])
def test_a_damaged_manifest_is_named(tiny_checkpoint, tmp_path, text):
    (tmp_path / "manifest.yaml").write_text(text)
    with pytest.raises(ExportError, match=r"manifest\.yaml is damaged"):
        export_model(tiny_checkpoint, tmp_path)
    assert (tmp_path / "manifest.yaml").read_text() == text
