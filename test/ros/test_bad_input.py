"""What cameras should not send: named in a warning, counted, and the next good frame works."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from ros_graph import OUTPUTS, Graph, key, pixels, scene, values, xyz
from sensor_msgs.msg import CameraInfo, Image

from dsca_ros.upsampler import Upsampler

IMAGE, INFO, POINTS = OUTPUTS

#: name: (fields of an otherwise good 64x48 16UC1 message, counter, words of the warning)
REJECTED = {
    "unknown encoding": (
        {"encoding": "rgb8"},
        "unknown_encoding",
        ("'rgb8'", "16UC1", "mono16", "32FC1"),
    ),
    "compressed": (
        {"encoding": "16UC1; compressedDepth"},
        "unknown_encoding",
        ("compressedDepth",),
    ),
    "short data": ({"data": array("B", bytes(6143))}, "short_data", ("6143", "6144")),
    "no data": ({"data": array("B")}, "short_data", ("0 bytes", "6144")),
    "small step": ({"step": 127}, "bad_step", ("127", "128")),
    "zero step": ({"step": 0}, "bad_step", ("128",)),
    "16UC1 called 32FC1": ({"encoding": "32FC1"}, "bad_step", ("128", "256")),
    "zero width": ({"width": 0}, "empty_image", ("0x48",)),
    "zero height": ({"height": 0}, "empty_image", ("64x0",)),
    "huge height": ({"height": 4_000_000_000}, "too_large", ("64x4000000000",)),
}


def assert_only(graph: Graph, *images: Image) -> None:
    """Of all the node published, there is nothing but the results of these frames."""
    frames = [key(image) for image in images]
    assert list(graph.listener.images) == frames
    assert list(graph.listener.infos) == frames
    assert list(graph.listener.clouds) == frames


@pytest.mark.parametrize("name", REJECTED)
def test_a_bad_frame_is_named_counted_and_left_behind(graph: Graph, name: str) -> None:
    fields, cause, words = REJECTED[name]
    graph.start_node()
    graph.connect()
    bad = graph.camera.image()
    for field, value in fields.items():
        setattr(bad, field, value)
    graph.send(bad, graph.camera.info(bad))
    counter = f"rejected_{cause}"
    graph.spin_until(lambda: graph.counter(counter) == 1, counter)
    good = graph.good_frame()
    assert_only(graph, good)
    graph.spin_until(lambda: graph.listener.warnings(words[0]), "the warning")
    (text,) = graph.listener.warnings(words[0])
    assert all(word in text for word in words), text
    status = graph.status(lambda v: v.get(counter) == "1" and v.get("published") == "1", counter)
    assert values(status)["state"] == "RUNNING"
    assert "engine_error" not in values(status)


def test_warnings_of_one_cause_are_throttled(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsca_ros.ros.node.WARN_PERIOD", 3600.0)
    graph.start_node()
    graph.connect(IMAGE)

    def send_bad(encoding: str) -> None:
        image = graph.camera.image()
        image.encoding = encoding
        rejected = graph.counter("rejected_unknown_encoding")
        graph.send(image)
        graph.spin_until(lambda: graph.counter("rejected_unknown_encoding") == rejected + 1)

    for index in range(40):
        send_bad(f"bgr8 number {index}")
    status = graph.status(lambda v: v.get("rejected_unknown_encoding") == "40", "40 rejected")
    assert status.level == status.WARN and "images are rejected: depth encoding 'bgr8 number 39'" in status.message
    empty = graph.camera.image()
    empty.width = 0
    graph.send(empty)  # another cause is heard at once
    graph.spin_until(lambda: graph.listener.warnings("no pixels"), "the warning of another cause")
    assert len(graph.listener.warnings("bgr8")) == 1
    monkeypatch.setattr("dsca_ros.ros.node.WARN_PERIOD", 0.0)
    send_bad("bgr8 after the period")
    graph.spin_until(lambda: graph.listener.warnings("after the period"), "the warning after the period")
    assert len(graph.listener.warnings("bgr8")) == 2
    assert graph.counter("rejected_unknown_encoding") == 41


# --- pixels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_an_all_invalid_frame_gives_an_all_invalid_result(graph: Graph, encoding: str) -> None:
    graph.start_node()
    graph.connect()
    depth = np.zeros((48, 64), np.uint16) if encoding == "16UC1" else np.full((48, 64), np.nan, np.float32)
    image = graph.camera.image(depth)
    result = pixels(graph.exchange(image, graph.camera.info(image)))
    assert result.shape == (96, 128)
    assert not result.any() if encoding == "16UC1" else np.isnan(result).all()
    graph.spin_until(lambda: graph.listener.clouds, "points")
    assert np.isnan(xyz(graph.listener.clouds[key(image)])).all()
    graph.status(lambda v: v["invalid_ratio"] == "1.000" and v["state"] == "RUNNING", "all invalid")
    assert_only(graph, image, graph.good_frame())


GARBAGE = {
    "16UC1": [0, 65535, 20_000, 99],
    "mono16": [65535],
    "32FC1": [np.nan, np.inf, -np.inf, -1.5, 0.0, -0.0, 65.535, 60.0, 3e38, 1e-40],
}


@pytest.mark.parametrize(("encoding", "value"), [(e, v) for e in GARBAGE for v in GARBAGE[e]])
def test_garbage_never_comes_out_as_depth(upsampler: Upsampler, encoding: str, value: float) -> None:
    # The same arrays through the node: see the next test. This one is for every single value.
    dtype = np.float32 if encoding == "32FC1" else np.uint16
    good = scene(dtype=dtype)
    depth = good.copy()
    depth[:, 40:] = value
    depth[::5, ::7] = value
    low, high = good[good > 0].min(), good[good > 0].max()
    assert_sane(upsampler(depth), low, high)
    assert not upsampler(np.full_like(depth, value)).any()


def assert_sane(result: np.ndarray, low: float, high: float) -> None:
    """Valid pixels lie in the range of the good input, and far from good input there are none."""
    valid = result[result > 0]
    assert np.isfinite(result).all()
    assert valid.size > 0.2 * result.size
    assert low <= valid.min() and valid.max() <= high
    assert not result[:, -32:].any()  # 8 pixels into the garbage and beyond


@pytest.mark.parametrize("encoding", GARBAGE)
@pytest.mark.parametrize("max_depth", [10.0, 65.0])
def test_garbage_never_leaves_the_node_as_depth(graph: Graph, encoding: str, max_depth: float) -> None:
    graph.start_node(min_depth=0.1, max_depth=max_depth)
    graph.connect()
    dtype = np.float32 if encoding == "32FC1" else np.uint16
    depth = scene(dtype=dtype)
    low, high = depth[depth > 0].min(), depth[depth > 0].max()
    garbage = [v for v in GARBAGE[encoding] if max_depth == 10.0 or v not in (20_000, 60.0)]
    depth[:, 40:] = np.resize(np.array(garbage, dtype), (48, 24))
    image = graph.camera.image(depth, encoding)
    result = pixels(graph.exchange(image, graph.camera.info(image))).copy()
    if encoding == "32FC1":
        assert not (result == 0).any()  # invalid is NaN there
        result[np.isnan(result)] = 0.0
    assert_sane(result, low, high)
    graph.spin_until(lambda: graph.listener.clouds, "points")
    points = xyz(graph.listener.clouds[key(image)])
    invalid = result == 0
    assert np.isnan(points[invalid]).all() and np.isfinite(points[~invalid]).all()


# --- camera_info --------------------------------------------------------------------------------


def test_camera_info_that_never_comes_costs_no_image(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    for index in range(3):
        graph.exchange(graph.camera.image(scene(index=index)))
    graph.spin_until(lambda: graph.counter("published") == 3)
    graph.spin_until(lambda: graph.listener.warnings("no camera_info"), "the warning")
    assert len(graph.listener.warnings("no camera_info")) == 1
    status = graph.status(lambda v: v.get("no_camera_info") == "3" and v["state"] == "RUNNING")
    assert status.level == status.WARN and "RUNNING: no camera_info yet" in status.message
    assert not graph.listener.infos and not graph.listener.clouds


def test_camera_info_may_come_late(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    first = graph.camera.image()
    graph.exchange(first)
    graph.camera.info_publisher.publish(graph.camera.info(first))
    graph.spin_until(lambda: graph.node.infos, "camera_info")
    # The camera sends the info of this frame later too: the newest one that is there serves.
    second = graph.camera.image()
    graph.exchange(second)
    graph.spin_until(lambda: graph.listener.clouds, "points")
    assert list(graph.listener.infos) == list(graph.listener.clouds) == [key(second)]
    assert graph.listener.infos[key(second)].header == second.header
    assert graph.counter("no_camera_info") == 1


def test_the_camera_info_of_the_images_stamp_is_taken(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    images = [graph.camera.image() for _ in range(3)]
    infos = [graph.camera.info(image) for image in images]
    for number, info in enumerate(infos, 1):
        info.k[0] = info.p[0] = 50.0 + number
        graph.camera.info_publisher.publish(info)
    graph.spin_until(lambda: len(graph.node.infos) == 3, "every camera_info")
    graph.exchange(images[1])
    graph.spin_until(lambda: graph.listener.infos, "camera_info")
    assert graph.listener.infos[key(images[1])].k[0] == 2 * 52.0


def test_camera_info_of_another_size_is_counted_and_the_image_published(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    image = graph.camera.image()
    wrong = graph.camera.info(image)
    wrong.width, wrong.height = 640, 480
    graph.exchange(image, wrong)
    graph.spin_until(lambda: graph.counter("published") == 1)
    graph.spin_until(lambda: graph.listener.warnings("640x480"), "the warning")
    assert "64x48" in graph.listener.warnings("640x480")[0]
    good = graph.good_frame()
    assert list(graph.listener.images) == [key(image), key(good)]
    assert list(graph.listener.infos) == list(graph.listener.clouds) == [key(good)]
    graph.status(lambda v: v.get("rejected_camera_info_size") == "1")


def test_a_camera_info_of_the_old_size_is_not_used_after_a_change(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    graph.good_frame()
    smaller = graph.camera.image(scene(32, 24))
    graph.exchange(smaller)  # its info is late
    graph.spin_until(lambda: graph.counter("published") == 2)
    again = graph.camera.image(scene(32, 24))
    graph.exchange(again, graph.camera.info(again))
    graph.spin_until(lambda: key(again) in graph.listener.clouds, "points of the new size")
    assert key(smaller) not in graph.listener.infos
    assert key(smaller) not in graph.listener.clouds


def uncalibrated(info: CameraInfo) -> CameraInfo:
    info.k, info.p = np.zeros(9), np.zeros(12)
    return info


def test_a_camera_info_without_calibration_gives_no_points(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    image = graph.camera.image()
    graph.exchange(image, uncalibrated(graph.camera.info(image)))
    graph.spin_until(lambda: graph.listener.infos, "camera_info")
    info = graph.listener.infos[key(image)]
    assert (info.width, info.height) == (128, 96)
    assert not info.k.any() and not info.p.any()
    graph.spin_until(lambda: graph.listener.warnings("K is zero"), "the warning")
    good = graph.good_frame()
    assert list(graph.listener.images) == list(graph.listener.infos) == [key(image), key(good)]
    assert list(graph.listener.clouds) == [key(good)]
    status = graph.status(lambda v: v.get("not_calibrated") == "1" and v["state"] == "RUNNING")
    assert status.level == status.OK  # since the good frame


def test_a_binned_and_cropped_camera_info_goes_with_its_image(graph: Graph) -> None:
    graph.start_node()
    graph.connect()
    image = graph.camera.image()
    info = graph.camera.info(image)
    info.width, info.height = 640, 480  # the sensor: the image is a region of 128x96, binned by two
    info.binning_x = info.binning_y = 2
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 200, 100, 128, 96
    info.k[[0, 2, 4, 5]] = info.p[[0, 2, 5, 6]] = 500.0, 260.5, 500.0, 150.5
    graph.exchange(image, info)
    graph.spin_until(lambda: graph.listener.clouds, "points")
    result = graph.listener.infos[key(image)]
    assert (result.width, result.height, result.binning_x, result.roi.width) == (128, 96, 0, 0)
    # Twice larger undoes the binning by two: only the region's offset is left.
    np.testing.assert_allclose(result.k[[0, 2, 4, 5]], [500.0, 60.5, 500.0, 50.5])


# --- the engine ---------------------------------------------------------------------------------


class Flaky:
    """An upsampler that fails while told to."""

    def __init__(self, upsampler: Upsampler, error: Exception) -> None:
        self._upsampler = upsampler
        self.depth_range = upsampler.depth_range
        self.error: Exception | None = error

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        if self.error is not None:
            raise self.error
        return self._upsampler(depth)

    def __getattr__(self, name: str) -> object:
        return getattr(self._upsampler, name)

    def close(self) -> None:
        self._upsampler.close()


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), MemoryError()])
def test_an_engine_that_fails_loses_the_frame_and_no_more(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    node = graph.start_node()
    flaky = Flaky(node.pipeline.upsampler, error)
    monkeypatch.setattr(node.pipeline, "upsampler", flaky)
    graph.connect()
    for number in (1, 2):
        graph.send(graph.camera.image())
        graph.spin_until(lambda n=number: graph.counter("engine_error") == n, "the failure")
    status = graph.status(lambda v: v["state"] == "ERROR" and v.get("engine_error") == "2", "of ERROR")
    assert status.level == status.ERROR
    assert type(error).__name__ in status.message and str(error) in status.message
    graph.spin_until(lambda: graph.listener.warnings(type(error).__name__), "the warning")
    assert len(graph.listener.warnings(type(error).__name__)) == 1
    flaky.error = None
    good = graph.good_frame()
    assert_only(graph, good)
    status = graph.status(lambda v: v["state"] == "RUNNING" and v.get("engine_error") == "2", "of RUNNING")
    assert status.level == status.OK
