"""The training loop, on networks and data small enough for seconds."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from dsca_ros.engine.export import ExportError, export_model, load_weights  # noqa: E402
from dsca_ros.network.camera_graph import INPUT_CHANNELS, CameraGraph  # noqa: E402
from dsca_ros.network.dsca import DSCA, WEIGHTS, DSCAConfig  # noqa: E402
from dsca_ros.network.level_graph import LEVEL_CHANNELS  # noqa: E402
from dsca_ros.training import maps, tasks  # noqa: E402
from dsca_ros.training import train as training  # noqa: E402
from dsca_ros.training.disparity_scenes import disparity_scene  # noqa: E402
from dsca_ros.training.loss import DepthWeights, supervise_depth  # noqa: E402
from dsca_ros.training.recipe import MapData, Recipe, RecipeError, ViewData  # noqa: E402
from dsca_ros.training.views import ViewPool, ViewSettings, make_batch  # noqa: E402

NETWORK = DSCAConfig(2, (6,), (1,), unshuffle=2, input_channels=INPUT_CHANNELS, head=WEIGHTS)
RECIPE = Recipe("tiny", 2, NETWORK, 6, ViewData(3, crop=24), batch=1, warm_up=2, validate_every=2)
# Eight channels: narrower kernels are left to Adam.
LEVEL_NETWORK = DSCAConfig(4, (8,), (1,), input_channels=LEVEL_CHANNELS, residual_gain=8.0)
MAPS = Recipe(
    "tiny-maps", 4, LEVEL_NETWORK, 6, MapData(size=16), batch=2, optimiser="muon", warm_up=2, validate_every=2
)
#: Nothing costs anything.
NO_TERM = DepthWeights(0.0, 0.0, 0.0, 0.0, 0.0)
by_task = pytest.mark.parametrize("recipe", [RECIPE, MAPS], ids=["views", "maps"])


class Silent:
    def __init__(self):
        self.steps = []

    def views(self, done, total): ...

    def step(self, step, total, loss, validation):
        self.steps.append((step, loss, validation))


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    def settings(count: int, **others: int) -> ViewSettings:
        return ViewSettings(min(count, 3), width=32, height=24, **others)

    def small_scene(rng: np.random.Generator, size: int) -> np.ndarray:
        return disparity_scene(rng, min(size, 64))

    monkeypatch.setattr(tasks, "ViewSettings", settings)
    monkeypatch.setattr(tasks, "VALIDATION_BATCHES", 1)
    monkeypatch.setattr(maps, "disparity_scene", small_scene)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch, request):
    """Also where there is a GPU: bit for bit is said of CPUs."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def state_of(checkpoint):
    return torch.load(checkpoint, weights_only=True, map_location="cpu")


def assert_same(a, b, where="state"):
    """Equal bit for bit, through all nested dictionaries and lists; but for how long it took."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            if f"{where}.{key}" != "state.seconds":
                assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    else:
        assert a == b, where


def rows_of(folder):
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


# --- going on -----------------------------------------------------------------------------------


@by_task
def test_twenty_steps_are_ten_and_ten_bit_for_bit(tmp_path, recipe):
    recipe = replace(recipe, steps=20, validate_every=4)
    whole = training.train(recipe, tmp_path / "whole", False, Silent())
    training.train(recipe, tmp_path / "parts", False, Silent(), stop_at=10)
    half = state_of(tmp_path / "parts" / "checkpoint.pt")
    assert half["step"] == 10 and half["best"]["step"] in (4, 8)
    again = Silent()
    parts = training.train(recipe, tmp_path / "parts", True, again)
    assert [step for step, _, _ in again.steps] == list(range(11, 21))
    assert_same(state_of(whole), state_of(parts))
    assert set(state_of(whole)["optimiser"]) == ({"adam", "muon"} if recipe.optimiser == "muon" else {"adam"})
    for one, other in zip(rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts"), strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}


@pytest.mark.gpu
@by_task
@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
def test_a_gpu_trains_goes_on_and_its_weights_are_the_same_on_a_cpu(tmp_path, recipe, compiled):
    if not torch.cuda.is_available():
        pytest.skip("this torch was built without CUDA")
    recipe, told = replace(recipe, steps=40, validate_every=20, learning_rate=1e-3), Silent()
    training.train(recipe, tmp_path / "run", False, told, stop_at=20, compiled=compiled)
    checkpoint = training.train(recipe, tmp_path / "run", True, told, compiled=compiled)
    assert [step for step, _, _ in told.steps] == list(range(1, 41))
    assert np.isfinite([loss for _, loss, _ in told.steps]).all()
    state = state_of(checkpoint)
    task = tasks.make_task(recipe, None, tmp_path / "cache", lambda done, total: None)
    network = task.network()
    assert any(not torch.equal(state["ema"][name], value) for name, value in network.state_dict().items())
    network.load_state_dict(state["best"]["weights"])
    figures = task.validate(task.graph(network), torch.device("cpu"))
    assert figures == pytest.approx(state["best"]["figures"], rel=1e-2)


def test_resuming_takes_the_optimisers_state_and_not_only_the_weights(tmp_path):
    """The comparison above would find a state that is lost."""
    training.train(MAPS, tmp_path / "run", False, Silent(), stop_at=3)
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    state = state_of(checkpoint)
    buffers = [entry["momentum_buffer"] for entry in state["optimiser"]["muon"]["state"].values()]
    assert buffers and all(buffer.abs().max() > 0 for buffer in buffers)
    for buffer in buffers:
        buffer.zero_()
    torch.save(state, checkpoint)
    lost = state_of(training.train(MAPS, tmp_path / "run", True, Silent()))
    whole = state_of(training.train(MAPS, tmp_path / "whole", False, Silent()))
    with pytest.raises(AssertionError, match="network"):
        assert_same(whole["network"], lost["network"], "network")


@by_task
def test_what_a_run_leaves(tmp_path, recipe):
    checkpoint = training.train(recipe, tmp_path / "run", False, Silent())
    state = state_of(checkpoint)
    assert state["step"] == 6 and Recipe.from_dict(state["recipe"]) == recipe
    DSCA(recipe.network).load_state_dict(state["ema"])
    DSCA(recipe.network).load_state_dict(state["best"]["weights"])
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"checkpoint.pt", "log.csv", "curve.png"}
    rows = rows_of(tmp_path / "run")
    task = tasks.CameraTask if recipe is RECIPE else tasks.MapTask
    assert list(rows[0]) == [*training.LOG_COLUMNS, *task.columns]
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert (tmp_path / "run" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_resumed_log_goes_on_and_a_new_run_overwrites_nothing(tmp_path):
    def steps():
        return [row["step"] for row in rows_of(tmp_path / "run")]

    training.train(RECIPE, tmp_path / "run", False, Silent(), stop_at=2)
    training.train(RECIPE, tmp_path / "run", True, Silent(), stop_at=4)
    assert steps() == ["2", "4"]
    with pytest.raises(RecipeError, match="--resume"):
        training.train(RECIPE, tmp_path / "run", False, Silent(), stop_at=2)
    assert steps() == ["2", "4"]


def test_log_rows_later_than_the_checkpoint_are_dropped(tmp_path):
    training.train(RECIPE, tmp_path / "run", False, Silent(), stop_at=2)
    with (tmp_path / "run" / "log.csv").open("a") as file:
        file.write("4,1.0,0.1,0.1,9,9,9,9\n")
    training.train(RECIPE, tmp_path / "run", True, Silent(), stop_at=3)
    assert [row["step"] for row in rows_of(tmp_path / "run")] == ["2"]


def test_a_finished_run_resumes_to_itself(tmp_path):
    recipe = replace(RECIPE, steps=2)
    before = state_of(training.train(recipe, tmp_path / "run", False, Silent()))
    after = state_of(training.train(recipe, tmp_path / "run", True, Silent()))
    assert_same(before, after)
    assert before["seconds"] == after["seconds"]


# --- interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_lets_the_step_end_and_the_checkpoint_be_written(tmp_path, number):
    class Raises(Silent):
        def step(self, step, total, loss, validation):
            super().step(step, total, loss, validation)
            if step == 3:
                signal.raise_signal(number)

    before = signal.getsignal(number)
    reporter = Raises()
    with pytest.raises(KeyboardInterrupt):
        training.train(MAPS, tmp_path / "run", False, reporter)
    assert signal.getsignal(number) is before
    assert [step for step, _, _ in reporter.steps] == [1, 2, 3]
    assert state_of(tmp_path / "run" / "checkpoint.pt")["step"] == 3
    parts = training.train(MAPS, tmp_path / "run", True, Silent())
    assert_same(state_of(training.train(MAPS, tmp_path / "whole", False, Silent())), state_of(parts))


def test_a_process_that_is_interrupted_goes_on_to_where_an_undisturbed_one_ends(tmp_path):
    recipe = replace(MAPS, steps=60, validate_every=10)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.plain()))
    # The same small maps as in this process.
    code = (
        "import sys; from dsca_ros.training import maps; full = maps.disparity_scene;"
        "maps.disparity_scene = lambda rng, size: full(rng, min(size, 64));"
        "from dsca_ros.cli import app; app(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "train", str(tmp_path / "recipe.yaml"), "--folder", str(tmp_path / "run")]

    def may_be_interrupted() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=may_be_interrupted,
        env=os.environ | {"COLUMNS": "300"},
    )  # fmt: skip
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and out == ""
    assert err.splitlines()[-1].startswith("dsca: interrupted; what was trained is in")
    assert "Traceback" not in err
    assert 10 <= state_of(checkpoint)["step"] < 60
    assert not list((tmp_path / "run").glob("*.partial"))

    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole = training.train(recipe, tmp_path / "whole", False, Silent())
    assert_same(state_of(whole), state_of(checkpoint))


# --- a full disk --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_whole(tmp_path, monkeypatch, kind):
    training.train(MAPS, tmp_path / "run", False, Silent(), stop_at=3)
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    before = checkpoint.read_bytes()

    def half(state, path):
        path.write_bytes(before[: len(before) // 2])
        raise kind("No space left on device\nand more")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(torch, "save", half)
        with pytest.raises(RecipeError, match=r"cannot write .*checkpoint\.pt .*No space.*--resume") as raised:
            training.train(MAPS, tmp_path / "run", True, Silent())
    assert "\n" not in str(raised.value)
    assert checkpoint.read_bytes() == before
    assert not list((tmp_path / "run").glob("*.partial"))
    parts = training.train(MAPS, tmp_path / "run", True, Silent())
    assert_same(state_of(training.train(MAPS, tmp_path / "whole", False, Silent())), state_of(parts))


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(RecipeError, match=r"cannot write .*log\.csv"):
        training.train(MAPS, tmp_path, False, Silent())


# --- checkpoints that do not fit ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 2}, "seed"),
        ({"network": replace(LEVEL_NETWORK, channels=(10,))}, "network"),
        ({"network": replace(LEVEL_NETWORK, block="plain")}, "network"),
        ({"data": MapData(size=32)}, "data"),
        ({"optimiser": "adam", "steps": 9}, "steps, optimiser"),
        ({"data": ViewData(3, crop=24), "network": replace(LEVEL_NETWORK, input_channels=4)}, "network, data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_the_same_recipe_resumes(tmp_path, change, what):
    training.train(MAPS, tmp_path / "run", False, Silent(), stop_at=1)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(RecipeError, match=rf"another recipe \({what} differ\): .*--folder") as raised:
        training.train(replace(MAPS, **change), tmp_path / "run", True, Silent())
    assert "\n" not in str(raised.value)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(RecipeError, match="not a checkpoint"):
        training.train(RECIPE, tmp_path, True, Silent())


def test_a_disk_that_is_full_at_the_curve_is_one_line(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def full(self: Figure, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(RecipeError, match=r"cannot write .*curve\.png .*--resume"):
        training.train(replace(MAPS, steps=1), tmp_path / "run", False, Silent())
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint.pt", "log.csv"}


@pytest.mark.parametrize("lost", ["optimiser", "best", "ema", "recipe"])
def test_a_checkpoint_of_another_version_is_named(tmp_path, lost):
    state = state_of(training.train(replace(MAPS, steps=1), tmp_path / "run", False, Silent()))
    del state[lost]
    torch.save(state, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(RecipeError, match=r"checkpoint\.pt: not a checkpoint of") as raised:
        training.load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert "\n" not in str(raised.value)


# --- the best -----------------------------------------------------------------------------------


def test_the_best_by_validation_is_what_is_exported(tmp_path, monkeypatch):
    psnr = iter([30.0, 35.0, 33.0])
    averages = []

    def validate(self, graph, device):
        averages.append({key: value.clone() for key, value in graph.network.state_dict().items()})
        return dict.fromkeys(self.columns, 1.0) | {"val_psnr_db": next(psnr)}

    monkeypatch.setattr(tasks.MapTask, "validate", validate)
    checkpoint = training.train(MAPS, tmp_path / "run", False, Silent())
    state = state_of(checkpoint)
    assert state["best"]["step"] == 4 and state["best"]["figures"]["val_psnr_db"] == 35.0
    assert_same(state["best"]["weights"], averages[1])
    assert not torch.equal(averages[1]["stages.0.head.0.weight"], state["ema"]["stages.0.head.0.weight"])

    export_model(checkpoint, tmp_path / "models")
    network, _ = load_weights(tmp_path / "models" / "tiny-maps-x4.safetensors")
    assert_same(network.state_dict(), {key: value.half().float() for key, value in averages[1].items()})


def test_for_cameras_the_best_has_the_least_error(tmp_path, monkeypatch):
    error = iter([30.0, 20.0, 25.0])
    validate = tasks.CameraTask.validate
    monkeypatch.setattr(
        tasks.CameraTask, "validate", lambda *arguments: validate(*arguments) | {"val_error_pct": next(error)}
    )
    assert state_of(training.train(RECIPE, tmp_path / "run", False, Silent()))["best"]["step"] == 4


def test_without_any_validation_there_is_nothing_to_export(tmp_path):
    training.train(MAPS, tmp_path / "run", False, Silent(), stop_at=1)
    with pytest.raises(ExportError, match=r"checkpoint\.pt: no validation yet; train on with --resume"):
        export_model(tmp_path / "run" / "checkpoint.pt", tmp_path / "models")


# --- starting from trained weights --------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    """Weights of x2 with random values, as `dsca export` writes them."""
    torch.manual_seed(5)
    network = DSCA(replace(LEVEL_NETWORK, scale=2))
    path = tmp_path / "x2.safetensors"
    save_file({key: torch.randn_like(value).half() for key, value in network.state_dict().items()}, path)
    return path


def test_start_takes_over_the_weights_that_fit(trained):
    network = DSCA(replace(LEVEL_NETWORK, channels=(8, 6)))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    training.start_from(network, trained)
    weights = load_file(trained)
    after = network.state_dict()
    assert {key for key in after if key.startswith("stages.0.")} == set(weights)
    for key, value in after.items():
        assert torch.equal(value, weights[key].float() if key in weights else before[key]), key


def test_start_leaves_weights_of_another_shape_alone(trained):
    network = DSCA(replace(LEVEL_NETWORK, unshuffle=2))
    before = network.stages[0].enter.weight.clone()
    training.start_from(network, trained)
    assert torch.equal(network.stages[0].enter.weight, before)
    assert torch.equal(network.stages[0].blocks[0].widen.weight, load_file(trained)["stages.0.blocks.0.widen.weight"])


def test_a_recipe_that_starts_from_weights_trains_on_from_them(tmp_path, trained):
    recipe = replace(MAPS, steps=1, learning_rate=0.0, start=str(trained))
    state = state_of(training.train(recipe, tmp_path / "run", False, Silent()))
    for key, value in load_file(trained).items():
        torch.testing.assert_close(state["network"][key], value.float(), rtol=0, atol=0)


def test_frozen_stages_stay_what_they_started_as_bit_for_bit(tmp_path, trained):
    recipe = replace(MAPS, start=str(trained), frozen_stages=1)
    training.train(recipe, tmp_path / "run", False, Silent(), stop_at=3)
    begun = {key: value.clone() for key, value in state_of(tmp_path / "run" / "checkpoint.pt")["network"].items()}
    state = state_of(training.train(recipe, tmp_path / "run", True, Silent()))
    assert state["step"] == recipe.steps
    for key, value in load_file(trained).items():
        for weights in ("network", "ema"):
            assert torch.equal(state[weights][key], value.float()), key
    assert any(not torch.equal(begun[key], value) for key, value in state["network"].items() if "stages.1." in key)


def test_resuming_does_not_need_what_it_started_from(tmp_path, trained):
    recipe = replace(MAPS, start=str(trained))
    training.train(recipe, tmp_path / "run", False, Silent(), stop_at=2)
    trained.unlink()
    assert state_of(training.train(recipe, tmp_path / "run", True, Silent()))["step"] == 6


@pytest.mark.parametrize("content", [None, b"no weights", {"x": torch.ones(3)}], ids=["none", "text", "other"])
def test_weights_to_start_from_that_are_none_are_named(tmp_path, content):
    path = tmp_path / "start.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        save_file(content, path)
    with pytest.raises(RecipeError, match=r"start: .*start\.safetensors") as raised:
        training.train(replace(MAPS, start=str(path)), tmp_path / "run", False, Silent())
    assert "\n" not in str(raised.value)


# --- learning -----------------------------------------------------------------------------------


def test_the_seed_decides_the_weights(tmp_path):
    recipe = replace(RECIPE, steps=1)
    one = state_of(training.train(recipe, tmp_path / "one", False, Silent()))
    two = state_of(training.train(replace(recipe, seed=2), tmp_path / "two", False, Silent()))
    assert any(not torch.equal(one["ema"][key], two["ema"][key]) for key in one["ema"])


@pytest.mark.parametrize(("scale", "taps"), [(2, (9,)), (4, (9, 4))], ids=str)
def test_sixty_steps_on_one_batch_leave_the_bilinear_start_behind(tmp_path, scale, taps):
    """Every term of the loss, too, and the decisions on validity become better than those of half the support."""
    pool = ViewPool(ViewSettings(3, 32, 24, scale=scale), tmp_path)
    batches = [make_batch(pool, 4, 24, 1, step) for step in range(20)]
    best = max(batches, key=lambda batch: sum(m.sum() for m in batch.measured))
    batch = best.tensors(torch.device("cpu"))
    assert batch.measured[0].any() and (batch.targets[0][batch.measured[0] > 0] == 0).any()
    torch.manual_seed(0)
    graph = CameraGraph(DSCA(replace(NETWORK, scale=scale, taps=taps, channels=(8,))))
    optimiser = torch.optim.Adam(graph.parameters(), lr=0.01)
    prepared = graph.prepare(batch.low, torch.tensor([0.05, 100.0]))
    depth = batch.low * prepared[1]

    def loss(weights):
        return supervise_depth(graph.stages(*prepared), batch.targets, batch.measured, depth, weights)

    def terms():
        with torch.no_grad():
            # On surfaces bilinear is a good start, which takes longer to leave behind; no weight is strained yet; and
            # `kept` is of frames without a measured target.
            names = vars(NO_TERM).keys() - {"surfaces", "stairs", "strain", "kept"}
            return {name: loss(replace(NO_TERM, **{name: 1.0})).item() for name in names}

    start, before = loss(DepthWeights()).item(), terms()
    for _ in range(60):
        optimiser.zero_grad()
        loss(DepthWeights(validity=0.5)).backward()
        optimiser.step()
    after = terms()
    assert loss(DepthWeights()).item() < 0.96 * start
    assert all(after[name] < before[name] for name in before), (before, after)
    assert after["validity"] < 0.8 * before["validity"]


def test_learning_rate_warms_up_and_decays_to_a_hundredth():
    recipe = replace(RECIPE, steps=100, warm_up=10, learning_rate=1.0)
    rates = [training.learning_rate(recipe, step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[100] == pytest.approx(0.01)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "run"):
        with pytest.raises(RecipeError, match="cannot be made a folder"):
            training.train(RECIPE, folder, False, Silent())


@pytest.mark.parametrize("damage", [None, "", "no log\n1,2\n"], ids=["gone", "empty", "foreign"])
def test_a_lost_log_does_not_stop_a_resumed_run(tmp_path, damage):
    training.train(RECIPE, tmp_path / "run", False, Silent(), stop_at=2)
    log = tmp_path / "run" / "log.csv"
    log.unlink() if damage is None else log.write_text(damage)
    training.train(RECIPE, tmp_path / "run", True, Silent())
    with log.open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4", "6"]


def test_weights_that_do_not_fit_their_recipe_are_named_in_one_line(tmp_path):
    checkpoint = training.train(RECIPE, tmp_path / "run", False, Silent(), stop_at=2)
    state = torch.load(checkpoint, weights_only=True)
    del state["network"][next(iter(state["network"]))]
    torch.save(state, checkpoint)
    with pytest.raises(RecipeError, match="of another architecture than its recipe") as raised:
        training.train(RECIPE, tmp_path / "run", True, Silent())
    assert "\n" not in str(raised.value)
