"""The node's parameters: described, checked as one, and in effect at the next frame."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterDescriptor, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from ros_graph import OUTPUTS, Graph, as_told, key, pixels

from dsca_ros.engine.zoo import MANIFEST, find_model, list_models, models_folder

IMAGE, INFO, POINTS = OUTPUTS
READ_ONLY = {"warm_start", "build_only", "autostart"}
NETWORK = {"model", "scale", "engine", "precision", "threads"}
CHOICES = {"engine", "precision", "output_encoding", "depth_transport", "compressed_format"}
FRAMES = {"min_depth", "max_depth", "depth_unit", "fill_holes", "publish_points", "points_stride", "points_organized"}
SETTABLE = NETWORK | CHOICES | FRAMES | {"lazy"}
#: What a refusal lists, and the file that the default parameters load.
MODELS = sorted({f"{m.model} x{m.scale}" for m in list_models()})
FILE = find_model("dsca-nano", 2).path.relative_to(models_folder())


class Client:
    """Another process's way to the parameters: the services."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._client = AsyncParameterClient(graph.tester, "dsca_node")
        graph.spin_until(self._client.services_are_ready, "parameter services")

    def _answer(self, future: object) -> object:
        self._graph.spin_until(future.done, "an answer")
        return future.result()

    def names(self) -> set[str]:
        return set(self._answer(self._client.list_parameters([], 1)).result.names)

    def describe(self, *names: str) -> dict[str, ParameterDescriptor]:
        answer = self._answer(self._client.describe_parameters(list(names)))
        return {descriptor.name: descriptor for descriptor in answer.descriptors}

    def set(self, **changes: object) -> tuple[bool, str]:
        """Sets parameters at one stroke; whether that was accepted, and why not."""
        parameters = [Parameter(name, value=value) for name, value in changes.items()]
        result = self._answer(self._client.set_parameters_atomically(parameters)).result
        return result.successful, result.reason


# --- what is declared ---------------------------------------------------------------------------


def test_every_parameter_is_described(graph: Graph) -> None:
    graph.start_node()
    client = Client(graph)
    expected = READ_ONLY | SETTABLE
    assert expected <= client.names()
    for name, descriptor in client.describe(*sorted(expected)).items():
        assert len(descriptor.description) > 10, name
        assert descriptor.read_only == (name in READ_ONLY), name
        assert descriptor.dynamic_typing == (name == "fill_holes"), name
        if descriptor.type == ParameterType.PARAMETER_INTEGER:
            assert descriptor.integer_range, name
        if descriptor.type == ParameterType.PARAMETER_DOUBLE:
            assert descriptor.floating_point_range, name
        if name in CHOICES:
            assert "one of" in descriptor.additional_constraints, name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"warm_start": False}, ["read-only", "warm_start"]),
        ({"build_only": True}, ["read-only", "build_only"]),
        ({"autostart": False}, ["read-only", "autostart"]),
        ({"model": "dsca-giant"}, ["'dsca-giant'", "there are: "]),
        ({"scale": 3}, ["2, 4 or 8"]),
        ({"scale": 9}, ["scale", "8"]),
        ({"engine": "tensorflow"}, ["'tensorflow'", "auto", "onnxruntime"]),
        ({"precision": "int8"}, ["'int8'", "fp32", "fp16"]),
        ({"threads": 65}, ["threads", "64"]),
        ({"min_depth": 0.0}, ["min_depth", "0.01"]),
        ({"max_depth": 65.5}, ["max_depth", "65"]),
        ({"max_depth": float("nan")}, ["max_depth"]),
        ({"max_depth": float("inf")}, ["max_depth"]),
        ({"max_depth": 5}, [as_told(Parameter.Type.DOUBLE)]),
        ({"lazy": "no"}, [as_told(Parameter.Type.BOOL)]),
        ({"depth_unit": 0.0}, ["depth_unit"]),
        ({"depth_unit": 1}, [as_told(Parameter.Type.DOUBLE)]),
        ({"fill_holes": "some"}, ["fill_holes is 'some'", "none, all or a number of pixels"]),
        ({"fill_holes": -1}, ["fill_holes is -1"]),
        ({"fill_holes": True}, ["fill_holes is True"]),
        ({"output_encoding": "rgb8"}, ["'rgb8'", "passthrough", "16UC1", "32FC1"]),
        ({"output_encoding": "mono16"}, ["'mono16'"]),
        ({"min_depth": 20.0}, ["min_depth (20.0)", "max_depth (10.0)"]),
        ({"max_depth": 0.1}, ["min_depth (0.1)", "max_depth (0.1)"]),
        # All or nothing: the good half of a request is not applied either.
        ({"output_encoding": "32FC1", "min_depth": 9.0, "max_depth": 1.0}, ["min_depth (9.0)"]),
        ({"lazy": False, "publish_points": False, "output_encoding": "x"}, ["'x'"]),
        ({"max_depth": 3.0, "warm_start": False}, ["read-only"]),
    ],
)
def test_a_bad_value_is_refused_with_the_reason_and_nothing_is_applied(
    graph: Graph, changes: dict[str, object], words: list[str]
) -> None:
    node = graph.start_node()
    before = node.settings
    names = sorted(READ_ONLY | SETTABLE)
    values = [node.get_parameter(name).value for name in names]
    successful, reason = Client(graph).set(**changes)
    assert not successful
    assert all(word in reason for word in words), reason
    assert [node.get_parameter(name).value for name in names] == values
    assert node.settings == before


def test_a_range_is_changed_at_one_stroke(graph: Graph) -> None:
    node = graph.start_node()
    # One after the other, either order would be refused at some point.
    assert Client(graph).set(min_depth=20.0, max_depth=30.0) == (True, "")
    assert node.settings.depth_range == (20.0, 30.0)
    assert [node.get_parameter(name).value for name in ("min_depth", "max_depth")] == [20.0, 30.0]


# --- in effect ----------------------------------------------------------------------------------


def test_max_and_min_depth_take_effect_at_the_next_frame(graph: Graph) -> None:
    graph.start_node()
    graph.connect(IMAGE)
    client = Client(graph)
    depth = np.full((48, 64), 1000, np.uint16)
    depth[:, 32:] = 4000

    def valid_halves() -> tuple[bool, bool]:
        """Whether the inner part of the near and of the far half is there."""
        result = pixels(graph.exchange(graph.camera.image(depth)))
        near, far = result[:, 8:48], result[:, -48:-8]
        assert set(np.unique(near)) <= {0, 1000} and set(np.unique(far)) <= {0, 4000}
        return bool(near.all()), bool(far.all())

    assert valid_halves() == (True, True)
    assert client.set(max_depth=2.0) == (True, "")
    assert valid_halves() == (True, False)
    assert client.set(max_depth=10.0, min_depth=2.0) == (True, "")
    assert valid_halves() == (False, True)
    assert client.set(min_depth=0.1) == (True, "")
    assert valid_halves() == (True, True)


def test_holes_are_filled_as_the_parameter_says(graph: Graph) -> None:
    graph.start_node()
    graph.connect(IMAGE)
    client = Client(graph)
    depth = np.full((48, 64), 1000, np.uint16)
    depth[10:16, 10:40] = 0  # 6 pixels across
    depth[24:44, 20:40] = 0  # 20 pixels across

    def holes() -> tuple[bool, bool]:
        result = pixels(graph.exchange(graph.camera.image(depth)))
        assert set(np.unique(result)) <= {0, 1000}
        return bool((result[24:28, 24:76] == 0).all()), bool((result[56:80, 48:72] == 0).all())

    assert holes() == (True, True)
    assert client.set(fill_holes=6) == (True, "")
    assert holes() == (False, True)
    assert client.set(fill_holes="5") == (True, "")
    assert holes() == (True, True)
    assert client.set(fill_holes="all") == (True, "")
    assert holes() == (False, False)
    assert client.set(fill_holes="none") == (True, "")
    assert holes() == (True, True)


@pytest.mark.parametrize(("encoding", "expected"), [("passthrough", 250), ("32FC1", 0.25)])
def test_a_camera_with_another_unit_gives_millimetres_and_metres(graph: Graph, encoding: str, expected: float) -> None:
    graph.start_node(depth_unit=0.0001, output_encoding=encoding)
    graph.connect(IMAGE)
    depth = np.full((48, 64), 2500, np.uint16)
    depth[20:28, 20:28] = 65535  # no reading, in any unit
    result = pixels(graph.exchange(graph.camera.image(depth)))
    assert result[0, 0] == pytest.approx(expected)
    hole = result[44:52, 44:52]
    assert (np.isnan(hole) if encoding == "32FC1" else hole == 0).all()
    assert np.nanmax(result) == pytest.approx(expected)


def test_encoding_and_points_are_switched_while_frames_flow(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    client = Client(graph)
    first = graph.good_frame()
    assert client.set(output_encoding="32FC1", publish_points=False) == (True, "")
    second = graph.camera.image()
    assert graph.exchange(second, graph.camera.info(second)).encoding == "32FC1"
    assert client.set(output_encoding="passthrough", publish_points=True) == (True, "")
    third = graph.good_frame()
    encodings = [graph.listener.images[key(image)].encoding for image in (first, second, third)]
    assert encodings == ["16UC1", "32FC1", "16UC1"]
    assert list(graph.listener.clouds) == [key(first), key(third)]


def test_lazy_is_switched_while_nobody_listens(graph: Graph) -> None:
    graph.start_node()
    client = Client(graph)
    subscribers = graph.camera.image_publisher.get_subscription_count
    for lazy in (False, True):
        assert client.set(lazy=lazy) == (True, "")
        graph.spin_until(lambda n=int(not lazy): subscribers() == n, f"lazy:={lazy} to take effect")


# --- refusing to start --------------------------------------------------------------------------


def models_copy(folder: Path) -> Path:
    """A models folder that a test may break."""
    return Path(shutil.copytree(models_folder(), folder))


def refusal(graph: Graph, env: dict[str, str] | None = None, **parameters: object) -> str:
    """The one line with which the executable refuses to start."""
    process = graph.start("dsca_ros.ros.node", env, **parameters)
    assert process.wait() == 1, process.output()
    lines = process.output().strip().splitlines()
    assert len(lines) == 1, process.output()
    assert lines[0].startswith("dsca_node: ")
    return lines[0]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"model": "dsca-giant"}, ["'dsca-giant'", "there are: ", *MODELS]),
        ({"scale": 8}, ["scale 8", "there are: ", *MODELS]),
        ({"scale": 3}, ["2, 4 or 8"]),
        ({"scale": 100}, ["scale"]),
        ({"scale": "two"}, ["scale", "'two'"]),
        ({"engine": "tensorflow"}, ["'tensorflow'", "auto", "onnxruntime"]),
        ({"precision": "int8"}, ["'int8'", "fp32", "fp16"]),
        ({"output_encoding": "rgb8"}, ["'rgb8'", "passthrough"]),
        ({"min_depth": 3.0, "max_depth": 2.0}, ["min_depth (3.0)", "max_depth (2.0)"]),
        ({"max_depth": 70.0}, ["max_depth", "65"]),
        ({"max_depth": 5}, ["max_depth", "DOUBLE"]),
        ({"fill_holes": "big"}, ["fill_holes", "none, all or a number of pixels"]),
    ],
)
def test_a_bad_initial_value_ends_the_node_in_one_line(
    graph: Graph, parameters: dict[str, object], words: list[str]
) -> None:
    if f"dsca-nano x{parameters.get('scale')}" in MODELS:
        pytest.skip("there is a model of this scale")
    text = refusal(graph, **parameters)
    assert all(word in text for word in words), text


@pytest.mark.once
def test_a_missing_model_file_ends_the_node_in_one_line(graph: Graph, tmp_path: Path) -> None:
    folder = models_copy(tmp_path / "models")
    missing = folder / FILE
    missing.unlink()
    text = refusal(graph, {"DSCA_MODELS": str(folder)})
    assert str(missing) in text and "missing" in text


@pytest.mark.once
def test_a_truncated_model_file_ends_the_node_in_one_line(graph: Graph, tmp_path: Path) -> None:
    folder = models_copy(tmp_path / "models")
    truncated = folder / FILE
    truncated.write_bytes(truncated.read_bytes()[:1000])
    text = refusal(graph, {"DSCA_MODELS": str(folder)})
    assert str(truncated) in text and "damaged" in text and "1000 bytes" in text


@pytest.mark.once
@pytest.mark.parametrize("text", ["models: [1, 2]", "models: {dsca-nano: {2: {fp32: {}}}}", "a: b: c", "{"])
def test_a_broken_manifest_ends_the_node_in_one_line(graph: Graph, tmp_path: Path, text: str) -> None:
    folder = models_copy(tmp_path / "models")
    (folder / MANIFEST).write_text(text)
    assert str(folder / MANIFEST) in refusal(graph, {"DSCA_MODELS": str(folder)})


def test_unknown_parameters_and_ones_of_another_node_do_no_harm(graph: Graph) -> None:
    node = graph.start_node(colour="red")
    assert not node.has_parameter("colour")


@pytest.mark.parametrize("kind", [SetParameters, SetParametersAtomically])
def test_a_request_of_a_type_that_there_is_not_is_refused_and_ends_nobody(graph: Graph, kind: type) -> None:
    """As a client of another library may send; rclpy raises for it, out of the service's callback."""
    node = graph.start_node()
    name = "set_parameters" if kind is SetParameters else "set_parameters_atomically"
    client = graph.tester.create_client(kind, f"dsca_node/{name}")
    graph.spin_until(client.service_is_ready, name)
    wrong = ParameterMessage(name="scale", value=ParameterValue(type=77, integer_value=4))
    answer = client.call_async(kind.Request(parameters=[wrong]))
    graph.spin_until(answer.done, "an answer")
    (result,) = answer.result().results if kind is SetParameters else [answer.result().result]
    assert not result.successful and "77" in result.reason and node.settings.scale == 2
    graph.spin_until(lambda: graph.listener.warnings("cannot be read"), "the warning")
    assert Client(graph).set(max_depth=5.0) == (True, "")
