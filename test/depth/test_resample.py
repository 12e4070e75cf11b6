import cv2
import numpy as np
import pytest

from dsca_ros.depth import resample

SCALES = [2, 4, 8]


@pytest.fixture
def holey(rng):
    depth = rng.uniform(0.5, 5.0, (13, 17)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = 0.0
    return depth


@pytest.mark.parametrize("method", resample.METHODS.values(), ids=resample.METHODS)
@pytest.mark.parametrize("scale", SCALES)
def test_a_constant_stays_constant_beside_holes(method, scale, holey):
    result = method(np.where(holey > 0, np.float32(2.5), 0), scale)
    assert result.shape == (13 * scale, 17 * scale) and result.dtype == np.float32
    np.testing.assert_allclose(result[result > 0], 2.5, rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_bilinear_stays_within_its_valid_support(scale, holey):
    result = resample.bilinear(holey, scale)
    padded = np.pad(holey, 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    low = np.where(windows > 0, windows, np.inf).min(axis=(2, 3))
    high = windows.max(axis=(2, 3))
    valid = result > 0
    assert (result >= 0.9999 * resample.nearest(low, scale))[valid].all()
    assert (result <= 1.0001 * resample.nearest(high, scale))[valid].all()


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_a_hole_is_not_averaged_in(method):
    depth = np.full((9, 9), 4.0, np.float32)
    depth[4, 4] = 0.0
    result = resample.METHODS[method](depth, 2)
    assert set(np.unique(result.round(4))) == {0.0, 4.0}


@pytest.mark.parametrize("scale", SCALES)
def test_valid_is_half_of_the_bilinear_support(scale):
    depth = np.ones((6, 6), np.float32)
    depth[:, :3] = 0.0
    # Halfway between the last hole's centre, column 2, and the first valid one, column 3.
    expected = np.arange(6 * scale) >= 3 * scale
    for name in ("bilinear", "bicubic"):
        np.testing.assert_array_equal(resample.METHODS[name](depth, scale)[0] > 0, expected)
    np.testing.assert_array_equal(resample.validity(depth, scale)[0], expected)


def test_valid_share_is_about_that_of_the_input(rng):
    depth = np.ones((60, 80), np.float32)
    depth[rng.random((6, 8)).repeat(10, 0).repeat(10, 1) < 0.3] = 0.0
    share = (depth > 0).mean()
    for scale in SCALES:
        assert resample.validity(depth, scale).mean() == pytest.approx(share, abs=0.02)


def test_everything_invalid_stays_so():
    for method in resample.METHODS.values():
        assert not method(np.zeros((5, 7), np.float32), 4).any()


def test_nearest_repeats_pixels():
    depth = np.array([[1, 2], [0, 3]], np.float32)
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 3, 3], [0, 0, 3, 3]]
    assert resample.nearest(depth, 2).tolist() == expected


def test_bilinear_on_the_half_pixel_grid():
    ramp = np.tile(np.arange(1, 6, dtype=np.float32), (4, 1))
    position = (np.arange(10) + 0.5) / 2 - 0.5
    expected = 1 + np.clip(position, 0, 4)
    np.testing.assert_allclose(resample.bilinear(ramp, 2)[3], expected, rtol=1e-6)


def keys(t: float) -> float:
    """Keys' kernel with a = -1/2, from its paper."""
    t = abs(t)
    if t < 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def enlarge_by_keys(image: np.ndarray, scale: int) -> np.ndarray:
    """Cubic convolution pixel by pixel, borders replicated."""
    height, width = image.shape
    result = np.zeros((height * scale, width * scale))
    for i, j in np.ndindex(result.shape):
        y, x = (i + 0.5) / scale - 0.5, (j + 0.5) / scale - 0.5
        for r in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
            for c in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                value = image[min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
                result[i, j] += keys(y - r) * keys(x - c) * value
    return result


@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_equals_a_direct_evaluation(scale, rng):
    depth = rng.uniform(1.0, 3.0, (5, 6)).astype(np.float32)
    np.testing.assert_allclose(resample.bicubic(depth, scale), enlarge_by_keys(depth, scale), rtol=1e-5)


def test_where_holes_leave_bicubic_little_weight_bilinear_stands_in(holey):
    scale = 4
    weight = enlarge_by_keys(holey > 0, scale)
    cubic = enlarge_by_keys(holey, scale) / np.maximum(weight, 0.25)
    bilinear = resample.bilinear(holey, scale)
    weak = (weight < 0.5) & (bilinear > 0)
    assert weak.any()
    expected = np.where(bilinear > 0, np.where(weak, bilinear, cubic), 0.0)
    clear = np.abs(weight - 0.5) > 1e-4
    np.testing.assert_allclose(resample.bicubic(holey, scale)[clear], expected[clear], rtol=1e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_same_grid_as_the_network(scale, holey):
    torch = pytest.importorskip("torch")
    from dsca_ros.network.dsca import enlarge

    full = torch.from_numpy(holey + 1.0)[None, None]
    expected = enlarge(full, scale)[0, 0]
    np.testing.assert_allclose(resample.bilinear(holey + 1.0, scale), expected, rtol=1e-5)


# --- zeros mixed in -----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_naive_bilinear_is_what_resize_does(scale, holey):
    expected = cv2.resize(holey, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    result = resample.naive_bilinear(holey, scale)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 4])
def test_naive_bicubic_takes_zeros_for_depth_and_ends_at_zero(scale, holey):
    direct = enlarge_by_keys(holey, scale)
    assert (direct < -0.01).any()
    result = resample.naive_bicubic(holey, scale)
    assert result.dtype == np.float32 and (result >= 0).all()
    np.testing.assert_allclose(result, np.maximum(direct, 0.0), atol=1e-5)


def test_beside_a_hole_the_naive_ways_give_depth_that_is_nowhere():
    depth = np.array([[4.0, 4.0, 0.0, 0.0]], np.float32)
    np.testing.assert_allclose(resample.naive_bilinear(depth, 2)[0], [4, 4, 4, 3, 1, 0, 0, 0], atol=1e-6)
    assert resample.naive_bicubic(depth, 2)[0, 2] > 4.1
    assert resample.bilinear(depth, 2)[0].tolist() == [4, 4, 4, 4, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("scale", SCALES)
def test_without_holes_naive_is_as_good_as_careful(name, scale, holey):
    full = holey + np.float32(1.0)
    naive = getattr(resample, f"naive_{name}")(full, scale)
    np.testing.assert_allclose(naive, resample.METHODS[name](full, scale), rtol=1e-5)
    assert f"naive_{name}" not in resample.METHODS  # those are the careful ones
