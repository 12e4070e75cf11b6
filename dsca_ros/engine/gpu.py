"""The NVIDIA GPUs of this machine, as their driver tells them: no CUDA toolkit is needed to ask."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dsca_ros.engine.base import EngineError

#: CUdevice_attribute: COMPUTE_CAPABILITY_MAJOR and _MINOR.
_MAJOR, _MINOR = 75, 76
_NO_DEVICE = 100


class GpuError(EngineError):
    """No GPU can be used here; the text says why and what to do."""


@dataclass(frozen=True)
class Gpu:
    """One GPU; ``capability`` is its compute capability, ``memory`` is in bytes."""

    name: str
    capability: tuple[int, int]
    memory: int

    @property
    def target(self) -> str:
        """Its architecture as engines are built for it: ``sm89``."""
        return f"sm{self.capability[0]}{self.capability[1]}"


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: the newest CUDA it runs, and its GPUs, of which there is at least one."""

    cuda: tuple[int, int]
    gpus: tuple[Gpu, ...]


def open_library() -> ctypes.CDLL:
    """The driver's library.

    Raises:
        GpuError: if there is no driver.
    """
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise GpuError(
            "no NVIDIA driver (libcuda.so.1 is missing); remedy: install one, or start the container with --gpus all"
        ) from None


@lru_cache(maxsize=1)
def find_driver() -> Driver:
    """The driver and its GPUs. What is found once is kept.

    Raises:
        GpuError: if there is no driver, no GPU, or the driver refuses.
    """
    library = open_library()
    _check(library, library.cuInit(0))
    version, count = ctypes.c_int(), ctypes.c_int()
    _check(library, library.cuDriverGetVersion(ctypes.byref(version)))
    _check(library, library.cuDeviceGetCount(ctypes.byref(count)))
    gpus = tuple(_gpu(library, index) for index in range(count.value))
    if not gpus:
        raise GpuError("the NVIDIA driver shows no GPU; remedy: is one plugged in, and is CUDA_VISIBLE_DEVICES right?")
    return Driver((version.value // 1000, version.value % 1000 // 10), gpus)


def _gpu(library: Any, index: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    _check(library, library.cuDeviceGet(ctypes.byref(device), index))
    _check(library, library.cuDeviceGetName(name, len(name), device))
    _check(library, library.cuDeviceTotalMem_v2(ctypes.byref(memory), device))
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int()
        _check(library, library.cuDeviceGetAttribute(ctypes.byref(number), attribute, device))
        numbers.append(number.value)
    return Gpu(name.value.decode(errors="replace"), (numbers[0], numbers[1]), memory.value)


def _check(library: Any, status: int) -> None:
    if status == 0:
        return
    if status == _NO_DEVICE:
        raise GpuError("the NVIDIA driver shows no GPU; remedy: is one plugged in, and is CUDA_VISIBLE_DEVICES right?")
    text = ctypes.c_char_p()
    library.cuGetErrorString(status, ctypes.byref(text))
    said = text.value.decode() if text.value else "unknown error"
    raise GpuError(f"the NVIDIA driver fails: {said} (CUDA error {status}); remedy: `nvidia-smi`, or a restart")
