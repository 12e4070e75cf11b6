"""The torch engine: the same promises as ONNX Runtime's, and the same results."""

import shutil
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.engine.base import EngineError  # noqa: E402
from dsca_ros.engine.factory import create_engine  # noqa: E402
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from dsca_ros.engine.torch import TorchEngine  # noqa: E402
from dsca_ros.engine.zoo import LEVELS, list_models  # noqa: E402

RANGE = (0.1, 10.0)
SIZES = [(24, 32), (17, 23), (33, 50), (9, 8), (1, 7), (1, 1)]
#: Levels of 0-255 as float32 that engines may differ by; and shares of depth.
CLOSE_LEVELS, CLOSE_DEPTH = 1e-3, 1e-5


@pytest.fixture(scope="module")
def engines(level_models):
    """Both engines of every model by name, scale and precision."""
    return {
        (model.model, model.scale, model.precision): (TorchEngine(model), OnnxRuntimeEngine(model, threads=1))
        for model in list_models(level_models)
    }


def levels(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, height, width])
    image = np.tile(np.linspace(10, 120, width), (height, 1))
    image[height // 4 : 3 * height // 4, width // 3 : width // 2 + 1] = 230
    return np.floor(image + rng.uniform(0, 4, image.shape)).astype(np.uint8)


@pytest.mark.parametrize("name", [("maps", 2), ("maps", 4), ("maps-noisy", 8)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_exported_graph_of_maps_equals_torch(engines, name, size):
    reference, exported = engines[(*name, "fp32")]
    image = levels(*size).astype(np.float32)
    expected, result = reference.infer(image, RANGE), exported.infer(image, RANGE)
    assert result.shape == expected.shape == (size[0] * name[1], size[1] * name[1])
    assert result.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=CLOSE_LEVELS)


def test_the_comparison_is_of_networks_that_do_something(engines):
    image = levels(33, 50).astype(np.float32)
    result = engines["maps", 2, "fp32"][0].infer(image, RANGE)
    added = np.abs(result - image.repeat(2, axis=0).repeat(2, axis=1))
    assert (added > 0.5).mean() > 0.3
    assert (np.abs(result - result.round()) > 0.05).mean() > 0.5  # floats are not rounded


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_exported_graph_of_depth_equals_torch(engines, depth_image, scale, size):
    reference, exported = engines["tiny", scale, "fp32"]
    depth = depth_image(*size)
    expected, result = reference.infer(depth, RANGE), exported.infer(depth, RANGE)
    np.testing.assert_array_equal(result > 0, expected > 0)
    np.testing.assert_allclose(result, expected, rtol=CLOSE_DEPTH)


@pytest.mark.parametrize("name", [("maps", 2), ("tiny", 2)], ids=str)
def test_half_precision_is_close_and_not_the_same(engines, depth_image, name):
    image = depth_image(17, 23) if name[0] == "tiny" else levels(17, 23).astype(np.float32)
    full, half = (engines[(*name, precision)][0].infer(image, RANGE) for precision in ("fp32", "fp16"))
    error = np.abs(full - half)
    assert 0 < error.max() < (0.05 if name[0] == "tiny" else 0.5)
    assert "fp16" in engines[(*name, "fp16")][0].description


@pytest.mark.parametrize("index", [0, 1], ids=["torch", "onnxruntime"])
def test_uint8_levels_in_give_rounded_uint8_levels_out(engines, index):
    engine = engines["maps", 2, "fp32"][index]
    image = levels(17, 23)
    result = engine.infer(image, RANGE)
    assert result.dtype == np.uint8 and result.shape == (34, 46)
    exact = engine.infer(image.astype(np.float32), RANGE)
    np.testing.assert_array_equal(result, np.floor(exact + 0.5))


@pytest.mark.parametrize("index", [0, 1], ids=["torch", "onnxruntime"])
def test_the_range_of_depth_means_nothing_to_levels(engines, index):
    engine = engines["maps", 2, "fp32"][index]
    image = levels(9, 8)
    np.testing.assert_array_equal(engine.infer(image, (0.1, 0.2)), engine.infer(image, RANGE))


@pytest.mark.parametrize("index", [0, 1], ids=["torch", "onnxruntime"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float64, np.int8, ">f4"])
def test_levels_of_other_kinds_are_refused(engines, index, dtype):
    with pytest.raises(TypeError, match="levels must be uint8, or float32 of 0-255"):
        engines["maps", 2, "fp32"][index].infer(np.ones((8, 8), dtype), RANGE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64, ">u2"])
def test_depth_of_other_kinds_is_refused(engines, dtype):
    with pytest.raises(TypeError, match="uint16 millimetres or float32 metres"):
        engines["tiny", 2, "fp32"][0].infer(np.ones((8, 8), dtype), RANGE)


@pytest.mark.parametrize("shape", [(8,), (8, 8, 1), (1, 1, 8, 8), (0, 8)])
@pytest.mark.parametrize("model", ["tiny", "maps"])
def test_other_shapes_are_refused(engines, shape, model):
    with pytest.raises(ValueError, match="shape"):
        engines[model, 2, "fp32"][0].infer(np.ones(shape, np.float32), RANGE)


def test_millimetres_are_the_rounded_metres(engines, depth_image):
    engine = engines["tiny", 2, "fp32"][0]
    exact = np.rint(depth_image(17, 23) * 1e3).astype(np.uint16)
    from_metres = engine.infer(exact * np.float32(0.001), RANGE)
    result = engine.infer(exact, RANGE)
    assert result.dtype == np.uint16
    np.testing.assert_array_equal(result, np.floor(from_metres * 1e3 + 0.5))


@pytest.mark.parametrize("model", ["tiny", "maps"])
def test_other_strides_are_read_right_and_the_input_is_only_read(engines, depth_image, model):
    engine = engines[model, 2, "fp32"][0]
    image = depth_image(12, 15) if model == "tiny" else levels(12, 15).astype(np.float32)
    expected = engine.infer(image, RANGE)
    np.testing.assert_array_equal(engine.infer(np.asfortranarray(image), RANGE), expected)
    np.testing.assert_array_equal(engine.infer(image[::-1].copy()[::-1], RANGE), expected)
    before = image.copy()
    engine.infer(image, RANGE)
    np.testing.assert_array_equal(image, before)


def test_an_image_that_may_not_be_written_makes_no_noise(engines, depth_image):
    image = depth_image(12, 15)
    image.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engines["tiny", 2, "fp32"][0].infer(image, RANGE)


def test_a_result_does_not_change_under_the_next_one(engines):
    engine = engines["maps", 2, "fp32"][0]
    first = engine.infer(levels(12, 15).astype(np.float32), RANGE)
    kept = first.copy()
    engine.infer(levels(12, 15, seed=1).astype(np.float32), RANGE)
    np.testing.assert_array_equal(first, kept)


def test_a_closed_engine_says_so(use_level_models):
    engine = create_engine("torch", "maps", 2, domain=LEVELS)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(levels(8, 8), RANGE)


def test_threads_are_torchs(use_level_models):
    before = torch.get_num_threads()
    try:
        create_engine("torch", "tiny", 2, threads=2)
        assert torch.get_num_threads() == 2
        create_engine("torch", "tiny", 2, threads=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("damage", ["missing", "text"])
def test_weights_that_cannot_be_read_are_named_in_one_line(tiny_models, tmp_path, monkeypatch, damage):
    folder = tmp_path / "models"
    shutil.copytree(tiny_models, folder)
    weights = folder / "tiny-x2.safetensors"
    weights.unlink()
    if damage == "text":
        weights.write_text("this is text")
    monkeypatch.setenv("DSCA_MODELS", str(folder))
    with pytest.raises(EngineError, match=r"tiny-x2\.safetensors") as raised:
        create_engine("torch", "tiny", 2)
    assert "\n" not in str(raised.value)
