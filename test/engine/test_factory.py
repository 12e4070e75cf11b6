"""Which engine a name becomes, and what is said where it cannot be had. GPUs and their engines are stand-ins."""

from __future__ import annotations

import importlib.util
import logging
import threading
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from dsca_ros.engine import factory, plans
from dsca_ros.engine.base import Engine, EngineError, EngineNotReady
from dsca_ros.engine.factory import ENGINE_NAMES, PRECISION_NAMES, EngineKind, check_engine, create_engine
from dsca_ros.engine.gpu import Driver, Gpu, GpuError
from dsca_ros.engine.starting import RUNNING, StartingEngine
from dsca_ros.engine.zoo import DEPTH, LEVELS, MANIFEST, ModelFile, list_models
from dsca_ros.upsampler import DEFAULT_MODEL as MODEL

RANGE = (0.1, 10.0)
#: A model that takes no depth.
MAPS = next(file.model for file in list_models() if file.domain == LEVELS and file.scale == 2)
DRIVER = Driver((13, 0), (Gpu("NVIDIA L4", (8, 9), 24 << 30),))
NO_DRIVER = "no NVIDIA driver (libcuda.so.1 is missing); remedy: install one"


class StandIn:
    """An engine that only knows what it was made of, slow if anyone asks."""

    device, progress = "a GPU", "half way"

    def __init__(self, name: str, model: ModelFile, threads: int) -> None:
        self.name, self.model, self.threads, self.precision = name, model, threads, model.precision
        self.description, self.scale = f"{name} in {model.precision}", model.scale
        self.may_prepare = threading.Event()

    def prepare(self, shape: tuple[int, int], dtype: np.dtype) -> None:
        assert self.may_prepare.wait(20.0)

    def stop_preparing(self) -> None:
        self.may_prepare.set()

    def infer(self, depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
        return depth.repeat(self.scale, 0).repeat(self.scale, 1)

    def close(self) -> None:
        pass


class Shelf:
    """Kinds of stand-ins in place of the real ones; tells what was asked for and made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[StandIn] = []
        self.asked: list[str] = []
        monkeypatch.setattr(factory, "ENGINES", ())
        self._monkeypatch = monkeypatch

    def add(self, name: str, missing: str | None = None, fails: str | None = None, **about: object) -> None:
        """Puts a kind, under the name of a real one, at the end."""

        def create(model: ModelFile, threads: int) -> Engine:
            if fails:
                raise EngineError(fails)
            self.made.append(StandIn(name, model, threads))
            return self.made[-1]

        def ask() -> str | None:
            self.asked.append(name)
            return missing

        kind = EngineKind(name, create, ask, (), **about)
        self._monkeypatch.setattr(factory, "ENGINES", (*factory.ENGINES, kind))


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(monkeypatch)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_driver() -> Driver:
        raise GpuError(NO_DRIVER)

    monkeypatch.setattr(factory, "find_driver", find_driver)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "find_driver", lambda: DRIVER)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Hides packages; those that TensorRT needs and are not named look installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> object:
        if name in packages:
            return None
        return object() if name in ("pycuda", "onnx") else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


# --- names --------------------------------------------------------------------------------------


def test_an_unknown_engine_names_those_there_are():
    with pytest.raises(EngineError, match="'warp'") as raised:
        create_engine("warp", MODEL, 2)
    assert str(raised.value).endswith("auto, tensorrt, onnxruntime-cuda, openvino, onnxruntime, torch")


@pytest.mark.parametrize("precision", ["int8", "FP16", ""])
def test_an_unknown_precision_names_those_there_are(precision):
    with pytest.raises(EngineError, match=f"no precision '{precision}'") as raised:
        create_engine("onnxruntime", MODEL, 2, precision)
    assert str(raised.value).endswith("there are: auto, fp32, fp16")


def test_every_name_is_of_a_kind_and_auto():
    assert ("auto", *(kind.name for kind in factory.ENGINES)) == ENGINE_NAMES
    assert {kind.precision for kind in factory.ENGINES} < set(PRECISION_NAMES)


@pytest.mark.parametrize("missing", [None, "no wheel"])
def test_a_model_that_does_not_exist_is_told_even_where_nothing_could_run_it(shelf, missing):
    shelf.add("onnxruntime", missing)
    with pytest.raises(EngineError, match="'huge' at scale 2"):
        create_engine("auto", "huge", 2)
    assert not shelf.made


@pytest.mark.parametrize(
    ("model", "domain", "refusal"),
    [
        (MODEL, LEVELS, "takes depth and not levels"),
        (MAPS, DEPTH, "takes levels and not depth"),
    ],
)
def test_a_model_of_another_domain_is_refused_even_where_nothing_could_run_it(shelf, model, domain, refusal):
    shelf.add("tensorrt", missing="no GPU")
    for name in ("tensorrt", "auto"):
        with pytest.raises(EngineError, match=f"{model} {refusal}"):
            create_engine(name, model, 2, domain=domain)
    shelf.add("onnxruntime")
    with pytest.raises(EngineError, match=f"{model} {refusal}"):
        create_engine("auto", model, 2, domain=domain)
    assert not shelf.made
    for right in (DEPTH if model == MODEL else LEVELS, None):
        assert create_engine("auto", model, 2, domain=right).model.model == model


# --- which one ----------------------------------------------------------------------------------


@pytest.mark.parametrize("with_openvino", [True, False])
def test_auto_without_a_gpu_is_openvino_or_onnxruntime_in_float32(no_gpu, monkeypatch, with_openvino):
    if with_openvino:
        pytest.importorskip("openvino")
    else:
        without(monkeypatch, "openvino")
    made = []

    def watched(kind: EngineKind) -> EngineKind:
        return replace(kind, create=lambda *about: made.append((kind.name, *about)) or kind.create(*about))

    monkeypatch.setattr(factory, "ENGINES", tuple(map(watched, factory.ENGINES)))
    engine = create_engine("auto", MODEL, 2, threads=1, background=True)
    assert (engine.device, engine.scale) == ("CPU", 2)
    title = "OpenVINO" if with_openvino else "ONNX Runtime"
    assert engine.description.startswith(title) and "1 thread" in engine.description
    ((name, file, threads),) = made
    assert (name, file.name, threads) == ("openvino" if with_openvino else "onnxruntime", f"{MODEL} x2 (fp32)", 1)
    engine.close()


def test_auto_takes_the_first_that_can_run_and_makes_no_other(shelf):
    shelf.add("tensorrt", missing="no GPU")
    shelf.add("onnxruntime-cuda")
    shelf.add("onnxruntime")
    assert create_engine("auto", MODEL, 2).name == "onnxruntime-cuda"
    assert [engine.name for engine in shelf.made] == ["onnxruntime-cuda"]


@pytest.mark.parametrize(
    ("asked", "on_gpu", "on_cpu"), [("auto", "fp16", "fp32"), ("fp32", "fp32", "fp32"), ("fp16", "fp16", "fp16")]
)
def test_auto_precision_is_each_kinds_own(shelf, asked, on_gpu, on_cpu):
    shelf.add("tensorrt", precision="fp16")
    shelf.add("onnxruntime")
    for name, precision in (("tensorrt", on_gpu), ("onnxruntime", on_cpu), ("auto", on_gpu)):
        assert create_engine(name, MODEL, 4, asked).model.name == f"{MODEL} x4 ({precision})"


def test_gpus_compute_in_half_precision_and_cpus_in_float32():
    found = {kind.name: kind.precision for kind in factory.ENGINES}
    assert found == {
        "tensorrt": "fp16",
        "onnxruntime-cuda": "fp16",
        "openvino": "fp32",
        "onnxruntime": "fp32",
        "torch": "fp32",
    }


def test_a_model_without_half_precision_runs_where_float32_does(shelf, tmp_path, monkeypatch):
    entry = "{domain: depth, scales: {2: {fp32: {file: plain.onnx, sha256: abc}}}}"
    (tmp_path / MANIFEST).write_text(f"models: {{plain: {entry}}}")
    monkeypatch.setenv("DSCA_MODELS", str(tmp_path))
    shelf.add("tensorrt", missing="no GPU", precision="fp16")
    shelf.add("onnxruntime")
    assert create_engine("auto", "plain", 2).model.name == "plain x2 (fp32)"


@pytest.mark.parametrize(
    ("name", "model", "precision", "refusal"),
    [
        ("warp", MODEL, "auto", "'warp'"),
        ("auto", MODEL, "int8", "'int8'"),
        ("auto", "huge", "auto", "'huge'"),
        ("auto", MAPS, "auto", "takes levels"),
        ("tensorrt", MODEL, "auto", "no GPU"),
    ],
)
def test_a_check_refuses_what_a_start_would_and_starts_nothing(shelf, name, model, precision, refusal):
    shelf.add("tensorrt", missing="no GPU")
    shelf.add("onnxruntime")
    for ask in (check_engine, create_engine):
        with pytest.raises(EngineError, match=refusal):
            ask(name, model, 2, precision)
    check_engine("auto", MODEL, 2, "fp16")
    assert not shelf.made


def test_one_that_is_asked_for_and_missing_gives_the_reason_and_no_other(shelf):
    shelf.add("tensorrt", missing="no TensorRT is installed; remedy: pip install it")
    shelf.add("onnxruntime")
    with pytest.raises(EngineError, match=r"no TensorRT is installed; remedy: pip install it$"):
        create_engine("tensorrt", MODEL, 2)
    assert shelf.asked == ["tensorrt"] and not shelf.made


def test_where_nothing_can_run_every_reason_is_given(shelf):
    shelf.add("tensorrt", missing="no GPU")
    shelf.add("onnxruntime", missing="no wheel")
    with pytest.raises(EngineError, match=r"no engine can run here; tensorrt: no GPU; onnxruntime: no wheel$"):
        create_engine("auto", MODEL, 2)


def test_auto_goes_on_when_one_fails_to_start_and_warns(shelf, caplog):
    shelf.add("tensorrt", fails="the driver is too old")
    shelf.add("onnxruntime-cuda", missing="no wheel")
    shelf.add("onnxruntime")
    assert create_engine("auto", MODEL, 2).name == "onnxruntime"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "tensorrt cannot start (the driver is too old): the next engine is tried"


def test_the_error_of_the_last_one_is_raised(shelf, caplog):
    shelf.add("tensorrt", fails="the driver is too old")
    shelf.add("onnxruntime", fails="out of memory")
    shelf.add("torch", missing="no wheel")
    with pytest.raises(EngineError, match=r"^out of memory$"):
        create_engine("auto", MODEL, 2)
    assert len(caplog.records) == 1


def test_one_that_is_asked_for_and_fails_is_not_replaced(shelf, caplog):
    shelf.add("tensorrt", fails="the driver is too old")
    shelf.add("onnxruntime")
    with pytest.raises(EngineError, match=r"^the driver is too old$"):
        create_engine("tensorrt", MODEL, 2)
    assert not shelf.made and not caplog.records


# --- in the background --------------------------------------------------------------------------


@pytest.mark.parametrize("with_openvino", [True, False])
def test_a_slow_one_in_the_background_has_the_best_for_cpus_as_its_standby(
    shelf, depth_image, monkeypatch, with_openvino
):
    if with_openvino:
        pytest.importorskip("openvino")
    else:
        without(monkeypatch, "openvino")
    title, standby = ("OpenVINO", factory._openvino) if with_openvino else ("ONNX Runtime", factory._onnxruntime)
    shelf.add("tensorrt", slow=True, precision="fp16")
    engine = create_engine("auto", MODEL, 2, threads=1, background=True)
    assert isinstance(engine, StartingEngine)
    assert title in engine.description and "1 thread" in engine.description
    assert not shelf.made  # it is made in a thread of its own, at the first image
    depth = depth_image(12, 15)
    result = engine.infer(depth, RANGE)
    expected = standby(factory.find_model(MODEL, 2, "fp32"), 1).infer(depth, RANGE)
    np.testing.assert_array_equal(result, expected)
    wait_for_thread(shelf)
    assert engine.state == RUNNING
    assert engine.description == "tensorrt in fp16"
    np.testing.assert_array_equal(engine.infer(depth, RANGE), depth.repeat(2, 0).repeat(2, 1))
    engine.close()


def test_without_warm_start_there_is_no_standby(shelf, depth_image, monkeypatch):
    for standby in ("_openvino", "_onnxruntime"):
        monkeypatch.setattr(factory, standby, lambda *_: pytest.fail("a standby that nobody wants"))
    shelf.add("tensorrt", slow=True)
    engine = create_engine("auto", MODEL, 2, background=True, warm_start=False)
    assert (engine.description, engine.device) == ("none yet", "")
    with pytest.raises(EngineNotReady, match="building"):
        engine.infer(depth_image(12, 15), RANGE)
    engine.close()


def test_a_slow_one_in_the_foreground_is_itself(shelf):
    shelf.add("tensorrt", slow=True)
    assert isinstance(create_engine("auto", MODEL, 2), StandIn)


def test_a_quick_one_in_the_background_is_itself(shelf):
    shelf.add("onnxruntime")
    assert isinstance(create_engine("auto", MODEL, 2, background=True), StandIn)


def test_a_standby_that_cannot_start_lets_auto_go_on(shelf, monkeypatch, caplog):
    without(monkeypatch, "openvino")

    def broken(*_: object) -> Engine:
        raise EngineError("the model file is damaged")

    monkeypatch.setattr(factory, "_onnxruntime", broken)
    shelf.add("tensorrt", slow=True)
    shelf.add("onnxruntime")
    assert create_engine("auto", MODEL, 2, background=True).name == "onnxruntime"
    assert "tensorrt cannot start (the model file is damaged)" in caplog.text


def wait_for_thread(shelf: Shelf) -> None:
    """Until the engine that starts in the background is prepared."""
    (starting,) = (thread for thread in threading.enumerate() if thread.name == "dsca_engine_start")
    while not shelf.made:
        starting.join(0.01)
    shelf.made[0].may_prepare.set()
    starting.join(20.0)


# --- why not ------------------------------------------------------------------------------------


def reason(name: str) -> str | None:
    (kind,) = (kind for kind in factory.ENGINES if kind.name == name)
    return kind.missing()


@pytest.mark.parametrize("name", ["tensorrt", "onnxruntime-cuda"])
def test_what_needs_a_gpu_says_that_there_is_no_driver(no_gpu, name):
    assert reason(name) == NO_DRIVER
    with pytest.raises(EngineError, match=r"no engine can run here; .*libcuda\.so\.1 is missing.*remedy"):
        create_engine(name, MODEL, 2)


@pytest.mark.parametrize("package", ["pycuda", "onnx"])
def test_tensorrt_names_the_package_it_lacks(gpu, monkeypatch, package):
    without(monkeypatch, package)
    assert reason("tensorrt") == f"no {package} here; remedy: pip install {package}"


def test_tensorrt_itself_may_be_missing(gpu, monkeypatch):
    without(monkeypatch)
    monkeypatch.setattr(plans.trt, "installed", list)
    assert "no TensorRT is installed; remedy: pip install 'dsca_ros[tensorrt]'" in reason("tensorrt")


def test_tensorrt_says_what_speaks_against_this_gpu(gpu, monkeypatch):
    def unusable(driver: Driver) -> None:
        assert driver is DRIVER
        raise EngineError("NVIDIA L4 is older than TensorRT supports")

    without(monkeypatch)
    monkeypatch.setattr(plans, "usable_flavour", unusable)
    assert reason("tensorrt") == "NVIDIA L4 is older than TensorRT supports"


def test_with_a_gpu_and_every_package_nothing_speaks_against_tensorrt(gpu, monkeypatch):
    without(monkeypatch)
    monkeypatch.setattr(plans, "usable_flavour", lambda driver: object())
    assert reason("tensorrt") is None


@pytest.mark.parametrize("on_gpu", [False, True])
def test_onnxruntime_for_cpus_does_not_run_on_gpus(gpu, monkeypatch, on_gpu):
    providers = [*(["CUDAExecutionProvider"] if on_gpu else []), "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    remedy = "this onnxruntime is for CPUs; remedy: pip install onnxruntime-gpu in its place"
    assert reason("onnxruntime-cuda") == (None if on_gpu else remedy)
    assert reason("onnxruntime") is None


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_torch_names_the_package_it_lacks(monkeypatch, package):
    without(monkeypatch, package)
    assert reason("torch") == f"no {package} here; remedy: pip install 'dsca_ros[train]'"


def test_the_version_is_that_of_the_first_package_installed():
    def kind(*packages: str) -> EngineKind:
        return EngineKind("onnxruntime", StandIn, lambda: None, packages)

    assert kind("no-such-package", "numpy", "pytest").version() == np.__version__
    assert kind("no-such-package").version() is None
    assert kind().version() is None
