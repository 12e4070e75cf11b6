"""Every engine of a GPU against ONNX Runtime on the CPU. On a machine without a GPU all of this is skipped."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dsca_ros.engine.accuracy import DEPTH_RANGE, built_in_frames, compare
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.engine_cache import EngineCache
from dsca_ros.engine.factory import ENGINES, create_engine
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine
from dsca_ros.engine.zoo import DEPTH, ModelFile, find_model, list_models

pytestmark = pytest.mark.gpu

SHAPE = (120, 160)
GPU_ENGINES = ("tensorrt", "onnxruntime-cuda", "torch")


def engine_here(name: str) -> None:
    reason = next(kind for kind in ENGINES if kind.name == name).missing()
    if reason:
        pytest.skip(f"{name}: {reason}")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache for this file, not the user's."""
    folder = tmp_path_factory.getbasetemp() / "gpu-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


def frames_for(model: ModelFile, dtype: type) -> list[np.ndarray]:
    if model.domain == DEPTH:
        return built_in_frames(SHAPE, np.dtype(dtype))
    rng = np.random.default_rng(3)
    steps = np.cumsum(rng.integers(-1, 2, SHAPE), axis=1)
    return [np.clip(128 + steps, 0, 255).astype(np.uint8 if dtype is np.uint16 else np.float32)]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32], ids=["integers", "floats"])
@pytest.mark.parametrize("model", list_models(), ids=lambda m: f"{m.model}-x{m.scale}-{m.precision}")
@pytest.mark.parametrize("engine", GPU_ENGINES)
def test_a_gpu_gives_what_the_cpu_gives(engine, model, dtype):
    engine_here(engine)
    frames = frames_for(model, dtype)
    reference = OnnxRuntimeEngine(find_model(model.model, model.scale, "fp32"))
    running = create_engine(engine, model.model, model.scale, model.precision, domain=None)
    try:
        results = [running.infer(frame, DEPTH_RANGE).copy() for frame in frames]
    finally:
        running.close()
    expected = [reference.infer(frame, DEPTH_RANGE) for frame in frames]
    for result, exact in zip(results, expected):
        assert result.shape == exact.shape and result.dtype == exact.dtype
    if model.domain == DEPTH:
        accuracy = compare(results, expected)
        assert accuracy.holds, accuracy
    else:
        off = np.abs(results[0].astype(np.float64) - expected[0].astype(np.float64))
        assert np.percentile(off, 99.9) <= (1.0 if dtype is np.uint16 else 0.3)


@pytest.mark.parametrize("engine", GPU_ENGINES)
def test_a_size_that_changes_and_changes_back(engine):
    engine_here(engine)
    running = create_engine(engine, "dsca-nano", 2, "fp32")
    reference = OnnxRuntimeEngine(find_model("dsca-nano", 2, "fp32"))
    try:
        for shape in (SHAPE, (60, 81), SHAPE, (33, 47), (60, 81)):
            frame = built_in_frames(shape, np.dtype(np.uint16))[0]
            result = running.infer(frame, DEPTH_RANGE)
            assert compare([result], [reference.infer(frame, DEPTH_RANGE)]).holds, shape
    finally:
        running.close()


def test_the_second_start_builds_nothing():
    engine_here("tensorrt")
    from dsca_ros.engine.tensorrt import TensorRTEngine

    taken = []
    for _ in range(2):
        engine = TensorRTEngine(find_model("dsca-nano", 4, "fp16"))
        started = time.monotonic()
        engine.prepare((72, 96), np.dtype(np.uint16))
        taken.append(time.monotonic() - started)
        engine.close()
    assert len(EngineCache().each()) >= 1
    assert taken[1] < taken[0]


def test_an_engine_that_does_not_load_is_built_anew(caplog):
    engine_here("tensorrt")
    from dsca_ros.engine.engine_cache import StoredEngine
    from dsca_ros.engine.gpu import find_driver
    from dsca_ros.engine.plans import Plan, usable_flavour
    from dsca_ros.engine.tensorrt import TensorRTEngine

    driver = find_driver()
    file = find_model("dsca-nano", 2, "fp32")
    shape = (48, 64)
    plan = Plan(file, shape, np.dtype(np.uint16), usable_flavour(driver), driver.gpus[0].target, driver.gpus[0])
    EngineCache().store(plan.key, StoredEngine(b"no engine at all", {"seconds": 0.0}))
    engine = TensorRTEngine(file)
    try:
        frame = built_in_frames(shape, np.dtype(np.uint16))[0]
        result = engine.infer(frame, DEPTH_RANGE)
        assert compare([result], [OnnxRuntimeEngine(file).infer(frame, DEPTH_RANGE)]).holds
        assert sum("built anew" in record.message for record in caplog.records) == 1
    finally:
        engine.close()


def test_after_the_end_there_is_one_clear_error():
    engine_here("tensorrt")
    from dsca_ros.engine.tensorrt import TensorRTEngine

    engine = TensorRTEngine(find_model("dsca-nano", 2, "fp32"))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(np.ones((8, 8), np.float32), DEPTH_RANGE)


def test_memory_on_the_gpu_is_given_back():
    engine_here("tensorrt")
    import pycuda.driver as cuda

    from dsca_ros.engine.tensorrt import TensorRTEngine

    def free() -> int:
        cuda.init()
        context = cuda.Device(0).retain_primary_context()
        context.push()
        try:
            return cuda.mem_get_info()[0]
        finally:
            context.pop()
            context.detach()

    file = find_model("dsca-nano", 2, "fp32")
    frees = []
    for _ in range(4):
        engine = TensorRTEngine(file)
        engine.infer(built_in_frames(SHAPE, np.dtype(np.uint16))[0], DEPTH_RANGE)
        engine.close()
        frees.append(free())
    assert frees[1] - frees[-1] < 32 << 20
