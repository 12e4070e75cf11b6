"""The node as a process calls nobody, writes nothing and starts nothing, from its start to its end."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from clients import Parameters
from ros_graph import OUTPUTS, Graph

#: The node, which says of each call out, write and process what it is; DDS is not Python's, and not seen.
WATCHED = """
import os, sys
from dsca_ros.ros import node

LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")

def watch(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or path == os.devnull:
            return
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        if arguments[0] in LOCAL:
            return
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if not isinstance(arguments[1], tuple) or arguments[1][0] in LOCAL:
            return
    elif event not in (*CHANGES, *STARTS):
        return
    print("seen:", event, arguments, file=sys.stderr, flush=True)

sys.addaudithook(watch)
{first}
node.main(sys.argv)
"""


def start(graph: Graph, home: Path, first: str = "") -> list[str]:
    """What the node is seen to do, and the files it leaves in a home of its own: frames, and changes of network."""
    home.mkdir()
    env = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):  # what tells telemetry to be quiet by chance
        env[name] = ""
    script = "import os\nfor name in ('CI', 'ORT_DISABLE_TELEMETRY'): del os.environ[name]\n"
    node = graph.run(["-c", script + WATCHED.format(first=first)], env)
    graph.listener.subscribe(*OUTPUTS)
    parameters = Parameters(graph)
    sent = 0.0

    def works(logged: str, width: int) -> bool:
        nonlocal sent
        assert node.popen.poll() is None, node.output()
        if time.monotonic() - sent > 0.2:
            sent = time.monotonic()
            image = graph.camera.image()
            graph.camera.publish(image, graph.camera.info(image))
        return logged in node.output() and any(cloud.width == width for cloud in graph.listener.clouds.values())

    graph.spin_until(lambda: works("x2 on", 128), "results")
    assert parameters.set(engine="onnxruntime") == (True, "")
    graph.spin_until(lambda: works("x2 on ONNX Runtime", 128), "those of another engine")
    assert parameters.set(scale=4) == (True, "")
    graph.spin_until(lambda: works("x4 on ONNX Runtime", 256), "larger ones")
    assert node.end(signal.SIGTERM) == 0, node.output()
    lines = [line for line in node.output().splitlines() if line.startswith("seen:")]
    return lines + [str(path) for path in home.rglob("*") if path.is_file()]


@pytest.mark.once
def test_the_node_calls_nobody_writes_nothing_and_starts_nothing(graph: Graph, tmp_path: Path) -> None:
    assert start(graph, tmp_path / "home") == []


@pytest.mark.once
def test_the_watch_sees_what_the_node_would_do(graph: Graph, tmp_path: Path) -> None:
    first = """
import socket, subprocess
from pathlib import Path
(Path.home() / "left").write_text("x")
try: socket.create_connection(("example.invalid", 80))
except OSError: pass
subprocess.run(["true"])
"""
    found = start(graph, tmp_path / "home", first)
    for word in ("left", "example.invalid", "subprocess.Popen", str(tmp_path / "home" / "left")):
        assert any(word in line for line in found), (word, found)
