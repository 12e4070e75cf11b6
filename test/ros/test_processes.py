"""The executables as processes: they start, work, and leave at once when asked to."""

from __future__ import annotations

import signal
import time
from importlib import metadata

import numpy as np
import pytest
from ros_graph import OUTPUTS, TIMEOUT, Graph, Process, key, pixels, scene

from dsca_ros.upsampler import Upsampler

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NODE, CAMERA = "dsca_ros.ros.node", "dsca_ros.ros.synthetic_camera"

#: The node with an upsampler that does something before or instead of its work.
NODE_WITH = """
import os, signal, sys, time
import rclpy
from dsca_ros.ros import node

class Upsampler(node.Upsampler):
    def __init__(self, *args, **kwargs):
        {starting}
        super().__init__(*args, **kwargs)

    def __call__(self, depth):
        {working}
        return super().__call__(depth)

node.Upsampler = Upsampler
node.main(sys.argv)
"""

#: The process signals itself and, as SIGTERM only shuts ROS down, waits until that has happened.
SIGNAL_ITSELF = "os.kill(os.getpid(), {number})\n        while rclpy.ok(): time.sleep(0.01)"

#: An executable with a function of it that first signals the process, so that the rest of the
#: callback finds ROS shut down.
SIGNALLED_IN = """
import os, sys, time
import rclpy
from dsca_ros.ros import {module} as module

real = module.{function}

def signalled(*args, **kwargs):
    os.kill(os.getpid(), {number})
    while rclpy.ok(): time.sleep(0.01)
    return real(*args, **kwargs)

module.{function} = signalled
module.main(sys.argv)
"""


def wait_for(graph: Graph, process: Process, text: str) -> None:
    """Until the process has written something; fails at once if it ends before."""

    def written() -> bool:
        assert process.popen.poll() is None or text in process.output(), process.output()
        return text in process.output()

    graph.spin_until(written, f"{text!r} in the output")


def wait_for_results(graph: Graph, process: Process, count: int = 1) -> None:
    """Publishes frames until some are answered."""
    graph.listener.subscribe(OUTPUTS[0])
    index, sent = 0, 0.0

    def answered() -> bool:
        nonlocal index, sent
        assert process.popen.poll() is None, process.output()
        # The process gets a new frame with every answer, and now and then in case one was lost.
        if len(graph.listener.images) >= index or time.monotonic() - sent > 0.5:
            index, sent = len(graph.listener.images) + 1, time.monotonic()
            image = graph.camera.image(scene(index=index))
            graph.camera.publish(image, graph.camera.info(image))
        return len(graph.listener.images) >= count

    graph.spin_until(answered, "results of the process")


def assert_left_in_order(process: Process, number: signal.Signals) -> None:
    status = process.end(number)
    assert "Traceback" not in process.output(), process.output()
    assert "rror" not in process.output(), process.output()
    assert status == 0, process.output()


def assert_ended_in_order(process: Process) -> None:
    status = process.wait(TIMEOUT)
    assert "Traceback" not in process.output(), process.output()
    assert status == 0, process.output()


# --- the node -----------------------------------------------------------------------------------


def test_the_node_as_a_process_gives_the_same_result(graph: Graph, upsampler: Upsampler) -> None:
    process = graph.start(NODE)
    wait_for_results(graph, process)
    depth = scene(40, 30)
    image = graph.camera.image(depth)
    sent = 0.0

    def answered() -> bool:
        nonlocal sent
        if time.monotonic() - sent > 1.0:  # best effort: a frame may be lost
            sent = time.monotonic()
            graph.camera.publish(image)
        return key(image) in graph.listener.images

    graph.spin_until(answered, "the result")
    np.testing.assert_array_equal(pixels(graph.listener.images[key(image)]), upsampler(depth))


@pytest.mark.parametrize("number", SIGNALS)
def test_an_idle_node_leaves_at_once(graph: Graph, number: signal.Signals) -> None:
    process = graph.start(NODE)
    graph.status(lambda v: v["state"] == "IDLE")
    assert_left_in_order(process, number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_node_that_works_leaves_at_once(graph: Graph, number: signal.Signals) -> None:
    camera = graph.start(CAMERA, width=160, height=120, frames=2, rate=200.0)
    process = graph.start(NODE)
    graph.listener.subscribe(*OUTPUTS)
    graph.spin_until(lambda: len(graph.listener.clouds) >= 3, "results to flow")
    assert_left_in_order(process, number)
    assert camera.popen.poll() is None, camera.output()
    assert_left_in_order(camera, number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_node_that_is_loading_leaves_at_once(graph: Graph, number: signal.Signals) -> None:
    script = NODE_WITH.format(starting=SIGNAL_ITSELF.format(number=int(number)), working="pass")
    assert_ended_in_order(graph.run(["-c", script]))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_within_a_callback_of_the_node_ends_it(graph: Graph, number: signal.Signals) -> None:
    script = SIGNALLED_IN.format(module="node", function="Health.array", number=int(number))
    assert_ended_in_order(graph.run(["-c", script]))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_node_whose_engine_hangs_leaves_at_once(graph: Graph, number: signal.Signals) -> None:
    working = "print('hangs', flush=True); time.sleep(600)"
    process = graph.run(["-c", NODE_WITH.format(starting="pass", working=working)])
    graph.listener.subscribe(OUTPUTS[0])
    sent = 0.0

    def hangs() -> bool:
        nonlocal sent
        if time.monotonic() - sent > 0.5:
            sent = time.monotonic()
            graph.camera.publish(graph.camera.image())
        return "hangs" in process.output()

    graph.spin_until(hangs, "the engine to hang")
    assert_left_in_order(process, number)


# --- the synthetic camera -----------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_a_camera_that_publishes_leaves_at_once(graph: Graph, number: signal.Signals) -> None:
    process = graph.start(CAMERA, width=160, height=120, frames=2, rate=200.0)
    wait_for(graph, process, "publishing")
    assert_left_in_order(process, number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_within_a_callback_of_the_camera_ends_it(graph: Graph, number: signal.Signals) -> None:
    script = SIGNALLED_IN.format(module="synthetic_camera", function="messages.to_camera_info", number=int(number))
    parameters = ["-p", "width:=32", "-p", "height:=24", "-p", "frames:=1"]
    assert_ended_in_order(graph.run(["-c", script, "--ros-args", *parameters]))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_camera_that_renders_leaves_at_once(graph: Graph, number: signal.Signals) -> None:
    process = graph.start(CAMERA, width=640, height=480, frames=600)
    wait_for(graph, process, "rendering")
    assert_left_in_order(process, number)


# --- what is installed --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "module"), [("dsca_node", NODE), ("synthetic_camera", CAMERA)])
def test_the_executables_are_installed(name: str, module: str) -> None:
    (entry,) = metadata.entry_points(group="console_scripts", name=name)
    assert entry.value == f"{module}:main"
    assert callable(entry.load())


@pytest.mark.parametrize("module", [NODE, CAMERA])
@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["--params-file", "nowhere.yaml"], "nowhere.yaml"), (["-p", "scale"], "scale"), (["--bogus"], "--bogus")],
)
def test_ros_arguments_that_cannot_be_read_end_in_one_line(
    graph: Graph, module: str, arguments: list[str], word: str
) -> None:
    process = graph.run(["-m", module, "--ros-args", *arguments])
    assert process.wait(TIMEOUT) == 1, process.output()
    assert "Traceback" not in process.output()
    last = process.output().strip().splitlines()[-1]
    assert "cannot read the ROS arguments" in last
    assert word in last
