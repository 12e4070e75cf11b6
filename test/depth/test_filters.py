import numpy as np
import pytest

from dsca_ros.depth.filters import blur, maximum, minimum, smooth_noise


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize(
    ("function", "reduce"),
    [(maximum, np.max), (minimum, np.min), (blur, np.mean)],
    ids=["max", "min", "mean"],
)
def test_windows_equal_a_direct_evaluation(function, reduce, radius, rng):
    image = rng.standard_normal((7, 9)).astype(np.float32)
    padded = np.pad(image, radius, mode="edge")
    side = 2 * radius + 1
    expected = reduce(np.lib.stride_tricks.sliding_window_view(padded, (side, side)), axis=(2, 3))
    np.testing.assert_allclose(function(image, radius), expected, rtol=1e-5, atol=1e-6)


def test_filters_leave_the_input_alone(rng):
    image = rng.standard_normal((5, 5)).astype(np.float32)
    before = image.copy()
    maximum(image), minimum(image), blur(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("radius", [1, 2, 3, 8])
def test_smooth_noise_is_standard_and_correlated(radius, rng):
    noise = smooth_noise((301, 407), radius, rng)
    assert noise.shape == (301, 407) and noise.dtype == np.float32
    assert abs(noise.mean()) < 0.12
    assert noise.std() == pytest.approx(1.0, abs=0.08)
    together = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
    apart = np.corrcoef(noise[:, : -3 * radius].ravel(), noise[:, 3 * radius :].ravel())[0, 1]
    assert together > 0.55 and abs(apart) < 0.15
