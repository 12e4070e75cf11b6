"""Between messages and arrays: every encoding, every layout, every way to be wrong. No DDS here."""

from __future__ import annotations

import sys
from array import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from ros_graph import scales, xyz
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField, RegionOfInterest
from std_msgs.msg import Header

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.ros import messages
from dsca_ros.ros.messages import BadMessage
from dsca_ros.upsampler import Upsampler

HEADER = Header(stamp=Time(sec=12, nanosec=34), frame_id="depth_camera_link")
ENCODINGS = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}


def depth_of(encoding: str, height: int = 3, width: int = 5) -> np.ndarray:
    values = np.arange(1, height * width + 1).reshape(height, width)
    return (values * 1000 if ENCODINGS[encoding] is np.uint16 else values / 7).astype(ENCODINGS[encoding])


def message_of(depth: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False, extra: int = 0) -> Image:
    """A message written byte by byte, independently of the package."""
    order = depth.dtype.newbyteorder(">" if big_endian else "<")
    rows = [row.astype(order).tobytes() + b"\xee" * padding for row in depth]
    message = Image(header=HEADER, height=depth.shape[0], width=depth.shape[1], encoding=encoding)
    message.is_bigendian = int(big_endian)
    message.step = len(rows[0])
    message.data = array("B", b"".join(rows) + b"\xee" * extra)
    return message


# --- decode -------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [0, 9])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 8, 3])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_and_layout_is_decoded(encoding: str, padding: int, big_endian: bool, extra: int) -> None:
    depth = depth_of(encoding)
    decoded = messages.decode_depth(message_of(depth, encoding, padding, big_endian, extra))
    assert decoded.dtype == depth.dtype
    assert decoded.dtype.isnative
    np.testing.assert_array_equal(decoded, depth)


def test_nan_and_infinities_are_left_to_the_engine() -> None:
    depth = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0]], np.float32)
    np.testing.assert_array_equal(messages.decode_depth(message_of(depth, "32FC1")), depth)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_decoding_is_a_read_only_view(encoding: str, padding: int) -> None:
    message = message_of(depth_of(encoding), encoding, padding, big_endian=sys.byteorder == "big")
    decoded = messages.decode_depth(message)
    assert np.shares_memory(decoded, np.frombuffer(message.data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        decoded[0, 0] = 1


REJECTED = [
    ({"encoding": "rgb8"}, "unknown_encoding", ["'rgb8'", "16UC1", "mono16", "32FC1"]),
    ({"encoding": ""}, "unknown_encoding", ["''", "16UC1"]),
    ({"encoding": "x" * 10_000}, "unknown_encoding", ["'" + 80 * "x" + "'...", "16UC1"]),
    ({"encoding": "16uc1"}, "unknown_encoding", ["'16uc1'", "16UC1"]),
    ({"encoding": "16UC1; compressedDepth png"}, "unknown_encoding", ["compressedDepth"]),
    ({"width": 0}, "empty_image", ["0x3"]),
    ({"height": 0}, "empty_image", ["5x0"]),
    ({"width": 0, "height": 0, "step": 0, "data": array("B")}, "empty_image", ["0x0"]),
    ({"width": 100_000, "step": 200_000}, "too_large", ["100000x3"]),
    ({"height": 4_294_967_295}, "too_large", ["5x4294967295"]),
    ({"step": 9}, "bad_step", ["9", "10"]),
    ({"step": 0}, "bad_step", ["0", "10"]),
    ({"encoding": "32FC1"}, "bad_step", ["10", "20"]),
    ({"data": array("B", bytes(29))}, "short_data", ["29", "30"]),
    ({"data": array("B")}, "short_data", ["0", "30"]),
    ({"step": 4_294_967_295}, "short_data", ["30", str(3 * 4_294_967_295)]),
]


@pytest.mark.parametrize(("fields", "cause", "words"), REJECTED)
def test_a_message_that_contradicts_itself_is_rejected(fields: dict[str, object], cause: str, words: list[str]) -> None:
    message = message_of(depth_of("16UC1"), "16UC1")
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(BadMessage) as caught:
        messages.decode_depth(message)
    assert caught.value.cause == cause
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


def test_an_image_of_more_pixels_than_asked_for_is_rejected() -> None:
    message = message_of(depth_of("16UC1"), "16UC1")
    pixels = message.width * message.height
    assert messages.decode_depth(message, pixels).size == pixels
    with pytest.raises(BadMessage, match="max_pixels") as caught:
        messages.decode_depth(message, pixels - 1)
    assert caught.value.cause == "too_large"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e10, 1e-320, -4.0])
@pytest.mark.parametrize("field", ["k", "p", "r", "d"])
def test_a_camera_info_with_numbers_that_no_camera_has_is_rejected(field: str, value: float) -> None:
    info = messages.to_camera_info(Intrinsics(5, 3, 4.0, 4.0, 2.0, 1.0), Header())
    messages.check_camera_info(info, 5, 3)
    getattr(info, field)[0] = value
    if value in (1e-320, -4.0) and field in "rd":
        return messages.check_camera_info(info, 5, 3)  # small or negative it may be where it is no focal length
    with pytest.raises(BadMessage) as caught:
        messages.check_camera_info(info, 5, 3)
    assert caught.value.cause == "camera_info_values"


@pytest.mark.parametrize("field, index", [("k", 0), ("k", 4), ("p", 0), ("p", 5)])
def test_a_camera_info_with_one_of_two_focal_lengths_is_rejected(field: str, index: int) -> None:
    """Else K would be that of the larger image, and P of the small one."""
    info = messages.to_camera_info(Intrinsics(5, 3, 4.0, 4.0, 2.0, 1.0), Header())
    getattr(info, field)[index] = 0.0
    with pytest.raises(BadMessage, match="no camera has"):
        messages.check_camera_info(info, 5, 3)


def test_a_camera_info_with_megabytes_of_distortion_is_rejected() -> None:
    info = messages.to_camera_info(Intrinsics(5, 3, 4.0, 4.0, 2.0, 1.0), Header())
    info.d = [0.0] * 14
    messages.check_camera_info(info, 5, 3)
    info.d = [0.0] * 1000
    with pytest.raises(BadMessage, match="too many"):
        messages.check_camera_info(info, 5, 3)


def test_random_fields_are_decoded_or_rejected_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    sizes = (0, 1, 2, 3, 5, 8, 64, 16384, 16385, 2**31, 2**32 - 1)
    encodings = ("16UC1", "mono16", "32FC1", "rgb8", "", "8UC1", "ünïcode")
    causes = set()
    for _ in range(600):
        height, width, step = (int(rng.choice(sizes)) for _ in range(3))
        if rng.random() < 0.5:  # half of them nearly right
            height, width = (int(v) for v in rng.integers(1, 9, 2))
            step = max(0, width * int(rng.choice((2, 4))) + int(rng.integers(-1, 4)))
        message = Image(height=height, width=width, step=step)
        message.encoding = str(rng.choice(encodings))
        message.is_bigendian = int(rng.choice((0, 1, 255)))
        length = int(rng.integers(0, 400)) if height * step > 400 else height * step + int(rng.integers(-2, 3))
        message.data = array("B", rng.bytes(max(0, length)))
        try:
            decoded = messages.decode_depth(message)
        except BadMessage as error:
            causes.add(error.cause)
            continue
        causes.add("decoded")
        assert decoded.shape == (height, width)
        assert decoded.dtype == ENCODINGS[message.encoding]
        decoded.copy()  # touches every pixel
    every = {"unknown_encoding", "empty_image", "too_large", "bad_step", "short_data", "decoded"}
    assert causes == every


# --- encode -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encoding_fills_every_field(encoding: str) -> None:
    depth = depth_of(encoding)
    message = messages.encode_depth(depth.copy(), HEADER, encoding)
    assert message.header == HEADER
    assert (message.height, message.width, message.encoding) == (3, 5, encoding)
    assert message.step == 5 * depth.itemsize
    assert message.is_bigendian == int(sys.byteorder == "big")
    assert isinstance(message.data, array) and message.data.typecode == "B"
    assert bytes(message.data) == depth.tobytes()


def test_invalid_is_nan_in_metres_and_zero_in_millimetres() -> None:
    metres = np.array([[0.0, 1.5], [2.5, 0.0]], np.float32)
    encoded = np.frombuffer(messages.encode_depth(metres, HEADER, "32FC1").data, np.float32)
    np.testing.assert_array_equal(encoded, np.array([np.nan, 1.5, 2.5, np.nan], np.float32))
    millimetres = np.array([[0, 1500]], np.uint16)
    assert bytes(messages.encode_depth(millimetres, HEADER, "16UC1").data) == millimetres.tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_arrays_that_are_not_contiguous_are_encoded(encoding: str) -> None:
    depth = depth_of(encoding, 6, 10)[::2, ::-2]
    decoded = messages.decode_depth(messages.encode_depth(depth.copy(order="F"), HEADER, encoding))
    np.testing.assert_array_equal(decoded, depth)


def test_an_encoding_that_does_not_hold_the_dtype_is_an_error() -> None:
    with pytest.raises(TypeError, match="16UC1"):
        messages.encode_depth(np.ones((2, 2), np.float32), HEADER, "16UC1")
    with pytest.raises(TypeError, match="32FC1"):
        messages.encode_depth(np.ones((2, 2), np.uint16), HEADER, "32FC1")


# --- camera_info --------------------------------------------------------------------------------


def camera_info(width: int = 640, height: int = 480) -> CameraInfo:
    """A camera_info with every field in use: skew, distortion, rectification, a stereo P."""
    info = CameraInfo(header=HEADER, width=width, height=height, distortion_model="rational_polynomial")
    info.d = [0.1, -0.2, 0.003, 0.004, 0.05, 0.06, 0.07, 0.08]
    info.k = [500.0, 0.5, 310.25, 0.0, 510.0, 235.75, 0.0, 0.0, 1.0]
    info.r = [0.99, 0.01, 0.02, -0.01, 0.98, 0.03, -0.02, -0.03, 0.97]
    info.p = [480.0, 0.25, 305.5, -24.0, 0.0, 490.0, 240.5, 12.0, 0.0, 0.0, 1.0, 0.003]
    return info


@pytest.mark.parametrize("s", [2, 4, 8])
def test_camera_info_scales_by_the_half_pixel_rule(s: int) -> None:
    info = camera_info()
    header = Header(stamp=Time(sec=99), frame_id="other")
    scaled = messages.scale_camera_info(info, s, header)
    assert scaled.header == header
    assert (scaled.width, scaled.height) == (640 * s, 480 * s)
    k = [500.0 * s, 0.5 * s, s * 310.75 - 0.5, 0.0, 510.0 * s, s * 236.25 - 0.5, 0.0, 0.0, 1.0]
    p = [480.0 * s, 0.25 * s, s * 306.0 - 0.5, -24.0 * s]
    p += [0.0, 490.0 * s, s * 241.0 - 0.5, 12.0 * s]
    p += [0.0, 0.0, 1.0, 0.003]
    np.testing.assert_allclose(scaled.k, k, rtol=1e-12)
    np.testing.assert_allclose(scaled.p, p, rtol=1e-12)
    assert scaled.distortion_model == info.distortion_model
    assert list(scaled.d) == list(info.d)
    np.testing.assert_array_equal(scaled.r, info.r)
    assert (scaled.binning_x, scaled.binning_y, scaled.roi) == (0, 0, RegionOfInterest())


def test_scaling_leaves_the_camera_info_that_came_in_alone() -> None:
    info, same = camera_info(), camera_info()
    messages.scale_camera_info(info, 4, HEADER)
    assert info == same


def binned_and_cropped() -> CameraInfo:
    """Full sensor 640x480; the image is its region 400x300 at (100, 60), binned to 200x100."""
    info = camera_info()
    info.binning_x, info.binning_y = 2, 3
    info.roi = RegionOfInterest(x_offset=100, y_offset=60, width=400, height=300, do_rectify=True)
    return info


def test_binning_and_region_are_folded_in_and_zeroed() -> None:
    scaled = messages.scale_camera_info(binned_and_cropped(), 4, HEADER)
    assert (scaled.binning_x, scaled.binning_y, scaled.roi) == (0, 0, RegionOfInterest())
    # The centre of a binned pixel is the middle of the sensor pixels it covers.
    cx, cy = (310.25 - 100 + 0.5) / 2 - 0.5, (235.75 - 60 + 0.5) / 3 - 0.5
    expected = [500 / 2 * 4, 4 * (cx + 0.5) - 0.5, 510 / 3 * 4, 4 * (cy + 0.5) - 0.5]
    np.testing.assert_allclose(scaled.k[[0, 2, 4, 5]], expected, rtol=1e-12)
    cx, cy = (305.5 - 100 + 0.5) / 2 - 0.5, (240.5 - 60 + 0.5) / 3 - 0.5
    expected = [480 / 2 * 4, 4 * (cx + 0.5) - 0.5, -24 / 2 * 4]
    expected += [490 / 3 * 4, 4 * (cy + 0.5) - 0.5, 12 / 3 * 4]
    np.testing.assert_allclose(scaled.p[[0, 2, 3, 5, 6, 7]], expected, rtol=1e-12)


def test_the_size_of_a_binned_and_cropped_camera_info_is_its_images() -> None:
    # CameraInfo.msg: width and height are the full sensor's, the image is the region, binned.
    info = binned_and_cropped()
    messages.check_camera_info(info, 200, 100)
    scaled = messages.scale_camera_info(info, 2, HEADER)
    assert (scaled.width, scaled.height) == (400, 200)


def test_zero_k_stays_zero() -> None:
    info = CameraInfo(header=HEADER, width=640, height=480, distortion_model="plumb_bob")
    assert not messages.is_calibrated(info)
    scaled = messages.scale_camera_info(info, 2, HEADER)
    assert (scaled.width, scaled.height) == (1280, 960)
    assert not scaled.k.any() and not scaled.p.any()
    assert not messages.is_calibrated(scaled)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0])
@pytest.mark.parametrize("index", [0, 4])
def test_a_focal_length_that_is_none_is_no_calibration(index: int, bad: float) -> None:
    info = camera_info()
    info.k[index] = bad
    assert not messages.is_calibrated(info)


@pytest.mark.parametrize("size", [(641, 480), (640, 481), (320, 240), (480, 640), (0, 0)])
def test_a_camera_info_of_another_size_is_rejected(size: tuple[int, int]) -> None:
    messages.check_camera_info(camera_info(), 640, 480)
    with pytest.raises(BadMessage) as caught:
        messages.check_camera_info(camera_info(), *size)
    assert caught.value.cause == "camera_info_size"
    assert "640x480" in str(caught.value) and f"{size[0]}x{size[1]}" in str(caught.value)


def test_random_camera_infos_are_scaled_or_rejected_and_nothing_else() -> None:
    rng = np.random.default_rng(4)
    specials = np.array([0.0, -1.0, np.nan, np.inf, -np.inf, 1e308, 5e-324])
    for _ in range(300):
        info = CameraInfo(width=int(rng.integers(0, 9)), height=int(rng.integers(0, 9)))
        for name, length in (("k", 9), ("p", 12), ("r", 9), ("d", int(rng.integers(0, 9)))):
            numbers = rng.normal(0, 300, length)
            wild = rng.random(length) < 0.2
            numbers[wild] = rng.choice(specials, wild.sum())
            setattr(info, name, numbers.tolist() if name == "d" else numbers)
        info.binning_x, info.binning_y = (int(v) for v in rng.integers(0, 5, 2))
        region = [int(v) for v in rng.choice((0, 0, 1, 7, 2**32 - 1), 4)]
        info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = region
        with np.errstate(all="ignore"):
            try:
                messages.check_camera_info(info, 4, 4)
            except BadMessage:
                continue
            scaled = messages.scale_camera_info(info, 8, HEADER)
            assert messages.to_intrinsics(scaled).width == scaled.width


def test_intrinsics_come_from_p_and_from_k_where_p_is_empty() -> None:
    info = camera_info()
    assert messages.to_intrinsics(info) == Intrinsics(640, 480, 480.0, 490.0, 305.5, 240.5)
    info.p = np.zeros(12)
    assert messages.to_intrinsics(info) == Intrinsics(640, 480, 500.0, 510.0, 310.25, 235.75)


def test_intrinsics_survive_the_way_through_a_message() -> None:
    camera = Intrinsics.from_fov(320, 240, 70.0)
    info = messages.to_camera_info(camera, HEADER)
    assert messages.to_intrinsics(info) == camera
    assert messages.to_intrinsics(messages.scale_camera_info(info, 4, HEADER)) == camera.scaled(4)
    assert info.header == HEADER and info.distortion_model == "plumb_bob" and list(info.d) == [0.0] * 5
    np.testing.assert_array_equal(info.r, np.eye(3).ravel())


# --- points -------------------------------------------------------------------------------------


def cloud_message(depth: np.ndarray, **options: object) -> PointCloud2:
    """The cloud of a camera whose pixels are a metre wide at a metre."""
    camera = Intrinsics(depth.shape[1], depth.shape[0], 1.0, 1.0, 0.0, 0.0)
    return messages.PointsBuffer().cloud(camera, depth, HEADER, **options)


def test_points_are_an_organised_cloud() -> None:
    depth = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
    depth[1, 2] = 0
    cloud = cloud_message(depth)
    assert cloud.header == HEADER
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (2, 4, 12, 48)
    layout = [(field.name, field.offset, field.datatype, field.count) for field in cloud.fields]
    assert layout == [(name, 4 * i, PointField.FLOAT32, 1) for i, name in enumerate("xyz")]
    assert not cloud.is_dense
    assert cloud.is_bigendian == (sys.byteorder == "big")
    assert isinstance(cloud.data, array) and cloud.data.typecode == "B"
    record = np.dtype({"names": "xyz", "formats": ["=f4"] * 3, "offsets": [0, 4, 8], "itemsize": 12})
    read = np.frombuffer(cloud.data, record).reshape(2, 4)
    z = np.where(depth > 0, depth, np.nan)
    for name, expected in {"x": z * np.arange(4), "y": z * np.arange(2)[:, None], "z": z}.items():
        np.testing.assert_array_equal(read[name], expected)


def test_points_are_read_back_by_sensor_msgs_py() -> None:
    point_cloud2 = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS installation only"
    )
    depth = np.random.default_rng(0).uniform(1, 5, (3, 5)).astype(np.float32)
    depth[2, 1] = 0
    cloud = cloud_message(depth)
    read = point_cloud2.read_points_numpy(cloud, field_names=("x", "y", "z"))
    np.testing.assert_array_equal(read.reshape(3, 5, 3), Intrinsics(5, 3, 1.0, 1.0, 0.0, 0.0).back_project(depth))
    assert len(point_cloud2.read_points_numpy(cloud, skip_nans=True)) == 14


@pytest.mark.parametrize("holes", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_points_that_are_not_organised_are_the_valid_ones_in_order(dtype: type, holes: float) -> None:
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 60, (75, 53)).astype(dtype)
    depth[rng.random(depth.shape) < holes] = 0
    depth[rng.random(depth.shape) < holes] = 65535 if dtype == np.uint16 else np.nan
    buffer, camera = messages.PointsBuffer(), Intrinsics(53, 75, 40.0, 41.0, 22.3, 31.7)
    for stride in (1, 3):  # one memory for clouds of several sizes
        expected = xyz(buffer.cloud(camera, depth, HEADER, stride)).reshape(-1, 3)
        expected = expected[np.isfinite(expected[:, 2])].copy()
        cloud = buffer.cloud(camera, depth, HEADER, stride, organized=False)
        assert (cloud.height, cloud.width, cloud.is_dense) == (1, len(expected), True)
        assert (cloud.row_step, len(cloud.data)) == (12 * len(expected), 12 * len(expected))
        np.testing.assert_array_equal(xyz(cloud)[0], expected)


def test_large_messages_carry_their_array_uncopied() -> None:
    buffer = messages.PointsBuffer()
    first = buffer.cloud(Intrinsics(4, 3, 1.0, 1.0, 0.0, 0.0), np.ones((3, 4), np.float32), HEADER)
    second = buffer.cloud(Intrinsics(4, 3, 1.0, 1.0, 0.0, 0.0), np.ones((3, 4), np.float32), HEADER)
    assert first.data is second.data
    data = array("B", bytes(24))
    image = messages.encode_depth(np.ones((3, 4), np.uint16), HEADER, "16UC1")
    image.data = data
    assert image.data is data


#: A slanted plane: |normal · point - offset| is a point's distance from it, metres.
NORMAL = np.array([0.75, -0.2, 0.63]) / np.linalg.norm([0.75, -0.2, 0.63])
OFFSET = 1.3


def plane_depth(camera: Intrinsics) -> np.ndarray:
    """[H, W] float64 exact depth of the plane."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = [(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)]
    return OFFSET / np.tensordot(NORMAL, rays, 1)


def distances(cloud: np.ndarray) -> np.ndarray:
    return cloud.astype(np.float64) @ NORMAL - OFFSET


PLANE_CAMERA = Intrinsics(64, 48, 70.0, 72.0, 30.3, 25.1)


def cloud_of(depth: np.ndarray, info: CameraInfo) -> np.ndarray:
    """The node's way from a depth image to points."""
    return xyz(messages.PointsBuffer().cloud(messages.to_intrinsics(info), depth.astype(np.float32), HEADER))


@pytest.mark.parametrize("s", [2, 4, 8])
def test_a_plane_stays_the_plane_with_the_scaled_camera_info(s: int) -> None:
    info = messages.to_camera_info(PLANE_CAMERA, HEADER)
    depth = plane_depth(PLANE_CAMERA)
    assert np.abs(distances(cloud_of(depth, info))).max() < 1e-6
    # Enlarged on the network's grid: pixel i of the result lies at (i + 0.5) / s - 0.5 of the
    # input; a plane is linear in inverse depth, so interpolation is exact inside.
    inverse = 1.0 / depth
    columns, rows = ((np.arange(n * s) + 0.5) / s - 0.5 for n in (64, 48))
    wide = np.array([np.interp(columns, np.arange(64), row) for row in inverse])
    large = np.array([np.interp(rows, np.arange(48), column) for column in wide.T]).T
    scaled = messages.scale_camera_info(info, s, HEADER)
    inside = np.abs(distances(cloud_of(1.0 / large, scaled)))[s:-s, s:-s]
    assert inside.max() < 2e-6


@pytest.mark.parametrize("s", scales())
def test_a_plane_through_the_network_stays_the_plane(s: int) -> None:
    info = messages.to_camera_info(PLANE_CAMERA, HEADER)
    with Upsampler(scale=s) as upsampler:
        result = upsampler(plane_depth(PLANE_CAMERA).astype(np.float32))
    border = 4 * s

    def bias(camera: CameraInfo) -> float:
        """Mean distance of the inner points from the plane: noise cancels, a shift does not."""
        return float(np.nanmean(distances(cloud_of(result, camera))[border:-border, border:-border]))

    right = messages.scale_camera_info(info, s, HEADER)
    without_half_pixel = messages.scale_camera_info(info, s, HEADER)
    without_half_pixel.p[[2, 6]] -= (s - 1) / 2
    assert abs(bias(right)) < 0.15 * abs(bias(without_half_pixel))
