"""Enlarging a map by learned weighted means of its own valid pixels: nothing else can come out.

The idea is that of convex upsampling in optical flow (RAFT, 2020), with invalid pixels left out.
"""

from __future__ import annotations

import math
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
#: Of a depth that was measured, how far from it a result may be under the guard, as a share; its stages split it.
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
        hold: how far from a tap a guarded result may be, share of depth; see `hold_to`.
    """

    #: Kernels over the pixels around each of the features' pixels: which one each tap of every output pixel is;
    #: bilinear weights.
    picks: Tensor
    support: Tensor

    def __init__(self, factor: int, unshuffle: int, taps: int, hold: float = HOLD) -> None:
        super().__init__()
        if taps not in TAP_COUNTS:
            raise ValueError(f"taps must be 9 or 4, not {taps!r}")
        self.factor, self.unshuffle, self.taps, self.hold = factor, unshuffle, taps, hold
        weights = bilinear_weights(factor)
        chosen = weights.argsort(dim=1, descending=True, stable=True)[:, :taps].sort(dim=1).values
        side = unshuffle + 2
        support = torch.zeros(self.outputs, 1, side, side)
        start = torch.zeros(self.outputs, taps)
        picks = torch.zeros(taps, self.outputs, 1, side, side)
        for place in range(self.outputs):
            row, column = divmod(place, factor * unshuffle)
            (a, i), (b, j) = divmod(row, factor), divmod(column, factor)
            of = i * factor + j
            start[place] = weights[of, chosen[of]]
            for index, tap in enumerate(chosen[of].tolist()):
                dy, dx = divmod(tap, 3)
                picks[index, place, 0, a + dy, b + dx] = 1.0
                support[place, 0, a + dy, b + dx] = weights[of, tap]
        # One after the other: torch's channels_last takes four dimensions.
        self.register_buffer("picks", picks.flatten(0, 1), persistent=False)
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
            guarded: hold the result to the taps; see `hold_to`.

        Returns:
            The enlarged map, 0 where no tap is valid, and the share of the bilinear support that is valid:
            both [B, 1, factor * H, factor * W].
        """
        mean, support = self.planes(values, valid, logits, guarded)
        return self.lay_out(mean), self.lay_out(support)

    def planes(
        self, values: Tensor, valid: Tensor, logits: Iterable[Tensor], guarded: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, not laid out yet: both [B, outputs, H / unshuffle, W / unshuffle]."""
        u = self.unshuffle
        picks = self.picks.split(self.outputs)
        around = [F.conv2d(values, pick, stride=u, padding=1) for pick in picks]
        least = LEAST * torch.stack(picks).sum(dim=0)
        total = F.conv2d(valid, least, stride=u, padding=1)
        summed = F.conv2d(values, least, stride=u, padding=1)
        for pick, tap, logit in zip(picks, around, logits):
            weight = torch.sigmoid(logit)
            total = total + weight * F.conv2d(valid, pick, stride=u, padding=1)
            summed = summed + weight * tap
        mean = summed / total.clamp(min=1e-12)
        # Beyond the border lies what is at the border.
        support = F.conv2d(F.pad(valid, (1, 1, 1, 1), mode="replicate"), self.support, stride=u)
        return self.hold_to(mean, around) if guarded else mean, support

    def hold_to(self, mean: Tensor, around: list[Tensor]) -> Tensor:
        """The guard: brings what is farther than `hold` from the nearest tap to it, up to there.

        Between two surfaces there is nothing. On a ramp the taps are close enough for the mean to be left alone.

        Args:
            mean: [B, outputs, h, w].
            around: the taps, each like the mean; 0 where invalid.
        """
        # Invalid taps, 0, are farther than the valid one nearest to a mean of valid ones.
        off = around[0] - mean
        least = off.abs()
        for tap in around[1:]:
            of_tap = tap - mean
            distance = of_tap.abs()
            # A choice by a factor of 1 or 0: ONNX Runtime is slow at `where`.
            off = off + (distance < least).to(mean.dtype) * (of_tap - off)
            least = torch.minimum(least, distance)
        nearest = mean + off
        return torch.minimum(torch.maximum(mean, nearest * (1.0 - self.hold)), nearest * (1.0 + self.hold))

    def repeat(self, values: Tensor, enlarged: int = 1) -> Tensor:
        """Values of a smaller map for every output pixel, as planes; one plane alone where all would be the same.

        Args:
            values: [B, 1, H / enlarged, W / enlarged].
            enlarged: this enlargement's input over that map's size.
        """
        # The coarsest grid that both the map and the features fit in.
        common = math.gcd(enlarged, self.unshuffle)
        if enlarged > common:
            values = F.interpolate(values, scale_factor=float(enlarged // common), mode="nearest")
        side = self.unshuffle // common
        if side == 1:
            return values
        of = torch.arange(side, device=values.device).repeat_interleave(self.factor * common)
        return F.pixel_unshuffle(values, side)[:, (side * of[:, None] + of).flatten()]

    def lay_out(self, planes: Tensor) -> Tensor:
        """[B, outputs, h, w] at the features' size to the output's [B, 1, factor * H, factor * W]."""
        return F.pixel_shuffle(planes, self.factor * self.unshuffle)
