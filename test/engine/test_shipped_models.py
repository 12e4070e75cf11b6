"""The models that ship: whole files, one algorithm, and better depth than any plain enlargement."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import decimate
from dsca_ros.depth.synthetic import HELD_OUT_SEED, SyntheticStream
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine
from dsca_ros.engine.zoo import DEPTH, LEVELS, is_twin, list_models, models_folder
from dsca_ros.evaluation.compare import compare
from dsca_ros.evaluation.held_out import held_out_samples
from dsca_ros.training.disparity_scenes import disparity_scene

RANGE = (0.1, 10.0)
RECIPES = Path(__file__).parents[2] / "config" / "train"


def shipped():
    try:
        return list_models()
    except EngineError:
        return []  # test_nano_and_small_ship_at_every_scale says so


MODELS = shipped()
#: Models for cameras; and all.
KINDS = sorted({(m.model, m.scale) for m in MODELS if m.domain == DEPTH})
ALL_KINDS = sorted({(m.model, m.scale, m.domain) for m in MODELS})
by_file = pytest.mark.parametrize("model", MODELS, ids=lambda m: m.path.stem)


def load(kind: tuple[str, int], precision: str) -> OnnxRuntimeEngine:
    (model,) = (m for m in MODELS if (m.model, m.scale, m.precision) == (*kind, precision))
    return OnnxRuntimeEngine(model, threads=1)


def measured(seed: int, width: int, height: int) -> np.ndarray:
    return SyntheticStream(Intrinsics.from_fov(width, height, 70.0), "stereo", 12, seed).measured(1)


@cache
def figures(kind: tuple[str, int], sensor: str) -> dict[str, dict[str, float]]:
    """Errors of all methods over rooms that no model was trained on, in the frames a model is for."""
    engine, scale = load(kind, "fp32"), kind[1]
    rooms = 6 if scale == 2 else 4
    size = (160, 120) if scale == 8 else (320, 240)  # exact depth of five million pixels takes long to render
    samples = held_out_samples(
        lambda depth: engine.infer(depth, RANGE), scale, sensor, rooms, *size, decimated=is_twin(kind[0])
    )
    return compare(samples)


def test_nano_and_small_ship_at_every_scale():
    there = {(m.model, m.scale, m.precision) for m in list_models()}
    assert there >= {(m, s, p) for m in ("dsca-nano", "dsca-small") for s in (2, 4, 8) for p in ("fp32", "fp16")}


@by_file
def test_the_manifest_has_the_files_hash(model):
    assert hashlib.sha256(model.path.read_bytes()).hexdigest() == model.sha256


@by_file
def test_it_loads_and_gives_its_scale(model):
    engine = OnnxRuntimeEngine(model, threads=1)
    constant = np.full((17, 23), 2000, np.uint16) if model.domain == DEPTH else np.full((17, 23), 90, np.uint8)
    result = engine.infer(constant, RANGE)
    assert result.shape == (17 * model.scale, 23 * model.scale) and result.dtype == constant.dtype
    # Who expects noise everywhere may be two levels off in a corner.
    np.testing.assert_allclose(result.astype(float), constant[0, 0], atol=2 if model.model.endswith("-noisy") else 1)


def image_for(domain: str, seed: int, width: int, height: int) -> np.ndarray:
    """What a model of a domain takes."""
    if domain == DEPTH:
        return measured(seed, width, height)
    return disparity_scene(np.random.default_rng(seed), max(width, height))[:height, :width].astype(np.float32)


@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_it_is_the_graph_of_its_weights(kind):
    torch = pytest.importorskip("torch")
    from dsca_ros.engine.export import domain_of, load_weights, make_graph

    model, scale, domain = kind
    network, recipe = load_weights(models_folder() / f"{model}-x{scale}.safetensors")
    assert (recipe.model, recipe.scale, domain_of(recipe)) == kind
    image = image_for(domain, HELD_OUT_SEED, 93, 71)
    inputs = [torch.from_numpy(image)[None, None], torch.tensor(RANGE)][: 2 if domain == DEPTH else 1]
    with torch.no_grad():
        expected = make_graph(network, domain)(*inputs)
    result = load((model, scale), "fp32").infer(image, RANGE)
    expected = expected[0, 0].numpy()
    same = (result > 0) == (expected > 0)
    assert same.mean() > 0.9999  # a last digit may decide on validity, too
    error = np.abs(result - expected)[same]
    if domain == LEVELS:
        # Of a level, and results are rounded to whole ones: a network multiplies ONNX Runtime's rounding, at x4 most of
        # all. That the graph is the same, the check in double below tells.
        assert np.quantile(error, 0.99) < 5e-3 and error.max() < 0.1
    else:  # between two surfaces a last digit may decide which one the guard takes
        assert np.quantile(error, 0.999) < 2e-4


@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_it_was_trained_by_the_recipe_of_its_name(kind):
    """Whoever trains anew by what is in config/train gets what ships, or its equal."""
    pytest.importorskip("torch")
    from dsca_ros.engine.export import load_weights
    from dsca_ros.training.recipe import Recipe

    model, scale, _ = kind
    _, trained = load_weights(models_folder() / f"{model}-x{scale}.safetensors")
    own, common = RECIPES / f"{model}-x{scale}.yaml", RECIPES / f"{model}.yaml"
    ours, theirs = trained.plain(), Recipe.load(own if own.exists() else common).plain()
    if theirs["scale"] > scale:  # its first stages
        theirs["scale"] = theirs["network"]["scale"] = scale
    # Which stages were trained their own weights tell: of some it was written into the recipe later.
    assert {**ours, "frozen_stages": 0} == {**theirs, "frozen_stages": 0}


def in_double(path: Path) -> Any:
    """A graph with every float32 in it as float64."""
    onnx = pytest.importorskip("onnx")
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE

    def widen(tensor: Any) -> None:
        if tensor.data_type == single:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    model = onnx.load(path)
    for tensor in model.graph.initializer:
        widen(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            widen(attribute.t)
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", single):
                attribute.i = double
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = double
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_in_double_its_graph_and_its_weights_agree(kind):
    """Next to no rounding is left that a network might multiply, or a guard decide by."""
    torch = pytest.importorskip("torch")
    from onnx.reference import ReferenceEvaluator

    from dsca_ros.engine.export import load_weights, make_graph

    model, scale, domain = kind
    network, _ = load_weights(models_folder() / f"{model}-x{scale}.safetensors")
    image = image_for(domain, HELD_OUT_SEED, 31, 22).astype(np.float64)[None, None]
    inputs = {"depth": image, "depth_range": np.array(RANGE)} if domain == DEPTH else {"levels": image}
    graph = ReferenceEvaluator(in_double(models_folder() / f"{model}-x{scale}-fp32.onnx"))
    (result,) = graph.run(None, inputs)
    with torch.no_grad():
        expected = make_graph(network, domain).double()(*map(torch.from_numpy, inputs.values())).numpy()
    assert result.dtype == np.float64 and result.shape == expected.shape
    np.testing.assert_array_equal(result > 0, expected > 0)
    apart = np.abs(result - expected) > (1e-4 if domain == LEVELS else 1e-6)
    assert apart.sum() <= (0 if domain == LEVELS else 2)  # half-way between two surfaces the guard may take either


@pytest.mark.parametrize("kind", ALL_KINDS, ids=str)
def test_half_precision_costs_no_truth(kind):
    *kind, domain = kind
    full, half = load(kind, "fp32"), load(kind, "fp16")
    image = image_for(domain, HELD_OUT_SEED + 1, 160, 120)
    expected, result = full.infer(image, RANGE), half.infer(image, RANGE)
    if domain == LEVELS:  # results are rounded to whole levels
        error = np.abs(result - expected)
        assert np.quantile(error, 0.99) < 0.2 and error.mean() < 0.05
        return
    assert ((result > 0) == (expected > 0)).mean() > 0.9995
    both = (result > 0) & (expected > 0)
    # Noise is some millimetres: what half precision adds is far less, almost everywhere.
    error = np.abs(result - expected)[both] / expected[both]
    assert np.quantile(error, 0.99) < 0.002 and error.mean() < 0.0005


def bar(angle: float, offset: float, factor: int, width: int = 96, height: int = 72) -> np.ndarray:
    """A bar of 24 pixels' width at 1.2 m before a wall at 2.5 m, without noise, at ``factor`` times the size."""
    v, u = np.mgrid[: height * factor, : width * factor] + 0.5
    across = (u / factor - width / 2) * np.cos(angle) + (v / factor - height / 2) * np.sin(angle) - offset
    return np.where(np.abs(across) < 12, 1.2, 2.5).astype(np.float32)


def widening(kind: tuple[str, int], shrunk: bool) -> float:
    """By how many output pixels the edges of bars move outwards, on the mean."""
    engine, scale = load(kind, "fp32"), kind[1]
    rng = np.random.default_rng(3)
    moved = []
    for _ in range(16):
        angle, offset = rng.uniform(0.0, np.pi), rng.uniform(-8.0, 8.0)
        exact = bar(angle, offset, scale)
        result = engine.infer(decimate(exact, scale) if shrunk else bar(angle, offset, 1), RANGE)
        inner = slice(12 * scale, -12 * scale)
        near = [(np.abs(depth[inner, inner] - 1.2) < 0.3).sum() for depth in (result, exact)]
        moved.append((near[0] / near[1] - 1.0) * 12 * scale)
    return float(np.mean(moved))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_things_keep_their_width(kind):
    """In the frames a model is for; in the others they do not, and that is what twins are for."""
    assert abs(widening(kind, shrunk=is_twin(kind[0]))) < 0.08 * kind[1]


def by_sensor(test):
    """Runs a test with every model and scale behind every camera."""
    sensors = pytest.mark.parametrize("sensor", ["stereo", "kinect_v1", "tof"])
    return pytest.mark.parametrize("kind", KINDS, ids=str)(sensors(test))


@by_sensor
def test_mean_error_is_15_per_cent_under_the_best_plain_enlargement(kind, sensor):
    found = figures(kind, sensor)
    best = min(found[method]["mae_mm"] for method in ("nearest", "bilinear", "bicubic"))
    # The stereo camera smears most of its edges, and nobody knows where they were. A twin learns to give back the frame
    # that was shrunk, smear and all.
    limit = 0.85 if sensor != "stereo" else 0.92 if is_twin(kind[0]) else 0.9
    assert found["dsca"]["mae_mm"] <= limit * best


@by_sensor
def test_rmse_is_about_that_of_the_best_or_less(kind, sensor):
    found = figures(kind, sensor)
    best = min(found[method]["rmse_mm"] for method in ("nearest", "bilinear", "bicubic"))
    # Squared error rewards values between two surfaces, which these networks do not give.
    assert found["dsca"]["rmse_mm"] <= 1.02 * best


@by_sensor
def test_no_more_pixels_fly_than_with_nearest(kind, sensor):
    """Nearest repeats what was measured: what flies with it, the camera itself put there."""
    found = figures(kind, sensor)
    assert found["dsca"]["flying_pct"] <= found["nearest"]["flying_pct"] + 0.2
    assert sensor == "stereo" or found["dsca"]["flying_pct"] <= 0.5 * found["bicubic"]["flying_pct"]


@by_sensor
def test_about_as_many_pixels_are_valid_as_with_nearest(kind, sensor):
    found = figures(kind, sensor)
    # The network decides: it has seen where cameras measure beside holes, and where not.
    assert found["dsca"]["valid_pct"] == pytest.approx(found["nearest"]["valid_pct"], rel=0.03)
