"""The points a subscriber gets: where they lie, which there are, and what the message says of them."""

from __future__ import annotations

import numpy as np
import pytest
from clients import Parameters
from ros_graph import Graph, key, pixels, scales, scene, xyz
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from dsca_ros.ros import messages


def by_hand(depth: np.ndarray, info: CameraInfo, scale: int) -> np.ndarray:
    """[H, W, 3] points of a result by the pinhole formula, from the camera's own camera_info; NaN where invalid."""
    height, width = depth.shape
    fx, fy = scale * info.p[0], scale * info.p[5]
    cx, cy = scale * (info.p[2] + 0.5) - 0.5, scale * (info.p[6] + 0.5) - 0.5
    z = depth / 1000.0 if depth.dtype == np.uint16 else depth.astype(float)
    z = np.where(z > 0, z, np.nan)
    rows, columns = np.mgrid[:height, :width]
    return np.stack([(columns - cx) / fx * z, (rows - cy) / fy * z, z], axis=-1)


class Client:
    """Sends frames and takes what comes out together."""

    def __init__(self, graph: Graph, **parameters: object) -> None:
        self._graph = graph
        graph.start_node(**parameters)
        graph.connect()
        self._parameters = Parameters(graph)

    def set(self, **changes: object) -> None:
        assert self._parameters.set(**changes) == (True, "")

    def frame(self, depth: np.ndarray) -> tuple[CameraInfo, Image, CameraInfo, PointCloud2]:
        """The camera's camera_info; image, camera_info and points that come of it."""
        graph = self._graph
        image = graph.camera.image(depth)
        info = graph.camera.info(image)
        result = graph.exchange(image, info)
        graph.spin_until(lambda: key(image) in graph.listener.clouds, "points")
        cloud, scaled = graph.listener.clouds[key(image)], graph.listener.infos[key(image)]
        assert cloud.header == scaled.header == result.header == image.header
        return info, result, scaled, cloud


def check_layout(cloud: PointCloud2) -> None:
    """What every reader of clouds relies on."""
    layout = [(field.name, field.offset, field.datatype, field.count) for field in cloud.fields]
    assert layout == [(name, 4 * i, PointField.FLOAT32, 1) for i, name in enumerate("xyz")]
    assert (cloud.point_step, cloud.row_step, cloud.is_bigendian) == (12, 12 * cloud.width, False)
    assert len(cloud.data) == cloud.row_step * cloud.height


@pytest.mark.parametrize("scale", scales())
def test_points_lie_where_the_pixels_are_at_every_stride(graph: Graph, scale: int) -> None:
    client = Client(graph, scale=scale)
    depth = scene(50, 38)  # no stride but 1 and 2 divides what comes of it
    for stride in (1, 2, 3, 16):
        for organized in (True, False):
            client.set(points_stride=stride, points_organized=organized)
            info, result, scaled, cloud = client.frame(depth)
            check_layout(cloud)
            # camera_info goes with the image, not with the points.
            assert scaled == messages.scale_camera_info(info, scale, info.header)
            assert (scaled.width, scaled.height) == (result.width, result.height) == (50 * scale, 38 * scale)
            expected = by_hand(pixels(result), info, scale)[::stride, ::stride]
            if organized:
                assert (cloud.height, cloud.width, cloud.is_dense) == (*expected.shape[:2], False)
            else:
                expected = expected[~np.isnan(expected[..., 2])][None]
                assert (cloud.height, cloud.width, cloud.is_dense) == (1, expected.shape[1], True)
                assert np.isfinite(xyz(cloud)).all()
            assert np.isfinite(expected).any()
            np.testing.assert_allclose(xyz(cloud), expected, rtol=1e-5, atol=1e-6)


def test_points_of_metres_and_of_nothing(graph: Graph) -> None:
    client = Client(graph)
    depth = scene(dtype=np.float32)
    info, result, _, cloud = client.frame(depth)
    np.testing.assert_allclose(xyz(cloud), by_hand(pixels(result), info, 2), rtol=1e-5, atol=1e-6)
    # A lens cap: an organised cloud of NaN, and else a cloud of no points, which is dense.
    nothing = np.zeros_like(depth)
    _, _, _, cloud = client.frame(nothing)
    check_layout(cloud)
    assert (cloud.height, cloud.width, cloud.is_dense) == (96, 128, False) and np.isnan(xyz(cloud)).all()
    client.set(points_organized=False)
    _, _, _, cloud = client.frame(nothing)
    check_layout(cloud)
    assert (cloud.height, cloud.width, cloud.is_dense) == (1, 0, True)
    # One pixel is enough for some points.
    nothing[20, 30] = 2.0
    info, result, _, cloud = client.frame(nothing)
    expected = by_hand(pixels(result), info, 2)
    assert cloud.width == np.isfinite(expected[..., 2]).sum()


def test_memory_for_points_that_is_used_again_keeps_nothing_of_before(graph: Graph) -> None:
    client = Client(graph)
    full, half = np.full((48, 64), 1000, np.uint16), np.full((48, 64), 3000, np.uint16)
    half[:, 32:] = 0
    for depth in (full, half, full, half):
        info, result, _, cloud = client.frame(depth)
        np.testing.assert_allclose(xyz(cloud), by_hand(pixels(result), info, 2), rtol=1e-5, atol=1e-6)
