import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from dsca_ros.depth.files import DepthFileError, DepthImage, list_frames, read_depth, write_depth

MM = 0.001


def save_png(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def millimetres(rng):
    image = rng.integers(1, 9000, (6, 8)).astype(np.uint16)
    image[0, 0], image[1, 1] = 0, 65535
    return image


@pytest.mark.parametrize("suffix", [".png", ".npy"])
@pytest.mark.parametrize("unit", [0.001, 0.0001])
def test_integers_round_trip_in_their_unit(tmp_path, millimetres, suffix, unit):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    save_png(source, millimetres) if suffix == ".png" else np.save(source, millimetres)
    image = read_depth(source, unit)
    assert image.metres.dtype == np.float32 and image.dtype == np.uint16
    assert image.metres[1, 1] == 0 and image.metres[2, 2] == pytest.approx(millimetres[2, 2] * unit)
    write_depth(target, image.metres, image, unit)
    millimetres[1, 1] = 0  # "no reading" is written as plain invalid
    raw = cv2.imread(str(target), cv2.IMREAD_UNCHANGED) if suffix == ".png" else np.load(target)
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal(raw, millimetres)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_npy_keeps_its_dtype(tmp_path, dtype):
    source, target = tmp_path / "in.npy", tmp_path / "out.npy"
    np.save(source, np.array([[0, 1, 2], [3, 4, 100]], dtype))
    image = read_depth(source, MM)
    write_depth(target, image.metres, image, MM)
    result = np.load(target)
    assert result.dtype == dtype and result.tolist() == [[0, 1, 2], [3, 4, 100]]


def test_floats_are_metres_and_non_finite_invalid(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[np.nan, np.inf, -1.0, 1.25]]))
    assert read_depth(tmp_path / "a.npy", MM).metres.tolist() == [[0, 0, 0, 1.25]]


def test_an_8_bit_png_is_written_with_16(tmp_path):
    image = read_depth(save_png(tmp_path / "a.png", np.full((3, 3), 200, np.uint8)), 0.01)
    assert image.metres[0, 0] == pytest.approx(2.0)
    write_depth(tmp_path / "b.png", np.full((6, 6), 5.0, np.float32), image, 0.01)
    assert cv2.imread(str(tmp_path / "b.png"), cv2.IMREAD_UNCHANGED).tolist() == [[500] * 6] * 6


def test_a_float_npy_becomes_a_png_of_the_unit(tmp_path):
    like = DepthImage(np.zeros((1, 1), np.float32), np.dtype(np.float32))
    write_depth(tmp_path / "a.png", np.array([[1.5, 0.0]], np.float32), like, MM)
    raw = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert raw.dtype == np.uint16 and raw.tolist() == [[1500, 0]]


def test_depth_beyond_the_coding_is_invalid_and_never_wraps(tmp_path):
    like = DepthImage(np.zeros((1, 1), np.float32), np.dtype(np.uint16))
    write_depth(tmp_path / "a.png", np.array([[65.534, 65.535, 70.0]], np.float32), like, MM)
    raw = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert raw.tolist() == [[65534, 0, 0]]


def test_writing_makes_folders_and_leaves_nothing_aside(tmp_path):
    like = DepthImage(np.zeros((1, 1), np.float32), np.dtype(np.float32))
    write_depth(tmp_path / "new" / "deep" / "a.npy", np.ones((2, 2), np.float32), like, MM)
    assert [p.name for p in (tmp_path / "new" / "deep").iterdir()] == ["a.npy"]


def test_a_folder_lists_its_frames_in_order(tmp_path):
    for name in ("b.png", "a.npy", "c.PNG", "notes.txt"):
        (tmp_path / name).touch()
    out = tmp_path / "out"
    jobs = list_frames(tmp_path, out)
    assert jobs == [(tmp_path / n, out / n) for n in ("a.npy", "b.png", "c.PNG")]


def test_a_file_into_a_folder_keeps_its_name(tmp_path):
    source, folder = tmp_path / "a.png", tmp_path / "out"
    source.touch(), folder.mkdir()
    assert list_frames(source, folder) == [(source, folder / "a.png")]
    assert list_frames(source, tmp_path / "b.npy") == [(source, tmp_path / "b.npy")]


@pytest.mark.parametrize(
    ("source", "target", "cause"),
    [
        ("nothing.png", "b.png", "no such file"),
        ("folder", "b.png", "is a folder"),
        ("empty", "out", r"no \.png or \.npy"),
        ("a.png", "b.jpg", r"write to \.png or \.npy"),
        ("a.png", "a.png", "overwritten"),
        ("a.png", ".", "overwritten"),
        ("folder", "folder", "overwritten"),
    ],
)
def test_jobs_that_cannot_be_done_say_why(tmp_path, source, target, cause):
    (tmp_path / "folder").mkdir(), (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").touch(), (tmp_path / "folder" / "x.png").touch()
    with pytest.raises(DepthFileError, match=cause):
        list_frames(tmp_path / source, tmp_path / target)


@pytest.mark.parametrize("name", ["text.png", "empty.png", "text.npy", "empty.npy", "cut.npy", "archive.npy"])
def test_damaged_files_are_named_in_one_line(tmp_path, name):
    path = tmp_path / name
    if name == "cut.npy":
        np.save(path, np.ones((20, 20)))
        path.write_bytes(path.read_bytes()[:300])
    elif name == "archive.npy":
        with path.open("wb") as file:
            np.savez(file, depth=np.ones((2, 2)))
    else:
        path.write_bytes(b"" if "empty" in name else b"this is no image")
    with pytest.raises(DepthFileError, match=name) as raised:
        read_depth(path, MM)
    assert len(str(raised.value).splitlines()) == 1


def test_an_image_without_pixels_is_told_so(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((0, 4), np.float32))
    with pytest.raises(DepthFileError, match="no pixel in it"):
        read_depth(tmp_path / "a.npy", 0.001)


def test_depth_beyond_float32_is_none_and_no_warning(tmp_path, recwarn):
    np.save(tmp_path / "a.npy", np.array([[1e300, 1.5], [-1e300, np.nan]]))
    assert read_depth(tmp_path / "a.npy", 0.001).metres.tolist() == [[0.0, 1.5], [0.0, 0.0]]
    assert not recwarn.list


def test_a_folder_in_a_folder_of_frames_is_no_frame(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2), np.float32))
    (tmp_path / "b.png").mkdir()
    assert [path.name for path, _ in list_frames(tmp_path, tmp_path / "out")] == ["a.npy"]


def test_a_full_disk_leaves_no_half_image(tmp_path, monkeypatch):
    def full(self: Path, data: bytes) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DepthFileError, match="No space left"):
        write_depth(tmp_path / "a.png", np.ones((2, 2), np.float32), DepthImage(np.ones(()), np.dtype("u2")), 0.001)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(4, 4, 3), (4,), (1, 4, 4)])
def test_only_one_channel_is_depth(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.ones(shape, np.float32))
    with pytest.raises(DepthFileError, match="one channel"):
        read_depth(tmp_path / "a.npy", MM)


def test_a_colour_picture_is_refused(tmp_path):
    path = save_png(tmp_path / "a.png", np.ones((4, 4, 3), np.uint8))
    with pytest.raises(DepthFileError, match="colour"):
        read_depth(path, MM)


@pytest.mark.parametrize("dtype", [bool, complex])
def test_other_numbers_are_no_depth(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.ones((4, 4), dtype))
    with pytest.raises(DepthFileError, match="is no depth"):
        read_depth(tmp_path / "a.npy", MM)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    like = DepthImage(np.zeros((1, 1), np.float32), np.dtype(np.uint16))
    with pytest.raises(DepthFileError, match="cannot be written"):
        write_depth(tmp_path / "file" / "a.png", np.ones((2, 2), np.float32), like, MM)


# --- archives -----------------------------------------------------------------------------------


def test_an_archives_array_named_depth_is_taken(tmp_path):
    other = np.full((2, 2), 9.0)
    np.savez(tmp_path / "a.npz", amplitude=other, depth=np.array([[np.nan, 1.25], [-np.inf, -1.0]]))
    image = read_depth(tmp_path / "a.npz", MM)
    assert image.metres.dtype == np.float32 and image.dtype == np.float64
    assert image.metres.tolist() == [[0, 1.25], [0, 0]]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archives_first_array_is_taken_where_none_has_the_name(tmp_path, save):
    save(tmp_path / "a.npz", z=np.full((2, 3), 1500, np.uint16), a=np.ones((4, 4)))
    image = read_depth(tmp_path / "a.npz", MM)
    assert image.metres.shape == (2, 3) and image.dtype == np.uint16
    np.testing.assert_allclose(image.metres, 1.5)


def test_integers_of_an_archive_take_the_unit_and_their_largest_is_no_reading(tmp_path):
    np.savez(tmp_path / "a.npz", depth=np.array([[0, 1, 65534, 65535]], np.uint16))
    metres = read_depth(tmp_path / "a.npz", 0.0001).metres
    np.testing.assert_allclose(metres, [[0.0, 0.0001, 6.5534, 0.0]], rtol=1e-6)


def test_the_suffix_of_an_archive_may_be_in_capitals(tmp_path):
    with (tmp_path / "a.NPZ").open("wb") as file:
        np.savez(file, np.ones((2, 2), np.float32))
    assert read_depth(tmp_path / "a.NPZ", MM).metres.tolist() == [[1, 1], [1, 1]]


def spoilt_archive(path: Path, kind: str) -> None:
    """Writes an .npz that is none, or is damaged."""
    values = np.random.default_rng(1).random((50, 50))
    if kind == "of nothing":
        np.savez(path)
    elif kind == "of objects":
        np.savez(path, depth=np.array([[None, 1]], object))
    elif kind == "of text":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("notes.txt", "hello")
    elif kind == "of one array alone":
        with path.open("wb") as file:
            np.save(file, values)
    elif kind in ("text", "empty"):
        path.write_bytes(b"this is no archive" if kind == "text" else b"")
    else:
        np.savez_compressed(path, depth=values)
        data = bytearray(path.read_bytes())
        if kind == "cut":
            data = data[:300]
        elif kind == "with a wrong sum":
            data[9000:9020] = b"\xff" * 20
        else:  # the compressed stream itself makes no sense
            data[100:120] = b"\xff" * 20
        path.write_bytes(data)


@pytest.mark.parametrize(
    "kind",
    [
        "of nothing", "of objects", "text", "cut", "with a wrong sum",
        "empty", "of one array alone", "of text", "with noise",
    ],
)  # fmt: skip
def test_damaged_archives_are_named_in_one_line(tmp_path, kind):
    path = tmp_path / "a.npz"
    spoilt_archive(path, kind)
    with pytest.raises(DepthFileError, match=r"a\.npz: ") as raised:
        read_depth(path, MM)
    assert len(str(raised.value).splitlines()) == 1


def test_an_archive_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DepthFileError, match=r"none\.npz: cannot be read"):
        read_depth(tmp_path / "none.npz", MM)


def test_an_archive_of_colours_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", np.ones((4, 4, 3), np.uint8))
    with pytest.raises(DepthFileError, match="one channel"):
        read_depth(tmp_path / "a.npz", MM)
