from dataclasses import replace

import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.filters import maximum, minimum
from dsca_ros.depth.scenes import Scene
from dsca_ros.depth.sensors import SENSORS, IdealSensor, StereoSensor, TimeOfFlightSensor

CAMERA = Intrinsics.from_fov(160, 120, 70.0)
QUIET = StereoSensor(noise_px=0.0, fattening=0.0, fraying=0.0, dropout=0.0, step=1e-4)


def plane(depth: float) -> np.ndarray:
    return np.full((120, 160), depth, np.float32)


def block(near: float = 1.0, far: float = 3.0) -> np.ndarray:
    """A near block, columns 60 to 99, before a wall."""
    depth = plane(far)
    depth[30:90, 60:100] = near
    return depth


def readings(measured: np.ndarray) -> np.ndarray:
    return measured[measured > 0]


@pytest.mark.parametrize("name", SENSORS)
def test_a_seed_gives_one_measurement(name):
    first, again, other = (
        SENSORS[name].measure(block(), CAMERA, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert name == "ideal" or not np.array_equal(first, other)


@pytest.mark.parametrize("name", SENSORS)
def test_measurements_are_float32_on_the_millimetre_grid(name, rng):
    exact = block()
    before = exact.copy()
    measured = SENSORS[name].measure(exact, CAMERA, rng)
    assert measured.dtype == np.float32 and measured.shape == (120, 160)
    assert np.isfinite(measured).all() and (measured >= 0).all()
    np.testing.assert_allclose(measured * 1e3, np.rint(measured * 1e3), atol=1e-3)
    np.testing.assert_array_equal(exact, before)


@pytest.mark.parametrize("name", ["stereo", "kinect_v1", "tof"])
def test_measurements_of_a_room_are_mostly_there_and_mostly_right(name, rng):
    camera = Intrinsics.from_fov(160, 120, 60.0)
    scene = Scene.random(1_000_003)
    exact = scene.render(camera, 0.1)
    measured = SENSORS[name].measure(exact, camera, rng)
    in_range = (exact > SENSORS[name].min_depth) & (exact < 0.9 * SENSORS[name].max_depth)
    valid = measured > 0
    assert 0.8 < valid[in_range].mean() < 0.995
    assert np.median(np.abs(measured / exact - 1.0)[valid]) < 0.02


def test_stereo_noise_grows_with_depth_squared(rng):
    spread = {z: readings(StereoSensor().measure(plane(z), CAMERA, rng)).std() for z in (1.0, 3.0)}
    assert spread[3.0] / spread[1.0] == pytest.approx(9.0, rel=0.15)
    # dz = z^2 / (focal length * baseline) * noise in pixels
    assert spread[3.0] == pytest.approx(9.0 / (425 * 0.05) * 0.08, rel=0.25)


def test_stereo_noise_is_the_same_at_any_resolution(rng):
    larger = CAMERA.scaled(2)
    small = readings(StereoSensor().measure(plane(2.0), CAMERA, rng)).std()
    large = readings(
        StereoSensor().measure(np.full((240, 320), 2.0, np.float32), larger, rng)
    ).std()
    assert large == pytest.approx(small, rel=0.1)


@pytest.mark.parametrize("name", ["stereo", "kinect_v1"])
def test_disparity_is_quantised(name, rng):
    sensor = SENSORS[name]
    found = readings(sensor.measure(plane(5.0), CAMERA, rng))
    steps = sensor.focal_px * sensor.baseline / found / sensor.step
    rounding = 0.0005 / 5.0 * steps.max()  # of the millimetre grid, in steps
    assert rounding < 0.1
    assert np.abs(steps - np.rint(steps)).max() < 1.5 * rounding
    assert len(np.unique(np.rint(steps))) > 3


def test_stereo_shadow_is_on_one_side_only(rng):
    valid = QUIET.measure(block(), CAMERA, rng) > 0
    # What lies left of a near object is hidden from the imager on the right, over the difference
    # in disparity.
    width = int(CAMERA.fx * QUIET.baseline * (1 / 1.0 - 1 / 3.0))
    assert width >= 3
    left, right = valid[35:85, 60 - width : 60], valid[35:85, 100 : 100 + width]
    assert left.mean() < 0.1
    assert right.mean() > 0.9
    assert valid[35:85, 60 - width - 6 : 60 - width - 1].mean() > 0.95


def test_stereo_sees_nothing_the_second_imager_does_not(rng):
    valid = QUIET.measure(plane(1.0), CAMERA, rng) > 0
    disparity = round(CAMERA.fx * QUIET.baseline)
    assert not valid[:, : disparity - 1].any()
    assert valid[:, disparity + 1 :].mean() > 0.95


def test_fattening_makes_near_things_larger_and_never_smaller(rng):
    fat = replace(QUIET, fattening=0.5).measure(block(), CAMERA, rng)
    beside = fat[35:85, 100]
    assert 0.1 < (np.abs(beside - 1.0) < 0.01).mean() < 0.9
    inside = readings(fat[35:85, 60:100])
    np.testing.assert_allclose(inside, 1.0, atol=2e-3)


@pytest.mark.parametrize("sensor", [StereoSensor(), StereoSensor.kinect_v1(), TimeOfFlightSensor()])
def test_readings_are_within_the_range(sensor, rng):
    ramp = np.repeat(np.linspace(0.05, 14.0, 120, dtype=np.float32)[:, None], 160, axis=1)
    found = readings(sensor.measure(ramp, CAMERA, rng))
    assert found.min() >= sensor.min_depth - 5e-4 and found.max() <= sensor.max_depth + 5e-4
    assert found.min() < sensor.min_depth + 0.3 and found.max() > 0.9 * sensor.max_depth


def test_dropout_is_the_share_of_pixels_it_says(rng):
    sensor = TimeOfFlightSensor(noise_base=0.0, noise_growth=0.0, dropout=0.1)
    lost = np.mean([(sensor.measure(plane(2.0), CAMERA, rng) == 0).mean() for _ in range(8)])
    assert lost == pytest.approx(0.1, abs=0.03)


def test_tof_mixes_near_and_far_at_edges_only(rng):
    sensor = TimeOfFlightSensor(noise_base=0.0, noise_growth=0.0, dropout=0.0)
    exact = block()
    measured = sensor.measure(exact, CAMERA, rng)
    assert readings(measured).min() >= 1.0 and readings(measured).max() <= 3.0
    mixed = (measured > 1.05) & (measured < 2.95)
    edge = maximum(exact) > minimum(exact)
    assert not mixed[~edge].any()
    assert 0.1 < mixed[edge].mean() < sensor.mixing
    np.testing.assert_array_equal(measured[~edge], exact[~edge])


def test_tof_noise_grows_with_distance(rng):
    spread = [
        readings(TimeOfFlightSensor().measure(plane(z), CAMERA, rng)).std() for z in (1.0, 3.5)
    ]
    assert spread[0] == pytest.approx(0.0019, rel=0.1)
    assert spread[1] == pytest.approx(0.001 + 0.0009 * 3.5**2, rel=0.1)


def test_the_ideal_sensor_only_rounds(rng):
    exact = rng.uniform(0.3, 9.0, (120, 160)).astype(np.float32)
    measured = IdealSensor().measure(exact, CAMERA, rng)
    assert np.abs(measured - exact).max() < 5.01e-4


@pytest.mark.parametrize("kind", [StereoSensor, TimeOfFlightSensor])
def test_random_sensors_differ_and_work(kind, rng):
    sensors = [kind.random(rng) for _ in range(5)]
    assert len(set(sensors)) == 5
    for sensor in sensors:
        assert (sensor.measure(plane(2.0), CAMERA, rng) > 0).mean() > 0.7
