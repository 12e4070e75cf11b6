import cv2
import numpy as np

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.resample import bilinear
from dsca_ros.depth.synthetic import SyntheticStream
from dsca_ros.evaluation.compare import Sample
from dsca_ros.evaluation.pictures import busiest_window, draw_demo, edges, thin_things


def wall_with_pole() -> np.ndarray:
    truth = np.full((60, 80), 3.0, np.float32)
    truth[:, 50:52] = 1.0
    return truth


def test_thin_things_are_narrow_and_before_something():
    found = thin_things(wall_with_pole(), 3)
    assert found[:, 50:52].all() and found.sum() == 2 * 60
    wide = np.full((60, 80), 3.0, np.float32)
    wide[:, 30:60] = 1.0
    assert not thin_things(wide, 3).any()


def test_edges_are_steps_along_both_axes():
    found = edges(wall_with_pole())
    assert set(np.flatnonzero(found.any(axis=0))) == {49, 51}
    assert edges(wall_with_pole().T).any(axis=1).sum() == 2


def test_the_busiest_window_has_the_most():
    mask = np.zeros((100, 200), bool)
    mask[5:8, 5:8] = True
    mask[60:70, 140:150] = True
    rows, columns = busiest_window(mask, 0.2)
    assert mask[rows, columns].sum() == 100
    assert mask[rows, columns].shape == (20, 40)
    # The other spot is not so full.
    rows, columns = busiest_window(mask, 0.2, limit=0.05)
    assert mask[rows, columns].sum() == 40  # as much of the large spot as the limit lets through


def test_the_picture_is_written(tmp_path):
    stream = SyntheticStream(Intrinsics.from_fov(64, 48, 70.0), "stereo", 4)
    frames = [(stream.measured(k), stream.truth(k, 2)) for k in (0, 1)]
    samples = [Sample(measured, bilinear(measured, 2), truth) for measured, truth in frames]
    path = tmp_path / "new" / "demo.png"
    draw_demo(samples, path, "a title")
    picture = cv2.imread(str(path))
    assert min(picture.shape[:2]) > 600
    assert picture.std() > 30  # it shows something
