"""Builds `dsca_ros` for colcon (as an ament_python package) and for pip, from one description."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "dsca_ros"
SHARE = f"share/{NAME}"


def shared_files(folder: str) -> list[tuple[str, list[str]]]:
    """Every file under `folder`, as data_files of the share folder; none where it is missing.

    Paths stay relative: colcon's --symlink-install runs this file in its build folder.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob("*")):
        hidden = any(part.startswith((".", "__pycache__")) for part in path.parts)
        if path.is_file() and not hidden:
            found.setdefault(f"{SHARE}/{path.parent.as_posix()}", []).append(path.as_posix())
    return list(found.items())


setup(
    name=NAME,
    version="0.1.0",
    description="Depth super-resolution for ROS 2 depth cameras (DSCA)",
    author="dsca_ros maintainers",
    author_email="maintainers@dsca-ros.example",
    maintainer="dsca_ros maintainers",
    maintainer_email="maintainers@dsca-ros.example",
    license="Apache-2.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    zip_safe=False,
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (SHARE, ["package.xml"]),
        *shared_files("models"),
        *shared_files("config"),
        *shared_files("launch"),
    ],
    entry_points={
        "console_scripts": [
            "dsca = dsca_ros.cli:main",
            "dsca_node = dsca_ros.ros.node:main",
            "synthetic_camera = dsca_ros.ros.synthetic_camera:main",
        ],
    },
    python_requires=">=3.10",
    # On a ROS machine rosdep installs these by package.xml, and colcon ignores this list. Lower bounds are what a
    # feature needs, or what Ubuntu 22.04 (Humble) has; there are no upper ones, which would keep a robot from mending
    # a library: `make test` runs with the newest.
    install_requires=[
        "numpy>=1.21",  # Humble's; both 1 and 2 work
        "onnxruntime>=1.12",  # the first with opset 17, which the models have
        "PyYAML>=5.4",  # Humble's; older ones have known holes
        "typer>=0.4",  # Humble's
        "rich>=11",  # Humble's
        "matplotlib>=3.5",  # the first with layout="constrained"
        "opencv-python-headless>=4.5",  # Humble's
    ],
    extras_require={
        # ROS itself, for machines without it: Linux on x86-64 only. The meta packages pin
        # Jazzy's releases; the messages of lifecycle, parameters and the graph come with rclpy.
        "ros": [
            "ros-jazzy-rclpy",
            "ros-jazzy-rmw-fastrtps-cpp",
            "ros-jazzy-sensor-msgs",
            "ros-jazzy-diagnostic-msgs",
        ],
        # The next distribution, for an environment of its own: `make test` runs the ROS tests there too.
        "ros-kilted": [
            "ros-kilted-rclpy",
            "ros-kilted-rmw-fastrtps-cpp",
            "ros-kilted-sensor-msgs",
            "ros-kilted-diagnostic-msgs",
        ],
        # pycuda is built where it is installed, with the CUDA toolkit. On a Jetson, TensorRT is JetPack's.
        # TensorRT-RTX 1.4 is the first for CUDA 13, onnx 1.12 the first with opset 17.
        "tensorrt": ["tensorrt-rtx-cu13>=1.4; platform_machine == 'x86_64'", "pycuda", "onnx>=1.12"],
        # It has share_inputs: an image is given to it without a copy.
        "openvino": ["openvino>=2023.1"],
        # torch before 2.6 ran code from a checkpoint in spite of weights_only; 2.9 has the optimiser muon.
        "train": ["torch>=2.9", "safetensors>=0.4", "onnx>=1.12", "onnxscript"],
        # The first that holds chunks to their checksums; its storages are extended here, which 0.12 may move. It reads
        # SQLite by apsw, whose errors are caught.
        "replay": ["rosbags>=0.11.9,<0.12", "apsw>=3.40"],
        # It knows worker-saturation, by which no more bags than workers are under way.
        "dask": ["distributed>=2022.9.1"],
        # colcon reads this one to learn that the tests are pytest's. The first xdist with --dist worksteal.
        "test": ["pytest", "pytest-xdist>=3.2"],
        "dev": [
            "pytest",
            "pytest-xdist>=3.2",
            # Makes the hostile messages and files of the fuzz tests.
            "hypothesis",
            "ruff",
            "mypy",
            "types-PyYAML",
            "colcon-common-extensions",
            "openvino>=2023.1; platform_machine == 'x86_64'",
            # Builds engines where there is no GPU.
            "tensorrt-rtx-cu13>=1.4; platform_machine == 'x86_64' and sys_platform == 'linux'",
        ],
    },
)
