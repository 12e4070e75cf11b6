"""A ROS graph for one test: node, camera and listener over real DDS, in a domain of their own."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Log
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.synthetic import SyntheticStream
from dsca_ros.depth.units import like
from dsca_ros.engine.base import EngineError
from dsca_ros.engine.zoo import list_models
from dsca_ros.ros import messages
from dsca_ros.ros.node import DscaNode
from dsca_ros.upsampler import DEFAULT_MODEL

#: How long anything awaited may take, seconds: generous, since a test waits for events only.
TIMEOUT = 30.0
#: The node must end within two seconds of a signal; a busy machine gets more before a test fails.
END_WITHIN = 5.0
#: The test camera's image size.
WIDTH, HEIGHT = 64, 48

INPUTS = ("/depth/image_raw", "/depth/camera_info")
OUTPUTS = ("/depth_sr/image_raw", "/depth_sr/camera_info", "/depth_sr/points")

_tries = itertools.count()


def scales() -> list[int]:
    """Scales to test at: 2, and 4 where the default model has it."""
    try:
        there = {m.scale for m in list_models() if m.model == DEFAULT_MODEL and m.precision == "fp32"}
    except EngineError:
        there = set()
    return sorted({2} | (there & {4}))


def interruptible() -> None:
    """Run in a child before it starts: a shell that runs the tests in the background has SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def participants(domain: int) -> int:
    """How many DDS participants of this machine are in a domain, by the ports they listen at."""
    taken = 0
    for number in range(8):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7400 + 250 * domain + 10 + 2 * number))
            except OSError:
                taken += 1
    return taken


def free_domain() -> int:
    """A domain from 1 to 100 that no one is in; every process starts to look at another place."""
    for _ in range(100):
        domain = 1 + (37 * os.getpid() + next(_tries)) % 100
        if not participants(domain):
            return domain
    raise RuntimeError("every ROS domain from 1 to 100 is taken")


def scene(width: int = WIDTH, height: int = HEIGHT, index: int = 0, dtype: type = np.uint16) -> np.ndarray:
    """[height, width] depth of a room as a stereo camera sees it, holes and all, 0 invalid."""
    stream = SyntheticStream(Intrinsics.from_fov(width, height, 70.0), "stereo", frames=8, seed=7)
    return like(stream.measured(index), dtype).copy()


def key(message: Image | CameraInfo | PointCloud2) -> tuple[int, int]:
    """What tells frames apart: the stamp."""
    return message.header.stamp.sec, message.header.stamp.nanosec


def as_told(kind: Parameter.Type) -> str:
    """A type as rclpy's refusal of another names it: by its name, or from Kilted on by its number."""
    return f"expected '{kind}'"


class Camera:
    """Publishes what a test wants as a driver would; every frame gets a stamp of its own."""

    def __init__(self, node: rclpy.node.Node, qos: QoSProfile | int = 10) -> None:
        self.image_publisher = node.create_publisher(Image, "depth/image_raw", qos)
        self.info_publisher = node.create_publisher(CameraInfo, "depth/camera_info", qos)
        self._count = 0

    def header(self, frame_id: str = "camera_depth_frame") -> Header:
        """A header that no frame before has had."""
        self._count += 1
        return Header(
            stamp=Time(sec=1_700_000_000 + self._count, nanosec=1000 + self._count),
            frame_id=frame_id,
        )

    def image(self, depth: np.ndarray | None = None, encoding: str = "") -> Image:
        """A depth message; NaN and other garbage in ``depth`` stay as they are."""
        depth = scene() if depth is None else depth
        encoding = encoding or ("16UC1" if depth.dtype == np.uint16 else "32FC1")
        message = Image(header=self.header(), height=depth.shape[0], width=depth.shape[1], encoding=encoding)
        message.is_bigendian = int(sys.byteorder == "big")
        message.step = depth.shape[1] * depth.itemsize
        message.data = messages.to_bytes(depth)
        return message

    def info(self, image: Image) -> CameraInfo:
        """The camera_info of an image: a principal point off the middle, unequal focal lengths."""
        width, height = image.width, image.height
        intrinsics = Intrinsics(width, height, 0.7 * width, 0.72 * width, 0.48 * width, 0.53 * height)
        info = messages.to_camera_info(intrinsics, image.header)
        info.d = [0.01, -0.02, 0.001, 0.002, 0.003]
        return info

    def publish(self, image: Image, info: CameraInfo | None = None) -> None:
        """Publishes an image, its camera_info first where there is one."""
        if info is not None:
            self.info_publisher.publish(info)
        self.image_publisher.publish(image)


class Listener:
    """Keeps what the node publishes, in the order in which it came."""

    def __init__(self, node: rclpy.node.Node) -> None:
        self._node = node
        self.images: dict[tuple[int, int], Image] = {}
        self.infos: dict[tuple[int, int], CameraInfo] = {}
        self.clouds: dict[tuple[int, int], PointCloud2] = {}
        self.status: list[DiagnosticStatus] = []
        self.logs: list[Log] = []
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        # As rqt_console does, so that what was logged before the two ends met comes too.
        late = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(Log, "/rosout", self._on_log, late)

    def subscribe(self, *topics: str, qos: QoSProfile | int = 10) -> list[rclpy.subscription.Subscription]:
        """Starts to listen to some of the node's `OUTPUTS`."""
        kinds = zip(
            OUTPUTS,
            (Image, CameraInfo, PointCloud2),
            (self.images, self.infos, self.clouds),
            strict=True,
        )
        return [
            self._node.create_subscription(kind, topic, lambda m, s=seen: s.update({key(m): m}), qos)
            for topic, kind, seen in kinds
            if topic in topics
        ]

    def warnings(self, text: str) -> list[str]:
        """Warnings logged by the node that contain ``text``."""
        logged = [log.msg for log in self.logs if log.name == "dsca_node" and log.level == 30]
        return [line for line in logged if text in line]

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        self.status += [status for status in array.status if "depth super-resolution" in status.name]

    def _on_log(self, log: Log) -> None:
        self.logs.append(log)


class Process:
    """A Python process of this environment in the graph's domain; its output goes to a file."""

    def __init__(self, arguments: list[str], domain: int, log: Path, env: dict[str, str] | None = None) -> None:
        self._log = log
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        with log.open("w") as file:
            self.popen = subprocess.Popen(
                [sys.executable, *arguments],
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                preexec_fn=interruptible,
            )

    def output(self) -> str:
        """Everything it wrote so far."""
        return self._log.read_text()

    def end(self, number: signal.Signals) -> int:
        """Sends a signal; the exit status, if the process ends soon enough."""
        self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout=END_WITHIN)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs {END_WITHIN} s after {number.name}:\n{self.output()}") from None

    def wait(self, timeout: float = 2 * TIMEOUT) -> int:
        """Its exit status once it has ended."""
        try:
            return self.popen.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {timeout:g} s:\n{self.output()}") from None

    def kill(self) -> None:
        """Ends it for good."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()


class Graph:
    """One domain with a camera and a listener, and what a test adds to it."""

    def __init__(self, folder: Path) -> None:
        self.domain = free_domain()
        self._folder = folder
        self.context = Context()
        rclpy.init(context=self.context, args=[], domain_id=self.domain)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.tester = rclpy.create_node("tester", context=self.context)
        self.executor.add_node(self.tester)
        self.camera = Camera(self.tester)
        self.listener = Listener(self.tester)
        self.node: DscaNode | None = None  # set by start_node
        self.processes: list[Process] = []

    # --- what is in the graph -------------------------------------------------------------------

    def start_node(self, **parameters: object) -> DscaNode:
        """The node under test, in this process, so that a test can look inside and break it."""
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = DscaNode(context=self.context, parameter_overrides=overrides)
        self.executor.add_node(self.node)
        for timer in self.node.timers:  # what is waited for once a second costs minutes in all
            timer.timer_period_ns = 100_000_000
            timer.reset()
        return self.node

    def start(self, module: str, env: dict[str, str] | None = None, **parameters: object) -> Process:
        """A module of the package as a process of its own, with ROS parameters."""
        arguments = ["-m", module, "--ros-args"]
        for name, value in parameters.items():
            arguments += ["-p", f"{name}:={value}"]
        return self.run(arguments, env)

    def run(self, arguments: list[str], env: dict[str, str] | None = None) -> Process:
        """Any Python process in the graph's domain."""
        log = self._folder / f"process-{len(self.processes)}.log"
        process = Process(arguments, self.domain, log, env)
        self.processes.append(process)
        return process

    # --- waiting --------------------------------------------------------------------------------

    def spin_until(self, predicate: Callable[[], object], what: str = "", timeout: float = TIMEOUT) -> None:
        """Runs callbacks until something holds; fails if it never does."""
        deadline = time.monotonic() + timeout
        while not predicate():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout:g} s in vain{' for ' + what if what else ''}")
            self.executor.spin_once(timeout_sec=0.02)

    def connected(self, topic: str) -> bool:
        """Whether all ends of a topic in this process know each other."""
        nodes = [node for node in (self.tester, self.node) if node is not None]
        publishers = [p for node in nodes for p in node.publishers if p.topic_name == topic]
        subscriptions = [s for node in nodes for s in node.subscriptions if s.topic_name == topic]
        return (
            bool(publishers and subscriptions)
            and all(p.get_subscription_count() == len(subscriptions) for p in publishers)
            and all(s.get_publisher_count() == len(publishers) for s in subscriptions)
        )

    def connect(self, *outputs: str) -> None:
        """Listens to outputs, all by default, and waits until frames can flow without a loss."""
        outputs = outputs or OUTPUTS
        self.listener.subscribe(*outputs)
        topics = (*INPUTS, *outputs, "/diagnostics")
        self.spin_until(lambda: all(map(self.connected, topics)), f"{', '.join(topics)} to connect")

    def counter(self, name: str) -> int:
        """One of the node's counters, at once."""
        return self.node.health.counts().get(name, 0)

    def send(self, image: Image, info: CameraInfo | None = None) -> None:
        """Publishes a frame and waits until the node has it."""
        received = self.counter("received")
        if info is not None:
            # Best effort on two topics: the image must not overtake the info in the executor.
            self.camera.info_publisher.publish(info)
            infos = self.node.infos
            self.spin_until(lambda: infos.get(key(info)) == info, "camera_info to arrive")
        self.camera.image_publisher.publish(image)
        self.spin_until(lambda: self.counter("received") == received + 1, "the image to arrive")

    def exchange(self, image: Image, info: CameraInfo | None = None) -> Image:
        """Publishes a frame and gives the image that answers it."""
        self.send(image, info)
        self.spin_until(lambda: key(image) in self.listener.images, "the result")
        return self.listener.images[key(image)]

    def good_frame(self) -> Image:
        """Sends a good frame with its camera_info and waits for everything the node makes of it."""
        image = self.camera.image()
        self.exchange(image, self.camera.info(image))
        seen = {
            "/depth_sr/camera_info": self.listener.infos,
            "/depth_sr/points": self.listener.clouds,
        }
        for topic, results in seen.items():
            if self.node.count_subscribers(topic):
                self.spin_until(lambda r=results: key(image) in r, topic)
        return image

    def status(self, predicate: Callable[[dict[str, str]], object], what: str = "") -> DiagnosticStatus:
        """The next diagnostics status whose values satisfy a predicate."""
        seen = len(self.listener.status)

        def found() -> bool:
            return any(predicate(values(status)) for status in self.listener.status[seen:])

        self.spin_until(found, f"diagnostics {what}")
        return next(s for s in self.listener.status[seen:] if predicate(values(s)))

    def close(self) -> None:
        """Ends everything in the graph."""
        for process in self.processes:
            process.kill()
        self.executor.shutdown()
        if self.node is not None:
            self.node.close()
        self.tester.destroy_node()
        rclpy.shutdown(context=self.context)


def values(status: DiagnosticStatus) -> dict[str, str]:
    """A status's keys and values."""
    return {pair.key: pair.value for pair in status.values}


def pixels(message: Image) -> np.ndarray:
    """What a subscriber with an independent decoder reads: [H, W], NaN and all."""
    dtype = {"16UC1": "<u2", "mono16": "<u2", "32FC1": "<f4"}[message.encoding]
    assert not message.is_bigendian
    return np.frombuffer(message.data, dtype).reshape(message.height, message.width)


def xyz(cloud: PointCloud2) -> np.ndarray:
    """[H, W, 3] points of a cloud."""
    return np.frombuffer(cloud.data, "<f4").reshape(cloud.height, cloud.width, 3)
