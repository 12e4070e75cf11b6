import numpy as np
import pytest

from dsca_ros.engine.base import EngineError
from dsca_ros.upsampler import Upsampler


@pytest.fixture
def upsampler(use_tiny_models):
    with Upsampler("tiny", 2, threads=1) as made:
        yield made


@pytest.mark.parametrize(("dtype", "unit"), [(np.uint16, 1000), (np.float32, 1)])
def test_an_image_in_a_larger_image_out(upsampler, depth_image, dtype, unit):
    depth = np.rint(depth_image(17, 23) * 1000) / 1000
    result = upsampler((depth * unit).round(3).astype(dtype))
    assert result.shape == (34, 46) and result.dtype == dtype
    valid = result > 0
    assert 0.7 < valid.mean() < 1.0
    assert depth[depth > 0].min() * unit <= result[valid].min() * 1.00001
    assert result[valid].max() <= depth.max() * unit * 1.00001


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_scale_and_precision_there_is(use_tiny_models, scale, precision):
    with Upsampler("tiny", scale, precision=precision, threads=1) as upsampler:
        assert (upsampler.model, upsampler.scale, upsampler.precision) == ("tiny", scale, precision)
        assert "1 thread" in upsampler.engine
        assert upsampler(np.full((9, 8), 1.5, np.float32)).shape == (9 * scale, 8 * scale)


def test_the_range_may_change_at_any_time(upsampler):
    depth = np.full((8, 8), 3.0, np.float32)
    assert upsampler(depth).all()
    upsampler.depth_range = (0.1, 2.0)
    assert not upsampler(depth).any()
    upsampler.depth_range = (0.1, 4.0)
    assert upsampler(depth).all()


def test_a_range_from_zero_does_not_make_zero_valid(upsampler, depth_image):
    depth = depth_image(12, 15)
    expected = upsampler(depth)
    upsampler.depth_range = (0.0, 10.0)
    np.testing.assert_array_equal(upsampler(depth), expected)


@pytest.mark.parametrize(
    ("arguments", "there"),
    [
        ({"model": "huge"}, "tiny x2"),
        ({"scale": 8}, "tiny x4"),
        ({"engine": "warp"}, "onnxruntime"),
        ({"precision": "int8"}, "fp16"),
    ],
    ids=str,
)
def test_what_does_not_exist_is_refused_naming_what_does(use_tiny_models, arguments, there):
    with pytest.raises(EngineError, match=there):
        Upsampler(**({"model": "tiny", "scale": 2} | arguments))


def test_a_model_for_maps_is_refused_in_one_line(use_level_models):
    with pytest.raises(EngineError, match="maps takes levels and not depth") as raised:
        Upsampler("maps", 2)
    assert "\n" not in str(raised.value)


def test_torch_gives_what_onnxruntime_gives(use_tiny_models, depth_image):
    pytest.importorskip("torch")
    depth = depth_image(17, 23)
    results = []
    for engine in ("onnxruntime", "torch"):
        with Upsampler("tiny", 2, engine=engine, threads=1) as upsampler:
            assert upsampler.device
            results.append(upsampler(depth))
    np.testing.assert_allclose(*results, atol=1e-4)


@pytest.mark.parametrize("engine", ["onnxruntime", "auto"])
def test_a_closed_one_gives_nothing_on_any_engine(use_tiny_models, engine):
    upsampler = Upsampler("tiny", 2, engine, threads=1)
    upsampler.close()
    upsampler.close()
    with pytest.raises(EngineError, match="closed"):
        upsampler(np.ones((8, 8), np.float32))


@pytest.mark.parametrize("value", [(5.0, 1.0), (1.0, 1.0), (-1.0, 5.0), (float("nan"), 5.0), (0.1, float("nan"))])
def test_a_range_that_is_none_is_refused_whenever_it_is_given(upsampler, value):
    with pytest.raises(ValueError, match="depth_range is"):
        upsampler.depth_range = value
    with pytest.raises(ValueError, match="depth_range is"):
        Upsampler("tiny", 2, threads=1, depth_range=value)


def test_what_is_no_array_is_told_so(upsampler):
    with pytest.raises(TypeError, match="numpy array, not list"):
        upsampler([[1.0, 2.0], [3.0, 4.0]])


def test_threads_below_none_are_refused(use_tiny_models):
    with pytest.raises(EngineError, match="threads is -1"):
        Upsampler("tiny", 2, threads=-1)


def test_the_folder_may_be_text(tiny_models):
    with Upsampler("tiny", 2, threads=1, folder=str(tiny_models)) as upsampler:
        assert upsampler(np.ones((4, 5), np.float32)).shape == (8, 10)
