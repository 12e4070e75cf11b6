"""The rules of the house: who may import whom, and what a running node never loads."""

import ast
import importlib.util
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import dsca_ros

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dsca_ros"
FILES = sorted(PACKAGE.rglob("*.py"))

#: Each part, and the parts of the package it may import.
LAYERS = {
    "share": set(),
    "plain_yaml": set(),
    "aside": set(),
    "reason": set(),
    "depth": {"aside", "reason"},
    "network": set(),
    "training": {"aside", "reason", "depth", "network", "plain_yaml"},
    "engine": {"aside", "reason", "share", "depth", "plain_yaml"},
    "upsampler": {"share", "depth", "engine"},
    "ros": {"share", "depth", "engine", "upsampler"},
    "replay": {"share", "depth", "engine", "upsampler"},
    "evaluation": {"share", "depth", "engine", "plain_yaml", "upsampler"},
    "cli": {"aside", "share", "depth", "training", "engine", "upsampler", "ros", "replay", "evaluation"},
}
#: Files that may reach further than their part.
EXTRA = {"engine/export.py": {"network", "training"}, "engine/torch.py": set(), "engine/cost.py": set()}
#: Engines for the GPU are made of graphs that are edited first: where they are built, not where they run.
EDITS_GRAPHS = {"engine/millimetres.py": {"onnx"}}

ROS = re.compile(
    r"rclpy|rcl_interfaces|\w+_msgs|\w+_msgs_py|builtin_interfaces|cv_bridge|message_filters|"
    r"ament_\w+|launch|launch_ros|lifecycle_msgs|tf2_\w+|rosbag2_py|rosidl_\w+"
)
#: Libraries that one part alone needs: who has none of it can use the rest.
ONLY_IN = {"rosbags": "replay", "distributed": "replay", "dask": "replay", "typer": "cli"}
MAKES_MODELS = {"torch", "safetensors", "onnx", "onnxscript"}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, at_start_only: bool = False) -> set[str]:
    """Full names of the modules a file imports; `at_start_only`: those outside functions."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                # `from dsca_ros import share` imports a part of the package, too.
                if child.module == "dsca_ros":
                    found.update(f"dsca_ros.{alias.name}" for alias in child.names)
                else:
                    found.add(child.module)
            elif not (at_start_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)):
                visit(child)

    visit(ast.parse(path.read_text()))
    return found


def foreign(path: Path, at_start_only: bool = False) -> set[str]:
    """Top-level names of imported packages other than this one and the standard library."""
    tops = {name.partition(".")[0] for name in imports(path, at_start_only)}
    return tops - {"dsca_ros"} - set(sys.stdlib_module_names)


every_file = pytest.mark.parametrize("path", FILES, ids=name_of)


@every_file
def test_arrows_point_down_only(path):
    part = part_of(path)
    if part == "__init__":
        assert not imports(path) - {"__future__"}
        return
    allowed = LAYERS[part] | EXTRA.get(name_of(path), set()) | {part}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("dsca_ros.")}
    assert used <= allowed


@every_file
def test_ros_is_imported_in_ros_only(path):
    found = {name for name in foreign(path) if ROS.fullmatch(name)}
    assert part_of(path) == "ros" or not found


@every_file
def test_a_library_of_one_part_is_imported_there_only(path):
    found = foreign(path) & set(ONLY_IN)
    assert {ONLY_IN[name] for name in found} <= {part_of(path)}


@every_file
def test_dask_is_needed_where_bags_run_side_by_side_only(path):
    assert name_of(path) == "replay/cluster.py" or not foreign(path) & {"dask", "distributed"}


@every_file
def test_torch_is_imported_where_models_are_made_only(path):
    may = part_of(path) in ("network", "training") or name_of(path) in EXTRA
    # A command may start training, but the command line must not need torch.
    found = foreign(path, at_start_only=part_of(path) == "cli") & MAKES_MODELS
    assert may or found <= EDITS_GRAPHS.get(name_of(path), set())


def test_a_distribution_is_told_by_what_it_has_not_by_its_name():
    assert not [name_of(path) for path in PACKAGE.rglob("*.py") if "ROS_DISTRO" in path.read_text()]


@pytest.mark.parametrize("path", sorted((PACKAGE / "depth").glob("*.py")), ids=name_of)
def test_depth_needs_numpy_only(path):
    allowed = {"numpy", "cv2"} if path.name in ("camera.py", "compressed.py", "files.py", "holes.py") else {"numpy"}
    assert foreign(path) <= allowed


@pytest.mark.parametrize("path", sorted((PACKAGE / "network").glob("*.py")), ids=name_of)
def test_the_network_needs_torch_only(path):
    assert foreign(path) <= {"torch"}


def test_these_rules_look_at_something():
    """A renamed folder or a parser that finds nothing would let everything pass."""
    assert {part_of(path) for path in FILES} <= set(LAYERS) | {"__init__"}
    assert "rclpy" in foreign(PACKAGE / "ros" / "node.py")
    assert {"rosbags", "distributed"} <= set().union(*map(foreign, (PACKAGE / "replay").glob("*.py")))
    assert "torch" in foreign(PACKAGE / "engine" / "export.py")
    assert "torch" in foreign(PACKAGE / "cli/models.py") - foreign(PACKAGE / "cli/models.py", at_start_only=True)
    assert "dsca_ros.engine.factory" in imports(PACKAGE / "upsampler.py")


@pytest.mark.parametrize(
    "module", ["dsca_ros.upsampler", "dsca_ros.ros.node", "dsca_ros.ros.synthetic_camera", "dsca_ros.ros.play"]
)
def test_running_it_loads_nothing_that_makes_models_or_pictures(module):
    if ".ros." in module and importlib.util.find_spec("rclpy") is None:
        pytest.skip("rclpy is not installed")
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert module in loaded
    unwanted = {"torch", "matplotlib", "typer", "rosbags", "dsca_ros.training", "dsca_ros.network"}
    assert not unwanted & loaded


@every_file
def test_a_file_is_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 450


def test_one_version():
    (in_setup,) = re.findall(r'version="(.+?)"', (ROOT / "setup.py").read_text())
    in_xml = ET.parse(ROOT / "package.xml").getroot().findtext("version")
    assert in_setup == in_xml == dsca_ros.__version__


def test_every_folder_of_code_is_a_package():
    """Else setup.py leaves it out of an installation."""
    for path in FILES:
        assert (path.parent / "__init__.py").exists(), path
