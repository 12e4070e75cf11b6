"""Enlarging a map by learned weighted means of its own valid pixels: nothing else can come out.

The idea is that of convex upsampling in optical flow (RAFT, 2020), with invalid pixels left out.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Input pixels an output pixel may be made of: the 3x3 around the one it lies in, or the 2x2 nearest to it.
TAP_COUNTS = (9, 4)
#: What a tap outside of the bilinear support weighs at first, beside bilinear weights that sum to one.
FAINT = 0.01
#: What every valid tap weighs at least: where a network weighs all by 0, their mean stands in.
LEAST = 1e-6
#: Two groups of values are two surfaces if the gap between them is over this share of their whole range, and over
#: this share of the farther one.
GAP_SHARE, GAP_STEP = 0.6, 0.02
#: Farther apart than any two values.
NOWHERE = 1e4


def bilinear_weights(factor: int) -> Tensor:
    """[factor^2, 9]: what bilinear interpolation weighs the 3x3 input pixels around an output pixel with.

    Row i * factor + j is the output pixel at (i, j) within its input pixel; taps run along rows.
    """
    offset = (torch.arange(factor) + 0.5) / factor - 0.5
    line = torch.stack([(-offset).clamp(min=0.0), 1.0 - offset.abs(), offset.clamp(min=0.0)], dim=1)
    return torch.einsum("ik,jl->ijkl", line, line).reshape(factor**2, 9)


class Blend(nn.Module):
    """Enlarges a map by means of its valid pixels, with the weights a network gives.

    Everything is computed at 1 / unshuffle of the map's size, where the network's features are, and laid out in
    space once, at the end.

    Args:
        factor: output over input size, even.
        unshuffle: input size over the size of the network's features.
        taps: of `TAP_COUNTS`.
    """

    #: Kernels that lay the pixels around each of the features' pixels in planes; which plane each tap of each output
    #: pixel is in; bilinear weights of the same pixels.
    shifts: Tensor
    picks: Tensor
    support: Tensor

    def __init__(self, factor: int, unshuffle: int, taps: int) -> None:
        super().__init__()
        if taps not in TAP_COUNTS:
            raise ValueError(f"taps must be 9 or 4, not {taps!r}")
        self.factor, self.unshuffle, self.taps = factor, unshuffle, taps
        weights = bilinear_weights(factor)
        chosen = weights.argsort(dim=1, descending=True, stable=True)[:, :taps].sort(dim=1).values
        side = unshuffle + 2
        support = torch.zeros(self.outputs, 1, side, side)
        start = torch.zeros(self.outputs, taps)
        picks = torch.zeros(taps, self.outputs, dtype=torch.long)
        for place in range(self.outputs):
            row, column = divmod(place, factor * unshuffle)
            (a, i), (b, j) = divmod(row, factor), divmod(column, factor)
            of = i * factor + j
            start[place] = weights[of, chosen[of]]
            for index, tap in enumerate(chosen[of].tolist()):
                dy, dx = divmod(tap, 3)
                picks[index, place] = (a + dy) * side + b + dx
                support[place, 0, a + dy, b + dx] = weights[of, tap]
        self.register_buffer("shifts", torch.eye(side**2).reshape(-1, 1, side, side), persistent=False)
        self.register_buffer("picks", picks, persistent=False)
        self.register_buffer("support", support, persistent=False)
        start = (start + FAINT) / (1.0 + 2.0 * FAINT)
        #: Logits with which the result is that of bilinear interpolation, nearly.
        self.start = torch.logit(start).flatten()

    @property
    def outputs(self) -> int:
        """Output pixels for each of the features' pixels."""
        return (self.factor * self.unshuffle) ** 2

    def forward(self, values: Tensor, valid: Tensor, logits: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """One enlargement.

        Args:
            values: [B, 1, H, W], 0 where invalid; H and W multiples of ``unshuffle``.
            valid: [B, 1, H, W], 1 or 0.
            logits: of the weights, for each tap [B, outputs, H / unshuffle, W / unshuffle]; taken one after the
                other, for in large frames they are large.

        Returns:
            The enlarged map, 0 where no tap is valid, and the share of the bilinear support that is valid:
            both [B, 1, factor * H, factor * W].
        """
        u = self.unshuffle
        there = F.conv2d(valid, self.shifts, stride=u, padding=1)
        values = F.conv2d(values, self.shifts, stride=u, padding=1)
        total = summed = torch.zeros_like(there[:, :1])
        for pick, of_tap in zip(self.picks, logits):
            weight = torch.sigmoid(of_tap) + LEAST
            total = total + weight * there[:, pick]
            summed = summed + weight * values[:, pick]
        support = F.conv2d(valid, self.support, stride=u, padding=1)
        return self.lay_out(summed / total.clamp(min=1e-12)), self.lay_out(support)

    def lay_out(self, planes: Tensor) -> Tensor:
        """[B, outputs, h, w] at the features' size to the output's [B, 1, factor * H, factor * W]."""
        return F.pixel_shuffle(planes, self.factor * self.unshuffle)


def one_side(result: Tensor, values: Tensor, valid: Tensor, factor: int) -> Tensor:
    """Puts what hangs between two surfaces on the one it is nearer to.

    Where the valid values of the 3x3 fall into two groups with a gap between them, the result is held to the range
    of one group. A ramp has no such gap and is left alone; so is an edge that the camera has smeared.

    Args:
        result: [B, 1, factor * H, factor * W], of `Blend`.
        values, valid: [B, 1, H, W], of its input.

    Returns:
        Like ``result``.
    """
    middle, below, above = (F.interpolate(x, scale_factor=factor, mode="nearest") for x in groups(values, valid))
    # Both sides are computed and one is taken by a factor of 1 or 0: ONNX Runtime is slow at choosing.
    upper = (result > middle).to(result.dtype)
    return upper * torch.maximum(result, above) + (1.0 - upper) * torch.minimum(result, below)


def groups(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two groups the valid values of the 3x3 around each pixel fall into, by the middle of their range.

    Returns:
        The middle, the largest value of the lower group and the smallest of the upper one. Where the gap between the
        groups does not tell two surfaces, these two are out of the way: `NOWHERE` and 0. All [B, 1, H, W].
    """
    height, width = values.shape[-2:]
    nowhere = -NOWHERE * (1.0 - valid)
    high = F.max_pool2d(values + nowhere, 3, stride=1, padding=1)
    low = -F.max_pool2d(nowhere - values, 3, stride=1, padding=1)
    middle = 0.5 * (low + high)
    padded = F.pad(values + nowhere, (1, 1, 1, 1), value=-NOWHERE)
    above, below = torch.full_like(values, NOWHERE), torch.full_like(values, -NOWHERE)
    for tap in range(9):
        dy, dx = divmod(tap, 3)
        value = padded[..., dy : dy + height, dx : dx + width]
        # The value itself on one side of the middle, and out of the question on the other.
        elsewhere = value - NOWHERE * (value - middle)
        above = torch.minimum(above, torch.maximum(value, elsewhere))
        below = torch.maximum(below, torch.minimum(value, elsewhere))
    gap = above - below
    told = (gap > GAP_SHARE * (high - low)) & (gap > GAP_STEP * low) & (gap <= high - low)
    there = told.to(values.dtype)
    return middle, below * there + NOWHERE * (1.0 - there), above * there
