"""Launch files: all that they name exists, and what they start hears of each other."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dsca_ros.depth.sensors import SENSORS
from dsca_ros.ros import node, synthetic_camera
from dsca_ros.ros.parameters import CHOICES, PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
FILES = {path.name: ET.parse(path).getroot() for path in sorted((ROOT / "launch").glob("*.launch.xml"))}
OURS = "$(find-pkg-share dsca_ros)/"
#: Executables of this package with the module that runs each, as setup.py installs them.
EXECUTABLES = dict(re.findall(r'"(\w+) = ([\w.]+):main"', (ROOT / "setup.py").read_text()))
#: Launch files of drivers with their arguments, as their vendors document them: those that ours pass, and those that
#: an argument of ours of the same name would reach.
VENDORS = {
    "realsense2_camera/launch/rs_launch.py": {
        *("camera_namespace", "camera_name", "serial_no", "depth_module.depth_profile", "enable_color"),
        *("align_depth.enable", "hole_filling_filter.enable", "pointcloud.enable", "output", "log_level"),
    },
    "azure_kinect_ros_driver/launch/driver.launch.py": {
        *("depth_mode", "depth_unit", "fps", "color_enabled", "point_cloud", "rgb_point_cloud"),
    },
    "orbbec_camera/launch/gemini_330_series.launch.py": {
        *("camera_name", "depth_width", "depth_height", "depth_fps", "enable_color", "depth_registration"),
        *("enable_hole_filling_filter", "enable_point_cloud", "log_level"),
    },
}
#: What of ours may reach a driver without being passed: both sides mean the same by it.
SHARED_WITH_DRIVERS = {"log_level"}
#: Arguments that differ between files, and in what: a camera has topics, ranges and words of its own.
DIFFERING = {
    "camera": {"description"},  # one driver, or two
    "camera_info": {"default"},
    "camera_name": {"description"},  # of RealSense, whose drivers have a namespace besides
    "depth_transport": {"description"},
    "image": {"default", "description"},
    "output": {"default"},
    "params_file": {"default", "description"},
    "profile": {"description"},
    "rate": {"description", "default"},  # of a camera, or of a bag
    "rviz": {"default"},  # there to be looked at, or not
    "use_sim_time": {"default"},  # a bag brings its own clock
}

every_file = pytest.mark.parametrize("name", FILES)


def declared(name: str) -> dict[str, ET.Element]:
    """The arguments that a launch file of ours takes."""
    return {argument.get("name", ""): argument for argument in FILES[name].findall("arg")}


def passed(include: ET.Element) -> set[str]:
    """The arguments that an include hands on."""
    return {argument.get("name", "") for argument in include.findall("arg")}


def target(include: ET.Element, name: str) -> str:
    """The file that an include of the launch file `name` names, arguments left at their defaults."""
    return re.sub(r"\$\(var (\w+)\)", lambda m: declared(name)[m[1]].get("default", ""), include.get("file", ""))


def included(name: str, ours: bool) -> list[tuple[str, ET.Element]]:
    """What a launch file includes: files of ours by their names, or those of drivers as in `VENDORS`."""
    found = [(target(include, name), include) for include in FILES[name].iter("include")]
    if ours:
        return [(Path(file).name, include) for file, include in found if file.startswith(OURS)]
    pattern = re.compile(r"\$\(find-pkg-share (\w+)\)(/.*)")
    matches = [(pattern.fullmatch(file), include) for file, include in found if not file.startswith(OURS)]
    return [(m[1] + m[2], include) for m, include in matches if m is not None]


def topics_of_the_node() -> set[str]:
    """The relative topics that the node's source names, those of compressed images put together."""
    source = Path(node.__file__).read_text()
    plain = set(re.findall(r'"((?:depth|depth_sr)/\w+)"', source))
    return plain | {topic + node.COMPRESSED for topic in re.findall(r'"(\w+/\w+)" \+ COMPRESSED', source)}


def remaps(element: ET.Element) -> dict[str, str]:
    """From which topic to which a node is remapped."""
    return {remap.get("from", ""): remap.get("to", "") for remap in element.findall("remap")}


def nodes(name: str, package: str) -> list[ET.Element]:
    """The nodes of a package in a launch file."""
    return [element for element in FILES[name].iter("node") if element.get("pkg") == package]


# --- what the files say -------------------------------------------------------------------------


def test_the_launch_files_are_found():
    assert "dsca.launch.xml" in FILES and len(FILES) > 3


@every_file
def test_every_argument_is_described_and_used_and_every_variable_is_declared(name: str):
    arguments = FILES[name].findall("arg")
    assert len(declared(name)) == len(arguments), "an argument is declared twice"
    assert all(argument.get("description") for argument in arguments)
    assert set(re.findall(r"\$\(var ([^)]+)\)", (ROOT / "launch" / name).read_text())) == set(declared(name))


@every_file
def test_arguments_are_passed_only_to_files_that_take_them(name: str):
    for file, include in included(name, ours=True):
        assert passed(include) <= set(declared(file)), file
        required = {key for key, argument in declared(file).items() if argument.get("default") is None}
        assert required <= passed(include), file


@every_file
def test_an_argument_that_the_included_file_has_too_is_handed_on(name: str):
    for file, include in included(name, ours=True):
        assert set(declared(name)) & set(declared(file)) <= passed(include), file


def test_the_same_argument_says_the_same_in_every_file():
    said: dict[str, dict[str, set[str | None]]] = {}
    for name in FILES:
        for argument, element in declared(name).items():
            for part in ("default", "description"):
                said.setdefault(argument, {}).setdefault(part, set()).add(element.get(part))
    differing = {name: {part for part, texts in parts.items() if len(texts) > 1} for name, parts in said.items()}
    assert {name: parts for name, parts in differing.items() if parts} == DIFFERING


@every_file
def test_defaults_are_the_nodes(name: str):
    for argument, element in declared(name).items():
        if argument in PARAMETERS:
            assert yaml.safe_load(element.get("default", "")) == PARAMETERS[argument][0], argument


@every_file
def test_descriptions_name_every_choice(name: str):
    choices = {argument: names for argument, names in CHOICES.items() if argument in declared(name)}
    if "sensor" in declared(name):
        choices["sensor"] = tuple(SENSORS)
    assert choices
    for argument, names in choices.items():
        named = re.split(r", | or ", declared(name)[argument].get("description", "").split(": ")[-1])
        assert set(names) == set(named), argument


def test_the_node_gets_the_parameters_that_the_file_has_arguments_for():
    (element,) = nodes("dsca.launch.xml", "dsca_ros")
    values = {parameter.get("name"): parameter.get("value") for parameter in element.findall("param")}
    values.pop(None)  # the file of parameters
    assert values == {name: f"$(var {name})" for name in values}
    assert set(values) == set(declared("dsca.launch.xml")) & {*PARAMETERS, "use_sim_time"}
    # What comes later wins: the file, as every description of it says.
    assert element.findall("param")[-1].get("from") == "$(var params_file)"


@every_file
def test_executables_and_their_parameters_exist(name: str):
    cameras = set(re.findall(r'parameter\("(\w+)"', Path(synthetic_camera.__file__).read_text()))
    known = {"dsca_node": {*PARAMETERS, "use_sim_time"}, "synthetic_camera": {*cameras, "use_sim_time"}}
    for element in nodes(name, "dsca_ros"):
        executable = element.get("exec", "")
        assert executable in EXECUTABLES
        assert element.get("name") == executable
        set_by_name = {parameter.get("name") for parameter in element.findall("param") if not parameter.get("from")}
        assert set_by_name <= known[executable]


@every_file
def test_files_of_the_package_that_are_named_exist(name: str):
    text = (ROOT / "launch" / name).read_text()
    named = re.findall(r"\$\(find-pkg-share dsca_ros\)/([^\"\s]+)", text)
    assert all((ROOT / file).is_file() for file in named), named


@every_file
def test_remaps_are_of_topics_that_the_node_has(name: str):
    for element in FILES[name].iter("node"):
        assert set(remaps(element)) <= topics_of_the_node()


def test_every_topic_of_the_node_follows_the_arguments():
    (element,) = nodes("dsca.launch.xml", "dsca_ros")
    expected = {"depth/image_raw": "$(var image)", "depth/camera_info": "$(var camera_info)"}
    expected["depth/image_raw/compressedDepth"] = "$(var image)/compressedDepth"
    for topic in topics_of_the_node():
        if topic.startswith("depth_sr/"):
            expected[topic] = topic.replace("depth_sr", "$(var output)", 1)
    assert remaps(element) == expected
    assert set(expected) == topics_of_the_node()


@every_file
def test_drivers_are_switched_by_camera_and_keep_to_themselves(name: str):
    groups = [include for group in FILES[name].findall("group") for include in group.iter("include")]
    for file, include in included(name, ours=False):
        assert passed(include) <= VENDORS[file]
        # Without a group what is passed to the driver would be taken for the node's, too.
        assert include in groups
        reached = (set(declared(name)) & VENDORS[file]) - passed(include)
        assert reached <= SHARED_WITH_DRIVERS
    switches = [group.get("if") for group in FILES[name].findall("group") if group.find("include") in groups]
    if included(name, ours=False):
        assert switches == ["$(var camera)"]


def test_every_driver_is_started_by_a_file():
    assert {file for name in FILES for file, _ in included(name, ours=False)} == set(VENDORS)


def test_two_cameras_differ_in_their_names_alone():
    includes = FILES["two_cameras.launch.xml"].findall("group/include")
    assert len(includes) == 2 == len(included("two_cameras.launch.xml", ours=True))
    first, second = ({a.get("name"): a.get("value", "") for a in include} for include in includes)
    assert {key: value.replace("first", "second") for key, value in first.items()} == second
    assert first["namespace"] == first["camera_namespace"] == first["camera_name"] == "$(var first)"


# --- RViz ---------------------------------------------------------------------------------------


def displays() -> list[tuple[str, str]]:
    """What RViz is set up to show: the kind of display and its topic."""
    shown = yaml.safe_load((ROOT / "config/dsca.rviz").read_text())["Visualization Manager"]["Displays"]
    topics = [(d["Class"].split("/")[1], d.get("Depth Map Topic") or d.get("Topic", {}).get("Value")) for d in shown]
    return [(kind, topic) for kind, topic in topics if topic]


def test_rviz_shows_both_images_and_both_clouds():
    assert displays() == [
        ("Image", "depth/image_raw"),
        ("Image", "depth_sr/image_raw"),
        ("DepthCloud", "depth/image_raw"),
        ("PointCloud2", "depth_sr/points"),
    ]


def test_what_rviz_shows_follows_the_arguments():
    (ours,), (rviz,) = nodes("dsca.launch.xml", "dsca_ros"), nodes("dsca.launch.xml", "rviz2")
    assert {topic for _, topic in displays()} <= set(remaps(rviz))
    assert remaps(rviz).items() <= remaps(ours).items()
    assert rviz.get("namespace") == ours.get("namespace")
    assert rviz.get("if") == "$(var rviz)"


def test_rviz_starts_from_the_frame_that_the_argument_defaults_to():
    settings = yaml.safe_load((ROOT / "config/dsca.rviz").read_text())["Visualization Manager"]["Global Options"]
    assert settings["Fixed Frame"] == declared("dsca.launch.xml")["rviz_frame"].get("default")


# --- what they start ----------------------------------------------------------------------------

#: As `ros2 launch FILE NAME:=VALUE...` runs a file; in a session of its own, so that all of it can be ended.
LAUNCH = """
import os, sys
os.setsid()
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
service = LaunchService(noninteractive=True)
arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(AnyLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)
]))
sys.exit(service.run())
"""
#: As `ros2 launch FILE --show-args` lists the arguments of files.
ARGUMENTS = """
import json, sys
from launch import LaunchContext
from launch.launch_description_sources import AnyLaunchDescriptionSource
read = lambda file: AnyLaunchDescriptionSource(file).get_launch_description(LaunchContext())
print(json.dumps({file: [a.name for a in read(file).get_launch_arguments()] for file in sys.argv[1:]}))
"""
#: Stands for a driver's launch file: tells what it was given.
DRIVER = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo
from launch.substitutions import LaunchConfiguration
NAMES = {names!r}
def generate_launch_description():
    told = [part for name in NAMES for part in (f"{{name}}=", LaunchConfiguration(name), ";")]
    arguments = [DeclareLaunchArgument(name, default_value="its own") for name in NAMES]
    return LaunchDescription([*arguments, LogInfo(msg=["DRIVER ", *told])])
"""
#: launch_ros imports this package of messages, which only a whole ROS installation has.
MESSAGES = "composition_interfaces"


def write(path: Path, text: str, executable: bool = False) -> None:
    """Writes a file, in a folder that need not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if executable:
        path.chmod(0o755)


def install(prefix: Path, package: str, **executables: str) -> None:
    """Makes ROS find a package and its executables, shell commands, under a prefix."""
    write(prefix / "share/ament_index/resource_index/packages" / package, "")
    (prefix / "share" / package).mkdir(exist_ok=True)
    for name, command in executables.items():
        write(prefix / "lib" / package / name, f"#!/bin/sh\n{command}\n", executable=True)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An installation of this checkout, beside stand-ins of the drivers, RViz and `ros2`; its environment."""
    for module in ("launch_ros", "launch_xml"):  # this folder holds a `launch`, too
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"no {module}: it comes with a ROS installation only")
    folder = tmp_path_factory.mktemp("installation")
    ours, drivers = folder / "ours", folder / "drivers"
    modules = {name: f'exec "{sys.executable}" -m {module} "$@"' for name, module in EXECUTABLES.items()}
    install(ours, "dsca_ros", **modules)
    (ours / "share/dsca_ros").rmdir()
    (ours / "share/dsca_ros").symlink_to(ROOT)
    install(ours, "rviz2", rviz2='echo "$@" > "$ROS_LOG_DIR/rviz.txt"')
    write(folder / "bin/ros2", '#!/bin/sh\necho ROS2 "$@"\n', executable=True)
    for file, names in VENDORS.items():
        package, _, rest = file.partition("/")
        install(drivers, package)
        write(drivers / "share" / package / rest, DRIVER.format(names=sorted(names)))
    if importlib.util.find_spec(MESSAGES) is None:
        classes = "class LoadNode:\n    class Request: pass\n    class Response: pass\n"
        write(folder / "python" / MESSAGES / "srv/__init__.py", classes)
        write(folder / "python" / MESSAGES / "__init__.py", "")

    def paths(variable: str, *more: Path | str) -> str:
        return os.pathsep.join([*map(str, more), *filter(None, [os.environ.get(variable)])])

    def environment(with_drivers: bool) -> dict[str, str]:
        prefixes = [ours, *([drivers] if with_drivers else [])]
        return {
            # What pip installed of ROS is found under the environment itself.
            "AMENT_PREFIX_PATH": paths("AMENT_PREFIX_PATH", *prefixes, *([] if ROS_IS_SOURCED else [sys.prefix])),
            "PYTHONPATH": paths("PYTHONPATH", folder / "python"),
            "PATH": paths("PATH", folder / "bin"),
        }

    return SimpleNamespace(environment=environment, folder=folder)


ROS_IS_SOURCED = bool(os.environ.get("AMENT_PREFIX_PATH"))


@pytest.fixture
def graph(installation: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A graph of the ROS tests, in a domain of its own."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "test" / "ros"))
    from ros_graph import Graph

    graph = Graph(tmp_path)
    yield graph
    graph.close()


@pytest.fixture
def run(graph: Any, installation: SimpleNamespace) -> Iterator[Callable[..., Any]]:
    """Runs a launch file with arguments; all of it is gone after the test."""
    started = []

    def start(name: str, *arguments: str, drivers: bool = True) -> Any:
        command = ["-c", LAUNCH, str(ROOT / "launch" / name), *arguments]
        process = graph.run(command, installation.environment(drivers))
        started.append(process)
        return process

    yield start
    for process in started:
        try:
            if process.popen.poll() is None:
                process.end(signal.SIGINT)
        finally:
            with contextlib.suppress(ProcessLookupError):  # as it should be: nothing is left
                os.killpg(process.popen.pid, signal.SIGKILL)


def received(graph: Any, topic: str, kind: str = "Image", send: str = "") -> Any:
    """The first message on a topic; where `send` names one, frames are published there until it comes."""
    from sensor_msgs import msg

    seen: list[Any] = []
    graph.tester.create_subscription(getattr(msg, kind), topic, seen.append, 10)
    publisher = graph.tester.create_publisher(msg.Image, send, 10) if send else None
    information = send.rpartition("/")[0] + "/camera_info"
    infos = graph.tester.create_publisher(msg.CameraInfo, information, 10) if send else None
    sent = 0.0

    def there() -> bool:
        nonlocal sent
        assert all(process.popen.poll() is None for process in graph.processes), graph.processes[-1].output()
        if publisher is not None and time.monotonic() - sent > 0.3:
            sent = time.monotonic()
            image = graph.camera.image()
            infos.publish(graph.camera.info(image))
            publisher.publish(image)
        return bool(seen)

    try:
        graph.spin_until(there, topic)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{graph.processes[-1].output()}") from None
    return seen[0]


def wait_for_nodes(graph: Any, *nodes: tuple[str, str]) -> None:
    """Until nodes are there, by name and namespace."""
    graph.spin_until(lambda: set(nodes) <= set(graph.tester.get_node_names_and_namespaces()), str(nodes))


def written(graph: Any, process: Any, pattern: str) -> list[str]:
    """What the first group of a pattern is wherever it occurs in the output, once it does."""
    graph.spin_until(lambda: re.search(pattern, process.output()), f"{pattern!r} in the output")
    return re.findall(pattern, process.output())


def drivers_told(graph: Any, process: Any) -> list[dict[str, str]]:
    """The arguments of every driver that was started."""
    lines = written(graph, process, r"DRIVER (.*);")
    return [dict(pair.split("=", 1) for pair in line.split(";")) for line in lines]


@pytest.mark.parametrize("namespace", ["", "/robot"])
def test_the_demo_brings_camera_and_node_together(graph: Any, run: Callable[..., Any], namespace: str):
    process = run("demo.launch.xml", "rviz:=false", "width:=64", "height:=48", f"namespace:={namespace[1:]}")
    image = received(graph, f"{namespace}/depth_sr/image_raw")
    assert (image.width, image.height, image.encoding) == (128, 96, "16UC1")
    assert received(graph, f"{namespace}/depth_sr/camera_info", "CameraInfo").width == 128
    assert received(graph, f"{namespace}/depth_sr/points", "PointCloud2").height == 96
    wait_for_nodes(graph, ("dsca_node", namespace or "/"), ("synthetic_camera", namespace or "/"))
    assert process.end(signal.SIGINT) == 0
    assert "has died" not in process.output()


#: File: image topic of the camera, namespace of the results, what the driver is told.
CAMERAS = {
    "realsense.launch.xml": (
        "/camera/camera/depth/image_rect_raw",
        "/camera/camera/depth_sr",
        {"depth_module.depth_profile": "640x480x30", "align_depth.enable": "false"},
    ),
    "azure_kinect.launch.xml": ("/depth/image_raw", "/depth_sr", {"depth_mode": "NFOV_2X2BINNED", "fps": "30"}),
    "orbbec.launch.xml": (
        "/camera/depth/image_raw",
        "/camera/depth_sr",
        {"depth_width": "640", "depth_registration": "false"},
    ),
}


@pytest.mark.parametrize("name", CAMERAS)
def test_a_camera_file_starts_the_driver_and_hears_its_depth(graph: Any, run: Callable[..., Any], name: str):
    image, output, told = CAMERAS[name]
    process = run(name)
    assert received(graph, f"{output}/image_raw", send=image).width == 128
    (arguments,) = drivers_told(graph, process)
    assert told.items() <= arguments.items()
    ((_, include),) = included(name, ours=False)
    for argument, value in arguments.items():
        assert (value == "its own") == (argument not in passed(include) | SHARED_WITH_DRIVERS), argument


@pytest.mark.parametrize("name", CAMERAS)
def test_a_driver_that_runs_already_need_not_be_installed_here(graph: Any, run: Callable[..., Any], name: str):
    image, output, _ = CAMERAS[name]
    process = run(name, "camera:=false", drivers=False)
    assert received(graph, f"{output}/camera_info", "CameraInfo", send=image).width == 128
    assert "DRIVER" not in process.output()


def test_two_cameras_have_drivers_and_results_of_their_own(graph: Any, run: Callable[..., Any]):
    process = run("two_cameras.launch.xml", "first_serial_no:=_1", "second_serial_no:=_2")
    for name in ("front", "rear"):
        image = f"/{name}/{name}/depth/image_rect_raw"
        assert received(graph, f"/{name}/{name}/depth_sr/image_raw", send=image).width == 128
    wait_for_nodes(graph, ("dsca_node", "/front"), ("dsca_node", "/rear"))
    first, second = drivers_told(graph, process)
    assert (first["camera_name"], first["camera_namespace"], first["serial_no"]) == ("front", "front", "_1")
    assert (second["camera_name"], second["camera_namespace"], second["serial_no"]) == ("rear", "rear", "_2")
    # RealSense has an argument `output` of its own, as the node's file has.
    assert first["output"] == second["output"] == "its own"


def test_a_bag_is_played_on_its_own_clock(graph: Any, run: Callable[..., Any]):
    process = run("replay.launch.xml", "bag:=my_bag", "rate:=0.5", "rviz:=false")
    assert written(graph, process, "ROS2 (.*)") == ["bag play --clock 100 --rate 0.5 my_bag"]
    assert received(graph, "/depth_sr/image_raw", send="/camera/camera/depth/image_rect_raw").width == 128


def test_rviz_gets_its_settings_its_frame_and_the_topics(graph: Any, run: Callable[..., Any], tmp_path: Path):
    arguments = ("rviz:=true", "rviz_frame:=my_frame", "namespace:=robot", "image:=/my/depth", "output:=better")
    run("dsca.launch.xml", *arguments)
    told = tmp_path / "rviz.txt"
    graph.spin_until(lambda: told.exists() and told.read_text(), "RViz")
    line = told.read_text()
    assert "/share/dsca_ros/config/dsca.rviz -f my_frame" in line
    assert "-r __ns:=/robot" in line
    for remap in ("depth/image_raw:=/my/depth", "depth_sr/points:=better/points"):
        assert f"-r {remap}" in line
    assert received(graph, "/robot/better/image_raw", send="/my/depth").width == 128


def test_what_the_params_file_says_wins(graph: Any, run: Callable[..., Any], tmp_path: Path):
    file = tmp_path / "my.yaml"
    file.write_text("/**:\n  ros__parameters:\n    output_encoding: 32FC1\n    scale: 4\n")
    run("dsca.launch.xml", "scale:=2", f"params_file:={file}")
    image = received(graph, "/depth_sr/image_raw", send="/depth/image_raw")
    assert (image.width, image.encoding) == (256, "32FC1")


def test_compressed_depth_is_taken_from_beside_the_image(graph: Any, run: Callable[..., Any]):
    run("dsca.launch.xml", "depth_transport:=compressedDepth", "image:=/robot/depth/image_raw")
    from sensor_msgs.msg import Image

    graph.tester.create_subscription(Image, "/depth_sr/image_raw", lambda _: None, 10)
    topic = "/robot/depth/image_raw/compressedDepth"
    graph.spin_until(lambda: graph.tester.count_subscribers(topic) == 1, topic)


def test_launch_itself_lists_the_arguments(graph: Any, installation: SimpleNamespace):
    files = {str(ROOT / "launch" / name): name for name in FILES}
    process = graph.run(["-c", ARGUMENTS, *files], installation.environment(True))
    assert process.wait() == 0, process.output()
    for file, arguments in json.loads(process.output().splitlines()[-1]).items():
        assert set(declared(files[file])) <= set(arguments), file
