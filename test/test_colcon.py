"""The package in a colcon workspace, as on a robot: built, complete, run from there, and its tests run by colcon."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Tests that colcon runs here: fast ones, which need numpy alone.
TESTS = ["test/depth/test_units.py", "test/depth/test_camera.py"]

Run = Callable[..., subprocess.CompletedProcess[str]]


def copy_tracked_files(target: Path) -> None:
    """The repository as it is cloned; without git, all but environments and caches."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "runs", "demo"))
        return
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command in a workspace that holds the package, built and sourced."""
    beside = Path(sys.executable).parent
    colcon = shutil.which("colcon", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    if colcon is None:
        pytest.skip("no colcon here; it comes with the extra dev")
    workspace = tmp_path_factory.mktemp("workspace")
    copy_tracked_files(workspace / "src" / "dsca_ros")
    # The Python of this environment, and nothing of the checkout.
    env = {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}", "ROS_DOMAIN_ID": "101"}
    env |= {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST", "ROS_LOG_DIR": str(workspace / "ros_log")}
    for name in ("PYTHONPATH", "PYTEST_ADDOPTS", "DSCA_MODELS"):
        env.pop(name, None)

    def run(*command: str, sourced: bool = True) -> subprocess.CompletedProcess[str]:
        line = ". install/setup.bash && " if sourced else ""
        words = ["bash", "-c", line + '"$@"', "bash", *(colcon if word == "colcon" else word for word in command)]
        return subprocess.run(words, cwd=workspace, env=env, capture_output=True, text=True, timeout=120)

    built = run("colcon", "build", "--packages-select", "dsca_ros", sourced=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return run


def prefix(run: Run) -> Path:
    """Where the package is installed."""
    return Path(run("printenv", "COLCON_PREFIX_PATH").stdout.strip().split(":")[0]) / "dsca_ros"


def test_all_files_are_installed_and_found_by_ros(run: Run) -> None:
    share, source = prefix(run) / "share", prefix(run).parents[1] / "src" / "dsca_ros"
    assert (share / "ament_index/resource_index/packages/dsca_ros").is_file()
    assert (share / "dsca_ros/package.xml").read_text() == (source / "package.xml").read_text()
    for folder in ("launch", "config", "models"):
        expected = {path.relative_to(source) for path in (source / folder).rglob("*") if path.is_file()}
        installed = (share / "dsca_ros" / folder).rglob("*")
        assert {path.relative_to(share / "dsca_ros") for path in installed if path.is_file()} == expected
        assert expected
    # Where `ros2 run` looks.
    executables = {path.name for path in (prefix(run) / "lib/dsca_ros").iterdir() if os.access(path, os.X_OK)}
    assert executables == {"dsca", "dsca_node", "synthetic_camera"}


def test_the_executables_run_from_there(run: Run) -> None:
    where = run("python3", "-c", "import dsca_ros; print(dsca_ros.__file__)").stdout
    assert where.startswith(str(prefix(run))), where
    folder = f"{prefix(run)}/lib/dsca_ros"
    told = run(f"{folder}/dsca", "--help")
    assert told.returncode == 0 and "upscale" in told.stdout, told.stderr
    # A whole start with the model that is installed; on a CPU there is nothing to build, and it ends.
    node = run(f"{folder}/dsca_node", "--ros-args", "-p", "build_only:=true", "-p", "engine:=onnxruntime")
    assert node.returncode == 0 and "build_only: ready" in node.stderr, node.stdout + node.stderr
    camera = run(f"{folder}/synthetic_camera", "--ros-args", "-p", "width:=4")
    assert camera.returncode == 1 and "cannot publish 4x240" in camera.stderr, camera.stderr


def test_colcon_runs_the_tests(run: Run) -> None:
    tested = run(
        "colcon", "test", "--packages-select", "dsca_ros", "--return-code-on-test-failure", "--pytest-args", *TESTS
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    result = run("colcon", "test-result", "--all")
    assert result.returncode == 0, result.stdout
    counts = re.search(r"Summary: (\d+) tests, 0 errors, 0 failures, 0 skipped", result.stdout)
    assert counts and int(counts[1]) > 50, result.stdout
