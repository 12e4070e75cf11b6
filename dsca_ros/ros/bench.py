"""The node under load: what `dsca bench` plays to it over DDS, and what comes back.

The way of ros2_benchmark: images that were made before are published at a rate, and the highest rate of which less
than one in twenty is lost is the node's peak.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from dsca_ros.depth import units
from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.synthetic import DEFAULT_FOV, SyntheticStream
from dsca_ros.ros import messages
from dsca_ros.ros.demo import alone_on_this_machine
from dsca_ros.ros.qos import OUTPUT_QOS

#: Images that are played in turn.
LAP = 8
#: How long the first result may take, seconds.
START_TIMEOUT = 120.0
#: More of the images lost than this, and the rate is too high.
MOST_LOST = 0.05
#: Results still under way when playing ends are waited for, seconds.
IN_FLIGHT = 1.0
#: Of a common camera, Hz.
CAMERA_RATE = 30.0
#: What the growth of latency and memory is measured at: Hz, sizes, and numbers of cameras of the first size.
GROWTH_RATE = 4.0
GROWTH_SIZES = ((160, 120), (320, 240), (640, 480), (848, 480), (1280, 720))
GROWTH_CAMERAS = (1, 2, 4)
#: No depth camera is faster, Hz: the peak is looked for up to there, and found to a share.
FASTEST_CAMERA = 240.0
PRECISION = 0.05


class NodeBenchError(RuntimeError):
    """The node could not be measured; the text says why."""


@dataclass(frozen=True)
class Played:
    """What became of the images of one go.

    Attributes:
        hz: results a second.
        lost: share of the images without a result.
        latencies: from the stamp, which is when it was published, to the result's arrival, seconds; of all nodes.
        parts: of those in seconds, by the names in `PARTS`; one value a frame.
        cpu: of all nodes' processes, in cores.
        memory_mb: resident, of one node's process on average.
    """

    hz: float
    lost: float
    latencies: list[float]
    parts: dict[str, list[float]]
    cpu: float
    memory_mb: float


#: Where the time between a stamp and the arrival of the result goes.
PARTS = ("transport in", "wait", "decode", "engine", "encode", "publish", "transport out")


class Camera(Node):
    """Publishes to every node and hears its results; one namespace a node."""

    def __init__(self, namespaces: list[str], width: int, height: int) -> None:
        super().__init__("bench_camera", namespace=namespaces[0])
        stream = SyntheticStream(Intrinsics.from_fov(width, height, DEFAULT_FOV), "stereo", LAP)
        self._camera = stream.camera
        header = Header(frame_id="camera")
        self._lap = [
            messages.encode_depth(units.to_millimetres(stream.measured(k)), header, "16UC1") for k in range(LAP)
        ]
        self._images = [self.create_publisher(Image, f"{name}/depth/image_raw", 5) for name in namespaces]
        self._infos = [self.create_publisher(CameraInfo, f"{name}/depth/camera_info", 5) for name in namespaces]
        #: By node: stamps that were sent, and when their results came, ns.
        self.sent: list[list[int]] = [[] for _ in namespaces]
        self.came: list[dict[int, int]] = [{} for _ in namespaces]
        for index, name in enumerate(namespaces):
            hear = self._hear(index)
            self.create_subscription(Image, f"{name}/depth_sr/image_raw", hear, OUTPUT_QOS)

    def _hear(self, index: int) -> Callable[[Image], None]:
        def heard(image: Image) -> None:
            stamp = image.header.stamp
            self.came[index][stamp.sec * 1_000_000_000 + stamp.nanosec] = time.time_ns()

        return heard

    def publish(self, number: int) -> None:
        """Sends one image to every node."""
        image = self._lap[number % LAP]
        for index, (images, infos) in enumerate(zip(self._images, self._infos)):
            now = time.time_ns()
            image.header.stamp.sec, image.header.stamp.nanosec = divmod(now, 1_000_000_000)
            images.publish(image)
            infos.publish(messages.to_camera_info(self._camera, image.header))
            self.sent[index].append(now)

    def forget(self) -> None:
        """Counts anew."""
        self.sent[:], self.came[:] = [[] for _ in self.sent], [{} for _ in self.came]


class NodeBench:
    """One or more nodes in processes of their own, fed from here.

    Args:
        parameters: of the nodes.
        size: width and height of the images.
        nodes: how many.

    Raises:
        NodeBenchError: if no result comes.
    """

    def __init__(self, parameters: dict[str, object], size: tuple[int, int], nodes: int = 1) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._traces = [Path(self._folder.name) / f"{index}.jsonl" for index in range(nodes)]
        namespaces = [f"/dsca_bench_{os.getpid()}_{index}" for index in range(nodes)]
        self._camera = Camera(namespaces, *size)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._camera)
        begun = time.monotonic()
        self._processes = [_start(name, parameters, trace) for name, trace in zip(namespaces, self._traces)]
        #: From the start of the process to the first result, seconds.
        self.start_seconds = 0.0
        try:
            self._wait_for_results()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.monotonic() - begun

    def _wait_for_results(self) -> None:
        begun = last = time.monotonic()
        number = 0
        while not all(self._camera.came):
            for process, trace in zip(self._processes, self._traces):
                if process.poll() is not None:
                    raise NodeBenchError(f"the node stopped: {_last_line(trace.with_suffix('.log'))}")
            if time.monotonic() - begun > START_TIMEOUT:
                raise NodeBenchError(f"no result within {START_TIMEOUT:.0f} s")
            if time.monotonic() - last > 0.05:
                self._camera.publish(number)
                number, last = number + 1, time.monotonic()
            self._executor.spin_once(timeout_sec=0.01)

    def play(self, rate: float, seconds: float) -> Played:
        """Publishes at a rate for a while."""
        self._spin(0.3)  # what is under way
        self._camera.forget()
        for trace in self._traces:
            os.truncate(trace, 0)
        busy = sum(map(_cpu_seconds, self._processes))
        begun = time.monotonic()
        # A thread of its own: results that arrive do not delay what is sent.
        player = threading.Thread(target=self._send, args=(rate, seconds))
        player.start()
        while player.is_alive():
            self._executor.spin_once(timeout_sec=0.02)
        took = time.monotonic() - begun
        busy = sum(map(_cpu_seconds, self._processes)) - busy
        sent = sum(map(len, self._camera.sent))
        self._spin(IN_FLIGHT, until=lambda: sum(map(len, self._camera.came)) >= sent)
        came = [(stamp, at) for of_node in self._camera.came for stamp, at in of_node.items()]
        latencies = [(at - stamp) * 1e-9 for stamp, at in came]
        memory = float(np.mean([_resident_mb(process) for process in self._processes]))
        return Played(len(came) / took, 1.0 - len(came) / sent, latencies, self._parts(), busy / took, memory)

    def _send(self, rate: float, seconds: float) -> None:
        begun = time.monotonic()
        for number in range(max(1, round(rate * seconds))):
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            self._camera.publish(number)

    def _spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self._executor.spin_once(timeout_sec=0.02)

    def _parts(self) -> dict[str, list[float]]:
        parts: dict[str, list[float]] = {name: [] for name in PARTS}
        for trace, came in zip(self._traces, self._camera.came):
            # A result may be heard before its line is written.
            self._spin(IN_FLIGHT, until=partial(_has_lines, trace, len(came)))
            frames = _frames(trace)
            names = ("waited", "decode", "engine", "encode", "publish")
            for frame in frames:
                inside = [frame[name] for name in names]
                for part, value in zip(PARTS, (frame["age"] - sum(inside), *inside)):
                    parts[part].append(value)
            # By rank, not by frame: a trace has no stamps.
            ages = np.sort([frame["age"] for frame in frames])[: len(came)]
            total = np.sort([(at - stamp) * 1e-9 for stamp, at in came.items()])[: len(ages)]
            parts["transport out"] += [max(0.0, float(value)) for value in total - ages]
        return parts

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._executor.shutdown()
        self._camera.destroy_node()
        self._folder.cleanup()

    def __enter__(self) -> NodeBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def ros_for_bench() -> Iterator[None]:
    """ROS, for this machine alone; signals end what runs inside."""
    alone_on_this_machine()
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()
        signal.signal(signal.SIGTERM, handler)


def peak_rate(bench: NodeBench, seconds: float) -> tuple[float, Played]:
    """The highest rate of which less than `MOST_LOST` is lost, Hz, and what became of the images at it.

    Doubles the rate until too much is lost, then halves the interval between.
    """
    held, lost, best = 0.0, 0.0, None
    rate = 4.0
    while not lost or lost > held * (1.0 + PRECISION):
        played = bench.play(rate, seconds)
        if played.lost < MOST_LOST:
            held, best = rate, played
        else:
            lost = rate
        if held >= FASTEST_CAMERA or 0.0 < lost < 1.0:
            break
        rate = min(2.0 * held, FASTEST_CAMERA) if not lost else (held + lost) / 2.0
    if best is None:
        raise NodeBenchError("it loses frames at any rate")
    return held, best


def measure_node(
    about: dict[str, object], size: tuple[int, int], seconds: float, telling: Callable[[str], None]
) -> dict[str, Any]:
    """The node alone: how long it takes to start, what it does at the rate of a camera, and its peak.

    Args:
        about: the node's parameters.
        size: width and height of the camera's images.
        seconds: of playing at each rate that is tried.
        telling: told of what is measured before it is.

    Returns:
        ``model, scale, engine, threads, size, import_s, first_frame_s, peak_hz``, and `figures_of` the camera's rate
        (``at_camera_rate``, ``camera_hz``) and of the peak (``at_peak``).
    """
    name = f"node, {about['model']} x{about['scale']}, {size[0]}x{size[1]}"
    telling(f"{name}: start")
    with NodeBench(about, size) as bench:
        telling(f"{name}: {CAMERA_RATE:g} Hz")
        at_camera_rate = bench.play(CAMERA_RATE, 2.0 * seconds)
        telling(f"{name}: peak")
        peak, at_peak = peak_rate(bench, seconds)
        return {
            **about,
            "size": f"{size[0]}x{size[1]}",
            "import_s": round(import_seconds("dsca_ros.ros.node"), 2),
            "first_frame_s": round(bench.start_seconds, 2),
            "camera_hz": CAMERA_RATE,
            "at_camera_rate": figures_of(at_camera_rate),
            "peak_hz": round(peak, 1),
            "at_peak": figures_of(at_peak),
        }


def measure_growth(about: dict[str, object], seconds: float, telling: Callable[[str], None]) -> dict[str, Any]:
    """Latency and memory against pixels, of one camera, and against cameras, each with a node of its own.

    At a rate low enough for all of them; see `measure_node` for the arguments.

    Returns:
        ``pixels`` and ``cameras``: lists of `figures_of` with ``size`` and ``cameras``.
    """
    found: dict[str, Any] = {"hz": GROWTH_RATE, "pixels": [], "cameras": []}
    goes = [("pixels", size, 1) for size in GROWTH_SIZES] + [("cameras", GROWTH_SIZES[0], n) for n in GROWTH_CAMERAS]
    for kind, size, cameras in goes:
        telling(f"growth: {cameras} of {size[0]}x{size[1]}")
        with NodeBench(about, size, cameras) as bench:
            row = {"size": f"{size[0]}x{size[1]}", "cameras": cameras, **figures_of(bench.play(GROWTH_RATE, seconds))}
        found[kind].append(row)
    return found


def import_seconds(module: str, runs: int = 3) -> float:
    """Median time a new process takes to import a module, beyond what an empty one takes."""

    def median_of(code: str) -> float:
        taken = []
        for _ in range(runs):
            begun = time.monotonic()
            subprocess.run([sys.executable, "-c", code], check=True)
            taken.append(time.monotonic() - begun)
        return float(np.median(taken))

    return median_of(f"import {module}") - median_of("pass")


def figures_of(played: Played) -> dict[str, Any]:
    """Rates and percentiles, in the names and units of `dsca bench`."""

    def percentiles(seconds: list[float]) -> dict[str, float]:
        if not seconds:
            return {}
        values = 1e3 * np.percentile(seconds, [50, 95, 99])
        return {name: round(float(value), 2) for name, value in zip(("p50", "p95", "p99"), values)}

    return {
        "hz": round(played.hz, 1),
        "lost_pct": round(100.0 * played.lost, 1),
        "latency_ms": percentiles(played.latencies),
        "parts_ms": {name: percentiles(seconds) for name, seconds in played.parts.items()},
        "cpu_cores": round(played.cpu, 2),
        "memory_mb": round(played.memory_mb, 1),
    }


def _start(namespace: str, parameters: dict[str, object], trace: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "dsca_ros.ros.traced_node", str(trace), "--ros-args", "-r", f"__ns:={namespace}"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    with trace.with_suffix(".log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _frames(trace: Path) -> list[dict[str, float]]:
    """The lines of a trace; zeros stand where it was cut."""
    return [json.loads(line) for line in trace.read_text().replace("\0", "").split("\n")[:-1]]


def _has_lines(trace: Path, number: int) -> bool:
    return len(_frames(trace)) >= number


def _last_line(log: Path) -> str:
    lines = log.read_text().strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"


def _cpu_seconds(process: subprocess.Popen) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(process: subprocess.Popen) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
