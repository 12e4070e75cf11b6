"""Fixtures shared by the tests. Nothing here needs ROS; torch is imported only where asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dsca_ros.depth.camera import Intrinsics


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
    """Makes a small DSCA for cameras with random weights; `strength` sizes what it adds."""

    def make(scale: int = 2, strength: float = 0.05, seed: int = 0, **settings: object) -> object:
        torch = pytest.importorskip("torch")
        from dsca_ros.network.camera_graph import INPUT_CHANNELS
        from dsca_ros.network.dsca import DSCA, DSCAConfig

        torch.manual_seed(seed)
        sizes = {"channels": (8, 6), "blocks": (1, 1), "unshuffle": 2, "residual_gain": strength}
        network = DSCA(DSCAConfig(scale, input_channels=INPUT_CHANNELS, **(sizes | settings)))
        for stage in network.stages:
            torch.nn.init.normal_(stage.head[0].weight, std=0.1)
            torch.nn.init.normal_(stage.attention.gate[2].weight, std=0.5)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def tiny_checkpoints(
    tmp_path_factory: pytest.TempPathFactory, tiny_network: Callable[..., object]
) -> list[Path]:
    """Checkpoints as `dsca train` writes them, of the random networks `tiny` at 2 and 4."""
    torch = pytest.importorskip("torch")
    from dsca_ros.training.recipe import Recipe
    from dsca_ros.training.train import plain

    paths = []
    for scale in (2, 4):
        network = tiny_network(scale)
        recipe = Recipe("tiny", scale, network.config, steps=1)
        path = tmp_path_factory.mktemp(f"tiny-x{scale}") / "checkpoint.pt"
        torch.save({"recipe": plain(recipe), "step": 1, "ema": network.state_dict()}, path)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoints: list[Path]) -> Path:
    """A models folder with the exports of `tiny_checkpoints`. Copy it before breaking it."""
    from dsca_ros.engine.export import export_model

    folder = tmp_path_factory.mktemp("models")
    for checkpoint in tiny_checkpoints:
        export_model(checkpoint, folder)
    return folder


@pytest.fixture
def use_tiny_models(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets the package find only `tiny_models`."""
    monkeypatch.setenv("DSCA_MODELS", str(tiny_models))
    return tiny_models
