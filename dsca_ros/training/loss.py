"""What a network is trained to do well: for cameras, and on the benchmark's maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dsca_ros.network.camera_graph import result_validity

#: Inverse depth is held above this in the loss, 1/m, so that no division blows up.
FARTHEST = 1.0 / 25.0


def supervise_depth(
    stages: list[Tensor], targets: list[Tensor], valid: Tensor, surface_weight: float, squared_weight: float
) -> Tensor:
    """Deeply supervised loss: L1 on the output of every stage, where the result is valid.

    L1 is taken of the logarithm of depth, which weighs near and far alike, and of depth in metres,
    which is what users measure. The last stage pays two more terms that hold each other in balance:
    its squared error, which keeps an uncertain edge from being far off, and its distance from the
    nearest surface around the pixel, which keeps it from hanging between two (a flying pixel).

    Args:
        stages: inverse depth [B, 1, 2^k h, 2^k w] of stage k, 1/m.
        targets: exact depth of the same sizes, metres.
        valid: [B, 1, h, w], 1 or 0, of the input.
        surface_weight: weight of the distance from the nearest surface, 1/m.
        squared_weight: weight of the squared error, 1/m^2.
    """
    total = stages[0].new_zeros(())
    # A network of one stage has the last target alone.
    for index, (inverse, target) in enumerate(zip(stages, targets[-len(stages) :])):
        factor = target.shape[-1] // valid.shape[-1]
        mask = result_validity(valid, factor).to(target.dtype)
        count = mask.sum().clamp(min=1.0)
        inverse = inverse.clamp(min=FARTHEST)
        depth = 1.0 / inverse
        relative = (torch.log(inverse * target)).abs()
        metric = (depth - target).abs()
        loss = ((relative + 0.5 * metric) * mask).sum() / count
        if index == len(stages) - 1:
            astray = surface_distance(depth, target, factor)
            extra = surface_weight * astray + squared_weight * metric.square()
            loss = loss + (extra * mask).sum() / count
        total = total + loss
    return total / len(stages)


def surface_distance(depth: Tensor, target: Tensor, radius: int) -> Tensor:
    """Distance in depth from the nearest of the exact depths ``radius`` pixels around, metres."""
    height, width = depth.shape[-2:]
    padded = F.pad(target, (radius, radius, radius, radius), mode="replicate")
    best = (depth - target).abs()
    for dy in (0, radius, 2 * radius):
        for dx in (0, radius, 2 * radius):
            best = torch.minimum(best, (depth - padded[..., dy : dy + height, dx : dx + width]).abs())
    return best


def supervise_levels(
    stages: list[Tensor], targets: list[Tensor], stage_weight: float, squared_weight: float
) -> Tensor:
    """Deeply supervised loss on levels: L1 on every stage, and the squared error of the last.

    L1 is what finds the exact whole number on a smooth surface, the squared error is what PSNR counts.

    Args:
        stages: [B, 1, 2^k h, 2^k w] levels of stage k.
        targets: the same sizes.
        stage_weight: weight of every stage but the last, whose weight is 1.
        squared_weight: weight of the last stage's squared error, 1/level.
    """
    total = stages[0].new_zeros(())
    for stage, target in zip(stages[:-1], targets):
        total = total + stage_weight * (stage - target).abs().mean()
    error = stages[-1] - targets[-1]
    return total + error.abs().mean() + squared_weight * error.square().mean()
