"""Folders of frames: what is known about them, what they hold, and what is said about mistakes."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.fidelity import consistency, decimate
from dsca_ros.depth.files import DepthFileError
from dsca_ros.depth.metrics import flying
from dsca_ros.depth.resample import nearest
from dsca_ros.evaluation.recordings import KNOWN, DepthSet, SetError, SetInfo, intrinsics_beside, open_set

METRES = np.array([[0.0, 1.0, 2.5], [6.5534, 9.0, 3.25]], np.float32)


def save(folder: Path, name: str, metres: np.ndarray = METRES, unit: float = 0.001) -> Path:
    """Writes a frame: 16-bit PNG in the unit, or floats."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.suffix == ".png":
        assert cv2.imwrite(str(path), np.round(metres / unit).astype(np.uint16))
    elif path.suffix == ".npz":
        np.savez(path, depth=metres)
    else:
        np.save(path, metres)
    return path


def describe(folder: Path, **keys: object) -> None:
    (folder / "set.yaml").write_text(yaml.safe_dump(keys))


def refused(folder: Path) -> str:
    """What is said about a folder that is no set; one line that names it."""
    with pytest.raises(SetError) as raised:
        open_set(folder)
    text = str(raised.value)
    assert len(text.splitlines()) == 1 and str(folder) in text
    return text


# --- folders and frames -------------------------------------------------------------------------


def test_frames_are_in_order_of_name_whatever_their_format(tmp_path):
    for name in ("b.png", "a.npy", "c.npz"):
        save(tmp_path / "set", name)
    for name in ("pose.txt", "notes.md"):
        (tmp_path / "set" / name).write_text("1")
    found = open_set(tmp_path / "set")
    assert found.name == "set" and found.info == SetInfo()
    assert [path.name for path in found.frames] == ["a.npy", "b.png", "c.npz"]
    for index in range(3):
        depth = found.depth(index)
        assert depth.dtype == np.float32
        np.testing.assert_allclose(depth, METRES, atol=0.0006 if index == 1 else 0)


def test_a_folder_named_like_a_frame_is_none(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "b.png").mkdir()
    assert [path.name for path in open_set(tmp_path).frames] == ["a.png"]


def test_a_folder_that_is_not_there(tmp_path):
    assert "no such folder" in refused(tmp_path / "none")
    assert "no such folder" in refused(save(tmp_path, "a.png"))  # a file is none


def test_a_folder_without_frames_names_the_formats(tmp_path):
    (tmp_path / "notes.txt").touch()
    text = refused(tmp_path)
    assert "no depth frames" in text and ".png, .npy, .npz" in text


def test_a_frame_that_is_no_depth_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"this is no image")
    assert "a.png" in refused(tmp_path)


def test_a_later_frame_that_cannot_be_read_is_an_error_when_it_is_read(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "b.png").write_bytes(b"this is no image")
    found = open_set(tmp_path)
    with pytest.raises(DepthFileError, match=r"b\.png"):
        found.depth(1)


def test_no_reading_and_what_is_too_far_is_invalid(tmp_path):
    raw = np.array([[0, 1, 9999, 10000, 10001, 65534, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), raw)
    np.testing.assert_allclose(open_set(tmp_path).depth(0), [[0, 0.001, 9.999, 10.0, 0, 0, 0]], rtol=1e-6)
    describe(tmp_path, max_depth=70.0)
    expected = [[0, 0.001, 9.999, 10.0, 10.001, 65.534, 0]]
    np.testing.assert_allclose(open_set(tmp_path).depth(0), expected, rtol=1e-6)


def test_floats_that_are_no_numbers_are_invalid(tmp_path):
    save(tmp_path, "a.npz", np.array([[np.nan, np.inf, -1.0], [2.0, 12.0, 0.0]], np.float32))
    describe(tmp_path, unit=0.0001)  # floats are metres all the same
    assert open_set(tmp_path).depth(0).tolist() == [[0, 0, 0], [2, 0, 0]]


# --- set.yaml and what is known of public sets --------------------------------------------------


def test_every_key_of_set_yaml(tmp_path):
    save(tmp_path / "exact", "a.png", 2.0 * METRES, 0.0005)
    save(tmp_path / "set", "a.png", METRES, 0.0005)
    keys = {
        "kind": "truth", "unit": 0.0005, "truth": "../exact", "max_depth": 6.0, "still": True,
        "intrinsics": [10, 11, 1.5, 1],
    }  # fmt: skip
    describe(tmp_path / "set", **keys)
    found = open_set(tmp_path / "set")
    assert found.info == SetInfo(**(keys | {"intrinsics": (10.0, 11.0, 1.5, 1.0)}))
    np.testing.assert_allclose(found.depth(0), [[0, 1, 2.5], [0, 0, 3.25]], atol=1e-6)
    np.testing.assert_allclose(found.truth(0), [[0, 2, 5.0], [0, 0, 0]], atol=1e-6)
    assert found.camera(0) == Intrinsics(3, 2, 10.0, 11.0, 1.5, 1.0)


def test_exact_depth_without_a_folder_of_its_own_is_the_frame(tmp_path):
    save(tmp_path, "a.npy")
    describe(tmp_path, kind="truth")
    found = open_set(tmp_path)
    np.testing.assert_array_equal(found.truth(0), found.depth(0))
    assert found.truth(0)[0, 1] == 1.0


def test_a_tenth_of_a_millimetre(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 1, 25000], [65534, 65535, 32500]], np.uint16))
    describe(tmp_path, unit=0.0001)
    np.testing.assert_allclose(open_set(tmp_path).depth(0), [[0, 0.0001, 2.5], [6.5534, 0, 3.25]], rtol=1e-6)


@pytest.mark.parametrize("name", KNOWN)
def test_public_sets_are_known_by_the_name_of_their_folder(tmp_path, name):
    save(tmp_path / name, "a.png")
    save(tmp_path / "livingroom", "a.png")
    found = open_set(tmp_path / name)
    assert found.info == KNOWN[name]
    if found.info.intrinsics:
        fx, fy, cx, cy = found.info.intrinsics
        assert found.camera(0) == Intrinsics(3, 2, fx, fy, cx, cy)


def test_set_yaml_changes_only_what_it_says_of_a_known_set(tmp_path):
    save(tmp_path / "kinect_v1", "a.png")
    describe(tmp_path / "kinect_v1", max_depth=4.0)
    info = open_set(tmp_path / "kinect_v1").info
    assert info == replace(KNOWN["kinect_v1"], max_depth=4.0) and info.intrinsics


def test_a_relative_path_has_the_folders_name(tmp_path, monkeypatch):
    save(tmp_path / "kinect_v1", "a.png")
    monkeypatch.chdir(tmp_path / "kinect_v1")
    found = open_set(Path("."))
    assert found.name == "kinect_v1" and found.info == KNOWN["kinect_v1"]


@pytest.mark.parametrize(
    "text",
    ["units: 0.001", "kind: [", "- kind", "recorded", "", "intrinsics: 5", "intrinsics: [a, b, c, d]"],
    ids=repr,
)
def test_a_wrong_set_yaml_is_named_in_one_line(tmp_path, text):
    save(tmp_path, "a.png")
    (tmp_path / "set.yaml").write_text(text)
    assert "set.yaml" in refused(tmp_path)


def test_an_unknown_key_is_answered_with_the_known_ones(tmp_path):
    save(tmp_path, "a.png")
    describe(tmp_path, metres=1.0)
    assert "intrinsics, kind, max_depth, still, truth, unit" in refused(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "exact"),
        ("kind", "Truth"),
        ("unit", "mm"),
        ("unit", -0.001),
        ("unit", [0.001]),
        ("max_depth", "ten"),
        ("still", "maybe"),
        ("truth", 3),
        ("intrinsics", [500.0, 500.0, 320.0]),
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_named_in_one_line(tmp_path, key, value):
    save(tmp_path, "a.png")
    describe(tmp_path, **({"kind": "truth"} | {key: value}))
    assert "set.yaml" in refused(tmp_path)


def test_exact_depth_that_is_not_there_is_named(tmp_path):
    save(tmp_path / "set", "a.png")
    describe(tmp_path / "set", kind="truth", truth="../exact")
    with pytest.raises(SetError, match=r"exact/a\.png") as raised:
        open_set(tmp_path / "set")
    assert len(str(raised.value).splitlines()) == 1


# --- intrinsics ---------------------------------------------------------------------------------

OPEN3D = {"width": 3, "height": 2, "intrinsic_matrix": [10, 0, 0, 0, 11, 0, 1.5, 0.75, 1]}
ROS = {"D": [0.0] * 5, "K": [10, 0, 1.5, 0, 11, 0.75, 0, 0, 1], "P": [9] * 12, "width": 3, "height": 2}
PLAIN = "1.0e+01 0.0 1.5\n0 1.1E1 0.75\n0 0 1\n"
F200 = f"""# Environment: shelf
# Color camera intrinsic matrix
 9.9e+01 0 9
 0 9.9e+01 9
 0 0 1

# Depth camera intrinsic matrix
{PLAIN}
# Depth-to-color camera extrinsic matrix
 -1 2 3 4
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("camera.json", json.dumps(OPEN3D)),  # column by column
        ("camera_info.json", json.dumps(ROS)),  # row by row
        pytest.param(
            "camera_info.json",
            json.dumps({"k": ROS["K"], "d": ROS["D"], "p": ROS["P"]}),
            marks=[],
            id="camera_info.json of ROS 2",
        ),
        ("f.depth_intrinsics.txt", PLAIN),
        ("cam.info.txt", F200),
    ],
)
def test_intrinsics_beside_the_frames(tmp_path, name, text):
    frame = save(tmp_path, "f.depth.png")
    (tmp_path / name).write_text(text)
    assert intrinsics_beside(frame) == (10.0, 11.0, 1.5, 0.75)
    assert open_set(tmp_path).camera(0) == Intrinsics(3, 2, 10.0, 11.0, 1.5, 0.75)
    describe(tmp_path, intrinsics=[20, 20, 1, 1])  # what the user says is taken first
    assert open_set(tmp_path).camera(0) == Intrinsics(3, 2, 20.0, 20.0, 1.0, 1.0)


def test_every_frame_may_have_its_own(tmp_path):
    for index in range(2):
        save(tmp_path, f"{index}.png", np.ones((2 + index, 4), np.float32))
        (tmp_path / f"{index}_intrinsics.txt").write_text(f"{100 + index} 0 2\n0 200 1.5\n0 0 1")
    found = open_set(tmp_path)
    assert found.camera(0) == Intrinsics(4, 2, 100.0, 200.0, 2.0, 1.5)
    assert found.camera(1) == Intrinsics(4, 3, 101.0, 200.0, 2.0, 1.5)


def test_intrinsics_that_nobody_knows(tmp_path):
    frame = save(tmp_path, "a.png")
    assert intrinsics_beside(frame) is None
    assert open_set(tmp_path).camera(0) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("camera.json", "{}"),
        ("camera.json", "[1, 2]"),
        ("camera_info.json", "this is no JSON"),
        ("a_intrinsics.txt", "100 0 2"),
        ("cam.info.txt", "# Color camera intrinsic matrix\n1 0 0\n0 1 0\n0 0 1\n"),
    ],
)
def test_intrinsics_that_cannot_be_read_are_named_in_one_line(tmp_path, name, text):
    save(tmp_path, "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name) as raised:  # of which the command makes one line
        open_set(tmp_path).camera(0)
    assert len(str(raised.value).splitlines()) == 1


# --- poses --------------------------------------------------------------------------------------


def test_poses_are_beside_their_frames(tmp_path):
    pose = np.eye(4)
    pose[:3, 3] = 1.0, -2.0, 0.5
    save(tmp_path, "frame-1.depth.png"), save(tmp_path, "frame-2.png"), save(tmp_path, "frame-3.png")
    for name in ("frame-1", "frame-2"):
        np.savetxt(tmp_path / f"{name}.pose.txt", pose)
        pose = 2.0 * pose
    found = open_set(tmp_path)
    np.testing.assert_array_equal(found.pose(0)[:3, 3], [1.0, -2.0, 0.5])
    np.testing.assert_array_equal(found.pose(1)[:3, 3], [2.0, -4.0, 1.0])
    assert found.pose(2) is None


@pytest.mark.parametrize("bad", [np.full((4, 4), np.nan), np.full((4, 4), -np.inf), np.eye(3)], ids=str)
def test_a_lost_pose_is_none(tmp_path, bad):
    save(tmp_path, "a.png")
    np.savetxt(tmp_path / "a.pose.txt", bad)
    assert open_set(tmp_path).pose(0) is None


# --- recordings ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(shared_data) -> list[DepthSet]:
    folders = sorted(path for path in shared_data("sensor").iterdir() if path.is_dir())
    assert folders
    return [open_set(folder) for folder in folders]


def test_every_recording_opens_and_is_depth(recorded):
    for found in recorded:
        depth = found.depth(0)
        assert depth.dtype == np.float32 and np.isfinite(depth).all() and depth.min() >= 0.0, found.name
        assert (depth > 0).mean() > 0.3 and depth.max() <= found.info.max_depth, found.name
        assert 0.2 < np.median(depth[depth > 0]) < 5.0, found.name  # the unit is right
        camera = found.camera(len(found.frames) - 1)
        if camera is not None:  # 40 to 90 degrees, and the axis about in the middle
            assert 0.5 < camera.fx / camera.width < 1.4, found.name
            assert camera.fx == pytest.approx(camera.fy, rel=0.01), found.name
            assert camera.cx == pytest.approx(camera.width / 2, rel=0.05), found.name
            assert camera.cy == pytest.approx(camera.height / 2, rel=0.05), found.name


def test_what_recording_tools_left_is_found(recorded):
    sets = {found.name: found for found in recorded}
    with_camera = {name for name, found in sets.items() if found.camera(0) is not None}
    assert with_camera == set(sets) - {"azure_kinect", "iphone_lidar"}
    assert {name for name, found in sets.items() if found.pose(0) is not None} == {"kinect_v1"}
    pose = sets["kinect_v1"].pose(0)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-3)


@pytest.mark.parametrize("scale", [2, 4])
def test_nearest_agrees_with_every_recording_and_flies_nowhere(recorded, scale):
    for found in recorded:
        depth = found.depth(0)[100:180, 60:180]
        assert (depth > 0).any(), found.name
        assert consistency(nearest(depth, scale), depth, scale) == (0.0, int((depth > 0).sum())), found.name
        # Decimated and restored, each point is one that was measured at most a block away.
        restored = nearest(decimate(depth, scale), scale)
        assert not flying(restored, depth, scale).any(), found.name
