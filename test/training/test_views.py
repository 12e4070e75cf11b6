import numpy as np
import pytest

from dsca_ros.depth.sensors import IdealSensor
from dsca_ros.training import views
from dsca_ros.training.views import ViewPool, ViewSettings, make_batch


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return ViewPool(ViewSettings(3, 48, 36, scale=4), tmp_path_factory.mktemp("cache"))


def test_shapes_of_a_batch(pool):
    batch = make_batch(pool, size=2, crop=24, seed=1, step=0)
    assert batch.low.shape == (2, 1, 24, 24)
    assert [t.shape for t in batch.targets] == [(2, 1, 48, 48), (2, 1, 96, 96)]
    assert all(a.dtype == np.float32 for a in (batch.low, *batch.targets))
    assert all(np.isfinite(t).all() and (t > 0).all() for t in batch.targets)


def test_a_batch_is_a_function_of_seed_and_step(pool):
    batch, again = (make_batch(pool, 2, 24, seed=1, step=5) for _ in range(2))
    np.testing.assert_array_equal(batch.low, again.low)
    for a, b in zip(batch.targets, again.targets, strict=True):
        np.testing.assert_array_equal(a, b)
    for seed, step in ((1, 6), (2, 5)):
        assert not np.array_equal(batch.low, make_batch(pool, 2, 24, seed, step).low)


def test_a_pool_is_rendered_once(pool, tmp_path):
    settings, counts = ViewSettings(2, 16, 12), []
    first = ViewPool(settings, tmp_path, counts.append)
    assert counts == [1, 2]
    again = ViewPool(settings, tmp_path, counts.append)
    assert counts == [1, 2]
    np.testing.assert_array_equal(first.depth[1], again.depth[1])
    other = ViewPool(ViewSettings(2, 16, 12, first_seed=50), tmp_path, counts.append)
    assert counts == [1, 2, 1, 2]
    assert not np.array_equal(first.depth[0], other.depth[0])


def test_an_interrupted_pool_is_rendered_again(tmp_path):
    settings = ViewSettings(2, 16, 12)

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ViewPool(settings, tmp_path, interrupt)
    pool = ViewPool(settings, tmp_path)
    assert (pool.depth[0] > 0).all() and (pool.depth[1] > 0).all()


def test_the_pools_views_are_those_of_the_scenes(pool):
    scene, camera, phase = pool.view(2)
    assert pool.camera(2).fx == pytest.approx(camera.fx)
    np.testing.assert_array_equal(pool.depth[2][2], scene.render(camera.scaled(4), phase))


@pytest.mark.parametrize("step", range(4))
def test_targets_are_what_the_ideal_sensor_measured(pool, monkeypatch, step):
    """Crop, mirroring and the size of the world agree between input and every target."""
    monkeypatch.setattr(views, "random_sensor", lambda rng: IdealSensor())
    batch = make_batch(pool, 3, 24, seed=3, step=step)
    inverse = 1.0 / batch.low
    for target, factor in zip(batch.targets, (2, 4), strict=True):
        blocks = (1.0 / target).reshape(3, 1, 24, factor, 24, factor)
        # Inverse depth is linear on planes, so a block's mean is that of its centre: the input.
        # Where two surfaces meet it is not, and those pixels are left out.
        spread = blocks.max(axis=(3, 5)) - blocks.min(axis=(3, 5))
        smooth = spread < np.quantile(spread, 0.7)
        error = np.abs(blocks.mean(axis=(3, 5)) - inverse) / inverse
        assert np.quantile(error[smooth], 0.9) < 0.001


def test_worlds_and_sensors_vary(pool):
    sensors = {type(views.random_sensor(np.random.default_rng(k))).__name__ for k in range(60)}
    assert sensors == {"StereoSensor", "TimeOfFlightSensor", "IdealSensor"}
