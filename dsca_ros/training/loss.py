"""What a network is trained to do well: for cameras, and on the benchmark's maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dsca_ros.depth.fidelity import EDGE_REACH, STEP_METRES, STEP_SHARE
from dsca_ros.network.camera_graph import StageResult
from dsca_ros.network.dsca import enlarge

#: Distances from the nearest surface of this share of depth cost half of what the farthest do.
ASTRAY = 0.01
#: Local range of depth, as a share, under which an error is no longer weighed against it: that of noise.
FLAT = 0.002
#: Errors of less than this share of depth are as good as none.
EXACT = 1e-4
#: Crops with fewer pixels of surfaces tell nothing of them.
LEAST_SURFACE = 100


@dataclass(frozen=True)
class DepthWeights:
    """Weights of the terms of `supervise_depth`; all errors are differences of the logarithm of depth.

    Attributes:
        absolute: of the error: what edges cost.
        relative: of the error over the range of depth in the 3x3 input pixels around: what surfaces cost.
        squared: of the squared error, which keeps an uncertain edge from being far off.
        astray: of being far from every surface around (a flying pixel).
        validity: of the decision on validity, where it is known which pixels the camera would measure.
        kept: of the same elsewhere: a frame as the camera measured it is to keep what is valid, and no more.
        surfaces: of the last stage's error on the surfaces of a measured frame, over that of bilinear: all cameras
            count alike, however small their noise; see `surface_ratio`.
        strain: of logits of the weights that are beyond all use; see `dsca.Stage.strain`.
        stairs: of the term ``surfaces``, for crops where nearest is the better; the same over nearest's error.
    """

    absolute: float = 4.0
    relative: float = 1.0
    squared: float = 6.0
    astray: float = 0.5
    validity: float = 0.05
    surfaces: float = 0.0
    stairs: float = 0.0
    strain: float = 0.0
    kept: float = 0.0


def supervise_depth(
    stages: list[StageResult], targets: list[Tensor], known: list[Tensor], depth: Tensor, weights: DepthWeights
) -> Tensor:
    """Deeply supervised loss on every stage, where its result and the target are there.

    Errors are of the logarithm of depth, so that near and far, and rooms and streets, weigh alike.

    Args:
        stages: of the graph.
        targets: depth [B, 1, 2^k h, 2^k w] of stage k, metres, 0 unknown.
        known: [B], 1 where it is known which pixels of the target the camera would measure: those over 0.
            One a stage.
        depth: [B, 1, h, w], the input, metres, 0 invalid.
        weights: of the terms.
    """
    local = log_range(depth)
    total = depth.new_zeros(())
    # A network of one stage has the last target alone.
    for result, target, sure in zip(stages, targets[-len(stages) :], known[-len(stages) :]):
        factor = target.shape[-1] // depth.shape[-1]
        mask = result.there * (target > 0)
        count = mask.sum().clamp(min=1.0)
        log_depth = -torch.log(result.inverse.clamp(min=1e-4))
        log_target = torch.log(target.clamp(min=1e-4))
        error = (log_depth - log_target).abs()
        spread = F.interpolate(local, scale_factor=factor, mode="nearest") + FLAT
        astray = surface_distance(log_depth, log_target, target > 0, factor)
        term = weights.absolute * error + weights.relative * error / spread + weights.squared * error.square()
        term = term + weights.astray * astray / (astray + ASTRAY)
        total = total + (term * mask).sum() / count
        decided = F.binary_cross_entropy_with_logits(result.validity, (target > 0).float(), reduction="none")
        mixed = result.there * sure[:, None, None, None]
        total = total + weights.validity * (decided * mixed).sum() / mixed.sum().clamp(min=1.0)
        if weights.kept:
            valid = F.interpolate((depth > 0).to(depth.dtype), scale_factor=factor, mode="nearest")
            decided = F.binary_cross_entropy_with_logits(result.validity, valid, reduction="none")
            unknown = result.there - mixed
            total = total + weights.kept * (decided * unknown).sum() / unknown.sum().clamp(min=1.0)
        if weights.strain and result.strain is not None:
            total = total + weights.strain * result.strain
        if weights.surfaces and result is stages[-1]:
            total = total + weights.surfaces * surface_ratio(
                error, target, mask * sure[:, None, None, None], depth, weights.stairs
            )
    return total / len(stages)


def surface_ratio(error: Tensor, target: Tensor, mask: Tensor, depth: Tensor, stairs: float = 0.0) -> Tensor:
    """Errors away from steps, over those of bilinear: the mean over the crops that have surfaces.

    A crop where nearest is the better has stairs for surfaces, of a camera's coarse steps or of pixels
    repeated. Who keeps stairs pays with unsteadiness, for they move with the camera.

    Args:
        error: [B, 1, f h, f w], of the logarithm of depth, absolute.
        target: the same size, metres, 0 unknown.
        mask: the same size, 1 where an error counts, else 0.
        depth: [B, 1, h, w], the input, metres, 0 invalid.
        stairs: weight of crops where nearest is the better; they count over nearest's error.
    """
    factor = target.shape[-1] // depth.shape[-1]
    with torch.no_grad():
        valid = (depth > 0).to(depth.dtype)
        nearest = F.interpolate(depth, scale_factor=factor, mode="nearest")
        bilinear = enlarge(depth, factor) / enlarge(valid, factor).clamp(min=1e-6)
        # As `evaluation.fidelity` tells steps from surfaces.
        step = log_range(target) > torch.clamp(STEP_METRES / target.clamp(min=1e-4), min=STEP_SHARE)
        near = F.max_pool2d(step.to(mask.dtype), 2 * EDGE_REACH + 1, stride=1, padding=EDGE_REACH)
        where = mask * (1.0 - near) * (nearest > 0)
        count = where.sum((1, 2, 3))
        log_target = torch.log(target.clamp(min=1e-4))
        usual = [
            ((torch.log(result.clamp(min=1e-4)) - log_target).abs() * where).sum((1, 2, 3))
            for result in (nearest, bilinear)
        ]
        there = torch.where(usual[1] <= usual[0], 1.0, stairs) * (count >= LEAST_SURFACE)
        share = there / (torch.minimum(*usual) + EXACT * count).clamp(min=1e-9)
    return ((error * where).sum((1, 2, 3)) * share).sum() / there.sum().clamp(min=1.0)


def log_range(depth: Tensor) -> Tensor:
    """[B, 1, h, w]: range of the logarithm of valid depth in the 3x3 pixels around."""
    keep = depth > 0
    value = torch.log(depth.clamp(min=1e-4))
    high = F.max_pool2d(torch.where(keep, value, -50.0), 3, stride=1, padding=1)
    low = -F.max_pool2d(torch.where(keep, -value, -50.0), 3, stride=1, padding=1)
    return (high - low).clamp(min=0.0)


def surface_distance(depth: Tensor, target: Tensor, known: Tensor, radius: int) -> Tensor:
    """Distance from the nearest of the known targets ``radius`` pixels around, in their unit."""
    height, width = depth.shape[-2:]
    far = torch.where(known, target, 1e3)
    padded = F.pad(far, (radius, radius, radius, radius), mode="replicate")
    best = (depth - far).abs()
    for dy in (0, radius, 2 * radius):
        for dx in (0, radius, 2 * radius):
            best = torch.minimum(best, (depth - padded[..., dy : dy + height, dx : dx + width]).abs())
    return best


def supervise_levels(
    stages: list[Tensor],
    targets: list[Tensor],
    stage_weight: float,
    squared_weight: float,
    counted: Sequence[Tensor] = (),
) -> Tensor:
    """Deeply supervised loss on levels: L1 on every stage, and the squared error of the last.

    L1 is what finds the exact whole number on a smooth surface, the squared error is what PSNR counts.

    Args:
        stages: [B, 1, 2^k h, 2^k w] levels of stage k.
        targets: the same sizes.
        stage_weight: weight of every stage but the last, whose weight is 1.
        squared_weight: weight of the last stage's squared error, 1/level.
        counted: the same sizes, 1 where an error counts and 0 elsewhere; none: all count.
    """
    masks = counted or [torch.ones_like(target) for target in targets]

    def mean(values: Tensor, mask: Tensor) -> Tensor:
        return (values * mask).sum() / mask.sum().clamp(min=1.0)

    total = stages[0].new_zeros(())
    for stage, target, mask in zip(stages[:-1], targets, masks):
        total = total + stage_weight * mean((stage - target).abs(), mask)
    error = stages[-1] - targets[-1]
    return total + mean(error.abs(), masks[-1]) + squared_weight * mean(error.square(), masks[-1])
