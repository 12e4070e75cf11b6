import pytest

torch = pytest.importorskip("torch")

from dsca_ros.training.loss import supervise_depth, supervise_levels, surface_distance  # noqa: E402


def step_edge() -> torch.Tensor:
    """Depth 1 m in columns 0 to 3, 3 m from there on."""
    target = torch.full((1, 1, 6, 8), 1.0)
    target[..., 4:] = 3.0
    return target


def test_surface_distance_takes_the_nearest_surface_in_reach():
    depth = step_edge()
    depth[..., 2, 4] = 1.2  # 0.2 m from the near surface, one pixel to the left
    depth[..., 3, 4] = 2.0  # between the two: 1 m from either
    depth[..., 4, 7] = 1.2  # the near surface is out of reach: 1.8 m from the far one
    found = surface_distance(depth, step_edge(), 2)[0, 0]
    assert found[2, 4] == pytest.approx(0.2)
    assert found[3, 4] == pytest.approx(1.0)
    assert found[4, 7] == pytest.approx(1.8)
    assert found.sum() == pytest.approx(3.0)


def loss_of(depth: torch.Tensor, valid: torch.Tensor | None = None, **weights: float) -> float:
    valid = torch.ones(1, 1, 3, 4) if valid is None else valid
    settings = {"surface_weight": 0.0, "squared_weight": 0.0} | weights
    return supervise_depth([1.0 / depth], [step_edge()], valid, **settings).item()


def test_exact_depth_costs_nothing():
    assert loss_of(step_edge(), surface_weight=1.0, squared_weight=1.0) == pytest.approx(
        0.0, abs=1e-6
    )


def test_each_term_of_a_hand_made_case():
    depth = step_edge()
    depth[0, 0, 2, 4] = 1.2
    base = torch.log(torch.tensor(3.0 / 1.2)).item() + 0.5 * 1.8
    assert loss_of(depth) == pytest.approx(base / 48, rel=1e-5)
    assert loss_of(depth, surface_weight=2.0) == pytest.approx((base + 2 * 0.2) / 48, rel=1e-5)
    assert loss_of(depth, squared_weight=2.0) == pytest.approx((base + 2 * 1.8**2) / 48, rel=1e-5)


def test_invalid_pixels_cost_nothing():
    depth, valid = step_edge(), torch.ones(1, 1, 3, 4)
    depth[..., :4] = 2.0
    valid[..., :2] = 0.0
    assert loss_of(depth, valid) == pytest.approx(0.0, abs=1e-6)
    assert loss_of(depth, torch.zeros(1, 1, 3, 4)) == 0.0


def test_every_stage_counts():
    target = torch.full((1, 1, 4, 4), 2.0)
    targets = [target, torch.full((1, 1, 8, 8), 2.0)]
    exact = [1.0 / target for target in targets]
    wrong = [[0.8 * exact[0], exact[1]], [exact[0], 0.8 * exact[1]]]
    valid = torch.ones(1, 1, 2, 2)
    first, second = (supervise_depth(stages, targets, valid, 0.0, 0.0).item() for stages in wrong)
    assert first == pytest.approx(second) and first > 0


@pytest.mark.parametrize("inverse", [0.0, -5.0, 1e-9])
def test_the_loss_of_a_wild_result_is_finite(inverse):
    stage = torch.full((1, 1, 6, 8), inverse, requires_grad=True)
    loss = supervise_depth([stage], [step_edge()], torch.ones(1, 1, 3, 4), 1.0, 1.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(stage.grad).all()


# --- levels -------------------------------------------------------------------------------------


def levels(value: float, size: int) -> torch.Tensor:
    return torch.full((1, 1, size, size), value)


def test_each_term_of_a_hand_made_case_of_levels():
    stages = [levels(10.0, 4), levels(23.0, 8)]
    targets = [levels(12.0, 4), levels(20.0, 8)]
    # 0.5 * |10 - 12| of the first stage, |23 - 20| of the last, 0.1 * 3^2 of the last.
    assert supervise_levels(stages, targets, 0.5, 0.1).item() == pytest.approx(1.0 + 3.0 + 0.9)
    assert supervise_levels(stages, targets, 0.0, 0.0).item() == pytest.approx(3.0)
    assert supervise_levels(targets, targets, 1.0, 1.0).item() == 0.0


def test_a_network_of_one_stage_is_held_to_the_last_target():
    targets = [levels(12.0, 4), levels(20.0, 8)]
    assert supervise_levels([levels(21.0, 8)], targets, 0.5, 0.0).item() == pytest.approx(1.0)
