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
#: Farther apart than any two values.
NOWHERE = 1e4
#: Of a depth that was measured, how far from it a result may be under the guard, as a share.
HOLD = 0.009


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

    def forward(
        self, values: Tensor, valid: Tensor, logits: Iterable[Tensor], guarded: bool = False
    ) -> tuple[Tensor, Tensor]:
        """One enlargement.

        Args:
            values: [B, 1, H, W], positive, 0 where invalid; H and W multiples of ``unshuffle``.
            valid: [B, 1, H, W], 1 or 0.
            logits: of the weights, for each tap [B, outputs, H / unshuffle, W / unshuffle]; taken one after the
                other, for in large frames they are large.
            guarded: hold the result to the taps; see `hold`.

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
        mean = summed / total.clamp(min=1e-12)
        # Beyond the border lies what is at the border.
        support = F.conv2d(F.pad(valid, (1, 1, 1, 1), mode="replicate"), self.support, stride=u)
        return self.lay_out(self.hold(mean, values) if guarded else mean), self.lay_out(support)

    def hold(self, mean: Tensor, values: Tensor) -> Tensor:
        """The guard: brings what is farther than `HOLD` from every tap to the nearest one, up to there.

        Between two surfaces there is nothing. On a ramp the taps are close enough for the mean to be left alone.

        Args:
            mean: [B, outputs, h, w].
            values: [B, (unshuffle + 2)^2, h, w], the pixels around; 0 where invalid.
        """
        low, high = values * (1.0 - HOLD), values * (1.0 + HOLD)
        held, least = mean, torch.full_like(mean, NOWHERE)
        for pick in self.picks:
            # Invalid taps, 0, are farther than the valid one nearest to a mean of valid ones.
            candidate = torch.minimum(torch.maximum(mean, low[:, pick]), high[:, pick])
            distance = (candidate - mean).abs()
            # A choice by a factor of 1 or 0: ONNX Runtime is slow at `where`.
            held = held + (distance < least).to(mean.dtype) * (candidate - held)
            least = torch.minimum(least, distance)
        return held

    def lay_out(self, planes: Tensor) -> Tensor:
        """[B, outputs, h, w] at the features' size to the output's [B, 1, factor * H, factor * W]."""
        return F.pixel_shuffle(planes, self.factor * self.unshuffle)
