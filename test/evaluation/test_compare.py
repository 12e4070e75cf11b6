import numpy as np
import pytest

pytest.importorskip("torch")

from dsca_ros.depth import units
from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import decimate
from dsca_ros.depth.resample import METHODS
from dsca_ros.depth.synthetic import HELD_OUT_SEED, SyntheticStream
from dsca_ros.evaluation.compare import Sample, compare, with_truth
from dsca_ros.evaluation.held_out import held_out_frames, held_out_samples
from dsca_ros.training.views import ViewSettings

STREAM = SyntheticStream(Intrinsics.from_fov(48, 36, 70.0), "stereo", 10, 1_000_001)


def received(index: int, scale: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A frame of the stream as a monitor gets it: over millimetres, with a result."""
    measured = units.to_metres(units.to_millimetres(STREAM.measured(index)))
    return measured, METHODS["nearest"](measured, scale)


def test_received_frames_find_their_truth_in_any_order():
    samples = with_truth([received(7), received(2), received(12)], STREAM)  # 12 is 2 again
    assert len(samples) == 2
    for sample, index in zip(samples, (2, 7), strict=True):
        np.testing.assert_array_equal(sample.measured, STREAM.measured(index))
        np.testing.assert_array_equal(sample.truth, STREAM.truth(index, 2))
        assert sample.scale == 2


def test_a_foreign_frame_is_an_error():
    measured, result = received(3)
    with pytest.raises(LookupError, match="1 received frame"):
        with_truth([received(4), (measured + np.float32(0.01), result)], STREAM)


def test_the_network_is_measured_beside_every_other_method():
    found = compare(with_truth([received(1), received(5)], STREAM))
    assert list(found) == ["nearest", "bilinear", "bicubic", "dsca"]
    assert found["dsca"] == pytest.approx(found["nearest"], rel=1e-5)  # which is what was received here
    assert found["bilinear"] != found["nearest"]


def test_exact_depth_has_no_error():
    truth = STREAM.truth(0, 2)
    found = compare([Sample(STREAM.measured(0), truth, truth)])
    assert found["dsca"] == {"rmse_mm": 0.0, "mae_mm": 0.0, "flying_pct": 0.0, "valid_pct": 100.0}
    assert found["nearest"]["mae_mm"] > 1.0


def test_errors_are_of_the_pixels_valid_in_every_method():
    truth = np.ones((8, 8), np.float32)
    measured = np.ones((4, 4), np.float32)
    measured[0, 0] = 0.0
    result = truth.copy()
    result[0, 0] = 5.0  # no other method has a depth here
    assert compare([Sample(measured, result, truth)])["dsca"]["mae_mm"] == 0.0


def test_held_out_samples_are_millimetres_through_the_upsampler():
    seen = []

    def upsample(depth: np.ndarray) -> np.ndarray:
        seen.append(depth)
        return depth.repeat(4, axis=0).repeat(4, axis=1)

    samples = list(held_out_samples(upsample, 4, "tof", 3, 32, 24))
    assert [(d.shape, d.dtype) for d in seen] == [((24, 32), np.uint16)] * 3
    for sample in samples:
        assert sample.scale == 4 and sample.truth.shape == (96, 128)
        np.testing.assert_allclose(sample.result, METHODS["nearest"](sample.measured, 4), atol=1e-6)
    assert not np.array_equal(samples[0].truth, samples[1].truth)


def test_held_out_frames_may_be_decimated():
    """Measured at the larger size, then shrunk; the exact depth is the same."""
    (native, exact), (shrunk, same) = (next(held_out_frames(2, "ideal", 1, 32, 24, flag)) for flag in (False, True))
    np.testing.assert_array_equal(exact, same)
    np.testing.assert_allclose(shrunk, decimate(exact, 2), atol=0.00051)
    assert native.shape == shrunk.shape == (24, 32) and not np.array_equal(native, shrunk)


def test_training_never_sees_a_held_out_room():
    assert ViewSettings().first_seed + ViewSettings().count < HELD_OUT_SEED
