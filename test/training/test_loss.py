import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dsca_ros.network.camera_graph import StageResult  # noqa: E402
from dsca_ros.training.loss import (  # noqa: E402
    ASTRAY,
    EXACT,
    FLAT,
    DepthWeights,
    log_range,
    supervise_depth,
    supervise_levels,
    surface_distance,
    surface_ratio,
)

NOTHING = DepthWeights(0.0, 0.0, 0.0, 0.0, 0.0)


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
    found = surface_distance(depth, step_edge(), torch.ones(1, 1, 6, 8, dtype=torch.bool), 2)[0, 0]
    assert found[2, 4] == pytest.approx(0.2)
    assert found[3, 4] == pytest.approx(1.0)
    assert found[4, 7] == pytest.approx(1.8)
    assert found.sum() == pytest.approx(3.0)


@pytest.mark.parametrize("unknown", [0.0, 1.2, -9.2])
def test_unknown_targets_are_no_surface_whatever_stands_there(unknown):
    depth, target = step_edge(), step_edge()
    depth[..., 2, 4] = 1.2
    known = torch.ones(1, 1, 6, 8, dtype=torch.bool)
    known[..., 2:5, 2:4] = False  # the near surface, where it is in reach
    known[..., 0, 2] = known[..., 0, 0] = True
    target[~known] = unknown
    found = surface_distance(depth, target, known, 2)[0, 0]
    assert found[2, 4] == pytest.approx(0.2)  # two up and two to the left it is still known
    known[..., 0, 2] = False
    assert surface_distance(depth, target, known, 2)[0, 0, 2, 4] == pytest.approx(1.8)
    none = surface_distance(depth, target, torch.zeros_like(known), 2)
    assert torch.isfinite(none).all() and (none > 100.0).all()


def test_the_local_range_is_that_of_the_logarithm_of_valid_depth():
    depth = torch.zeros(1, 1, 5, 7)
    depth[..., 1, 1], depth[..., 2, 2], depth[..., 0, 5] = 1.0, 3.0, 2.0
    expected = np.zeros((5, 7))
    expected[1:3, 1:3] = math.log(3.0)  # those that have both around them
    np.testing.assert_allclose(log_range(depth)[0, 0], expected, atol=1e-6)


# --- cameras: terms -----------------------------------------------------------------------------


def stage(depth: torch.Tensor, there: torch.Tensor | None = None, validity: torch.Tensor | None = None) -> StageResult:
    """What a stage that puts out this depth says."""
    there = torch.ones_like(depth) if there is None else there
    return StageResult(1.0 / depth, there, torch.zeros_like(depth) if validity is None else validity)


def low_edge() -> torch.Tensor:
    """The input of `step_edge` at half its size."""
    return step_edge()[..., ::2, ::2].clone()


def loss_of(result: StageResult, target: torch.Tensor | None = None, measured: float = 0.0, **weights: float) -> float:
    terms = DepthWeights(**(vars(NOTHING) | weights))
    target = step_edge() if target is None else target
    return supervise_depth([result], [target], [torch.full((1,), measured)], low_edge(), terms).item()


def test_exact_depth_costs_nothing_but_doubt():
    all_errors = {"absolute": 1.0, "relative": 1.0, "squared": 1.0, "astray": 1.0}
    assert loss_of(stage(step_edge()), **all_errors) == pytest.approx(0.0, abs=1e-5)
    assert loss_of(stage(step_edge()), measured=1.0, validity=1.0) == pytest.approx(math.log(2.0))


def test_each_term_of_a_hand_made_case():
    depth = step_edge()
    depth[0, 0, 2, 4] = 1.2  # beside the edge: both surfaces are in the 3x3 input pixels around
    depth[0, 0, 5, 7] = 3.3  # in the corner: only the far one
    error = np.array([math.log(3.0 / 1.2), math.log(1.1)])
    spread = np.array([math.log(3.0), 0.0]) + FLAT
    # The first is log 1.2 from the near surface.
    astray = np.array([math.log(1.2), math.log(1.1)])
    assert loss_of(stage(depth), absolute=2.0) == pytest.approx(2.0 * error.sum() / 48, rel=1e-4)
    assert loss_of(stage(depth), relative=2.0) == pytest.approx(2.0 * (error / spread).sum() / 48, rel=1e-4)
    assert loss_of(stage(depth), squared=2.0) == pytest.approx(2.0 * (error**2).sum() / 48, rel=1e-4)
    assert loss_of(stage(depth), astray=2.0) == pytest.approx(2.0 * (astray / (astray + ASTRAY)).sum() / 48, rel=1e-4)
    assert loss_of(stage(depth)) == 0.0


def test_errors_are_shares_of_depth():
    """A doll's house costs what a street does."""
    depth = step_edge() * 1.07
    low, measured, terms = low_edge(), [torch.zeros(1)], DepthWeights()
    one, other = (
        supervise_depth([stage(depth * size)], [step_edge() * size], measured, low * size, terms).item()
        for size in (0.1, 10.0)
    )
    assert one == pytest.approx(other, rel=1e-4) and one > 0.1


def test_only_pixels_with_a_result_and_a_known_target_cost():
    depth, there, target = step_edge(), torch.ones(1, 1, 6, 8), step_edge()
    depth[..., :4] = 2.0
    there[..., :2] = 0.0
    target[..., 2:4] = 0.0
    weights = {"absolute": 1.0, "relative": 1.0, "squared": 1.0, "astray": 1.0}
    assert loss_of(stage(depth, there), target, **weights) == pytest.approx(0.0, abs=1e-5)
    there[..., 0, 0] = 1.0
    # The mean is over the pixels that count: 24 and one.
    assert loss_of(stage(depth, there), target, absolute=1.0) == pytest.approx(math.log(2.0) / 25, rel=1e-4)
    nothing = stage(depth, torch.zeros_like(there))
    assert loss_of(nothing, target, measured=1.0, validity=1.0, **weights) == 0.0


def test_every_stage_counts():
    targets = [torch.full((1, 1, n, n), 2.0) for n in (4, 8)]
    wrong = [[stage(t * 1.25 if k == at else t) for k, t in enumerate(targets)] for at in (0, 1)]
    low, measured = torch.full((1, 1, 2, 2), 2.0), [torch.zeros(1)] * 2
    first, second = (supervise_depth(s, targets, measured, low, DepthWeights()).item() for s in wrong)
    assert first == pytest.approx(second, rel=1e-5) and first > 0.1


def test_a_network_of_one_stage_is_held_to_the_last_target_of_depth():
    targets = [torch.full((1, 1, 4, 4), 9.0), torch.full((1, 1, 8, 8), 2.0)]
    low, measured = torch.full((1, 1, 2, 2), 2.0), [torch.ones(1), torch.zeros(1)]
    loss = supervise_depth([stage(targets[1])], targets, measured, low, DepthWeights())
    assert loss.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("inverse", [0.0, -5.0, 1e-9, 1e6])
def test_the_loss_of_a_wild_result_is_finite(inverse):
    wild = torch.full((1, 1, 6, 8), inverse, requires_grad=True)
    result = StageResult(wild, torch.ones(1, 1, 6, 8), torch.full((1, 1, 6, 8), 1e4))
    target = step_edge()
    target[..., 3] = 0.0
    loss = supervise_depth([result], [target], [torch.ones(1)], low_edge(), DepthWeights())
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(wild.grad).all()


# --- cameras: validity --------------------------------------------------------------------------


def holed() -> torch.Tensor:
    target = step_edge()
    target[..., 2:4, 3:6] = 0.0
    return target


def test_right_decisions_cost_less_and_the_surer_the_less():
    target = holed()
    right = torch.where(target > 0, 1.0, -1.0)
    costs = [
        loss_of(stage(step_edge(), validity=s * right), target, measured=1.0, validity=1.0) for s in (8, 2, 0, -2, -8)
    ]
    assert costs == sorted(costs) and costs[0] < 0.001 and costs[-1] > 7.0
    one_wrong = right.clone()
    one_wrong[..., 2, 3] = 1.0
    by_one = loss_of(stage(step_edge(), validity=2.0 * one_wrong), target, measured=1.0, validity=1.0)
    assert by_one == pytest.approx(costs[1] + 2.0 / 48, rel=1e-4)  # log(1 + e^2) - log(1 + e^-2) = 2


def test_validity_is_learned_where_the_target_was_measured_and_nowhere_else():
    """A batch of two: the holes of the first are holes; of the second nothing is known but where depth is."""
    target = holed().repeat(2, 1, 1, 1)
    there = torch.ones_like(target)
    there[..., 5, :] = 0.0
    validity = torch.zeros_like(target, requires_grad=True)
    result = StageResult(1.0 / step_edge().repeat(2, 1, 1, 1), there, validity)
    low = low_edge().repeat(2, 1, 1, 1)
    supervise_depth([result], [target], [torch.tensor([1.0, 0.0])], low, DepthWeights()).backward()
    first, second = validity.grad
    assert not second.any()
    assert not first[:, 5].any()  # nothing to decide where nothing can be valid
    decided = target[0, :, :5] > 0
    assert (first[:, :5][decided] < 0).all() and (first[:, :5][~decided] > 0).all()


def test_no_measured_target_at_all_gives_no_gradient_to_validity():
    validity = torch.zeros(1, 1, 6, 8, requires_grad=True)
    depth = (step_edge() * 1.1).requires_grad_()
    loss = supervise_depth([stage(depth, None, validity)], [holed()], [torch.zeros(1)], low_edge(), DepthWeights())
    loss.backward()
    assert not validity.grad.any() and depth.grad.any()
    assert not depth.grad[holed() == 0].any()


def test_a_frame_as_it_was_measured_teaches_to_keep_what_is_valid():
    """Where no larger measurement tells: of the frame's own pixels, and of no pixel where one does."""
    low = low_edge().repeat(2, 1, 1, 1)
    low[:, :, 1, 1:3] = 0.0
    validity = torch.zeros(2, 1, 6, 8, requires_grad=True)
    there = torch.ones(2, 1, 6, 8)
    there[:, :, 0] = 0.0
    exact = step_edge().repeat(2, 1, 1, 1)
    result = StageResult(1.0 / exact, there, validity)
    terms = DepthWeights(**(vars(NOTHING) | {"kept": 3.0}))
    loss = supervise_depth([result], [exact], [torch.tensor([1.0, 0.0])], low, terms)
    assert loss.item() == pytest.approx(3.0 * math.log(2.0))
    loss.backward()
    known, unknown = validity.grad
    assert not known.any() and not unknown[0, 0].any()
    hole = torch.zeros(6, 8, dtype=torch.bool)
    hole[2:4, 2:6] = True
    assert (unknown[0, 1:][hole[1:]] > 0).all() and (unknown[0, 1:][~hole[1:]] < 0).all()


def test_validity_does_not_depend_on_depth_nor_depth_on_validity():
    depth, validity = (step_edge() * 1.1).requires_grad_(), torch.zeros(1, 1, 6, 8, requires_grad=True)
    terms = DepthWeights(0.0, 0.0, 0.0, 0.0, 1.0)
    supervise_depth([stage(depth, None, validity)], [holed()], [torch.ones(1)], low_edge(), terms).backward()
    assert validity.grad.abs().min() > 0 and not depth.grad.any()


# --- levels -------------------------------------------------------------------------------------


def levels(value: float, size: int) -> torch.Tensor:
    return torch.full((1, 1, size, size), value)


# --- surfaces ---------------------------------------------------------------------------------------


def ramp(slope: float = 0.01) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy frames [2, 1, 32, 32] of a slanted surface, and [2, 1, 16, 16] of the means of their columns' pairs."""
    exact = (2.0 + slope * torch.arange(32.0)).expand(2, 1, 32, 32)
    noise = 0.002 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    return exact + noise, exact[..., ::2, ::2] + 0.5 * slope


def usual(low: torch.Tensor, mode: str) -> torch.Tensor:
    corners = {"align_corners": False} if mode == "bilinear" else {}
    return torch.nn.functional.interpolate(low, scale_factor=2, mode=mode, **corners)


def log_error(result: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (result.log() - target.log()).abs()


def test_bilinear_costs_one_but_for_the_floor_and_others_what_they_are_worse():
    frame, low = ramp()
    errors = {mode: log_error(usual(low, mode), frame) for mode in ("bilinear", "nearest")}
    cost = {mode: surface_ratio(error, frame, torch.ones_like(frame), low).item() for mode, error in errors.items()}
    each = errors["bilinear"].mean((1, 2, 3))
    assert cost["bilinear"] == pytest.approx((each / (each + EXACT)).mean().item(), rel=1e-4)
    assert cost["nearest"] > 1.3
    assert surface_ratio(torch.zeros_like(frame), frame, torch.ones_like(frame), low).item() == 0.0


def test_a_frame_of_stairs_is_left_to_the_other_terms():
    frame, low = ramp()
    stairs = (2.0 + 0.02 * (torch.arange(32) // 4)).expand(1, 1, 32, 32)
    both, lows = torch.cat([frame[:1], stairs]), torch.cat([low[:1], stairs[..., ::2, ::2]])
    wrong, ones = both + 0.01, torch.ones_like(both)
    alone = surface_ratio(log_error(wrong, both)[:1], both[:1], ones[:1], lows[:1])
    assert surface_ratio(log_error(wrong, both), both, ones, lows).item() == pytest.approx(alone.item())


def test_a_frame_of_stairs_counts_over_nearest_where_it_is_asked_for():
    stairs = (2.0 + 0.02 * (torch.arange(32) // 2)).expand(1, 1, 32, 32)
    low, ones = stairs[..., ::2, ::2], torch.ones_like(stairs)
    wrong = log_error(stairs + 0.01, stairs)
    assert surface_ratio(wrong, stairs, ones, low).item() == 0.0
    assert surface_ratio(wrong, stairs, ones, low, 1.0).item() == pytest.approx(wrong.mean().item() / EXACT, rel=1e-3)
    frame, ramp_low = ramp()
    both, lows = torch.cat([frame[:1], stairs]), torch.cat([ramp_low[:1], low])
    error, ones = log_error(both + 0.01, both), torch.ones_like(both)
    parts = [surface_ratio(error[k : k + 1], both[k : k + 1], ones[:1], lows[k : k + 1], 0.5) for k in (0, 1)]
    expected = (parts[0] + parts[1]) / 1.5  # a weighted mean over the crops; of a sum under one there is none
    assert surface_ratio(error, both, ones, lows, 0.5).item() == pytest.approx(expected.item(), rel=1e-4)


def test_strain_is_charged_of_every_stage_that_tells_it():
    frame = step_edge()
    weights = DepthWeights(**(vars(NOTHING) | {"strain": 2.0}))
    strained = [replace(stage(frame), strain=torch.tensor(value)) for value in (3.0, 5.0)]
    known = [torch.ones(1)] * 2
    assert supervise_depth(strained, [frame] * 2, known, low_edge(), weights).item() == pytest.approx(2.0 * 4.0)
    assert supervise_depth([stage(frame)], [frame], known[:1], low_edge(), weights).item() == 0.0
    assert supervise_depth(strained, [frame] * 2, known, low_edge(), NOTHING).item() == 0.0


def test_steps_and_what_is_near_them_are_no_surface():
    frame, low = ramp()
    frame[..., 16:] += 1.0
    low[..., 8:] += 1.0
    wrong, ones = frame.clone(), torch.ones_like(frame)
    wrong[..., 11:21] += 0.1  # five pixels to both sides, of which one is the step's own
    assert surface_ratio(log_error(wrong, frame), frame, ones, low).item() == 0.0
    wrong[..., 10] += 0.1
    assert surface_ratio(log_error(wrong, frame), frame, ones, low).item() > 1.0


def test_crops_without_surfaces_do_not_count():
    frame, low = ramp()
    wrong = frame + 0.01
    mask = torch.ones_like(frame)
    first = surface_ratio(log_error(wrong, frame)[:1], frame[:1], mask[:1], low[:1])
    mask[1] = 0.0
    mask[1, :, :9, :9] = 1.0  # too few to tell
    assert surface_ratio(log_error(wrong, frame), frame, mask, low).item() == pytest.approx(first.item())
    none = surface_ratio(log_error(wrong, frame).requires_grad_(), frame, torch.zeros_like(frame), low)
    none.backward()
    assert none.item() == 0.0


def test_surfaces_are_asked_for_where_the_frame_was_measured():
    frame, low = ramp()
    inverse = (1.0 / (frame + 0.01)).requires_grad_()
    stage = StageResult(inverse, torch.ones_like(frame), torch.zeros_like(frame))
    terms = DepthWeights(**(vars(NOTHING) | {"surfaces": 2.0}))
    cost = [supervise_depth([stage], [frame], [torch.tensor(m)], low, terms).item() for m in ([1.0, 1.0], [0.0, 0.0])]
    expected = surface_ratio(log_error(frame + 0.01, frame), frame, torch.ones_like(frame), low)
    assert cost == [pytest.approx(2.0 * expected.item(), rel=1e-2), 0.0]
    half = StageResult(inverse[..., ::2, ::2], *(torch.zeros_like(low) for _ in range(2)))
    sure = [torch.ones(2), torch.ones(2)]
    both = supervise_depth([half, stage], [low, frame], sure, low, terms).item()
    assert both == pytest.approx(0.5 * cost[0])  # of the last stage alone, and a mean of two


def test_each_term_of_a_hand_made_case_of_levels():
    stages = [levels(10.0, 4), levels(23.0, 8)]
    targets = [levels(12.0, 4), levels(20.0, 8)]
    # 0.5 * |10 - 12| of the first stage, |23 - 20| of the last, 0.1 * 3^2 of the last.
    assert supervise_levels(stages, targets, 0.5, 0.1).item() == pytest.approx(1.0 + 3.0 + 0.9)
    assert supervise_levels(stages, targets, 0.0, 0.0).item() == pytest.approx(3.0)
    assert supervise_levels(targets, targets, 1.0, 1.0).item() == 0.0


def test_levels_count_where_they_are_to():
    stages = [levels(10.0, 4), levels(23.0, 8)]
    targets = [levels(12.0, 4), levels(20.0, 8)]
    counted = [torch.ones_like(target) for target in targets]
    for stage, mask in zip(stages, counted, strict=True):
        stage[..., 0] = 99.0
        mask[..., 0] = 0.0
    assert supervise_levels(stages, targets, 0.5, 0.1, counted).item() == pytest.approx(1.0 + 3.0 + 0.9)
    assert supervise_levels(stages, targets, 0.5, 0.1, [0.0 * mask for mask in counted]).item() == 0.0


def test_a_network_of_one_stage_is_held_to_the_last_target():
    targets = [levels(12.0, 4), levels(20.0, 8)]
    assert supervise_levels([levels(21.0, 8)], targets, 0.5, 0.0).item() == pytest.approx(1.0)
