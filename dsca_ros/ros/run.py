"""What every executable of this package does around its node."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

import rclpy
from rclpy.node import Node

from dsca_ros.engine.base import EngineError


class ClosableNode(Node):
    """A node that may hold more than ROS frees."""

    def close(self) -> None:
        """Frees what the node holds; it is of no use after that."""
        self.destroy_node()


def run(create: Callable[[], ClosableNode], name: str, args: list[str] | None) -> None:
    """Spins a node until Ctrl-C or SIGTERM.

    Ends the process with status 1 and one line on standard error where the node cannot start.

    Args:
        create: makes the node; raises ValueError or EngineError where it cannot.
        name: of the executable, for that line.
        args: of the command line; None takes the process's own.
    """
    try:
        rclpy.init(args=args)
    except RuntimeError as error:  # what rcl makes of arguments or a parameter file it cannot read
        _refuse(name, f"cannot read the ROS arguments: {error}")
    node = None
    try:
        # What spins the node, and first: Kilted's leaves a traceback if Ctrl-C comes while it is made.
        rclpy.get_global_executor()
        try:
            node = create()
        except (EngineError, ValueError) as error:
            if rclpy.ok():
                _refuse(name, str(error))
            raise
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    except Exception:
        # SIGTERM shuts ROS down under whatever runs just then, a start too, which fails in a way of its own.
        if rclpy.ok():
            raise
    finally:
        # A second signal must not cut the cleaning up short.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if node is not None:
            node.close()
        rclpy.try_shutdown()


def _refuse(name: str, text: str) -> NoReturn:
    print(f"{name}: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(1)
