"""Configuration and documentation name only what the code has; for launch files see test_launch.py."""

from __future__ import annotations

import ast
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from std_msgs.msg import Header

from dsca_ros.engine.starting import BUILDING
from dsca_ros.ros import diagnostics
from dsca_ros.ros.diagnostics import Health
from dsca_ros.ros.node import DscaNode
from dsca_ros.ros.parameters import PARAMETERS, Settings

ROOT = Path(__file__).resolve().parents[1]
SETUP = (ROOT / "setup.py").read_text()
README, ROS, DDS, TENSORRT, REPLAY = (
    (ROOT / name).read_text()
    for name in ("README.md", "docs/ros.md", "docs/dds.md", "docs/tensorrt.md", "docs/replay.md")
)
DEFAULTS = {name: default for name, (default, _) in PARAMETERS.items()}
#: What config/ holds beside the table of all parameters.
CAMERA_CONFIGS = sorted(path.name for path in (ROOT / "config").glob("*.yaml") if path.name != "dsca.yaml")
#: Words of other packages that docs/ros.md speaks of.
OF_ROS = {"use_sim_time", "image_proc", "rqt_robot_monitor"}


def parameters_of(name: str) -> dict[str, object]:
    """What a file of config/ sets."""
    ((nodes, content),) = yaml.safe_load((ROOT / "config" / name).read_text()).items()
    assert (nodes, list(content)) == ("/**", ["ros__parameters"])
    return content["ros__parameters"]


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the table below a heading or a header row."""
    part = text.split(heading, 1)[1].lstrip("\n")
    rows = part[part.index("|---") :].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def code_words(text: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`]+)`", text)


def launch_arguments(name: str) -> set[str]:
    """The arguments that a launch file takes."""
    return {argument.get("name", "") for argument in ET.parse(ROOT / "launch" / name).getroot().findall("arg")}


# --- config/ ------------------------------------------------------------------------------------


def test_config_holds_every_parameter_with_its_default():
    assert parameters_of("dsca.yaml") == DEFAULTS


@pytest.mark.parametrize("name", CAMERA_CONFIGS)
def test_other_configs_set_what_the_node_accepts(name: str):
    values = parameters_of(name)
    assert set(values) <= set(PARAMETERS)
    # ROS takes no whole number for a fraction.
    assert {key: type(value) for key, value in values.items()} == {key: type(DEFAULTS[key]) for key in values}
    Settings(**{**DEFAULTS, **values})


@pytest.mark.parametrize("name", ["dsca.yaml", *CAMERA_CONFIGS])
def test_config_comments_every_parameter(name: str):
    lines = (ROOT / "config" / name).read_text().splitlines()
    assert lines[0].startswith("#")
    for key in parameters_of(name):
        index = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{key}:"))
        # max_depth may share the comment of min_depth above it.
        above = lines[index - 1].strip()
        assert above.startswith("#") or (key, above.split(":")[0]) == ("max_depth", "min_depth")


def test_dds_profile_is_xml_that_sets_shared_memory():
    text = (ROOT / "config/fastdds.xml").read_text()
    space = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"
    root = ET.fromstring(text.split("?>", 1)[1])
    sizes = [int(e.text) for e in root.iter(f"{space}segment_size")]
    # Three frames of 2560x1920 uint16 must fit.
    assert sizes and min(sizes) >= 3 * 2560 * 1920 * 2
    # Fast DDS starts no transport whose messages could be larger than its segment.
    assert all(int(e.text) <= min(sizes) for e in root.iter(f"{space}maxMessageSize"))
    assert f"{min(sizes) >> 20} MB" in DDS


# --- all documents ------------------------------------------------------------------------------


def test_readme_links_exist():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_readme_names_topics_and_parameters_that_exist():
    rows = table(README, "| parameter | default |")
    assert {name for row in rows for name in code_words(row[0])} == set(PARAMETERS)


def test_readme_names_the_parameters_that_are_fixed_at_start():
    fixed = {name for name, (_, descriptor) in PARAMETERS.items() if descriptor.read_only}
    *_, before_last, last = table(README, "| parameter | default |")
    assert {*code_words(before_last[0]), *code_words(last[0])} - {"lazy"} == fixed
    assert "All but the last two rows' (`lazy` excepted) may be changed" in " ".join(README.split())
    named = re.search(r"All but (.*) count from the next frame", " ".join(ROS.split()))
    assert named and set(code_words(named[1])) == fixed


def test_launch_commands_in_the_documents_name_files_and_arguments_that_exist():
    found = 0
    for text in (README, ROS, DDS, TENSORRT, REPLAY):
        for name, rest in re.findall(r"ros2 launch dsca_ros (\S+\.launch\.xml)(.*)", text.replace("\\\n", " ")):
            assert set(re.findall(r"(\w+):=", rest)) <= launch_arguments(name), name
            found += 1
    assert found > 5


def test_arguments_and_parameters_in_running_text_exist():
    arguments = set().union(*(launch_arguments(path.name) for path in (ROOT / "launch").glob("*.launch.xml")))
    for text in (README, ROS, DDS, TENSORRT, REPLAY):
        named = {name for words in code_words(text) for name in re.findall(r"(?<![\w.])(\w+):=", words)}
        assert named <= arguments | set(PARAMETERS)
        named = {name for words in code_words(text) for name in re.findall(r"^(\w+): \w+$", words)}
        assert named <= set(PARAMETERS)
        for name in re.findall(r"ros2 param set \S+ (\w+)", text):
            assert name in PARAMETERS
        for name in re.findall(r"ros2 run dsca_ros (\w+)", text):
            assert f'"{name} = dsca_ros.' in SETUP


# --- docs/ros.md --------------------------------------------------------------------------------


def test_ros_lists_every_launch_file():
    files = [code_words(row[0])[0] for row in table(ROS, "## Launch files")]
    assert sorted(files) == sorted(path.name for path in (ROOT / "launch").glob("*.launch.xml"))


@pytest.mark.parametrize("transport", ["raw", "compressedDepth"])
def test_ros_has_the_topics_of_the_node_with_type_and_qos(monkeypatch: pytest.MonkeyPatch, transport: str):
    written = {}
    kind = qos = ""
    for cells in table(ROS, "## Topics"):
        # A cell may end in what the messages hold.
        kind = cells[1].split(",")[0]
        qos = qos if cells[2] == "the same" else cells[2]
        written[code_words(cells[0])[0]] = (cells[0].split()[0], kind, qos)

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    context.init(args=[], domain_id=1 + os.getpid() % 100)
    overrides = [Parameter("lazy", value=False), Parameter("depth_transport", value=transport)]
    node = DscaNode(context=context, parameter_overrides=overrides)
    try:
        ends = [(end, "out") for end in node.publishers] + [(end, "in") for end in node.subscriptions]
        there = {}
        for end, way in ends:
            kind = f"{end.msg_type.__module__.split('.')[0]}/{end.msg_type.__name__}"
            there[end.topic_name] = (way, kind, end.qos_profile)
    finally:
        node.close()
        context.shutdown()
    there = {name: found for name, found in there.items() if not name.startswith(("/parameter_events", "/dsca_node"))}

    other = "depth/image_raw/compressedDepth" if transport == "raw" else "depth/image_raw"
    written.pop(other)
    assert {name if name.startswith("/") else f"/{name}" for name in written} == set(there)
    for name, (way, kind, qos) in written.items():
        found_way, found_kind, profile = there[f"/{name.lstrip('/')}"]
        assert (way if way != "or" else "in", kind) == (found_way, found_kind)
        reliable = "best effort" not in qos
        assert reliable == (profile.reliability == ReliabilityPolicy.RELIABLE), name
        assert f"keep last {profile.depth}" in qos, name


def states() -> dict[str, tuple[Health, bool]]:
    """The node's health in every state that docs/ros.md tells of, and whether the camera is subscribed to."""

    def health(*calls: Callable[[Health], None], **fields: str) -> Health:
        made = Health(**fields)
        for call in calls:
            call(made)
        return made

    running = health(Health.received)
    return {
        "RUNNING": (running, True),
        "IDLE": (running, False),
        "UNCONFIGURED": (health(lifecycle="unconfigured"), False),
        "INACTIVE": (health(lifecycle="inactive"), False),
        "FINALIZED": (health(lifecycle="finalized"), False),
        "BUILDING": (health(Health.received, engine_state=BUILDING), True),
        "WAITING": (health(), True),
        "STALE": (running, True),
        "ERROR": (health(lambda made: made.failed("")), True),
    }


def test_ros_has_every_state_with_its_level(monkeypatch: pytest.MonkeyPatch):
    names = {getattr(DiagnosticStatus, name): name for name in ("OK", "WARN", "ERROR", "STALE")}
    found = {}
    for state, (health, listening) in states().items():
        monkeypatch.setattr(diagnostics, "STALE_AFTER", -1.0 if state == "STALE" else 60.0)
        (status,) = health.array("node", Header().stamp, listening).status
        assert status.message.split(":")[0] == state
        found[state] = names[status.level]
    assert found == {state: row[1] for row in table(ROS, "## Diagnostics") for state in code_words(row[0])}
    # No state beside these: what the source puts before a colon, or alone.
    source = Path(diagnostics.__file__).read_text()
    assert set(re.findall(r'f?"([A-Z]{4,})[:"]', source)) <= set(found)


def test_ros_names_only_what_is_in_the_code():
    source = "\n".join(path.read_text() for path in (ROOT / "dsca_ros").rglob("*.py"))
    words = {word for word in code_words(ROS) if re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", word)} - OF_ROS
    assert words
    arguments = set().union(*(launch_arguments(path.name) for path in (ROOT / "launch").glob("*.launch.xml")))
    for word in words - arguments - set(PARAMETERS):
        cause = word.removeprefix("rejected_")
        assert f'"{cause}"' in source, word
        assert cause == word or 'f"rejected_{' in source, word


def test_ros_names_the_transitions_of_the_node():
    transitions = re.findall(r"ros2 lifecycle set /dsca_node (\w+)", ROS)
    assert len(transitions) == 4
    assert all(f"on_{name}" in vars(DscaNode) for name in transitions)


# --- messages -----------------------------------------------------------------------------------

#: What stands in for a placeholder of a message, where the documents name it.
FILLED_IN = {"FLAVOURS[name]": "TensorRT"}


def messages() -> list[str]:
    """Every text in the package's code, with `...` for what is filled in at run time."""

    def text(node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return re.sub(r"%[sd]", "...", str(node.value))
        if isinstance(node, ast.JoinedStr):
            return "".join(map(text, node.values))
        assert isinstance(node, ast.FormattedValue)
        return FILLED_IN.get(ast.unparse(node.value), "...")

    trees = [ast.parse(path.read_text()) for path in (ROOT / "dsca_ros").rglob("*.py")]
    found = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Constant)]
    return [text(node) for node in found]


def is_said(message: str, said: list[str]) -> bool:
    """Whether the fixed parts of a message follow each other in one of the texts."""
    # Figures and quoted values are filled in, too.
    parts = [part.strip() for part in re.split(r"\.{3}|\d[\d.x]*|'[^']*'", message)]
    pattern = re.compile(".*".join(re.escape(part) for part in parts if part), re.DOTALL)
    return any(pattern.search(text) for text in said)


@pytest.mark.parametrize(
    ("text", "heading"),
    [(TENSORRT, "## When it does not run"), (ROS, "## When something"), (REPLAY, "## When something")],
)
def test_messages_that_the_documents_explain_are_said_by_the_code(text: str, heading: str):
    said = messages()
    quoted = [words for row in table(text, heading) for words in code_words(row[0])]
    # Of several words and in lower case: not a command, a state or a topic.
    explained = [words for words in quoted if " " in words and not words.startswith("ros2 ")]
    assert explained
    assert [words for words in explained if not is_said(words, said)] == []


def test_a_message_that_nobody_says_is_noticed():
    assert is_said("... needs a driver for CUDA 13", ["TensorRT needs a driver for CUDA ..., and"])
    assert not is_said("... needs a driver for CUDA 13", ["TensorRT needs a driver"])
