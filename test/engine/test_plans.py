"""Which engine is needed, which TensorRT can run it here, and engines ahead of time: real ones of TensorRT-RTX."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dsca_ros.engine import ahead, gpu, plans
from dsca_ros.engine import tensorrt_build as trt
from dsca_ros.engine.ahead import AheadRequest, build_ahead, stored_engines
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.engine_cache import SUFFIX, EngineCache
from dsca_ros.engine.gpu import Driver, Gpu, GpuError
from dsca_ros.engine.millimetres import BYTES_IN
from dsca_ros.engine.plans import WAITING, Plan, unusable, usable_flavour
from dsca_ros.engine.zoo import DEPTH, LEVELS, ModelFile, find_model

UINT8, UINT16, FLOAT32 = (np.dtype(name) for name in ("uint8", "uint16", "float32"))
PASCAL = Gpu("NVIDIA GeForce GTX 1080", (6, 1), 8 << 30)
TURING = Gpu("NVIDIA GeForce RTX 2070", (7, 5), 8 << 30)
ADA = Gpu("NVIDIA GeForce RTX 4070", (8, 9), 12 << 30)
#: No flavour of RTX builds for it ahead of time.
HOPPER = Gpu("NVIDIA H200", (9, 0), 141 << 30)
SIZE = (24, 16)


def flavour(name: str = trt.RTX, version: str = "1.7", targets: tuple[str, ...] = ("SM75", "SM89")) -> trt.Flavour:
    """One that decides as a real one does, and cannot build."""
    known = {"CURRENT": 0} | {target: index for index, target in enumerate(targets, 1)}
    return trt.Flavour(name, version, SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=known)))


def model_file(domain: str = DEPTH, precision: str = "fp16") -> ModelFile:
    return ModelFile("tiny", 2, precision, None, "ab" * 32, domain)


@pytest.fixture(scope="module")
def rtx() -> trt.Flavour:
    pytest.importorskip("onnx")
    try:
        return trt.load_flavour(trt.RTX)
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def no_driver(monkeypatch):
    def missing():
        raise GpuError("no NVIDIA driver; remedy: install one")

    for module in (gpu, ahead):
        monkeypatch.setattr(module, "find_driver", missing)


@pytest.fixture
def a_gpu(monkeypatch):
    """A machine with an Ada GPU, as far as one can tell without using it."""
    monkeypatch.setattr(ahead, "find_driver", lambda: Driver((13, 0), (ADA, PASCAL)))


# --- what is needed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "dtype", "takes"),
    [
        (DEPTH, UINT16, "uint16"),
        (DEPTH, FLOAT32, "float32"),
        (LEVELS, UINT8, "float32"),
        (LEVELS, FLOAT32, "float32"),
        (LEVELS, UINT16, "float32"),  # what `dsca build` asks for where nothing else is said
    ],
)
def test_what_an_engine_takes(domain, dtype, takes):
    plan = Plan(model_file(domain), (480, 640), dtype, flavour(), "sm89")
    assert plan.key.dtype == takes and plan.in_millimetres == (takes == "uint16")


def test_the_key_of_rtx_is_that_of_the_architecture():
    """So an engine that was built elsewhere is found on the machine with the GPU."""
    there = Plan(model_file(), (480, 640), UINT16, flavour(), "sm89")
    here = replace(there, gpu=ADA)
    assert there.key == here.key
    key = here.key
    assert (key.model, key.scale, key.precision, key.graph) == ("tiny", 2, "fp16", "ab" * 32)
    assert (key.width, key.height, key.target, key.gpu) == (640, 480, "sm89", "")
    assert (key.flavour, key.version) == ("tensorrt_rtx", "1.7")


def test_the_key_of_tensorrt_has_the_gpu():
    plan = Plan(model_file(), (480, 640), UINT16, flavour("tensorrt", "10.13"), "sm89", ADA)
    other = replace(ADA, name="NVIDIA RTX 2000 Ada")
    assert plan.key.gpu == ADA.name and replace(plan, gpu=other).key != plan.key


@pytest.mark.parametrize("change", [{"sha256": "cd" * 32}, {"precision": "fp32"}, {"scale": 4}, {"model": "other"}])
def test_another_graph_is_another_key(change):
    plan = Plan(model_file(), (480, 640), UINT16, flavour(), "sm89")
    assert replace(plan, model=replace(plan.model, **change)).key != plan.key


@pytest.mark.parametrize(
    ("model", "dtype", "shapes"),
    [
        ("tiny", UINT16, {BYTES_IN: (1, 16, 24, 2)}),
        ("tiny", FLOAT32, {"depth": (1, 1, 16, 24)}),
        ("maps", UINT8, {"levels": (1, 1, 16, 24)}),
        ("maps", FLOAT32, {"levels": (1, 1, 16, 24)}),
    ],
)
def test_shapes_are_those_of_the_graphs_inputs(use_level_models, model, dtype, shapes):
    onnx = pytest.importorskip("onnx")
    file = find_model(model, 2)
    request = Plan(file, (16, 24), dtype, flavour(), "sm89").request()
    assert request.shapes == shapes
    (image, *_) = onnx.load_from_string(request.graph).graph.input
    assert image.name in shapes and len(image.type.tensor_type.shape.dim) == 4
    assert (request.graph == file.read()) == (BYTES_IN not in shapes)


@pytest.mark.parametrize(
    ("built_with", "gpu", "target", "asked"),
    [
        (flavour(), None, "sm89", "sm89"),
        (flavour(), ADA, "sm89", "sm89"),
        (flavour(), HOPPER, "sm90", trt.CURRENT),
        (flavour("tensorrt"), ADA, "sm89", trt.CURRENT),
    ],
    ids=["ahead", "here", "here alone", "TensorRT"],
)
def test_the_architecture_is_named_where_that_can_be(use_tiny_models, built_with, gpu, target, asked):
    request = Plan(find_model("tiny", 2), (16, 24), FLOAT32, built_with, target, gpu).request()
    assert request.target == asked


def test_precision_and_workspace_go_with_the_request(use_tiny_models):
    for precision, half in (("fp16", True), ("fp32", False)):
        plan = Plan(find_model("tiny", 2, precision), (16, 24), FLOAT32, flavour(), "sm89")
        assert plan.request().half is half and plan.request().workspace == trt.WORKSPACE
        assert plan.request(5 << 20).workspace == 5 << 20


def test_a_damaged_model_is_not_built(use_tiny_models, cache):
    file = replace(find_model("tiny", 2), sha256="0" * 64)
    with pytest.raises(EngineError, match="damaged"):
        Plan(file, (16, 24), FLOAT32, flavour(), "sm89").get(cache)
    assert cache.each() == []


# --- what can run here --------------------------------------------------------------------------


@pytest.fixture
def packages(monkeypatch):
    """Names packages that are installed; of two flavours of version 1 that load, and a broken one."""
    there: set[str] = set()

    def version(name: str) -> str:
        if name not in there:
            raise trt.metadata.PackageNotFoundError(name)
        return "1"

    def load(name: str) -> trt.Flavour:
        if name == "broken":
            raise EngineError("broken cannot be loaded (no libnvinfer); remedy: install it")
        return flavour(name, "1")

    monkeypatch.setattr(trt.metadata, "version", version)
    monkeypatch.setattr(trt, "load_flavour", load)
    return there


@pytest.mark.parametrize("gpu", [TURING, ADA, HOPPER], ids=lambda gpu: gpu.target)
@pytest.mark.parametrize("name", trt.FLAVOURS)
@pytest.mark.parametrize("package", ["cu12", "cu13", "of no pip"])
def test_a_driver_as_new_as_the_package_will_do(packages, name, package, gpu):
    packages.add(f"{name}_{package}")
    assert unusable(flavour(name), (13, 0), gpu) is None


def test_an_older_driver_is_told_with_both_remedies(packages):
    packages.add("tensorrt_rtx_cu13_libs")
    reason = unusable(flavour(), (12, 8), ADA)
    assert reason.startswith("TensorRT-RTX 1.7 needs a driver for CUDA 13, and this one is for CUDA 12.8; remedy: ")
    assert "newer driver" in reason and "CUDA 12" in reason.split("remedy: ")[1]
    packages.add("tensorrt_rtx_cu12_libs")
    packages.remove("tensorrt_rtx_cu13_libs")
    assert unusable(flavour(), (12, 0), ADA) is None
    assert "CUDA 12," in unusable(flavour(), (11, 8), ADA)


def test_an_older_gpu_is_told_and_not_the_driver_which_would_not_help(packages):
    for there in (set(), {"tensorrt_rtx_cu13"}):
        packages |= there
        reason = unusable(flavour(), (12, 8), PASCAL)
        assert PASCAL.name in reason and "sm61" in reason and "sm75" in reason
        assert "remedy: engine: onnxruntime" in reason and "driver" not in reason


def test_nothing_installed_says_how_to_install(monkeypatch):
    monkeypatch.setattr(trt, "installed", lambda: [])
    for names in (None, [], iter(())):
        with pytest.raises(EngineError, match=r"no TensorRT is installed; remedy: pip install 'dsca_ros\[tensorrt\]'"):
            usable_flavour(Driver((13, 0), (ADA,)), names)


def test_the_first_that_can_run_is_taken(packages, monkeypatch):
    driver = Driver((12, 8), (ADA,))
    assert usable_flavour(driver, ["tensorrt", trt.RTX]).name == "tensorrt"
    assert usable_flavour(driver, ["broken", trt.RTX]).name == trt.RTX
    monkeypatch.setattr(trt, "installed", lambda: [trt.RTX, "tensorrt"])
    assert usable_flavour(driver).name == trt.RTX
    packages.add("tensorrt_rtx_cu13")
    assert usable_flavour(driver).name == "tensorrt"


def test_if_none_can_run_it_is_said_of_each_why(packages):
    packages |= {"tensorrt_cu13", "tensorrt_rtx_cu13"}
    with pytest.raises(EngineError) as raised:
        usable_flavour(Driver((12, 8), (ADA,)), ["broken", "tensorrt", trt.RTX])
    broken, _, plain, _, rtx, _ = str(raised.value).split("; ")
    assert broken.startswith("broken") and plain.startswith("TensorRT 1 ") and rtx.startswith("TensorRT-RTX 1 ")
    assert str(raised.value).count("remedy: ") == 3


def test_the_first_gpu_is_the_one_that_counts(packages):
    assert usable_flavour(Driver((13, 0), (ADA, PASCAL)), [trt.RTX])
    with pytest.raises(EngineError, match="GTX 1080"):
        usable_flavour(Driver((13, 0), (PASCAL, ADA)), [trt.RTX])


# --- from a plan to an engine -------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(rtx, level_models, tmp_path_factory):
    """A cache with an engine of each kind of image, the plans by name, and their engines."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DSCA_MODELS", str(level_models))
        cache = EngineCache(tmp_path_factory.mktemp("built") / "engines")
        every = {
            "uint16": Plan(find_model("tiny", 2, "fp16"), (16, 24), UINT16, rtx, "sm89"),
            "float32": Plan(find_model("tiny", 2, "fp16"), (16, 24), FLOAT32, rtx, "sm89"),
            "levels": Plan(find_model("maps", 2, "fp32"), (16, 24), UINT8, rtx, "sm89"),
        }
        engines = {name: plan.get(cache) for name, plan in every.items()}
    return cache, every, engines


@pytest.fixture
def kept(built, tmp_path, level_models, monkeypatch):
    """The engine of 16-bit depth in a cache of its own, the plan, and the engine."""
    monkeypatch.setenv("DSCA_MODELS", str(level_models))
    _, every, engines = built
    own = EngineCache(tmp_path / "engines")
    own.store(every["uint16"].key, engines["uint16"][0])
    return own, every["uint16"], engines["uint16"][0]


@pytest.mark.parametrize("name", ["uint16", "float32", "levels"])
def test_an_engine_is_built_once(built, name, monkeypatch):
    cache, every, engines = built
    engine, was_built = engines[name]
    assert was_built and engine.plan and engine.facts["seconds"] > 0
    monkeypatch.setattr(trt, "build", None)
    assert every[name].get(cache) == (engine, False)
    assert len({engine.plan for engine, _ in engines.values()}) == len(engines)


def test_a_damaged_engine_is_built_anew_with_one_warning(kept, caplog):
    cache, plan, _ = kept
    path = cache.path(plan.key)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seen = []
    again, was_built = plan.get(cache, lambda phase, share: seen.append(share) is None)
    assert was_built and again.plan and seen
    # Before the lock and under it: it is looked for twice, and told once.
    assert [r.levelno for r in caplog.records] == [logging.WARNING] and str(path) in caplog.text
    caplog.clear()
    assert plan.get(cache) == (again, False) and not caplog.records


def test_another_model_file_is_another_engine(kept, tmp_path):
    onnx = pytest.importorskip("onnx")
    cache, plan, _ = kept
    changed = onnx.load_from_string(plan.model.read())
    changed.producer_name = "another"
    path = tmp_path / "changed.onnx"
    path.write_bytes(changed.SerializeToString())
    model = replace(plan.model, path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert replace(plan, model=model).get(cache)[1]
    assert len(cache.each()) == 2 and not plan.get(cache)[1]


def test_a_build_that_is_ended_leaves_nothing(kept):
    cache, plan, _ = kept
    wider = replace(plan, shape=(16, 32))
    with pytest.raises(trt.BuildCancelled):
        wider.get(cache, lambda phase, share: False)
    assert cache.load(wider.key) is None


def test_who_waits_for_another_process_says_so(kept):
    cache, plan, _ = kept
    wider, told = replace(plan, shape=(16, 32)), []
    with cache.locked(wider.key, lambda: False), pytest.raises(EngineError, match="wait"):
        wider.get(cache, lambda phase, share: told.append((phase, share)))
    assert told == [(WAITING, 0.0)]


def test_timings_are_kept_from_build_to_build(use_tiny_models, cache, monkeypatch):
    known = []

    def build(flavour, request, progress, timings):
        known.append(timings)
        return trt.Built(b"engine", 1.234, timings + b"+")

    monkeypatch.setattr(trt, "build", build)
    plan = Plan(find_model("tiny", 2), (16, 24), FLOAT32, flavour("tensorrt"), "sm89", ADA)
    engine, _ = plan.get(cache)
    assert (engine.plan, engine.facts) == (b"engine", {"seconds": 1.23})
    replace(plan, shape=(24, 16)).get(cache)
    replace(plan, gpu=TURING, target="sm75").get(cache)
    assert known == [b"", b"+", b""]
    assert not list(cache.folder.glob("*partial*"))


def test_timings_that_cannot_be_kept_are_no_error(use_tiny_models, cache, monkeypatch, caplog):
    plan = Plan(find_model("tiny", 2), (16, 24), FLOAT32, flavour("tensorrt"), "sm89", ADA)
    cache.timing_cache(plan.key).mkdir(parents=True)
    monkeypatch.setattr(trt, "build", lambda *_: trt.Built(b"engine", 1.0, b"timings"))
    assert plan.get(cache)[1] and not caplog.records


# --- ahead of time ------------------------------------------------------------------------------


def wanted(**changes) -> AheadRequest:
    whole = {
        "models": ["tiny"], "scales": [2], "sizes": [SIZE], "precisions": ["fp16"], "targets": ["sm89"],
        "dtype": UINT16,
    }  # fmt: skip
    return AheadRequest(**(whole | changes))


def test_every_combination_is_planned(rtx, use_tiny_models):
    request = wanted(scales=[2, 4], sizes=[(24, 16), (32, 8)], precisions=["fp16", "fp32"], targets=["sm75", "sm120"])
    made = request.plans()
    told = {(p.model.scale, p.shape, p.model.precision, p.target, p.dtype) for p in made}
    assert told == {
        (scale, shape, precision, target, UINT16)
        for scale in (2, 4)
        for shape in ((16, 24), (8, 32))
        for precision in ("fp16", "fp32")
        for target in ("sm75", "sm120")
    }
    assert len(made) == len(told) and all(p.flavour == rtx and p.gpu is None for p in made)


def test_current_is_the_first_gpu_of_this_machine(use_tiny_models, a_gpu, packages, monkeypatch):
    monkeypatch.setattr(trt, "installed", lambda: ["tensorrt", trt.RTX])
    (plan,) = wanted(targets=[trt.CURRENT]).plans()
    assert (plan.target, plan.gpu, plan.flavour.name) == ("sm89", ADA, "tensorrt")


def test_current_without_a_gpu_says_what_to_do(use_tiny_models, no_driver):
    with pytest.raises(EngineError, match=r"no NVIDIA driver; .*name the GPU it is for: --target sm89"):
        wanted(targets=[trt.CURRENT]).plans()


def test_a_model_or_architecture_that_does_not_exist_is_told_before_anything_is_built(rtx, use_tiny_models, cache):
    for request, named in (
        (wanted(models=["tiny", "huge"]), "tiny x4"),
        (wanted(scales=[2, 8]), "tiny x4"),
        (wanted(targets=["sm89", "sm61"]), "sm120"),
    ):
        with pytest.raises(EngineError, match=named):
            list(build_ahead(request, cache, lambda plan: None))
    assert not cache.folder.exists()


def test_what_is_built_ahead_is_found_by_the_machine_it_is_for(rtx, use_tiny_models, cache):
    begun, told = [], []

    def starting(plan):
        begun.append((plan.target, plan.model.name, plan.shape))
        return lambda phase, share: told.append(share) is None

    rows = list(build_ahead(wanted(targets=["sm75", "sm89"]), cache, starting))
    assert begun == [(target, "tiny x2 (fp16)", (16, 24)) for target in ("sm75", "sm89")]
    assert told.count(0.0) == 2  # both were told of
    for row, target in zip(rows, ("sm75", "sm89")):
        path = Path(row["path"])
        assert path.parent == cache.folder and row["bytes"] == path.stat().st_size > 10000 and path.suffix == SUFFIX
        assert row["built"] is True and row["seconds"] > 0
        for name, value in {
            "model": "tiny", "scale": 2, "size": "24x16", "precision": "fp16", "dtype": "uint16", "target": target,
            "gpu": "", "flavour": "tensorrt_rtx", "version": rtx.version,
        }.items():  # fmt: skip
            assert row[name] == value
    here = Plan(find_model("tiny", 2, "fp16"), (16, 24), UINT16, rtx, ADA.target, ADA)
    assert here.get(cache)[1] is False
    again = list(build_ahead(wanted(targets=["sm75", "sm89"]), cache, starting))
    assert again == [row | {"built": False} for row in rows]


def test_where_nothing_can_be_written_building_ahead_is_an_error(
    use_tiny_models, tmp_path, monkeypatch, a_gpu, packages
):
    monkeypatch.setattr(trt, "installed", lambda: [trt.RTX])
    monkeypatch.setattr(plans.trt, "build", lambda *_: trt.Built(b"engine", 1.0, b""))
    (tmp_path / "file").touch()
    cache = EngineCache(tmp_path / "file" / "engines")
    with pytest.raises(EngineError, match=f"cannot write to {cache.folder}; remedy: "):
        list(build_ahead(wanted(targets=[trt.CURRENT], dtype=FLOAT32), cache, lambda plan: None))


def test_stored_engines_are_listed(built):
    cache, every, engines = built
    assert stored_engines(EngineCache(cache.folder / "none")) == []
    rows = stored_engines(cache)
    assert {(r["model"], r["dtype"], r["target"], r["size"]) for r in rows} == {
        ("tiny", "uint16", "sm89", "24x16"), ("tiny", "float32", "sm89", "24x16"), ("maps", "float32", "sm89", "24x16")
    }  # fmt: skip
    for row in rows:
        name = "levels" if row["model"] == "maps" else row["dtype"]
        assert row["path"] == str(cache.path(every[name].key))
        assert row["seconds"] == engines[name][0].facts["seconds"]
        assert row["bytes"] > len(engines[name][0].plan)


def test_a_damaged_engine_is_listed_by_its_path_alone(kept):
    cache, plan, _ = kept
    cache.path(plan.key).write_bytes(b"damaged")
    assert stored_engines(cache) == [{"path": str(cache.path(plan.key)), "bytes": 7}]
