import numpy as np
import pytest

from dsca_ros.depth import units


def test_every_millimetre_survives_the_round_trip():
    millimetres = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = millimetres.copy()
    expected[-1, -1] = 0  # 65535 is "no reading"
    np.testing.assert_array_equal(units.to_millimetres(units.to_metres(millimetres)), expected)


def test_millimetres_become_metres_and_65535_invalid():
    millimetres = np.array([[0, 1, 1500, 65534, 65535]], np.uint16)
    metres = units.to_metres(millimetres)
    assert metres.dtype == np.float32
    np.testing.assert_allclose(metres, [[0, 0.001, 1.5, 65.534, 0]], rtol=1e-6)


def test_half_a_millimetre_rounds_up():
    # These are exact in binary: 62.5, 187.5, 312.5 and 1062.5 mm.
    metres = np.array([[0.0625, 0.1875, 0.3125, 1.0625]], np.float32)
    assert units.to_millimetres(metres).tolist() == [[63, 188, 313, 1063]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_no_depth_becomes_zero_metres(dtype):
    depth = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0, 1.5]], dtype)
    metres = units.to_metres(depth)
    assert metres.dtype == np.float32
    assert metres.tolist() == [[0, 0, 0, 0, 0, 1.5]]


def test_metres_leave_the_input_alone():
    depth = np.array([[np.nan, 1.0]], np.float32)
    units.to_metres(depth)
    assert np.isnan(depth[0, 0])


@pytest.mark.parametrize("metres", [65.535, 65.536, 66.0, 132.072, 1e30, np.inf, np.nan, -0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_out_of_range_never_wraps_around(metres, dtype):
    image = np.array([[metres, 1.0]], dtype)
    assert units.to_millimetres(image).tolist() == [[0, 1000]]


def test_the_largest_depth_of_uint16_is_kept():
    assert units.to_millimetres(np.array([[65.534]], np.float32)).item() == 65534


def test_less_than_half_a_millimetre_is_invalid():
    assert units.to_millimetres(np.array([[0.0004]], np.float32)).item() == 0


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32, np.float16, bool])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match=np.dtype(dtype).name):
        units.to_metres(np.ones((2, 2), dtype))


def test_validity_of_both_codings():
    millimetres = np.array([[0, 1, 65534, 65535]], np.uint16)
    assert units.is_valid(millimetres).tolist() == [[False, True, True, False]]
    metres = np.array([[0.0, 1.0, -1.0, np.nan, np.inf, -np.inf]], np.float32)
    assert units.is_valid(metres).tolist() == [[False, True, False, False, False, False]]


def test_validity_of_every_kind_of_float():
    smallest, largest = np.float32(1e-45), np.finfo(np.float32).max
    values = np.array([0.0, smallest, 1.0, largest, np.inf, np.nan], np.float32)
    wanted = [False, True, True, True, False, False]
    for dtype in (np.float32, np.float64):
        assert units.is_valid(values.astype(dtype)).tolist() == wanted
        assert not units.is_valid(np.negative(values.astype(dtype))).any()
    assert units.is_valid(np.stack([values] * 4)[::2, ::2]).tolist() == [wanted[::2]] * 2


def test_like_gives_the_coding_of_the_dtype():
    metres = np.array([[0.0, 1.2344, 2.0]], np.float32)
    assert units.like(metres, np.uint16).tolist() == [[0, 1234, 2000]]
    assert units.like(metres, np.float32) is metres


def test_points_have_nan_where_an_image_has_zero(rng):
    millimetres = rng.integers(0, 65536, (9, 7)).astype(np.uint16)
    millimetres[0, :3] = 0, 65535, 65534
    metres = units.to_metres(millimetres)
    for depth in (millimetres, metres, np.where(metres > 0, metres, -np.inf).astype(np.float32)):
        before = depth.copy()
        buffer = np.empty((9, 7), np.float32)
        found = units.to_metres_or_nan(depth, buffer)
        assert found is buffer and np.array_equal(depth, before)
        np.testing.assert_array_equal(np.isnan(found), metres == 0)
        np.testing.assert_array_equal(found[metres > 0], metres[metres > 0])
