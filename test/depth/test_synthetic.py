import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.synthetic import SyntheticStream

CAMERA = Intrinsics.from_fov(48, 36, 70.0)


def test_frames_are_the_same_in_every_instance_and_order():
    first, second = (SyntheticStream(CAMERA, "stereo", 10, 1_000_001) for _ in range(2))
    forward = [first.measured(k) for k in (2, 3, 4)]
    backward = [second.measured(k) for k in (4, 3, 2)]
    for a, b in zip(forward, reversed(backward), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.truth(3, 2), second.truth(3, 2))


def test_the_stream_loops():
    stream = SyntheticStream(CAMERA, "tof", 10)
    np.testing.assert_array_equal(stream.measured(3), stream.measured(13))
    np.testing.assert_array_equal(stream.truth(3), stream.truth(1003))
    assert not np.array_equal(stream.measured(3), stream.measured(4))


def test_seeds_make_other_rooms_and_frames_other_noise():
    one, other = SyntheticStream(CAMERA, seed=1), SyntheticStream(CAMERA, seed=2)
    assert not np.array_equal(one.truth(0), other.truth(0))
    wall = np.full((36, 48), 2.0, np.float32)
    still = SyntheticStream(CAMERA, "stereo", frames=10)
    object.__setattr__(still, "scene", type("Wall", (), {"render": lambda *_: wall})())
    assert not np.array_equal(still.measured(0), still.measured(1))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_truth_is_that_of_the_measurement(scale):
    stream = SyntheticStream(CAMERA, "ideal", 10)
    measured, truth = stream.measured(5), stream.truth(5, scale)
    assert truth.shape == (36 * scale, 48 * scale)
    blocks = truth.reshape(36, scale, 48, scale)
    low, high = blocks.min(axis=(1, 3)) - 0.02, blocks.max(axis=(1, 3)) + 0.02
    assert ((measured >= low) & (measured <= high)).mean() > 0.97


def test_an_unknown_sensor_names_those_there_are():
    with pytest.raises(ValueError, match=r"'lidar'.*stereo.*tof"):
        SyntheticStream(CAMERA, "lidar")
