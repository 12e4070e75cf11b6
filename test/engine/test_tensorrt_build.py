"""Building engines: real ones with TensorRT-RTX, which needs no GPU for it, and what is said when it cannot be."""

import importlib
import sys
from collections import Counter
from importlib import metadata
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from dsca_ros.engine import tensorrt_build as trt
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.plans import Plan
from dsca_ros.engine.zoo import is_twin, list_models

try:
    FLAVOUR, WHY_NOT = trt.load_flavour(trt.RTX), ""
except EngineError as error:
    FLAVOUR, WHY_NOT = None, str(error)
with_rtx = pytest.mark.skipif(FLAVOUR is None, reason=WHY_NOT)

TARGETS = ("sm75", "sm86", "sm89", "sm120")
#: Of the small graphs.
SHAPES = {"depth": (1, 1, 24, 32)}
UINT16 = np.dtype(np.uint16)


def shipped():
    try:
        # A twin has its model's graph, and other weights.
        return [model for model in list_models() if not is_twin(model.model)]
    except EngineError:
        return []  # test_shipped_models.py says so


def graph_of(*nodes: tuple[str, list[str], str], half: tuple[str, ...] = ()) -> bytes:
    """A graph of (operator, inputs, output), from ``depth`` to ``result``; outputs in ``half`` are made of casts."""
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    made = []
    for kind, inputs, output in nodes:
        settings = {"to": types.FLOAT16 if output in half else types.FLOAT} if kind == "Cast" else {}
        settings |= {"perm": [0, 1, 3, 2]} if kind == "Transpose" else {}
        made.append(helper.make_node(kind, inputs, [output], name=output, **settings))
    image = [1, 1, "height", "width"]
    ends = [helper.make_tensor_value_info(name, types.FLOAT, image) for name in ("depth", "result")]
    model = helper.make_model(
        helper.make_graph(made, "small", ends[:1], ends[1:]), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    return model.SerializeToString()


def doubled() -> bytes:
    return graph_of(("Add", ["depth", "depth"], "result"))


def products() -> bytes:
    """Float32 products with several readers, as either factor and both; and one in half precision, the fourth."""
    return graph_of(
        ("Transpose", ["depth"], "turned"),
        ("MatMul", ["depth", "turned"], "first"),
        ("Softmax", ["first"], "shares"),
        ("MatMul", ["first", "shares"], "second"),
        ("MatMul", ["second", "second"], "third"),
        ("Cast", ["third"], "third_half"),
        ("MatMul", ["third_half", "third_half"], "fourth"),
        ("Cast", ["fourth"], "fourth_single"),
        ("MatMul", ["fourth_single", "third"], "fifth"),
        ("Add", ["fifth", "second"], "sixth"),
        ("MatMul", ["sixth", "depth"], "seventh"),
        ("Add", ["seventh", "depth"], "result"),
        half=("third_half",),
    )


def parsed(graph: bytes):
    """The network of a graph, and what must live as long as it."""
    api = FLAVOUR.api
    log = trt.make_log(api)
    builder = api.Builder(log)
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = api.OnnxParser(network, log)
    assert parser.parse(graph)
    return network, (builder, parser, log)


def layers(network) -> list:
    return [network.get_layer(index) for index in range(network.num_layers)]


def products_of(network) -> list:
    return [layer for layer in layers(network) if layer.type == FLAVOUR.api.LayerType.MATRIX_MULTIPLY]


def times_read(network) -> Counter:
    """How often each tensor is a layer's input, by its name."""
    return Counter(layer.get_input(index).name for layer in layers(network) for index in range(layer.num_inputs))


# --- real builds --------------------------------------------------------------------------------


@with_rtx
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", shipped(), ids=lambda model: model.path.stem)
def test_every_shipped_model_builds_for_every_architecture(model, target):
    pytest.importorskip("onnx")
    request = Plan(model, (48, 64), UINT16, trt.flavour_for(target), target).request()
    built = trt.build(FLAVOUR, request)
    assert len(built.plan) > len(request.graph) / 2
    assert 0 < built.seconds < 60
    assert built.timing_cache == b""


@with_rtx
def test_the_four_architectures_are_built_for_by_name():
    assert set(FLAVOUR.targets) >= set(TARGETS)
    assert all(target.startswith("sm") and target[2:].isdecimal() for target in FLAVOUR.targets)


@with_rtx
def test_the_target_decides_what_is_built():
    plans = {trt.build(FLAVOUR, trt.BuildRequest(doubled(), SHAPES, target)).plan for target in TARGETS}
    assert len(plans) == len(TARGETS)


@with_rtx
def test_the_size_decides_what_is_built():
    sizes = [{"depth": (1, 1, *size)} for size in ((24, 32), (32, 24))]
    first, second = (trt.build(FLAVOUR, trt.BuildRequest(doubled(), size, "sm89")).plan for size in sizes)
    assert first != second


def words(raised: pytest.ExceptionInfo) -> str:
    """What TensorRT said itself, which must be in one line; its versions differ in the words."""
    begin, text = str(raised.value).split(": ", 1)
    assert begin.startswith(f"{FLAVOUR.label} cannot ")
    assert len(text) > 20 and "\n" not in text and "does not say why" not in text
    return text


@with_rtx
@pytest.mark.parametrize("broken", ["half of a file", "an operator that does not exist"])
def test_a_graph_that_cannot_be_read_says_so_in_tensorrts_words(broken):
    graph = doubled()[:-20] if broken.startswith("half") else graph_of(("Nonsense", ["depth"], "result"))
    with pytest.raises(EngineError, match="cannot read the graph: ") as raised:
        trt.build(FLAVOUR, trt.BuildRequest(graph, SHAPES, "sm89"))
    assert words(raised)


@with_rtx
@pytest.mark.parametrize("graph", [b"", b"hello"], ids=str)
def test_what_is_no_graph_is_refused(graph):
    with pytest.raises(EngineError) as raised:  # read or built: protobuf takes both for an empty graph
        trt.build(FLAVOUR, trt.BuildRequest(graph, SHAPES, "sm89"))
    assert words(raised)


@with_rtx
@pytest.mark.parametrize("shapes", [{}, {"colour": (1, 1, 24, 32)}, {"depth": (1, 24, 32)}], ids=str)
def test_shapes_that_do_not_fit_the_graph_are_named_by_tensorrt(shapes):
    with pytest.raises(EngineError, match="cannot build this: ") as raised:
        trt.build(FLAVOUR, trt.BuildRequest(doubled(), shapes, "sm89"))
    assert "depth" in words(raised)


# --- progress -----------------------------------------------------------------------------------


@with_rtx
def test_progress_rises_from_0_to_1():
    told = []

    def progress(phase: str, share: float) -> bool:
        told.append((phase, share))
        return True

    trt.build(FLAVOUR, trt.BuildRequest(doubled(), SHAPES, "sm89"), progress)
    assert len({phase for phase, _ in told}) == 1 and told[0][0]
    shares = [share for _, share in told]
    assert shares == sorted(set(shares)) and shares[0] == 0 and 0.5 < shares[-1] <= 1


@with_rtx
@pytest.mark.parametrize("after", [1, 2, 4])
def test_progress_ends_a_build(after):
    told = []

    def progress(phase: str, share: float) -> bool:
        told.append(share)
        return len(told) < after

    with pytest.raises(trt.BuildCancelled, match="ended before it was done"):
        trt.build(FLAVOUR, trt.BuildRequest(doubled(), SHAPES, "sm89"), progress)
    # TensorRT hears of it when the next step is done, and does no more than that.
    assert after <= len(told) <= after + 1


@with_rtx
def test_only_the_outermost_phase_is_told():
    told = []
    monitor = trt.make_monitor(FLAVOUR.api, lambda *what: told.append(what) is None)
    monitor.phase_start("outer", None, 4)
    assert monitor.step_complete("outer", 0)
    monitor.phase_start("inner", "outer", 2)
    assert monitor.step_complete("inner", 1)
    monitor.phase_finish("inner")
    assert monitor.step_complete("outer", 3)
    assert monitor.step_complete("outer", 4)  # more than was announced is no more than all
    monitor.phase_finish("outer")
    monitor.phase_start("of no steps", None, 0)
    assert monitor.step_complete("of no steps", 0)
    assert told == [("outer", 0), ("outer", 0.25), ("outer", 1), ("outer", 1), ("of no steps", 0), ("of no steps", 1)]


@with_rtx
def test_once_ended_every_step_says_so():
    monitor = trt.make_monitor(FLAVOUR.api, lambda phase, share: False)
    monitor.phase_start("outer", None, 4)
    monitor.phase_start("inner", "outer", 2)
    assert monitor.cancelled and not monitor.step_complete("inner", 0) and not monitor.step_complete("outer", 0)


@with_rtx
def test_the_log_keeps_errors_alone_in_one_line():
    log, severity = trt.make_log(FLAVOUR.api), FLAVOUR.api.ILogger.Severity
    assert log.said() == "it does not say why"
    log.log(severity.WARNING, "late")
    log.log(severity.ERROR, "first")
    log.log(severity.ERROR, "no\n  memory")
    log.log(severity.INTERNAL_ERROR, "gave up")
    assert log.said() == "no memory; gave up"


# --- Turing -------------------------------------------------------------------------------------


@with_rtx
def test_turing_is_given_products_in_half_precision():
    network, alive = parsed(products())
    single, half = FLAVOUR.api.float32, FLAVOUR.api.float16
    before = times_read(network)
    names = {layer.name: layer.get_output(0).name for layer in products_of(network)}
    assert Counter(layer.get_input(0).dtype for layer in products_of(network)) == {single: 5, half: 1}

    trt.halve_products(FLAVOUR.api, network)
    assert [layer.name for layer in products_of(network)] == list(names)
    for layer in products_of(network):
        assert {layer.get_input(0).dtype, layer.get_input(1).dtype, layer.get_output(0).dtype} == {half}
    # What came of each in float32 is that again, for all that read it.
    after = times_read(network)
    casts = {layer.get_input(0).name: layer for layer in layers(network) if layer.type == FLAVOUR.api.LayerType.CAST}
    for name in ("first", "second", "third", "fifth", "seventh"):
        cast = casts[names[name]].get_output(0)
        assert cast.dtype == single
        assert after[names[name]] == 1 and after[cast.name] == before[names[name]]
    assert after[names["fourth"]] == before[names["fourth"]]
    assert network.get_output(0).dtype == single
    del alive


@with_rtx
@pytest.mark.parametrize("graph", [products, doubled], ids=["products", "none"])
def test_what_was_halved_builds_for_turing(graph):
    assert trt.build(FLAVOUR, trt.BuildRequest(graph(), SHAPES, trt.TURING)).plan


@with_rtx
def test_without_that_turing_is_not_built_for(monkeypatch):
    monkeypatch.setattr(trt, "halve_products", lambda *_: None)
    request = trt.BuildRequest(products(), SHAPES, trt.TURING)
    try:
        trt.build(FLAVOUR, request)
    except EngineError as error:
        assert "Turing" in str(error) and "is not supported" in str(error)
    else:
        pytest.skip(f"{FLAVOUR.label} has float32 products for Turing: halve_products is needed for older ones alone")


@with_rtx
def test_other_architectures_keep_float32(monkeypatch):
    def never(*_):
        raise AssertionError("halved")

    monkeypatch.setattr(trt, "halve_products", never)
    for target in TARGETS[1:]:
        trt.build(FLAVOUR, trt.BuildRequest(products(), SHAPES, target))
    with pytest.raises(AssertionError, match="halved"):
        trt.build(FLAVOUR, trt.BuildRequest(products(), SHAPES, trt.TURING))


# --- TensorRT itself, by a stand-in --------------------------------------------------------------


@pytest.fixture
def plain():
    """TensorRT 10 as far as `build` sees it: it has timings, and no architectures to choose."""

    class Logger:
        Severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal")

        def __init__(self) -> None:
            """As the real one, to be called."""

    builder = MagicMock(name="builder")
    builder.build_serialized_network.return_value = bytearray(b"engine")
    config = builder.create_builder_config.return_value
    config.get_timing_cache.return_value.serialize.return_value = bytearray(b"timings after")
    api = SimpleNamespace(
        ILogger=Logger,
        Builder=MagicMock(return_value=builder),
        OnnxParser=MagicMock(),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=3),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        BuilderFlag=SimpleNamespace(TF32="tf32"),
    )
    return SimpleNamespace(flavour=trt.Flavour("tensorrt", "10.13", api), api=api, builder=builder, config=config)


def test_timings_of_earlier_builds_are_used_and_grow(plain):
    built = trt.build(plain.flavour, trt.BuildRequest(b"graph", SHAPES), timing_cache=b"timings")
    assert (built.plan, built.timing_cache) == (b"engine", b"timings after")
    assert type(built.plan) is bytes and type(built.timing_cache) is bytes
    plain.config.create_timing_cache.assert_called_once_with(b"timings")
    timings = plain.config.create_timing_cache.return_value
    plain.config.set_timing_cache.assert_called_once_with(timings, ignore_mismatch=False)


def test_timings_that_tensorrt_does_not_take_are_no_error(plain):
    plain.config.create_timing_cache.return_value = None
    built = trt.build(plain.flavour, trt.BuildRequest(b"graph", SHAPES), timing_cache=b"damaged")
    assert (built.plan, built.timing_cache) == (b"engine", b"")


def test_a_build_for_this_machine_names_no_architecture(plain):
    config = plain.config
    trt.build(plain.flavour, trt.BuildRequest(b"graph", SHAPES, workspace=5 << 20))
    config.set_compute_capability.assert_not_called()
    config.set_memory_pool_limit.assert_called_once_with("workspace", 5 << 20)
    profile = plain.builder.create_optimization_profile.return_value
    profile.set_shape.assert_called_once_with("depth", *[SHAPES["depth"]] * 3)
    config.add_optimization_profile.assert_called_once_with(profile)


@pytest.mark.parametrize("half", [False, True])
def test_float32_is_no_tf32(plain, half):
    trt.build(plain.flavour, trt.BuildRequest(b"graph", SHAPES, half=half))
    assert plain.config.clear_flag.call_args_list == ([] if half else [(("tf32",),)])


def test_networks_keep_their_types_where_that_is_a_choice(plain):
    trt.build(plain.flavour, trt.BuildRequest(b"graph", SHAPES))
    plain.builder.create_network.assert_called_once_with(1 << 3)
    plain.builder.create_network.reset_mock()
    del plain.api.NetworkDefinitionCreationFlag.STRONGLY_TYPED  # TensorRT 11
    trt.build(plain.flavour, trt.BuildRequest(b"graph", SHAPES))
    plain.builder.create_network.assert_called_once_with(0)


def test_a_builder_that_does_not_start_says_why(plain):
    def refuse(log):
        log.log("error", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")  # without a GPU it is this

    plain.api.Builder.side_effect = refuse
    with pytest.raises(EngineError, match=r"TensorRT 10\.13 cannot start: CUDA initialization failure"):
        trt.build(plain.flavour, trt.BuildRequest(b"graph", SHAPES))


def test_a_build_that_fails_says_why(plain):
    def fail(network, config):
        plain.api.Builder.call_args.args[0].log("error", "out of memory")

    plain.builder.build_serialized_network.side_effect = fail
    with pytest.raises(EngineError, match=r"TensorRT 10\.13 cannot build this: out of memory"):
        trt.build(plain.flavour, trt.BuildRequest(b"graph", SHAPES))


def test_tensorrt_itself_builds_for_this_machine_alone(plain):
    plain.api.ComputeCapability = SimpleNamespace(__members__={"SM89": 1})  # TensorRT 10.14 knows the word
    assert plain.flavour.targets == ()


# --- flavours -----------------------------------------------------------------------------------


@pytest.fixture
def put(monkeypatch, tmp_path):
    """Puts a module where alone Python looks for any; none of the flavours is anywhere else."""
    for name in trt.FLAVOURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    def put(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()

    yield put
    for name in trt.FLAVOURS:
        sys.modules.pop(name, None)


def test_nothing_installed(put):
    assert trt.installed() == []
    for name, label in trt.FLAVOURS.items():
        with pytest.raises(EngineError, match=rf"^{label} cannot be loaded .*remedy: pip install 'dsca_ros\[tensorrt"):
            trt.load_flavour(name)


def test_tensorrt_itself_is_preferred_and_none_is_loaded_to_know(put):
    put("tensorrt_rtx", "raise AssertionError('loaded')")
    assert trt.installed() == ["tensorrt_rtx"]
    put("tensorrt", "raise AssertionError('loaded')")
    assert trt.installed() == ["tensorrt", "tensorrt_rtx"]


@pytest.mark.parametrize("kind", ["OSError", "RuntimeError", "ImportError", "SyntaxError"])
def test_a_broken_flavour_says_what_is_missing_in_one_line(put, kind):
    put("tensorrt", f"raise {kind}('libnvinfer.so.10: cannot open\\n  shared object')")
    with pytest.raises(EngineError, match=r"\(libnvinfer.so.10: cannot open shared object\); remedy: ") as raised:
        trt.load_flavour("tensorrt")
    assert str(raised.value).startswith("TensorRT cannot be loaded")


def test_a_folder_of_that_name_is_no_tensorrt(put, tmp_path):
    (tmp_path / "tensorrt").mkdir()  # Python takes it for a package
    importlib.invalidate_caches()
    assert trt.installed() == ["tensorrt"]
    with pytest.raises(EngineError, match="TensorRT cannot be loaded"):
        trt.load_flavour("tensorrt")


def test_a_flavour_is_named_with_its_version(put):
    put("tensorrt", "__version__ = '10.13.3'")
    flavour = trt.load_flavour("tensorrt")
    assert (flavour.name, flavour.label, flavour.targets) == ("tensorrt", "TensorRT 10.13.3", ())
    assert trt.Flavour(trt.RTX, "1.2", None).label == "TensorRT-RTX 1.2"


def test_without_rtx_there_is_no_building_for_others(put):
    put("tensorrt", "__version__ = '10.13.3'")
    with pytest.raises(EngineError, match=r"for sm89 .*needs TensorRT-RTX; remedy: pip install tensorrt-rtx"):
        trt.flavour_for("sm89")


@with_rtx
@pytest.mark.parametrize("target", ["sm61", "sm_89", "SM89", "", trt.CURRENT])
def test_an_architecture_it_does_not_know_names_those_it_does(target):
    with pytest.raises(EngineError, match="does not build for") as raised:
        trt.flavour_for(target)
    for known in TARGETS:
        assert known in str(raised.value)


@with_rtx
def test_an_architecture_it_knows_gives_rtx():
    for target in FLAVOUR.targets:
        assert trt.flavour_for(target) == FLAVOUR


@pytest.mark.parametrize(
    ("packages", "major"),
    [
        ([], None),
        (["tensorrt"], None),
        (["tensorrt_cu12"], 12),
        (["tensorrt_cu12_libs"], 12),
        (["tensorrt_cu13_libs", "tensorrt_cu13"], 13),
        (["tensorrt_cu11"], 11),
        (["tensorrt_rtx_cu13"], None),
    ],
    ids=str,
)
def test_the_package_tells_which_cuda_it_needs(monkeypatch, packages, major):
    def version(name: str) -> str:
        if name not in packages:
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    assert trt.Flavour("tensorrt", "10", None).cuda_major == major


@with_rtx
def test_the_cuda_of_what_is_installed_here():
    assert FLAVOUR.cuda_major in (None, 12, 13)
