"""A CUDA graph: what was put into a stream once, launched again as a whole. pycuda has none."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from dsca_ros.engine.base import EngineError
from dsca_ros.engine.gpu import open_library

#: CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do with CUDA meanwhile is no error.
_THREAD_LOCAL = 1


class CudaGraph:
    """Captures what ``enqueue`` puts into a stream.

    Args:
        stream: its handle.
        enqueue: puts the work into the stream; it must neither wait nor allocate.

    Raises:
        EngineError: if the work cannot be captured.
    """

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        self._library = open_library()
        self._executable = ctypes.c_void_p()
        captured = ctypes.c_void_p()
        self._check(self._library.cuStreamBeginCapture_v2(ctypes.c_void_p(stream), _THREAD_LOCAL))
        try:
            enqueue()
        finally:
            # A capture that was begun is ended, or the stream is of no use any more.
            status = self._library.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(captured))
        self._check(status)
        try:
            self._check(
                self._library.cuGraphInstantiateWithFlags(
                    ctypes.byref(self._executable), captured, ctypes.c_ulonglong(0)
                )
            )
        finally:
            self._library.cuGraphDestroy(captured)

    def launch(self, stream: int) -> None:
        """Puts the whole into a stream."""
        self._check(self._library.cuGraphLaunch(self._executable, ctypes.c_void_p(stream)))

    def close(self) -> None:
        """Frees it."""
        if self._executable:
            self._library.cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()

    def _check(self, status: int) -> None:
        if status:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            raise EngineError(f"CUDA error {status}: {text.value.decode() if text.value else 'unknown'}")
