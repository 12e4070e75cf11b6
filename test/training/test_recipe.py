import json
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch")

from dsca_ros.network.camera_graph import INPUT_CHANNELS  # noqa: E402
from dsca_ros.network.dsca import DSCA, RESIDUAL, WEIGHTS  # noqa: E402
from dsca_ros.network.level_graph import LEVEL_CHANNELS  # noqa: E402
from dsca_ros.training.loss import DepthWeights  # noqa: E402
from dsca_ros.training.recipe import MapData, Recipe, RecipeError, ViewData  # noqa: E402
from dsca_ros.training.views import SCENES, FrameShares  # noqa: E402

CONFIG = Path(__file__).parents[2] / "config" / "train"
SHIPPED = sorted(CONFIG.glob("*.yaml"))
GOOD = {"model": "m", "scale": 4, "steps": 9, "network": {"channels": [8, 4], "blocks": [1]}}
GOOD["data"] = {"kind": "views", "crop": 24}
MAPS = {"kind": "maps", "size": 32, "shares": {"procedural": 1}, "noisy": True}


def frames(native: float = 0.0) -> dict[str, float]:
    return {"native": native, "median": 0.0, "mean": 0.0, "picked": 0.0}


def load(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return Recipe.load(path)


def test_a_recipe_of_a_few_keys(tmp_path):
    recipe = load(tmp_path, yaml.safe_dump(GOOD))
    assert (recipe.name, recipe.steps, recipe.seed) == ("m-x4", 9, 1)
    assert recipe.network.scale == 4 and recipe.network.channels == (8, 4)
    assert recipe.network.input_channels == INPUT_CHANNELS
    assert recipe.network.head == WEIGHTS
    assert recipe.data == ViewData(crop=24) and recipe.optimiser == "adam" and recipe.start == ""
    assert recipe.data.scenes == SCENES and recipe.data.loss == DepthWeights()


def test_scenes_and_the_weights_of_the_loss_are_read(tmp_path):
    data = {"kind": "views", "scenes": {"room": 1, "curved": 0.5}, "loss": {"absolute": 2, "validity": 0.0}}
    data["frames"] = {"tof": {"native": 0.9, "median": 0.1, "mean": 0, "picked": 0}}
    recipe = load(tmp_path, yaml.safe_dump(GOOD | {"data": data, "network": {"taps": [9, 4]}}))
    assert recipe.data.scenes == {"room": 1, "curved": 0.5}
    assert recipe.data.loss == DepthWeights(absolute=2, validity=0.0)
    assert recipe.data.frames == {"tof": FrameShares(0.9, 0.1, 0, 0)}
    assert recipe.network.taps == (9, 4)
    assert Recipe.from_dict(recipe.plain()) == recipe


def test_the_kind_of_data_decides_what_the_network_sees(tmp_path):
    recipe = load(tmp_path, yaml.safe_dump(GOOD | {"data": MAPS, "optimiser": "muon"}))
    assert recipe.data == MapData({"procedural": 1}, 32, noisy=True)
    assert recipe.network.input_channels == LEVEL_CHANNELS and recipe.optimiser == "muon"
    assert recipe.network.head == RESIDUAL


def test_recipes_ship():
    assert {"dsca-nano-first", "dsca-nano", "dsca-nano-decimated-x2", "dsca-small"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", [path for path in SHIPPED if "-paper" in path.name], ids=lambda path: path.name)
def test_networks_of_the_paper_are_as_large_as_their_names_say(path):
    """Small: at most 1.5 million parameters. Base: the paper's 20.5 MB in float32, nearly."""
    with torch.device("meta"):
        network = DSCA(Recipe.load(path).network)
    parameters = sum(p.numel() for p in network.parameters())
    least, most = (4.5e6, 20.5e6 / 4) if "-base-" in path.name else (0, 1.5e6)
    assert least <= parameters <= most


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_what_a_recipe_goes_on_from_has_a_recipe(path):
    start = Recipe.load(path).start
    recipes = [Recipe.load(other) for other in SHIPPED]
    made = {f"{recipe.model}-x{scale}" for recipe in recipes for scale in (2, 4, 8) if scale <= recipe.scale}
    assert not start or Path(start).stem in made
    assert not start or Path(start).stem != Recipe.load(path).name  # not from itself


def test_base_is_trained_on_what_small_is():
    for base in CONFIG.glob("dsca-base-paper-*.yaml"):
        ours, small = (Recipe.load(path) for path in (base, CONFIG / base.name.replace("-base-", "-small-")))
        assert (ours.scale, ours.data.noisy, set(ours.data.shares)) == (
            small.scale,
            small.data.noisy,
            set(small.data.shares),
        )


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_recipe_loads_under_its_own_name(path):
    """One for cameras may be of all scales up to its own, one for maps is of its own alone."""
    recipe = Recipe.load(path)
    assert path.stem in ([recipe.model, recipe.name] if isinstance(recipe.data, ViewData) else [recipe.name])


def test_every_recipe_in_a_subfolder_loads_under_a_name_of_its_own_there():
    folders: dict[Path, list[str]] = {}
    for path in sorted(CONFIG.rglob("*.yaml")):
        folders.setdefault(path.parent, []).append(Recipe.load(path).name)
    assert len(folders) > 1
    for folder, names in folders.items():
        assert len(set(names)) == len(names), folder


@pytest.mark.parametrize("data", [GOOD["data"], MAPS], ids=lambda data: data["kind"])
def test_a_recipe_survives_a_checkpoint(tmp_path, data):
    recipe = load(tmp_path, yaml.safe_dump(GOOD | {"data": data, "start": "a.safetensors"}))
    plain = recipe.plain()
    assert Recipe.from_dict(plain) == recipe
    assert json.loads(json.dumps(plain)) == plain  # nothing but plain values


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"stepz": 1}, "unknown key 'stepz'.*steps"),
        ({"steps": None}, "missing key 'steps'"),
        ({"scale": 3}, "2, 4 or 8"),
        ({"network": {"chanels": [8]}}, "chanels"),
        ({"network": 5}, "network"),
        ({"steps": "many"}, "steps"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"data": None}, "missing key 'data'"),
        ({"data": 5}, "data must be a mapping with kind: views or maps"),
        ({"data": {"crop": 24}}, "kind: views or maps"),
        ({"data": {"kind": "photos"}}, "kind: views or maps"),
        ({"data": {"kind": ["maps"]}}, "kind: views or maps"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"validate_every": 0}, "validate_every must be at least 1"),
        ({"network": {"channels": 8}}, "channels must be a list"),
        ({"network": {"channels": [0]}}, "channels must be a list of whole numbers from 1 to 1024"),
        ({"network": {"blocks": [1025]}}, "blocks must be a list of whole numbers from 0 to 1024"),
        ({"network": {"channels": ["a"]}}, "channels must be a list"),
        ({"network": {"blocks": []}}, "blocks must be a list"),
        ({"network": {"attention_scales": -1}}, "attention_scales must be a whole number from 0 to 1024"),
        ({"network": {"expansion": 10**6}}, "expansion must be a whole number from 1 to 1024"),
        ({"network": {"inner_kernel": 2}}, "inner_kernel must be 1, 3 or 5"),
        ({"data": {"kind": "maps", "shares": {}}}, "shares must map names"),
        ({"data": {"kind": "maps", "shares": {"procedural": "x"}}}, "shares must map names"),
        ({"data": {"kind": "maps", "shares": {"procedural": 0}}}, "the sum of shares must be at least"),
        ({"data": {"kind": "maps", "shares": {"procedural": -1, "sintel": 2}}}, "the share of procedural"),
        ({"data": {"kind": "maps", "shares": {"procedural": float("nan")}}}, "the share of procedural"),
        ({"data": {"kind": "maps", "size": 0}}, "size must be at least 8"),
        ({"data": {"kind": "views", "views": 0}}, "views must be at least 1"),
        ({"data": {"kind": "views", "size": 3}}, "data: unknown key 'size'.*crop"),
        ({"data": {"kind": "views", "surface_weight": 0.5}}, "data: unknown key 'surface_weight'.*loss"),
        (
            {"data": {"kind": "views", "frames": {"sonar": {}}}},
            "unknown camera 'sonar'; there are stereo, tof, phone",
        ),
        ({"data": {"kind": "views", "frames": {"tof": {"native": 1}}}}, "frames: tof: missing key 'mean'"),
        ({"data": {"kind": "views", "fully_shrunk": -1}}, "fully_shrunk must be at least 0"),
        ({"data": {"kind": "views", "frames": {"tof": 1}}}, "frames: tof: expected a mapping"),
        ({"data": {"kind": "views", "frames": {"tof": frames(native=-1)}}}, "frames: tof: native must be at least 0"),
        ({"data": {"kind": "views", "frames": {"tof": frames()}}}, "the sum of frames: tof must be at least"),
        ({"data": {"kind": "views", "loss": {"absolut": 1}}}, "data: loss: unknown key 'absolut'.*absolute, astray"),
        ({"data": {"kind": "views", "loss": {"squared": -0.5}}}, "loss: squared must be at least 0, not -0.5"),
        ({"data": {"kind": "views", "loss": {"astray": float("nan")}}}, "loss: astray must be at least 0"),
        ({"data": {"kind": "views", "loss": {"astray": "1e-1"}}}, "data: loss: astray must be float"),
        ({"data": {"kind": "views", "loss": {"validity": True}}}, "data: loss: validity must be float"),
        ({"data": {"kind": "views", "loss": 3}}, "data: loss: expected a mapping"),
        ({"data": {"kind": "views", "loss": [1, 2]}}, "data: loss: expected a mapping"),
        ({"data": {"kind": "views", "cameras": {"sonar": 1.0}}}, "cameras must map stereo, tof, phone"),
        ({"data": {"kind": "views", "cameras": {"tof": "x"}}}, "cameras must map stereo"),
        (
            {"data": {"kind": "views", "cameras": {"tof": -1, "exact": 2}}},
            "cameras: the share of tof must be at least 0",
        ),
        ({"data": {"kind": "views", "cameras": {"tof": 0}}}, "the sum of cameras must be at least"),
        ({"data": {"kind": "views", "scenes": ["room"]}}, "data: scenes must be dict"),
        ({"data": {"kind": "maps", "loss": {"absolute": 1}}}, "data: unknown key 'loss'"),
        ({"network": {"taps": 9}}, "taps must be a list"),
        ({"network": {"head": "both", "channels": []}}, "channels must be a list"),
        ({"data": {"kind": "maps", "crop": 3}}, "data: unknown key 'crop'.*size"),
        ({"data": {"kind": "maps", "noisy": "yes please"}}, "data: noisy must be bool"),
        ({"data": {"kind": "maps", "noisy": 1}}, "data: noisy must be bool"),
        ({"data": {"kind": "maps", "shares": ["sintel"]}}, "data: shares must be dict"),
        ({"data": {"kind": "maps", "size": 32.5}}, "data: size must be int"),
        ({"optimiser": "sgd"}, "optimiser must be adam or muon, not 'sgd'"),
        ({"network": {"block": "round"}}, "block must be bilayer or plain, not 'round'"),
        ({"start": 3}, "start must be str"),
        ({"frozen_stages": 1}, "frozen_stages is 1: needs a start, and one of"),
        ({"frozen_stages": 3, "start": "x"}, "frozen_stages is 3: needs a start, and one of"),
        ({"frozen_stages": -1}, "frozen_stages must be at least 0"),
    ],
    ids=str,
)
def test_mistakes_are_named_in_one_line(tmp_path, change, cause):
    data = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(RecipeError, match=cause) as raised:
        load(tmp_path, yaml.safe_dump(data))
    assert "recipe.yaml" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "scenes",
    [{"jungle": 1.0}, {"room": -0.5, "clutter": 1.0}, {"room": 0}, {}, {"room": "much"}, {"room": float("nan")}],
    ids=str,
)
def test_mistakes_about_scenes_are_named_in_one_line(tmp_path, scenes):
    with pytest.raises(RecipeError, match=r"recipe\.yaml: .*scenes"):
        load(tmp_path, yaml.safe_dump(GOOD | {"data": {"kind": "views", "scenes": scenes}}))


def test_a_crop_that_is_no_multiple_of_unshuffle_is_named_in_one_line(tmp_path):
    with pytest.raises(RecipeError, match=r"recipe\.yaml: .*crop"):
        load(tmp_path, yaml.safe_dump(GOOD | {"data": {"kind": "views", "crop": 25}, "network": {"unshuffle": 2}}))


def test_a_number_of_taps_that_there_is_not_is_named_in_one_line(tmp_path):
    with pytest.raises(RecipeError, match=r"recipe\.yaml: .*taps"):
        load(tmp_path, yaml.safe_dump(GOOD | {"network": {"taps": [5]}}))


@pytest.mark.parametrize("text", ["", "- 1\n- 2", "word", "a: [1", "\t"], ids=repr)
def test_what_is_no_recipe(tmp_path, text):
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        load(tmp_path, text)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe; see config/train"):
        Recipe.load(tmp_path / "none.yaml")


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError):
        Recipe.load(tmp_path)
