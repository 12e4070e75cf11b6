"""The demo's live part: a synthetic camera and the node as processes of their own, and a monitor here."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from dsca_ros import share
from dsca_ros.depth import units
from dsca_ros.depth.synthetic import DEFAULT_FRAMES, DEFAULT_SEED
from dsca_ros.ros import messages
from dsca_ros.ros.qos import OUTPUT_QOS
from dsca_ros.upsampler import DEFAULT_MODEL, DEFAULT_SCALE

#: How long the first result may take: rendering, loading, discovery; seconds.
START_TIMEOUT = 90.0
#: Frames seen before measuring begins, so that start-up is not measured.
WARM_UP_SECONDS = 2.0
#: Frames kept for comparison with the truth.
SAMPLES = 24
#: Frames still under way when measuring ends are not counted as dropped, seconds.
IN_FLIGHT = 0.5


class DemoError(RuntimeError):
    """The demo could not run; the text says what to do."""


@dataclass(frozen=True)
class DemoSettings:
    """What the demo runs."""

    seconds: float = 10.0
    model: str = DEFAULT_MODEL
    scale: int = DEFAULT_SCALE
    width: int = 320
    height: int = 240
    rate: float = 30.0
    sensor: str = "stereo"
    seed: int = DEFAULT_SEED
    frames: int = DEFAULT_FRAMES
    engine: str = "auto"
    threads: int = 0


@dataclass
class DemoRun:
    """What the monitor saw over DDS."""

    seconds: float = 0.0
    input_stamps: list[int] = field(default_factory=list)
    output_stamps: list[int] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    samples: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    diagnostics: dict[str, str] = field(default_factory=dict)

    def figures(self) -> dict[str, object]:
        """Rates, losses and latencies, by the names of the report."""
        answered = set(self.output_stamps)
        counted = [s for s in self.input_stamps if s < max(self.input_stamps) - IN_FLIGHT * 1e9]
        lost = sum(stamp not in answered for stamp in counted)
        p50, p95, p99 = np.percentile(self.latencies_ms, [50, 95, 99])
        return {
            "input_hz": round(len(self.input_stamps) / self.seconds, 2),
            "output_hz": round(len(self.output_stamps) / self.seconds, 2),
            "dropped_pct": round(100.0 * lost / max(1, len(counted)), 2),
            "latency_ms": {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "p99": round(float(p99), 2)},
            "engine_ms": float(self.diagnostics.get("engine_ms", "nan")),
            "node_overhead_ms": float(self.diagnostics.get("overhead_ms", "nan")),
        }


def _nanoseconds(message: Image | CameraInfo) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def _profile_variable() -> str:
    """What the Fast DDS in this process names its profile file by; its third version warns of the old name."""
    rclpy.get_rmw_implementation_identifier()  # which loads the library
    second = "/libfastrtps.so" in Path("/proc/self/maps").read_text()
    return "FASTRTPS_DEFAULT_PROFILES_FILE" if second else "FASTDDS_DEFAULT_PROFILES_FILE"


class Monitor(Node):
    """Sees what a user of the node sees: the camera's topics and the result's."""

    def __init__(self, namespace: str) -> None:
        super().__init__("demo_monitor", namespace=namespace)
        self.run = DemoRun()
        self.measuring = False
        self.seen = 0
        self.sample_every = 0.0
        self._next_sample = 0.0
        self._inputs: OrderedDict[int, Image] = OrderedDict()
        self.create_subscription(Image, "depth/image_raw", self._on_input, qos_profile_sensor_data)
        self.create_subscription(CameraInfo, "depth/camera_info", self._on_camera_info, OUTPUT_QOS)
        self.create_subscription(Image, "depth_sr/image_raw", self._on_output, OUTPUT_QOS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_input(self, image: Image) -> None:
        self._inputs[_nanoseconds(image)] = image
        while len(self._inputs) > 30:
            self._inputs.popitem(last=False)

    def _on_camera_info(self, info: CameraInfo) -> None:
        # The camera publishes one with every image; small and reliable, it counts what was sent.
        if self.measuring:
            self.run.input_stamps.append(_nanoseconds(info))

    def _on_output(self, image: Image) -> None:
        now = time.time_ns()
        self.seen += 1
        if not self.measuring:
            return
        stamp = _nanoseconds(image)
        self.run.output_stamps.append(stamp)
        self.run.latencies_ms.append((now - stamp) * 1e-6)
        if stamp in self._inputs and time.monotonic() >= self._next_sample:
            self._next_sample = time.monotonic() + self.sample_every
            pair = messages.decode_depth(self._inputs[stamp]), messages.decode_depth(image)
            self.run.samples.append((units.to_metres(pair[0]), units.to_metres(pair[1])))

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        # Another node's may come by where ROS_DOMAIN_ID is set.
        if array.status and array.status[0].name.startswith(self.get_namespace()):
            self.run.diagnostics = {v.key: v.value for v in array.status[0].values}


def run_demo(settings: DemoSettings, report: Callable[[str, float, int], None]) -> DemoRun:
    """Runs camera, node and monitor for a while.

    Args:
        settings: what to run.
        report: called about ten times a second with what happens, the share done of it, and the
            number of results so far.

    Raises:
        DemoError: if a process dies or no result comes.
    """
    alone_on_this_machine()
    camera = {
        "width": settings.width,
        "height": settings.height,
        "rate": float(settings.rate),
        "sensor": settings.sensor,
        "seed": settings.seed,
        "frames": settings.frames,
    }
    node = {
        "model": settings.model,
        "scale": settings.scale,
        "engine": settings.engine,
        "threads": settings.threads,
    }
    namespace = f"/dsca_demo_{os.getpid()}"
    processes: dict[str, subprocess.Popen] = {}
    # Both signals interrupt whatever runs here, so that `finally` takes the processes along.
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        monitor = Monitor(namespace)
        executor = SingleThreadedExecutor()
        executor.add_node(monitor)

        def spin(seconds: float, stage: str, until: Callable[[], bool] = lambda: False) -> bool:
            begun, last = time.monotonic(), 0.0
            while (elapsed := time.monotonic() - begun) < seconds:
                executor.spin_once(timeout_sec=0.1)
                if until():
                    return True
                if elapsed - last > 0.1:
                    last = elapsed
                    report(stage, elapsed / seconds, monitor.seen)
                    _check_alive(processes, Path(folder))
            return False

        try:
            for name, module, values in (("camera", "synthetic_camera", camera), ("node", "node", node)):
                processes[name] = _start(f"dsca_ros.ros.{module}", namespace, values, Path(folder) / f"{name}.log")
            if not spin(START_TIMEOUT, "starting", until=lambda: monitor.seen > 0):
                raise DemoError(
                    f"no result came within {START_TIMEOUT:.0f} s; do the processes see each other over DDS? "
                    + _tail(Path(folder) / "node.log")
                )
            spin(WARM_UP_SECONDS, "warming up")
            monitor.sample_every = settings.seconds / SAMPLES
            monitor.measuring = True
            begun = time.monotonic()
            spin(settings.seconds, "measuring")
            monitor.run.seconds = time.monotonic() - begun
            monitor.measuring = False
            if not monitor.run.output_stamps or not monitor.run.input_stamps:
                raise DemoError(f"frames stopped coming while measuring: {_tail(Path(folder) / 'node.log')}")
        finally:
            for process in processes.values():
                process.terminate()
            executor.shutdown()
            monitor.destroy_node()
            rclpy.try_shutdown()
            for process in processes.values():
                try:
                    process.wait(timeout=5.0)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            signal.signal(signal.SIGTERM, handler)
    return monitor.run


def alone_on_this_machine() -> None:
    """Sets what this process and its children need to be a little world: nothing reaches a robot on the network."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    # The variable above came with rclpy's event_handler; those before know this one, of which later ones warn.
    if importlib.util.find_spec("rclpy.event_handler") is None:
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    # Default buffers are made for small messages; see docs/dds.md.
    if profile := share.find("config/fastdds.xml"):
        os.environ.setdefault(_profile_variable(), str(profile))


def _start(module: str, namespace: str, values: dict[str, object], log: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", module, "--ros-args", "-r", f"__ns:={namespace}"]
    for key, value in values.items():
        command += ["-p", f"{key}:={value}"]
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def _check_alive(processes: dict[str, subprocess.Popen], folder: Path) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise DemoError(f"the {name} stopped: {_tail(folder / f'{name}.log')}")


def _tail(log: Path) -> str:
    lines = log.read_text().strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"
