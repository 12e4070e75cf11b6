from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")

from dsca_ros.network.camera_graph import INPUT_CHANNELS
from dsca_ros.training.recipe import Recipe, RecipeError

SHIPPED = sorted((Path(__file__).parents[2] / "config" / "train").glob("*.yaml"))
GOOD = {"model": "m", "scale": 4, "steps": 9, "network": {"channels": [8, 4], "blocks": [1]}}


def load(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return Recipe.load(path)


def test_a_recipe_of_a_few_keys(tmp_path):
    recipe = load(tmp_path, yaml.safe_dump(GOOD))
    assert (recipe.name, recipe.steps, recipe.seed) == ("m-x4", 9, 1)
    assert recipe.network.scale == 4 and recipe.network.channels == (8, 4)
    assert recipe.network.input_channels == INPUT_CHANNELS


def test_recipes_ship():
    assert {"dsca-nano-x2.yaml", "dsca-nano-x4.yaml"} <= {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_recipe_loads_under_its_own_name(path):
    assert Recipe.load(path).name == path.stem


def test_a_recipe_survives_a_checkpoint(tmp_path):
    from dsca_ros.training.train import plain

    recipe = load(tmp_path, yaml.safe_dump(GOOD))
    assert Recipe.from_dict(plain(recipe)) == recipe


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
    ],
    ids=str,
)
def test_mistakes_are_named_in_one_line(tmp_path, change, cause):
    data = {key: value for key, value in (GOOD | change).items() if value is not None}
    with pytest.raises(RecipeError, match=cause) as raised:
        load(tmp_path, yaml.safe_dump(data))
    assert "recipe.yaml" in str(raised.value) and "\n" not in str(raised.value)


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
