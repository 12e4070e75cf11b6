"""Large images a tile at a time: nothing is left out, and a tile is no larger than it may be."""

import itertools

import numpy as np
import pytest

from dsca_ros.depth import resample
from dsca_ros.depth.fidelity import near
from dsca_ros.engine import tiles
from dsca_ros.engine.onnxruntime import OnnxRuntimeEngine
from dsca_ros.engine.tiles import GRID, MARGIN, in_tiles
from dsca_ros.engine.zoo import find_model

RANGE = (0.1, 10.0)


def small_tiles(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    monkeypatch.setattr(tiles, "LARGEST", pixels)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 200000), (200000, 1), (300, 400), (641, 479), (193, 1000), (1011, 517)], ids=str)
def test_every_pixel_is_where_it_belongs_and_none_is_beside_a_seam(monkeypatch, shape, scale):
    small_tiles(monkeypatch, 300 * 300 * scale)
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    shapes = set()

    def infer(tile: np.ndarray) -> np.ndarray:
        shapes.add(tile.shape)
        row, column = divmod(int(tile[0, 0]), shape[1])
        assert row % GRID == column % GRID == 0
        result = resample.nearest(tile, scale)
        # What was cut off would be seen here: it is not used.
        for axis, (start, side, whole) in enumerate(zip((row, column), tile.shape, shape)):
            edge = np.moveaxis(result, axis, 0)
            if start > 0:
                edge[: MARGIN * scale] = -1.0
            if start + side < whole:
                edge[len(edge) - MARGIN * scale :] = -1.0
        return result

    np.testing.assert_array_equal(in_tiles(infer, image, scale), resample.nearest(image, scale))
    assert len(shapes) == 1  # engines keep what they make for a size
    ((height, width),) = shapes
    assert height * width <= 300 * 300 and (height, width) != shape


def test_the_frames_of_depth_cameras_are_one_tile():
    for shape, scale in (((1024, 1024), 8), ((720, 1280), 8), ((1024, 1024), 4), ((1242, 2208), 2)):
        image = np.zeros(shape, np.uint16)
        assert in_tiles(lambda tile: tile, image, scale) is image


def test_what_is_no_image_goes_to_the_engine_as_it_is(monkeypatch):
    small_tiles(monkeypatch, 1)
    image = np.zeros((2, 3, 4), np.uint16)
    assert in_tiles(lambda tile: tile, image, 2) is image


@pytest.mark.parametrize("scale", [2, 4])
def test_seams_are_not_seen(monkeypatch, depth_image, scale):
    depth = depth_image(480, 640, noise=0.003)
    engine = OnnxRuntimeEngine(find_model("dsca-nano", scale, "fp32"), threads=1)
    whole = engine.infer(depth, RANGE)
    small_tiles(monkeypatch, 400 * 400 * scale)
    tiled = engine.infer(depth, RANGE)
    numbers = itertools.count()
    tile = in_tiles(lambda tile: np.full(np.multiply(tile.shape, scale), next(numbers)), depth, scale)
    changes = (np.diff(tile, axis=0, append=tile[-1:]) != 0) | (np.diff(tile, append=tile[:, -1:]) != 0)
    seams = near(changes, 2 * scale)
    assert 0.02 < seams.mean() < 0.1 and len(np.unique(tile)) > 4
    both = (tiled > 0) & (whole > 0)
    error = np.divide(np.abs(tiled - whole), whole, out=np.zeros_like(whole), where=both)
    other = (tiled > 0) != (whole > 0)
    # What the network takes from all of a frame makes a difference, at the seams no more than elsewhere.
    assert error.max() > 0 and error.mean() < 5e-5 and other.mean() < 0.01
    assert error[seams].mean() < 1.5 * error[~seams].mean()
    assert other[seams].mean() < 1.5 * other[~seams].mean()
