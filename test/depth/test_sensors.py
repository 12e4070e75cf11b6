from dataclasses import fields, replace

import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.filters import maximum, minimum
from dsca_ros.depth.scenes import Scene
from dsca_ros.depth.sensors import (
    SENSORS,
    IdealSensor,
    PhoneLidarSensor,
    SimulatedKinectSensor,
    StereoSensor,
    TimeOfFlightSensor,
    correlated_noise,
)

CAMERA = Intrinsics.from_fov(160, 120, 70.0)
QUIET = StereoSensor(noise_px=0.0, fattening=0.0, fraying=0.0, smear=0.0, rim=0, dropout=0.0, outliers=0.0, step=1e-4)
#: Presets without the pixels that are far off, which would be all of a deviation.
STEREO = replace(StereoSensor(), outliers=0.0)


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
    first, again, other = (SENSORS[name].measure(block(), CAMERA, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert name == "ideal" or not np.array_equal(first, other)


@pytest.mark.parametrize("name", SENSORS)
def test_measurements_are_float32_on_the_drivers_grid(name, rng):
    exact = block(0.5014, 0.9)  # within the range of every sensor
    before = exact.copy()
    measured = SENSORS[name].measure(exact, CAMERA, rng)
    assert measured.dtype == np.float32 and measured.shape == (120, 160)
    assert np.isfinite(measured).all() and (measured >= 0).all()
    grid = 1e-4 if name == "realsense_f200" else 1e-3
    steps = measured.astype(np.float64) / grid
    np.testing.assert_allclose(steps, np.rint(steps), atol=2e-3)
    assert (np.rint(steps[steps > 0]) % 10 != 0).any()  # and on no coarser one
    np.testing.assert_array_equal(exact, before)


@pytest.mark.parametrize("name", ["stereo", "kinect_v1", "tof", "phone_lidar"])
def test_measurements_of_a_room_are_mostly_there_and_mostly_right(name, rng):
    camera = Intrinsics.from_fov(160, 120, 60.0)
    scene = Scene.random(1_000_003)
    exact = scene.render(camera, 0.1)
    measured = SENSORS[name].measure(exact, camera, rng)
    in_range = (exact > SENSORS[name].min_depth) & (exact < 0.9 * SENSORS[name].max_depth)
    valid = measured > 0
    assert valid[in_range].mean() > 0.65  # rims are wide at this size
    assert name == "phone_lidar" or valid[in_range].mean() < 0.995
    assert np.median(np.abs(measured / exact - 1.0)[valid]) < 0.02


def test_stereo_noise_grows_with_depth_squared(rng):
    spread = {z: readings(STEREO.measure(plane(z), CAMERA, rng)).std() for z in (1.0, 3.0)}
    assert spread[3.0] / spread[1.0] == pytest.approx(9.0, rel=0.15)
    # dz = z^2 / (focal length * baseline) * error in pixels; rounding has step / sqrt(12) of it
    error = np.hypot(STEREO.noise_px, STEREO.step / np.sqrt(12.0))
    assert spread[3.0] == pytest.approx(9.0 / (STEREO.focal_px * STEREO.baseline) * error, rel=0.15)


def test_stereo_noise_is_the_same_at_any_resolution(rng):
    larger = CAMERA.scaled(2)
    small = readings(STEREO.measure(plane(2.0), CAMERA, rng)).std()
    large = readings(STEREO.measure(np.full((240, 320), 2.0, np.float32), larger, rng)).std()
    assert large == pytest.approx(small, rel=0.1)


@pytest.mark.parametrize(("reach", "far"), [(1, 3), (2, 5)])
def test_noise_is_correlated_over_its_reach(reach, far, rng):
    noise = correlated_noise((400, 400), 0.8, reach, rng)
    assert noise.std() == pytest.approx(1.0, rel=0.03)
    for turned in (noise, noise.T):
        lag = [float((turned[:, :-k] * turned[:, k:]).mean()) for k in (1, far)]
        # A mean over n pixels shares n - 1 of them with its neighbour's.
        assert lag[0] == pytest.approx(0.8 * 2 * reach / (2 * reach + 1), abs=0.03)
        assert lag[1] == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("name", ["stereo", "kinect_v1"])
def test_disparity_is_quantised(name, rng):
    sensor = SENSORS[name]
    found = readings(replace(sensor, outliers=0.0).measure(plane(5.0), CAMERA, rng))
    steps = sensor.focal_px * sensor.baseline / found / sensor.step
    rounding = 0.0005 / 5.0 * steps.max()  # of the millimetre grid, in steps
    assert rounding < 0.1
    assert np.abs(steps - np.rint(steps)).max() < 1.5 * rounding
    assert len(np.unique(np.rint(steps))) > 2


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


def test_smear_blends_near_and_far_at_edges_only(rng):
    exact = block()
    edge = maximum(exact, 3) > minimum(exact, 3)

    def between(sensor: StereoSensor) -> np.ndarray:
        measured = sensor.measure(exact, CAMERA, rng)
        return (measured > 1.05) & (measured < 2.9)

    smeared = between(replace(QUIET, smear=0.8, smear_reach=3))
    assert smeared[edge].mean() > 0.2 and not smeared[~edge].any()
    assert not between(QUIET).any()


def test_outliers_are_as_many_as_it_says(rng):
    sensor = replace(QUIET, outliers=0.01, max_depth=50.0)
    measured = np.stack([sensor.measure(plane(2.0), CAMERA, rng) for _ in range(8)])[:, :, 20:]
    astray = np.abs(measured - 2.0)[measured > 0] > 0.1
    # Each takes some of its eight neighbours along, three in ten; some land outside of the range.
    assert 0.01 < astray.mean() < 0.01 * (1 + 8 * 0.3)


@pytest.mark.parametrize("sensor", [StereoSensor(), StereoSensor.kinect_v1(), TimeOfFlightSensor(), PhoneLidarSensor()])
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
    sensor = TimeOfFlightSensor(noise_base=0.0, noise_growth=0.0, mixing=0.6, dropout=0.0, rim=0)
    exact = block()
    measured = sensor.measure(exact, CAMERA, rng)
    assert readings(measured).min() >= 1.0 and readings(measured).max() <= 3.0
    mixed = (measured > 1.05) & (measured < 2.95)
    edge = maximum(exact) > minimum(exact)
    assert not mixed[~edge].any()
    assert 0.1 < mixed[edge].mean() < sensor.mixing
    np.testing.assert_array_equal(measured[~edge], exact[~edge])


def test_tof_noise_grows_with_distance(rng):
    sensor = TimeOfFlightSensor(noise_base=0.001, noise_growth=0.0009)
    for z in (1.0, 3.5):
        spread = readings(sensor.measure(plane(z), CAMERA, rng)).std()
        assert spread == pytest.approx(0.001 + 0.0009 * z**2, rel=0.1)


def test_phone_lidar_has_no_hole_and_smears_every_edge(rng):
    exact = block()
    measured = PhoneLidarSensor(smear=1, wobble=0.0, noise=0.0).measure(exact, CAMERA, rng)
    edge = maximum(exact) > minimum(exact)
    assert (measured > 0).all()
    assert ((measured > 1.01) & (measured < 2.99))[edge].mean() > 0.95
    np.testing.assert_array_equal(measured[~edge], exact[~edge])


def test_phone_lidar_noise_is_a_share_of_depth(rng):
    sensor = PhoneLidarSensor(wobble=0.003, noise=0.001)
    for z in (1.0, 4.0):
        spread = np.mean([sensor.measure(plane(z), CAMERA, rng).std() for _ in range(6)])
        assert spread == pytest.approx(z * np.hypot(0.003, 0.001), rel=0.15)


def test_the_ideal_sensor_only_rounds(rng):
    exact = rng.uniform(0.3, 9.0, (120, 160)).astype(np.float32)
    measured = IdealSensor().measure(exact, CAMERA, rng)
    assert np.abs(measured - exact).max() < 5.01e-4


def test_a_simulated_kinect_shows_the_upper_left_pixel_of_every_block(rng):
    exact = rng.uniform(1.0, 3.0, (120, 160)).astype(np.float32)
    sensor = SimulatedKinectSensor(noise_px=0.0, jitter=0.0, waves_px=0.0)
    measured = sensor.measure(exact, CAMERA, rng)
    np.testing.assert_array_equal(measured, measured[::2, ::2].repeat(2, 0).repeat(2, 1))
    steps = 8 * sensor.focal_baseline / measured
    assert np.abs(steps - np.rint(steps)).max() < 0.2  # a millimetre is a tenth of a step at 2 m
    assert (
        np.abs(sensor.focal_baseline / measured - sensor.focal_baseline / exact[::2, ::2].repeat(2, 0).repeat(2, 1))
        <= 1 / 16 + 0.03
    ).all()


def test_a_simulated_kinect_takes_a_neighbours_point_at_an_edge_now_and_then(rng):
    exact = block()
    exact[:, 61:100:2] = exact[:, 60:99:2]
    still, moved = (
        SimulatedKinectSensor(noise_px=0.0, jitter=jitter, waves_px=0.0).measure(exact, CAMERA, rng)
        for jitter in (0.0, 0.5)
    )
    edge = maximum(exact, 2) > minimum(exact, 2)
    assert ((still < 2.0) == (exact < 2.0)).all()
    wrong = (moved < 2.0) != (exact < 2.0)
    assert 0.02 < wrong[edge].mean() < 0.5 and not wrong[~edge].any()


def test_a_simulated_kinects_noise_is_that_of_each_pixel_and_of_slow_waves(rng):
    sensor = SimulatedKinectSensor(step=1e-4, jitter=0.0, noise_px=0.03, waves_px=0.1)
    disparity = sensor.focal_baseline / sensor.measure(plane(1.0), CAMERA, rng)
    between = (disparity[:, ::2] - disparity[:, 1::2]).std() / np.sqrt(2.0)
    assert between == pytest.approx(0.03, rel=0.15)
    waves = np.mean([(35.13 / sensor.measure(plane(1.0), CAMERA, rng)).var() for _ in range(12)])
    assert waves == pytest.approx(0.1**2 + 0.03**2, rel=0.4)


@pytest.mark.parametrize("kind", [StereoSensor, TimeOfFlightSensor, PhoneLidarSensor, SimulatedKinectSensor])
def test_random_sensors_differ_and_work(kind, rng):
    sensors = [kind.random(rng) for _ in range(5)]
    assert len(set(sensors)) == 5
    for sensor in sensors:
        assert (sensor.measure(plane(2.0), CAMERA, rng) > 0).mean() > 0.7


#: What `random` leaves alone.
NOT_DRAWN = {"min_depth"}


@pytest.mark.parametrize("name", [name for name in SENSORS if name != "ideal"])
def test_random_sensors_are_drawn_around_the_presets(name, rng):
    preset = SENSORS[name]
    drawn = [type(preset).random(rng) for _ in range(400)]
    outside = set()
    for field in fields(preset):
        values = [getattr(sensor, field.name) for sensor in drawn]
        # The ends of a range are hardly ever drawn.
        slack = 0.02 * (max(values) - min(values))
        if not min(values) - slack <= getattr(preset, field.name) <= max(values) + slack:
            outside.add(field.name)
    assert outside <= NOT_DRAWN


# A stereo camera's rim is in its own pixels, of which this frame has a third.
@pytest.mark.parametrize(("sensor", "rim"), [(QUIET, 9), (TimeOfFlightSensor(mixing=0.0, dropout=0.0), 3)])
def test_rims_are_lost_beside_edges_only(sensor, rim, rng):
    exact = block()
    beside = maximum(exact, 4) > minimum(exact, 4)
    whole, rimmed = ((replace(sensor, rim=r).measure(exact, CAMERA, rng) > 0)[:, 40:] for r in (0, rim))
    assert rimmed[beside[:, 40:]].mean() < whole[beside[:, 40:]].mean() - 0.1
    assert rimmed[~beside[:, 40:]].mean() > whole[~beside[:, 40:]].mean() - 0.01


def test_lengths_shrink_with_the_frame_and_never_grow():
    sensor = StereoSensor(focal_px=400.0)
    widths = {100: 1, 200: 2, 300: 3, 400: 4, 1600: 4}
    for width, expected in widths.items():
        camera = Intrinsics(width, 60, float(width), float(width), width / 2, 30.0)
        assert sensor.length(4, camera) == expected
    assert sensor.length(1, Intrinsics(100, 60, 100.0, 100.0, 50.0, 30.0)) == 0
