"""The driver's answers, by a stand-in for its library; no test here looks at the GPUs of the machine but the last."""

import ctypes
from types import SimpleNamespace

import pytest

from dsca_ros.engine import gpu
from dsca_ros.engine.gpu import Driver, Gpu, GpuError, find_driver

ADA = Gpu("NVIDIA RTX 2000 Ada Generation Laptop GPU", (8, 9), 8_188 << 20)
THOR = Gpu("NVIDIA Thor", (12, 1), 122 << 30)


class Library:
    """libcuda with some GPUs; ``failing`` maps a function to the error it gives."""

    def __init__(self, gpus=(ADA,), version=13000, failing=None) -> None:
        self.gpus, self.version, self.failing = gpus, version, failing or {}
        self.calls: list[str] = []

    def __getattr__(self, name: str):
        if not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append(name)
            return self.failing.get(name) or getattr(self, f"_{name}")(*arguments) or 0

        return call

    def _cuInit(self, flags):
        assert flags == 0

    def _cuDriverGetVersion(self, version):
        version._obj.value = self.version

    def _cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)

    def _cuDeviceGet(self, device, index):
        device._obj.value = index + 40  # a handle is not an index

    def _of(self, device: ctypes.c_int) -> Gpu:
        return self.gpus[device.value - 40]

    def _cuDeviceGetName(self, name, length, device):
        text = self._of(device).name.encode()
        assert length > len(text)
        name.value = text

    def _cuDeviceTotalMem_v2(self, memory, device):
        assert isinstance(memory._obj, ctypes.c_size_t)
        memory._obj.value = self._of(device).memory

    def _cuDeviceGetAttribute(self, number, attribute, device):
        number._obj.value = self._of(device).capability[{75: 0, 76: 1}[attribute]]

    def _cuGetErrorString(self, status, text):
        known = {1: b"invalid argument", 804: b"forward compatibility was attempted on non supported HW"}
        text._obj.value = known.get(status)
        return 0 if status in known else 1


@pytest.fixture
def found(monkeypatch):
    """Finds the driver with a stand-in for its library."""

    def find(library: Library) -> Driver:
        find_driver.cache_clear()
        monkeypatch.setattr(gpu, "open_library", lambda: library)
        return find_driver()

    yield find
    find_driver.cache_clear()


def test_names_capabilities_memory_and_version(found):
    driver = found(Library((ADA, THOR), 12080))
    assert driver == Driver((12, 8), (ADA, THOR))
    assert [gpu.target for gpu in driver.gpus] == ["sm89", "sm121"]


@pytest.mark.parametrize(
    ("number", "version"), [(13000, (13, 0)), (11040, (11, 4)), (12060, (12, 6)), (13010, (13, 1))]
)
def test_versions(found, number, version):
    assert found(Library(version=number)).cuda == version


def test_a_name_that_is_no_text_is_no_error(found, monkeypatch):
    monkeypatch.setattr(Library, "_cuDeviceGetName", lambda self, name, *_: setattr(name, "value", b"GPU \xff"))
    assert found(Library()).gpus[0].name.startswith("GPU ")


def test_the_driver_is_asked_once(found):
    library = Library()
    assert found(library) is find_driver()
    assert library.calls.count("cuInit") == 1


def test_what_failed_is_asked_again(found, monkeypatch):
    with pytest.raises(GpuError):
        found(Library(()))
    monkeypatch.setattr(gpu, "open_library", Library)
    assert find_driver().gpus == (ADA,)


def test_without_a_driver_the_remedy_is_told(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(gpu, "ctypes", SimpleNamespace(CDLL=missing))
    find_driver.cache_clear()
    with pytest.raises(GpuError, match=r"^no NVIDIA driver .*libcuda.*; remedy: .*--gpus all"):
        find_driver()


@pytest.mark.parametrize("library", [Library(()), Library(failing={"cuInit": 100})], ids=["none", "no device"])
def test_without_a_gpu_the_remedy_is_told(found, library):
    with pytest.raises(GpuError, match=r"shows no GPU; remedy: .*CUDA_VISIBLE_DEVICES"):
        found(library)


@pytest.mark.parametrize("name", [name[1:] for name in vars(Library) if name.startswith("_cu") and "Error" not in name])
@pytest.mark.parametrize(
    ("status", "said"),
    [(804, r"forward compatibility .* \(CUDA error 804\)"), (999, r"unknown error \(CUDA error 999\)")],
)
def test_every_error_is_told_in_the_drivers_words(found, name, status, said):
    with pytest.raises(GpuError, match=f"^the NVIDIA driver fails: {said}; remedy: "):
        found(Library(failing={name: status}))


def test_this_machine_has_a_gpu_or_says_why_not():
    find_driver.cache_clear()
    try:
        driver = find_driver()
    except GpuError as error:
        assert "remedy: " in str(error) and "\n" not in str(error)
    else:
        assert driver.cuda >= (11, 0)
        assert all(gpu.name and gpu.memory > 1 << 28 and gpu.capability >= (3, 0) for gpu in driver.gpus)
