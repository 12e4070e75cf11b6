"""Training maps: what is read, what is never trained on, and what a batch holds."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from dsca_ros.depth.imresize import imresize, to_uint8
from dsca_ros.depth.levels import NOISE
from dsca_ros.evaluation.benchmark import load_maps
from dsca_ros.training import maps
from dsca_ros.training.maps import (
    FOLDERS,
    HELD_OUT,
    IN_BENCHMARK,
    PROCEDURAL,
    MapError,
    MapFolder,
    PatchSettings,
    PatchSource,
    degrade,
    edge_share,
    fill_unknown,
    load_folder,
    random_flip,
    random_window,
    read_map,
    to_levels,
    validation_maps,
)

DISPARITY, DEPTH = MapFolder(1.0, depth=False), MapFolder(1.0, depth=True)
SCALES = [2, 4, 8]


def textured(rng: np.random.Generator, low: int, high: int, shape: tuple[int, int] = (123, 130)) -> np.ndarray:
    """A map of many edges with levels from `low` up to `high`."""
    return rng.integers(low, high, shape, dtype=np.uint8)


@pytest.fixture
def data(tmp_path, rng):
    """A small folder of Middlebury maps: those to train on have levels of 100 to 150, all others more."""
    folder = tmp_path / "train" / "middlebury"
    folder.mkdir(parents=True)
    for stem in ("middlebury2001_63", "middlebury2006_70"):
        cv2.imwrite(str(folder / f"{stem}.png"), textured(rng, 100, 151))
    for stem in (*HELD_OUT, *IN_BENCHMARK):
        cv2.imwrite(str(folder / f"{stem}.png"), textured(rng, 200, 256))
    third = tmp_path / "train" / "middlebury2006_third"
    third.mkdir()
    validated = [stem for folder, stem in maps.VALIDATED if folder == "middlebury2006_third"]
    for stem in ("aloe_disp1", *validated):
        image = textured(rng, 100, 151)
        image[30:40, 20:60] = 0
        cv2.imwrite(str(third / f"{stem}.png"), image)
    return tmp_path / "train"


@pytest.fixture
def source(data, tmp_path):
    return PatchSource(PatchSettings(4, 32, {"middlebury": 1.0}), data, tmp_path / "cache")


def no_scenes(rng: np.random.Generator, size: int) -> np.ndarray:
    raise AssertionError("no patch was found in the maps")


# --- reading ------------------------------------------------------------------------------------


def test_a_png_and_an_npz_are_read_in_their_folders_steps(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 7], [200, 255]], np.uint8))
    found = read_map(tmp_path / "a.png", DISPARITY)
    assert found.dtype == np.uint8 and found.tolist() == [[0, 7], [200, 255]]

    values = np.array([[0.4, 0.5, 1.5], [np.nan, 254.9, 7.0]], np.float32)
    np.savez(tmp_path / "b.npz", disparity=values)
    found = read_map(tmp_path / "b.npz", DISPARITY)
    assert found.dtype == np.uint8 and found.tolist() == [[0, 1, 2], [0, 255, 7]]

    np.savez(tmp_path / "c.npz", depth=np.array([[2.0, 0.0], [487.0, 5000.0]], np.float32))
    found = read_map(tmp_path / "c.npz", FOLDERS["sintel"])
    assert found.dtype == np.uint16 and found.tolist() == [[128, 0], [487 * 64, 65535]]


def test_a_map_that_is_not_8_bit_is_refused_in_one_line(tmp_path):
    deep = np.full((20, 20), 256, np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    np.savez(tmp_path / "deep.npz", deep.astype(np.float32))
    for name in ("deep.png", "deep.npz"):
        with pytest.raises(MapError, match=rf"{name}: not an 8-bit map \(values up to 256\)") as raised:
            read_map(tmp_path / name, DISPARITY)
        assert "\n" not in str(raised.value)
    np.testing.assert_array_equal(read_map(tmp_path / "deep.png", DEPTH), deep)


@pytest.mark.parametrize("name", ["colour.png", "text.png", "empty.png", "cube.npz"])
def test_what_is_no_map_is_refused_in_one_line(tmp_path, name):
    if name.startswith("colour"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    elif name.endswith("npz"):
        np.savez(tmp_path / name, np.ones((2, 8, 8), np.float32))
    else:
        (tmp_path / name).write_text("this is text" if name.startswith("text") else "")
    with pytest.raises(MapError, match=rf"{name}: not a map of one channel") as raised:
        read_map(tmp_path / name, DISPARITY)
    assert "\n" not in str(raised.value)


def test_the_cache_gives_the_same_as_decoding(data, tmp_path, monkeypatch):
    folder = data / "middlebury2006_third"
    values = np.random.default_rng(0).uniform(0, 255, (40, 50)).astype(np.float32)
    np.savez(folder / "float.npz", disparity=values)
    decoded = {path.stem: read_map(path, DISPARITY) for path in sorted(folder.iterdir())}
    first = load_folder(data, folder.name, tmp_path / "cache")

    with monkeypatch.context() as patched:
        patched.setattr(maps, "read_map", None)
        again = load_folder(data, folder.name, tmp_path / "cache")
    for found in (first, again):
        assert list(found) == list(decoded)
        for stem, image in decoded.items():
            assert found[stem].dtype == image.dtype
            np.testing.assert_array_equal(found[stem], image)
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".npz"]


def test_a_damaged_cache_is_named(data, tmp_path):
    load_folder(data, "middlebury", tmp_path / "cache")
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_bytes(b"PK junk")
    with pytest.raises(MapError, match="is damaged: remove it"):
        load_folder(data, "middlebury", tmp_path / "cache")


def test_a_folder_that_changed_is_decoded_again(data, tmp_path):
    before = load_folder(data, "middlebury", tmp_path / "cache")
    cv2.imwrite(str(data / "middlebury" / "new.png"), np.full((9, 9), 5, np.uint8))
    after = load_folder(data, "middlebury", tmp_path / "cache")
    assert set(after) - set(before) == {"new"}


@pytest.mark.parametrize("name", ["sintel", "livingroom"])
def test_a_folder_that_is_missing_or_empty_is_named_in_one_line(data, tmp_path, name):
    if name == "livingroom":
        (data / name).mkdir()
        (data / name / "readme.txt").touch()
    with pytest.raises(MapError, match=rf"{name}: no maps .*--data names the folder that holds {name}/") as raised:
        PatchSource(PatchSettings(2, 32, {name: 1.0}), data, tmp_path / "cache")
    assert "\n" not in str(raised.value)


def test_maps_without_a_folder_of_data_say_what_to_give(tmp_path):
    with pytest.raises(MapError, match="trains on maps of 'sintel': give the folder that holds it with --data"):
        PatchSource(PatchSettings(2, 32, {"sintel": 1.0, PROCEDURAL: 1.0}), None, tmp_path)


def test_a_source_that_does_not_exist_names_those_that_do(data, tmp_path):
    with pytest.raises(MapError, match=r"no source of maps named 'kitti'; there are: .*sintel.*procedural"):
        PatchSource(PatchSettings(2, 32, {"kitti": 1.0}), data, tmp_path / "cache")


# --- what is never trained on -------------------------------------------------------------------


def test_held_out_scenes_and_the_benchmarks_are_never_trained_on(source):
    (trained,) = source.maps.values()
    assert len(trained) == 2
    assert all(image.min() >= 100 and image.max() <= 150 for image in trained)


def test_every_view_of_a_held_out_scene_is_held_out(data, tmp_path):
    for stem in ("flowerpots_disp5", "baby2_disp5"):
        cv2.imwrite(str(data / "middlebury2006_third" / f"{stem}.png"), np.full((123, 130), 9, np.uint8))
    source = PatchSource(PatchSettings(4, 32, {"middlebury2006_third": 1.0}), data, tmp_path / "cache")
    assert len(source.maps["middlebury2006_third"]) == 1  # aloe


@pytest.fixture(scope="module")
def corpus(shared_data, tmp_path_factory):
    """Every recorded map by folder and name, and what `PatchSource` makes of them."""
    data, cache = shared_data("train"), tmp_path_factory.mktemp("cache")
    settings = PatchSettings(8, 64, dict.fromkeys(FOLDERS, 1.0))
    return {name: load_folder(data, name, cache) for name in FOLDERS}, PatchSource(settings, data, cache)


def thumbnails(images) -> list[np.ndarray]:
    return [
        cv2.resize(fill_unknown(image).astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA) for image in images
    ]


def likeness(images, others) -> np.ndarray:
    """[images, others] largest correlation, of either sign, over small shifts to the side."""

    def normal(pictures: list[np.ndarray], columns: slice) -> np.ndarray:
        flat = np.stack([picture[:, columns].ravel() for picture in pictures]).astype(np.float64)
        flat -= flat.mean(axis=1, keepdims=True)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    a, b = thumbnails(images), thumbnails(others)
    best = np.zeros((len(a), len(b)))
    for shift in range(-10, 11):
        left, right = slice(max(shift, 0), 64 + min(shift, 0)), slice(max(-shift, 0), 64 + min(-shift, 0))
        best = np.maximum(best, np.abs(normal(a, left) @ normal(b, right).T))
    return best


def test_no_map_trained_on_is_a_view_of_a_scene_of_the_benchmark(corpus, shared_data):
    benchmark = load_maps(shared_data("benchmark/middlebury10"))
    folders, source = corpus
    trained = [image for images in source.maps.values() for image in images]
    assert len(trained) > 140
    assert likeness(trained, benchmark.values()).max() < 0.95
    # It would have been found.
    venus = likeness([folders["middlebury"][stem] for stem in IN_BENCHMARK], [benchmark["venus"]])
    assert venus.min() > 0.95


def test_no_map_trained_on_is_a_view_of_a_scene_held_out(corpus):
    folders, source = corpus
    held_out = [image for images in folders.values() for stem, image in images.items() if stem.startswith(HELD_OUT)]
    trained = [image for images in source.maps.values() for image in images]
    assert len(held_out) + len(trained) + len(IN_BENCHMARK) == sum(len(images) for images in folders.values())
    assert likeness(trained, held_out).max() < 0.95


def test_every_recorded_folder_gives_patches(corpus):
    _, source = corpus
    rng = np.random.default_rng(1)
    assert source.names == sorted(FOLDERS)
    batch = source.batch(2, seed=1, step=0)
    assert batch.low.shape == (2, 1, 8, 8)
    for name, images in source.maps.items():
        drawn = [images[rng.integers(len(images))] for _ in range(40)]
        crops = [crop for image in drawn if (crop := image[random_window(rng, image.shape, 96)]).all()]
        assert len(crops) > 5 and all(crop.shape == (96, 96) for crop in crops), name
        levels = [to_levels(rng, crop, FOLDERS[name]) for crop in crops]
        assert all(level.dtype == np.uint8 for level in levels)
        assert np.mean([level.std() for level in levels]) > 3, name


# --- patches ------------------------------------------------------------------------------------


def test_unknown_pixels_never_get_into_a_patch(data, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "disparity_scene", no_scenes)
    source = PatchSource(PatchSettings(2, 16, {"middlebury2006_third": 1.0}), data, tmp_path / "cache")
    (image,) = source.maps["middlebury2006_third"]
    assert (image == 0).any()
    # Known levels are 100 and more, and no change of gain makes less than 48 of them.
    rng = np.random.default_rng(0)
    for _ in range(300):
        patch, counted = source.patch(rng)
        assert patch.min() >= 48 and counted.all()
    assert source.batch(2, seed=1, step=0).counted == []


def test_filled_maps_give_patches_from_everywhere(data, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "disparity_scene", no_scenes)
    image = textured(np.random.default_rng(5), 100, 151)
    image[::7, ::7] = 0  # no crop of 24 pixels, of every one to every fourth, is without
    cv2.imwrite(str(data / "middlebury2006_third" / "aloe_disp1.png"), image)
    settings = PatchSettings(2, 16, {"middlebury2006_third": 1.0})
    with pytest.raises(AssertionError, match="no patch was found"):
        PatchSource(settings, data, tmp_path / "cache").patch(np.random.default_rng(0))
    source = PatchSource(replace(settings, fill_unknown=True), data, tmp_path / "cache")
    np.testing.assert_array_equal(source.maps["middlebury2006_third"], [fill_unknown(image)])
    np.testing.assert_array_equal(source.counted["middlebury2006_third"], [image > 0])
    rng = np.random.default_rng(0)
    for _ in range(100):
        patch, counted = source.patch(rng)
        assert patch.min() >= 48
        assert (~counted).mean() == pytest.approx(1 / 49, abs=0.01)


def test_what_counts_lies_where_the_patch_lies(data, tmp_path, monkeypatch):
    """Pixels are known, and bright, left of a slanted line; what is filled in there is dark."""
    y, x = np.mgrid[:123, :130]
    image = np.where(x + y // 2 < 90, 250, 0).astype(np.uint8)
    cv2.imwrite(str(data / "middlebury2006_third" / "aloe_disp1.png"), image)
    monkeypatch.setattr(maps, "fill_unknown", lambda unfilled: np.where(unfilled > 0, unfilled, 1).astype(np.uint8))
    monkeypatch.setattr(maps, "to_levels", lambda rng, crop, folder: crop)
    settings = PatchSettings(4, 32, {"middlebury2006_third": 1.0}, fill_unknown=True)
    source = PatchSource(settings, data, tmp_path / "cache")
    rng = np.random.default_rng(0)
    for _ in range(50):
        patch, counted = source.patch(rng)
        np.testing.assert_array_equal(counted, patch == 250)
    batch = source.batch(4, seed=1, step=0)
    last, first = batch.counted[-1], batch.counted[0]
    assert 0.05 < last.mean() < 0.95
    np.testing.assert_array_equal(last, batch.targets[-1] == 250)
    np.testing.assert_array_equal(first, last.reshape(4, 1, 16, 2, 16, 2).min(axis=(3, 5)))


def test_unknown_depth_is_not_filled(data, tmp_path):
    (data / "livingroom").mkdir()
    depth = np.full((60, 60), 2000, np.uint16)
    depth[10, 10] = 0
    cv2.imwrite(str(data / "livingroom" / "a.png"), depth)
    settings = PatchSettings(2, 16, {"livingroom": 1.0}, fill_unknown=True)
    (found,) = PatchSource(settings, data, tmp_path / "cache").maps["livingroom"]
    np.testing.assert_array_equal(found, depth)


def test_a_crop_is_every_pixel_up_to_every_fourth(rng):
    y, x = np.mgrid[:70, :70]
    positions = (1 + y * 70 + x).astype(np.uint16)
    steps = Counter()
    for _ in range(300):
        crop = positions[random_window(rng, positions.shape, 16)]
        step = int(crop[0, 1]) - int(crop[0, 0])
        assert (np.diff(crop.astype(int), axis=1) == step).all()
        assert (np.diff(crop.astype(int), axis=0) == 70 * step).all()
        steps[step] += 1
    assert set(steps) == {1, 2, 3, 4} and steps[1] > steps[2] > steps[4]


def test_of_a_map_as_large_as_a_patch_the_crop_is_the_map(rng):
    assert np.ones((16, 16))[random_window(rng, (16, 16), 16)].shape == (16, 16)


def test_where_every_crop_has_unknown_pixels_a_procedural_map_stands_in(source, monkeypatch, rng):
    source.maps["middlebury"] = [np.zeros_like(image) for image in source.maps["middlebury"]]
    monkeypatch.setattr(maps, "disparity_scene", lambda rng, size: np.full((size, size), 7, np.uint8))
    patch, counted = source.patch(rng)
    assert patch.shape == counted.shape == (48, 48) and (patch == 7).all() and counted.all()


def test_maps_smaller_than_a_patch_and_its_margin_are_left_out(data, tmp_path):
    settings = PatchSettings(4, 32, {"middlebury": 1.0})
    cv2.imwrite(str(data / "middlebury" / "small.png"), np.full((47, 99), 120, np.uint8))
    cv2.imwrite(str(data / "middlebury" / "fits.png"), np.full((48, 99), 120, np.uint8))
    assert len(PatchSource(settings, data, tmp_path / "cache").maps["middlebury"]) == 3
    with pytest.raises(MapError, match=r"middlebury: no map .*160 pixels a side") as raised:
        PatchSource(PatchSettings(8, 128, {"middlebury": 1.0}), data, tmp_path / "cache")
    assert "\n" not in str(raised.value)


def test_patches_come_from_each_source_by_its_share(data, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "disparity_scene", lambda rng, size: np.full((size, size), 7, np.uint8))
    shares = {PROCEDURAL: 1.0, "middlebury": 3.0}
    source = PatchSource(PatchSettings(2, 16, shares), data, tmp_path / "cache")
    rng = np.random.default_rng(0)
    procedural = sum((source.patch(rng)[0] == 7).all() for _ in range(400))
    assert 0.18 < procedural / 400 < 0.32


def test_of_the_candidates_the_one_with_most_edges_is_taken(source, monkeypatch, rng):
    flat = np.full((48, 48), 50, np.uint8)
    edge = flat.copy()
    edge[:, 24:] = 90
    crops = iter([flat, edge] * 10)
    monkeypatch.setattr(maps, "to_levels", lambda *_: next(crops))
    assert all(edge_share(source.patch(rng)[0]) > 0 for _ in range(10))
    assert edge_share(flat) == 0.0 and edge_share(flat + np.arange(48, dtype=np.uint8) % 3) == 0.0


def test_a_patch_may_lie_in_any_of_the_eight_ways(rng):
    patch = np.arange(9, dtype=np.uint8).reshape(3, 3)
    pairs = [random_flip(rng, patch, 2 * patch) for _ in range(200)]
    found = {flipped.tobytes() for flipped, _ in pairs}
    assert len(found) == 8
    assert all((2 * flipped == other).all() for flipped, other in pairs)
    assert patch.tobytes() in found and patch[:, ::-1].tobytes() in found


def test_disparity_is_mostly_taken_as_it_is(rng):
    crop = np.arange(1, 241, dtype=np.uint8).reshape(15, 16)
    found = [to_levels(rng, crop, DISPARITY) for _ in range(400)]
    assert all(levels.dtype == np.uint8 for levels in found)
    assert 0.68 < np.mean([np.array_equal(levels, crop) for levels in found]) < 0.82
    # In every other way larger disparity stays larger.
    assert all((np.diff(levels.ravel().astype(int)) >= 0).all() for levels in found)
    assert any(len(np.unique(levels)) <= 16 for levels in found)  # few levels, far apart


@pytest.mark.parametrize(("as_is", "order"), [(1.0, 1), (0.0, -1)])
def test_depth_is_brought_to_levels_as_it_is_or_as_its_inverse(rng, as_is, order):
    crop = np.linspace(1000, 8000, 400).astype(np.uint16).reshape(20, 20)
    for _ in range(20):
        levels = to_levels(rng, crop, MapFolder(1.0, depth=True, as_is=as_is))
        assert levels.dtype == np.uint8 and np.ptp(levels) > 10
        assert (order * np.diff(levels.ravel().astype(int)) >= 0).all()


def test_a_flat_wall_is_one_level(rng):
    levels = to_levels(rng, np.full((20, 20), 2000, np.uint16), DEPTH)
    assert len(np.unique(levels)) == 1


# --- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_shapes_of_a_batch(scale, tmp_path):
    source = PatchSource(PatchSettings(scale, 32, {PROCEDURAL: 1.0}), None, tmp_path)
    batch = source.batch(3, seed=1, step=0)
    assert batch.low.shape == (3, 1, 32 // scale, 32 // scale)
    sides = [32 * factor // scale for factor in (2, 4, 8) if factor <= scale]
    assert [target.shape for target in batch.targets] == [(3, 1, side, side) for side in sides]
    assert all(image.dtype == np.float32 for image in (batch.low, *batch.targets))
    for image in (batch.low, batch.targets[-1]):  # stored maps
        np.testing.assert_array_equal(image, np.clip(image, 0, 255).round())


@pytest.mark.parametrize("noisy", [False, True])
def test_a_batch_is_a_function_of_seed_and_step(data, tmp_path, noisy):
    settings = PatchSettings(4, 32, {"middlebury": 1.0, PROCEDURAL: 1.0}, noisy)
    one, other = (PatchSource(settings, data, tmp_path / "cache") for _ in range(2))
    other.batch(2, seed=1, step=4)  # what came before does not matter
    batch, again = one.batch(2, seed=1, step=5), other.batch(2, seed=1, step=5)
    for a, b in zip((batch.low, *batch.targets), (again.low, *again.targets), strict=True):
        np.testing.assert_array_equal(a, b)
    for seed, step in ((1, 6), (2, 5)):
        assert not np.array_equal(batch.low, one.batch(2, seed, step).low)


@pytest.mark.parametrize("scale", SCALES)
def test_a_patch_is_degraded_as_the_whole_map_it_is_cut_from(scale, rng):
    """Its margin is all that the kernel sees; nothing of a patch's own border gets into it."""
    whole = to_uint8(imresize(rng.uniform(0, 255, (24, 28)), 8))  # 192 x 224
    size, margin = 64, 2 * scale
    top, left = 6 * scale, 5 * scale
    patch = whole[top - margin : top + size + margin, left - margin : left + size + margin]
    batch = degrade(patch[None], scale, margin, 0.0, rng)

    def window(image: np.ndarray, factor: int) -> np.ndarray:
        rows, columns = (slice(start * factor // scale, (start + size) * factor // scale) for start in (top, left))
        return image[rows, columns]

    low = to_uint8(imresize(whole, Fraction(1, scale)))
    np.testing.assert_array_equal(batch.low[0, 0], window(low, 1))
    for target, factor in zip(batch.targets, (2, 4, 8)):
        expected = imresize(whole, Fraction(factor, scale))
        np.testing.assert_allclose(target[0, 0], window(expected, factor), atol=1e-4)


def test_a_patch_at_the_border_is_degraded_as_a_whole_map(rng):
    patches = rng.integers(0, 256, (2, 80, 80), np.uint8)
    batch = degrade(patches, 4, 8, 0.0, rng, border_share=1.0)
    inner = patches[:, 8:-8, 8:-8]
    np.testing.assert_array_equal(batch.low[:, 0], to_uint8(imresize(inner, Fraction(1, 4))))
    np.testing.assert_allclose(batch.targets[0][:, 0], imresize(inner, Fraction(1, 2)), atol=1e-4)
    np.testing.assert_array_equal(batch.targets[1][:, 0], inner)


@pytest.mark.parametrize("scale", SCALES)
def test_low_resolution_and_targets_are_aligned(scale, data, tmp_path):
    shares = {"middlebury": 1.0, PROCEDURAL: 2.0}
    batch = PatchSource(PatchSettings(scale, 64, shares), data, tmp_path / "cache").batch(6, seed=1, step=0)
    exact = batch.targets[-1]
    inner = np.s_[..., 2:-2, 2:-2]  # farther out the kernel sees what was cut off
    difference = np.abs(np.clip(imresize(exact, Fraction(1, scale)), 0, 255) - batch.low)
    assert difference[inner].max() <= 0.5 + 1e-4  # rounding
    for target, factor in zip(batch.targets[:-1], (2, 4)):
        np.testing.assert_allclose(imresize(exact, Fraction(factor, scale))[inner], target[inner], atol=1e-3)
    # One output pixel aside would be seen.
    aside = np.abs(imresize(np.roll(exact, 1, axis=-1), Fraction(1, scale)) - batch.low)
    assert aside[inner].max() > 2


@pytest.mark.parametrize("noisy", [False, True])
def test_noise_is_the_benchmarks_and_in_the_input_only(tmp_path, monkeypatch, noisy):
    monkeypatch.setattr(maps, "disparity_scene", lambda rng, size: np.full((size, size), 120, np.uint8))
    source = PatchSource(PatchSettings(2, 128, {PROCEDURAL: 1.0}, noisy), None, tmp_path)
    batch = source.batch(2, seed=1, step=0)
    assert (batch.targets[0] == 120).all()
    error = batch.low - 120
    if noisy:
        assert error.std() == pytest.approx(NOISE, rel=0.05) and abs(error.mean()) < 0.2
        np.testing.assert_array_equal(batch.low, batch.low.round())
    else:
        assert not error.any()


# --- validation ---------------------------------------------------------------------------------


def test_unknown_pixels_take_the_farther_of_their_neighbours():
    image = np.array(
        [[0, 0, 0, 0, 0], [0, 5, 0, 0, 9], [0, 0, 0, 0, 0], [3, 0, 8, 7, 0]],
        np.uint8,
    )
    expected = np.array(
        [[5, 5, 5, 5, 9], [5, 5, 5, 5, 9], [5, 5, 5, 5, 9], [3, 3, 8, 7, 7]],
        np.uint8,
    )
    before = image.copy()
    np.testing.assert_array_equal(fill_unknown(image), expected)
    np.testing.assert_array_equal(image, before)


def test_a_map_without_a_known_pixel_is_an_error():
    with pytest.raises(MapError, match="without a known pixel"):
        fill_unknown(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("scale", SCALES)
def test_validation_maps_are_the_held_out_ones_cut_to_a_multiple(data, tmp_path, scale):
    found = validation_maps(data, tmp_path / "cache", scale)
    assert [image.shape for image in found] == [(123 // scale * scale, 130 // scale * scale)] * len(maps.VALIDATED)
    for image, (folder, stem) in zip(found, maps.VALIDATED, strict=True):
        assert stem.startswith(HELD_OUT) and image.dtype == np.uint8 and image.all()
        original = load_folder(data, folder, tmp_path / "cache")[stem][: image.shape[0], : image.shape[1]]
        np.testing.assert_array_equal(image[original > 0], original[original > 0])


def test_without_data_validation_is_on_the_same_procedural_maps_always(tmp_path):
    found, again = (validation_maps(None, tmp_path, 2) for _ in range(2))
    assert len(found) >= 2 and all(image.shape == (320, 320) for image in found)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(found[0], found[1])


def test_a_map_of_validation_that_is_missing_is_named(data, tmp_path):
    folder, stem = maps.VALIDATED[0]
    (data / folder / f"{stem}.png").unlink()
    with pytest.raises(MapError, match=stem):
        validation_maps(data, tmp_path / "cache", 2)


@pytest.mark.parametrize("content", [b"this is text", b"", b"PK\x03\x04 and no more"], ids=repr)
def test_a_damaged_npz_is_named_in_one_line(tmp_path, content):
    (tmp_path / "damaged.npz").write_bytes(content)
    with pytest.raises(MapError, match=r"damaged\.npz"):
        read_map(tmp_path / "damaged.npz", DISPARITY)
