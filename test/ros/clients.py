"""What other programs do with the node: a lifecycle manager, a parameter client, whoever watches a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.parameter_client import AsyncParameterClient
from rclpy.task import Future
from ros_graph import Graph

#: What to ask for to go on from each state of a node that works: once around.
AROUND = ("deactivate", "cleanup", "configure", "activate")


class Lifecycle:
    """The services of a node's lifecycle."""

    def __init__(self, graph: Graph, node: str = "dsca_node") -> None:
        self._graph = graph
        self._change = graph.tester.create_client(ChangeState, f"{node}/change_state")
        self._get = graph.tester.create_client(GetState, f"{node}/get_state")
        for client in (self._change, self._get):
            graph.spin_until(client.service_is_ready, f"the services of {node}'s lifecycle")

    def state(self) -> str:
        """The state's name."""
        return _answer(self._graph, self._get.call_async(GetState.Request())).current_state.label

    def begin(self, transition: str | int) -> Future:
        """Asks for a transition by its name or number."""
        by = {"label": transition} if isinstance(transition, str) else {"id": transition}
        return self._change.call_async(ChangeState.Request(transition=Transition(**by)))

    def change(self, transition: str | int) -> bool:
        """Asks for a transition; whether it succeeded."""
        return _answer(self._graph, self.begin(transition)).success

    def changes(self, transitions: Iterable[str]) -> None:
        """Goes through transitions that all succeed."""
        for transition in transitions:
            assert self.change(transition), transition


class Parameters:
    """The services of a node's parameters."""

    def __init__(self, graph: Graph, node: str = "dsca_node") -> None:
        self._graph = graph
        self._client = AsyncParameterClient(graph.tester, node)
        graph.spin_until(self._client.services_are_ready, f"the services of {node}'s parameters")

    def begin(self, **changes: object) -> Future:
        """Asks to set parameters at one stroke."""
        parameters = [Parameter(name, value=value) for name, value in changes.items()]
        return self._client.set_parameters_atomically(parameters)

    def set(self, **changes: object) -> tuple[bool, str]:
        """Sets parameters at one stroke; whether that was accepted, and why not."""
        result = _answer(self._graph, self.begin(**changes)).result
        return result.successful, result.reason

    def delete(self, name: str) -> tuple[bool, str]:
        """Deletes a parameter, as `ros2 param delete`; whether that was accepted, and why not."""
        (result,) = _answer(self._graph, self._client.delete_parameters([name])).results
        return result.successful, result.reason

    def values(self) -> dict[str, object]:
        """Every parameter that has a value."""
        names = _answer(self._graph, self._client.list_parameters()).result.names
        values = _answer(self._graph, self._client.get_parameters(names)).values
        assert len(values) == len(names)
        there = [(name, value) for name, value in zip(names, values) if value.type != ParameterType.PARAMETER_NOT_SET]
        return {name: parameter_value_to_python(value) for name, value in there}


def _answer(graph: Graph, future: Future) -> object:
    graph.spin_until(future.done, "an answer")
    return future.result()


def node_threads() -> set[str]:
    """Names of this process's threads that are the node's."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("dsca_")}


class Usage:
    """What a process uses now: bytes of memory, threads and open files."""

    def __init__(self, pid: int) -> None:
        process = Path(f"/proc/{pid}")
        self.memory = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.threads = len(list((process / "task").iterdir()))
        self.files = len(list((process / "fd").iterdir()))

    def __repr__(self) -> str:
        return f"{self.memory / 2**20:.1f} MB, {self.threads} threads, {self.files} files"
