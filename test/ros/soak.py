"""A camera and a node for minutes, with a random fault now and then: `make soak`; a short form is a test.

Every fault comes before any comes again. After each, frames must come again, and the node must be what it was: its
memory within 20 MB, its threads (but for some that OpenVINO keeps idle) and open files no more than after its start.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from clients import Lifecycle, Parameters, Usage
from diagnostic_msgs.msg import DiagnosticStatus
from ros_graph import OUTPUTS, Graph, Process, pixels, scene
from sensor_msgs.msg import Image

CAMERA = "dsca_ros.ros.synthetic_camera"
RATE, WIDTH, HEIGHT = 30.0, 160, 120
#: Frames that must come after a fault, and for how long they are waited for, seconds.
FRAMES, RECOVERS_WITHIN = 5, 60.0
#: What the node may have grown by since its start, bytes.
ALLOWED = 20 * 2**20
#: Threads that OpenVINO keeps idle of sizes that were.
IDLE = 4

#: The node, with an engine that hangs, is slow or fails while a file says so.
NODE = """
import sys, time
from pathlib import Path
from dsca_ros.ros import node

orders = Path(sys.argv.pop(1))

class Upsampler(node.Upsampler):
    def __call__(self, depth):
        order = orders.read_text() if orders.exists() else ""
        if order == "raise":
            raise RuntimeError("the engine was told to fail")
        if order == "slow":
            time.sleep(3.0)
        while order == "hang" and orders.exists():
            time.sleep(0.01)
        return super().__call__(depth)

node.Upsampler = Upsampler
node.main(sys.argv)
"""


@dataclass
class Fault:
    """What happened, and what was after it."""

    at_s: float
    name: str
    recovered_s: float
    memory_mb: float
    threads: int
    files: int


@dataclass
class Report:
    """Of a whole run; `started` are the nodes' figures after their start."""

    seed: int
    minutes: float = 0.0
    frames: int = 0
    faults: list[Fault] = field(default_factory=list)
    grown_mb: list[float] = field(default_factory=list)


class Soak:
    """A graph under test."""

    def __init__(self, folder: Path, seed: int, log: Callable[[str], None]) -> None:
        self.folder, self.log = folder, log
        self.random, self.report = random.Random(seed), Report(seed)
        self.graph = Graph(folder)
        self.orders = folder / "orders"
        self.began = time.monotonic()
        self.images, self.widths = 0, Counter[int]()
        self.listening = self.listen()
        self.camera = self.start_camera()
        self.node = self.start_node()
        self.baseline = self.settle()

    # --- what runs ------------------------------------------------------------------------------

    def listen(self) -> list[object]:
        """Listens to everything; results are looked at, counted and let go."""

        def look(image: Image) -> None:
            self.images += 1
            self.widths[image.width] += 1
            depth = pixels(image)
            valid = depth[depth > 0]  # and no NaN
            assert valid.max(initial=0) <= (10_000 if depth.dtype == np.uint16 else 10.001), "depth out of range"

        tester = self.graph.tester
        others = self.graph.listener.subscribe(*OUTPUTS[1:])
        return [tester.create_subscription(Image, OUTPUTS[0], look, 10), *others]

    def start_camera(self) -> Process:
        """A camera as a process of its own."""
        return self.graph.start(CAMERA, width=WIDTH, height=HEIGHT, rate=RATE, frames=30)

    def start_node(self) -> Process:
        """A node as a process of its own, whose engine takes orders."""
        arguments = ["-c", NODE, str(self.orders), "--ros-args", "-p", "engine_timeout:=1.0", "-p", "threads:=1"]
        # One arena: else each network loads in another one, and what lies free in them hides what leaks.
        return self.graph.run(arguments, {"XDG_CACHE_HOME": str(self.folder / "cache"), "MALLOC_ARENA_MAX": "1"})

    def settle(self) -> Usage:
        """What the node uses once it works and has had both scales and another size of image."""
        self.frames("after the start")
        for _ in range(2):  # what the allocator keeps of the networks that were is full by then
            self.scale()
            self.other_size()
        now = Usage(self.node.popen.pid)
        while True:  # what the other networks had is on its way out
            before = now
            self.spin(1.0)
            now = Usage(self.node.popen.pid)
            if (now.threads, now.files) == (before.threads, before.files):
                return now

    def change(self, **parameters: object) -> None:
        """Sets parameters of the node."""
        assert Parameters(self.graph).set(**parameters) == (True, "")

    def frames(self, what: str, count: int = FRAMES) -> None:
        """Waits for frames."""
        seen = self.images

        def came() -> bool:
            assert self.node.popen.poll() is None, self.node.output()[-3000:]
            return self.images >= seen + count

        self.graph.spin_until(came, f"{count} frames {what}", RECOVERS_WITHIN)
        for kept in (self.graph.listener.infos, self.graph.listener.clouds):
            kept.clear()  # this process's memory is not the point
        del self.graph.listener.status[:-5], self.graph.listener.logs[:-50]

    def spin(self, seconds: float) -> None:
        """Runs for a while."""
        until = time.monotonic() + seconds
        self.graph.spin_until(lambda: time.monotonic() >= until, timeout=2 * seconds + 10.0)

    def other_size(self) -> None:
        """Makes the engine ready for two sizes, as many as it keeps: what it uses depends on that."""
        width = 2 * scene().shape[1]
        seen = self.widths[width]

        def came() -> bool:
            image = self.graph.camera.image(scene())
            self.graph.camera.publish(image, self.graph.camera.info(image))
            self.spin(0.1)
            return self.widths[width] > seen

        self.graph.spin_until(came, "a frame of another size", RECOVERS_WITHIN)
        self.frames("of the camera's size again")

    # --- faults ---------------------------------------------------------------------------------

    def faults(self) -> dict[str, Callable[[], None]]:
        """By name."""
        return {
            "camera killed": self.kill_camera,
            "node killed": self.kill_node,
            "node ended by SIGTERM": self.end_node,
            "camera stopped for 1 s": lambda: self.stop(self.camera),
            "node stopped for 1 s": lambda: self.stop(self.node),
            "second camera": self.second_camera,
            "hostile frames": self.hostile_frames,
            "clock back": self.clock_back,
            "engine fails": lambda: self.order("raise", "ERROR"),
            "engine hangs, comes back": lambda: self.order("hang", "ERROR"),
            "engine hangs, is restarted": self.restart_engine,
            "engine slow, 3 s": lambda: self.order("slow", "ERROR"),
            "nobody listens": self.leave,
            "lifecycle once around": self.lifecycle,
            "scale changed": self.scale,
            "busy machine": self.busy,
        }

    def kill_camera(self) -> None:
        """And another one in its place."""
        self.camera.kill()
        self.camera = self.start_camera()

    def kill_node(self) -> None:
        """By SIGKILL, and another one in its place."""
        self.node.kill()
        self.node = self.start_node()
        self.baseline = self.settle()

    def end_node(self) -> None:
        """In order, and another one in its place."""
        assert self.node.end(signal.SIGTERM) == 0, self.node.output()[-3000:]
        self.node = self.start_node()
        self.baseline = self.settle()

    def stop(self, process: Process) -> None:
        """Its processor is taken away."""
        process.popen.send_signal(signal.SIGSTOP)
        self.spin(1.0)
        process.popen.send_signal(signal.SIGCONT)

    def second_camera(self) -> None:
        """Of another size, on the same topic."""
        other = self.graph.start(CAMERA, width=64, height=48, rate=10.0, frames=2, frame_id="other")
        self.graph.spin_until(lambda: "2 cameras" in self.status().message or "3 cameras" in self.status().message)
        other.kill()

    def hostile_frames(self) -> None:
        """See test_fuzz_messages.py for all kinds."""
        for index in range(40):
            image = self.graph.camera.image(scene())
            image.encoding = self.random.choice(["16UC1", "32FC1", "rgb8"])
            setattr(
                image, self.random.choice(["width", "height", "step"]), self.random.choice([0, 1, 2**31, 2**32 - 1])
            )
            info = self.graph.camera.info(image)
            info.k[self.random.randrange(9)] = info.p[self.random.randrange(12)] = self.random.choice([np.nan, np.inf])
            self.graph.camera.publish(image, info)
            if index % 8 == 0:
                self.spin(0.02)

    def clock_back(self) -> None:
        """As when a bag loops; this process's frames are of 2023."""
        for _ in range(3):
            image = self.graph.camera.image(scene())
            self.graph.camera.publish(image, self.graph.camera.info(image))
            self.spin(0.05)

    @contextmanager
    def ordered(self, order: str) -> Iterator[None]:
        self.orders.write_text(order)
        try:
            yield
        finally:
            self.orders.unlink()

    def order(self, order: str, state: str) -> None:
        """The engine does as told, until diagnostics tell of it."""
        with self.ordered(order):
            self.until_state(state)

    def restart_engine(self) -> None:
        """The engine hangs, and a new one is asked for; the old one comes back when frames flow."""
        with self.ordered("hang"):
            self.until_state("ERROR")
            # The new one would hang as well: the file must be gone, and the old one has to stay at its loop.
            self.change(engine="auto")
            self.graph.spin_until(lambda: "left behind" in self.node.output(), "the engine to be left behind")

    def status(self) -> DiagnosticStatus:
        """The newest diagnostics."""
        self.graph.spin_until(lambda: self.graph.listener.status, "diagnostics")
        return self.graph.listener.status[-1]

    def until_state(self, state: str) -> None:
        """Waits until diagnostics say so."""
        self.graph.status(lambda v: v["state"] == state, f"of {state}")  # a new one: the last may be of before

    def leave(self) -> None:
        """All listeners go, and come back."""
        for subscription in self.listening:
            self.graph.tester.destroy_subscription(subscription)
        self.until_state("IDLE")
        self.listening = self.listen()

    def lifecycle(self) -> None:
        """Deactivated, cleaned up, and back."""
        Lifecycle(self.graph).changes(("deactivate", "cleanup", "configure", "activate"))

    def scale(self) -> None:
        """There and back while frames flow."""
        for scale in (4, 2):
            self.change(scale=scale)
            seen = self.widths[scale * WIDTH]
            self.graph.spin_until(lambda w=scale * WIDTH, n=seen: self.widths[w] > n + FRAMES, f"scale {scale}")

    def busy(self) -> None:
        """Two processes that do nothing but work."""
        burners = [self.graph.run(["-c", "while True: pass"]) for _ in range(2)]
        self.spin(2.0)
        for burner in burners:
            burner.kill()

    # --- the run --------------------------------------------------------------------------------

    def run(self, minutes: float, period: float) -> Report:
        """A fault every so many seconds; raises AssertionError at the first that is not survived."""
        end, waiting = time.monotonic() + 60.0 * minutes, []
        while time.monotonic() < end:
            if not waiting:
                waiting = self.random.sample(sorted(self.faults()), len(self.faults()))
            self.once(waiting.pop())
            spent = (time.monotonic() - self.began) % period
            self.spin(max(0.0, min(period - spent, end - time.monotonic())))
        self.report.minutes = round((time.monotonic() - self.began) / 60.0, 2)
        self.report.frames = self.images
        return self.report

    def once(self, name: str) -> None:
        """One fault, and what is after it."""
        at = time.monotonic()
        self.faults()[name]()
        over = time.monotonic()
        self.frames(f"after: {name}")
        recovered = time.monotonic() - over
        try:
            now = self.usage()
        except AssertionError as error:
            raise AssertionError(f"after: {name}: {error}") from None
        grown = (now.memory - self.baseline.memory) / 2**20
        fault = Fault(
            *(round(at - self.began, 1), name, round(recovered, 2)),
            *(round(now.memory / 2**20, 1), now.threads, now.files),
        )
        self.report.faults.append(fault)
        self.report.grown_mb.append(round(grown, 1))
        self.log(
            f"{fault.at_s:7.1f} s  {name:28s} frames after {recovered:5.2f} s; {now}, {grown:+.1f} MB since its start"
        )
        assert grown < ALLOWED / 2**20, f"after {name}: {now}, and {self.baseline} after the start"

    def usage(self) -> Usage:
        """What the node uses now; threads and files that are on their way out are waited for."""
        self.other_size()
        now = Usage(self.node.popen.pid)

        def no_more() -> bool:
            nonlocal now
            now = Usage(self.node.popen.pid)
            return now.threads <= self.baseline.threads + IDLE and now.files <= self.baseline.files

        try:
            self.graph.spin_until(no_more)
        except AssertionError:
            names = sorted(
                path.read_text().strip() for path in Path(f"/proc/{self.node.popen.pid}/task").glob("*/comm")
            )
            raise AssertionError(f"{now}, and {self.baseline} after the start: {names}") from None
        return now

    def close(self) -> None:
        """Ends everything."""
        self.graph.close()


def soak_markdown(report: dict) -> str:
    """A row for each kind of fault."""
    rows = ["| fault | times | frames again after, median s (longest) |", "|---|---|---|"]
    by_name: dict[str, list[float]] = {}
    for fault in report["faults"]:
        by_name.setdefault(fault["name"], []).append(fault["recovered_s"])
    for name in sorted(by_name):
        seconds = by_name[name]
        rows.append(f"| {name} | {len(seconds)} | {statistics.median(seconds):.2f} ({max(seconds):.2f}) |")
    counted = Counter((fault["threads"], fault["files"]) for fault in report["faults"])
    threads = sorted({threads for threads, _ in counted})
    files = sorted({files for _, files in counted})
    rows += [
        "",
        f"{report['minutes']:.1f} minutes, {len(report['faults'])} faults, {report['frames']} frames out (seed "
        f"{report['seed']}). Memory against that after the node's start: {min(report['grown_mb']):+.1f} to "
        f"{max(report['grown_mb']):+.1f} MB. Threads after every fault: {_list(threads)}; open files: {_list(files)}.",
    ]
    return "\n".join(rows) + "\n"


def _list(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))


def main() -> None:
    """The command of `make soak`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--period", type=float, default=60.0, help="seconds from one fault to the next")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), arguments.seed, lambda line: print(line, flush=True))
        try:
            report = soak.run(arguments.minutes, arguments.period)
        except AssertionError as error:
            sys.exit(f"soak: {error}")
        finally:
            soak.close()
    print("\n" + soak_markdown(asdict(report)))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(report), indent=1) + "\n")


if __name__ == "__main__":
    main()
