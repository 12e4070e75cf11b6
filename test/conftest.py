"""Fixtures shared by the tests. Nothing here needs ROS; torch is imported only where asked for."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a GPU where there is none, and says why there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    from dsca_ros.engine.gpu import GpuError, find_driver

    try:
        find_driver()
    except GpuError as error:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {error}"))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def camera() -> Intrinsics:
    """A small camera with a principal point that is not in the middle."""
    return Intrinsics(40, 30, 35.0, 36.0, 18.3, 15.2)


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """The same results bit for bit; and threads that wait for a busy core are very slow."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def depth_image() -> Callable[..., np.ndarray]:
    """Makes a camera-like image: a slanted wall, a near block, noise and holes; float32 metres."""

    def make(height: int, width: int, seed: int = 0, noise: float = 0.03) -> np.ndarray:
        rng = np.random.default_rng([seed, height, width])
        rows, columns = np.mgrid[:height, :width]
        depth = 2.0 + 1.5 * columns / width + 0.5 * rows / height
        depth[height // 4 : 3 * height // 4, width // 3 : width // 2] = 1.1
        depth *= 1.0 + noise * rng.standard_normal(depth.shape)
        depth[rng.random(depth.shape) < 0.1] = 0.0
        depth[: height // 4, -(width // 4) :] = 0.0
        return depth.astype(np.float32)

    return make


@pytest.fixture(scope="session")
def tiny_network() -> Callable[..., object]:
    """Makes a small DSCA for cameras with random weights.

    `strength` sizes what it does to the weights of the pixels around, 0 leaving bilinear ones; `doubt` what it does
    to the decision on validity, with which it has nothing to do otherwise.
    """

    def make(scale: int = 2, strength: float = 0.5, doubt: float = 0.0, seed: int = 0, **settings: object) -> object:
        torch = pytest.importorskip("torch")
        from dsca_ros.network.camera_graph import INPUT_CHANNELS
        from dsca_ros.network.dsca import DSCA, WEIGHTS, DSCAConfig

        torch.manual_seed(seed)
        sizes = {"channels": (8, 6), "blocks": (1, 1), "unshuffle": 2}
        kind = {"input_channels": INPUT_CHANNELS, "head": WEIGHTS}
        network = DSCA(DSCAConfig(scale, **(sizes | kind | settings)))
        for stage in network.stages:
            last = stage.head[0]
            if stage.blend:
                of_weights = stage.blend.outputs * stage.blend.taps
                torch.nn.init.normal_(last.weight[:of_weights].detach(), std=strength)
                torch.nn.init.normal_(last.weight[of_weights:].detach(), std=doubt)
            else:
                torch.nn.init.normal_(last.weight, std=0.1)
            if network.config.attention_scales:
                torch.nn.init.normal_(stage.attention.gate[2].weight, std=0.5)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def tiny_level_network(tiny_network: Callable[..., object]) -> Callable[..., object]:
    """The same for maps of 0-255; `strength` sizes what it adds."""

    def make(scale: int = 2, strength: float = 8.0, **settings: object) -> object:
        pytest.importorskip("torch")
        from dsca_ros.network.dsca import RESIDUAL
        from dsca_ros.network.level_graph import LEVEL_CHANNELS

        kind = {"input_channels": LEVEL_CHANNELS, "head": RESIDUAL, "residual_gain": strength}
        return tiny_network(scale, **(kind | settings))

    return make


@pytest.fixture(scope="session")
def save_checkpoint() -> Callable[..., Path]:
    """Writes a network's checkpoint as `dsca train` writes it."""

    def save(path: Path, model: str, network: object, data: object) -> Path:
        torch = pytest.importorskip("torch")
        from dsca_ros.training.recipe import Recipe

        recipe = Recipe(model, network.config.scale, network.config, steps=1, data=data)
        weights = network.state_dict()
        state = {"recipe": recipe.plain(), "step": 1, "seconds": 0.0, "running": 0.0, "network": weights}
        state |= {"ema": weights, "optimiser": {}, "best": {"step": 1, "figures": {}, "weights": weights}}
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path)
        return path

    return save


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_network: Callable[..., object],
    save_checkpoint: Callable[..., Path],
) -> Path:
    """A checkpoint as `dsca train` writes it, of the random network `tiny` at 4, whose first stage is that at 2."""
    pytest.importorskip("torch")
    from dsca_ros.training.recipe import ViewData

    path = tmp_path_factory.mktemp("tiny") / "checkpoint.pt"
    return save_checkpoint(path, "tiny", tiny_network(4), ViewData())


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A models folder with the exports of `tiny_checkpoint`. Copy it before breaking it."""
    from dsca_ros.engine.export import export_model

    folder = tmp_path_factory.mktemp("models")
    export_model(tiny_checkpoint, folder)
    return folder


@pytest.fixture(scope="session")
def level_models(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_models: Path,
    tiny_level_network: Callable[..., object],
    save_checkpoint: Callable[..., Path],
) -> Path:
    """`tiny_models` beside random networks for maps: `maps` at 2 and 4, `maps-noisy` at 8."""
    from dsca_ros.engine.export import export_model
    from dsca_ros.training.recipe import MapData

    folder = tmp_path_factory.mktemp("level") / "models"
    shutil.copytree(tiny_models, folder)
    for model, scale in (("maps", 2), ("maps", 4), ("maps-noisy", 8)):
        data = MapData(noisy=model.endswith("noisy"))
        checkpoint = folder.parent / f"{model}-x{scale}" / "checkpoint.pt"
        export_model(save_checkpoint(checkpoint, model, tiny_level_network(scale), data), folder)
    return folder


@pytest.fixture
def use_tiny_models(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets the package find only `tiny_models`."""
    monkeypatch.setenv("DSCA_MODELS", str(tiny_models))
    return tiny_models


@pytest.fixture
def use_level_models(level_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets the package find only `level_models`."""
    monkeypatch.setenv("DSCA_MODELS", str(level_models))
    return level_models


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Finds a folder of recorded data, which is no part of the repository; skips where there is none."""

    def find(folder: str) -> Path:
        beside = Path(__file__).resolve().parents[2] / "shared" / "data"
        path = Path(os.environ.get("DSCA_DATA") or beside) / folder
        if not path.is_dir():
            pytest.skip(f"no {path}: DSCA_DATA names the folder that holds benchmark/ and train/")
        return path

    return find


@pytest.fixture(scope="session")
def ten_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the benchmark's: ten small maps of flat and slanted blocks, of sizes no scale divides."""
    import cv2

    from dsca_ros.evaluation.published import NAMES

    folder = tmp_path_factory.mktemp("ten-maps")
    rng = np.random.default_rng(3)
    for index, name in enumerate(NAMES):
        image = np.full((42 + index % 3, 51), 40.0)
        for _ in range(5):
            top, left = rng.integers(0, 30, 2)
            block = image[top : top + rng.integers(8, 20), left : left + rng.integers(8, 20)]
            block[:] = rng.uniform(50, 220) + rng.choice([0.0, 0.5]) * np.arange(block.shape[1])
        cv2.imwrite(str(folder / f"{name}.png"), image.astype(np.uint8))
    return folder
