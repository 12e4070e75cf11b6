"""The whole algorithm as one torch module: a camera's depth in, larger depth out.

What every engine runs is the export of this module, so there is no second implementation of hole
filling, of the network's domain, of validity or of the guard anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsca_ros.network.blend import Blend
from dsca_ros.network.dsca import DSCA, WEIGHTS, Stage, enlarge

#: Differences from the 3x3 mean of these shares are half of full scale: of a camera's steps, of its noise, of edges.
NEARBY = (0.0004, 0.004, 0.04)
#: The same for differences from the local mean: of small steps between surfaces.
FARTHER = 0.04
#: Channels of the network's input: depth, differences from local means, validity.
INPUT_CHANNELS = 1 + len(NEARBY) + 1 + 1
#: Levels of the hole-filling pyramid; holes of up to 2 ** LEVELS pixels are filled smoothly.
LEVELS = 6
#: The level of the pyramid that counts as the local mean.
MEAN_LEVEL = 3
#: Weight of the bilinear support in the decision on validity, which the network shifts.
SUPPORT = 8.0
#: Support of an output pixel whose four nearest input pixels are all valid, but for rounding.
WHOLE = 0.999
#: Infinite depth is none, whatever the range, metres.
FARTHEST = 1e9
#: Larger than any depth, metres, and than any logit.
UNBOUNDED = 1e30


@dataclass(frozen=True)
class StageResult:
    """What a stage makes of a map: all [B, 1, 2^k H, 2^k W].

    Attributes:
        inverse: inverse depth, 1/m; 0 where there is none.
        there: 1 where one of the four nearest pixels of the map before is valid, else 0.
        validity: logit of the chance that the camera would measure here, not negative where all of the four
            nearest input pixels are valid.
        strain: [], how far the logits of the weights are beyond all use; see `Stage.strain`.
    """

    inverse: Tensor
    there: Tensor
    validity: Tensor
    strain: Tensor | None = None


class CameraGraph(nn.Module):
    """Metres to metres, 0 invalid at both ends.

    1. Depth outside the range, NaN and 0 become invalid; valid depth becomes inverse depth, in which
       a plane is linear, so that interpolation along it is exact.
    2. Holes are filled from a masked pyramid, only so that the network sees no cliffs at them.
    3. The network weighs: every stage's map is a weighted mean of the valid pixels of the 3x3 around each
       pixel in the map before it. Depth that no input nearby supports cannot come out.
    4. The guard: every stage's result is within one per cent of a pixel it is made of, so nothing hangs between two
       surfaces.
    5. An output pixel is never valid beyond one input pixel from a valid one, and always if its four nearest input
       pixels all are; between, the network decides.

    Args:
        network: a `DSCA` with ``input_channels == INPUT_CHANNELS`` and ``head == WEIGHTS``.
        half: run the network in float16, everything around it in float32.
    """

    def __init__(self, network: DSCA, half: bool = False) -> None:
        super().__init__()
        if network.config.head != WEIGHTS:
            raise ValueError(f"a network for cameras has head: {WEIGHTS}, not {network.config.head}")
        self.network = network.half() if half else network
        for stage in network.each_stage():
            if stage.blend is not None:
                stage.blend.float()  # depth is not a feature
        self.half_network = half

    def prepare(self, depth: Tensor, depth_range: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Depth to ``(inverse, valid, features)``.

        Args:
            depth: [B, 1, H, W] metres; 0, NaN or infinite where invalid.
            depth_range: [2], nearest and farthest depth taken as valid, metres.

        Returns:
            All with height H and width W brought up to multiples of the network's. inverse: [B, 1, H, W] 1/m, 0
            where invalid. valid: [B, 1, H, W], 1 or 0. features: [B, INPUT_CHANNELS, H, W], the network's input.
        """
        inverse, valid = invert(self._padded(depth), depth_range)
        _, _, features = describe(inverse, valid)
        return inverse, valid, features

    def _padded(self, depth: Tensor) -> Tensor:
        height, width = depth.shape[-2:]
        multiple = self.network.config.multiple
        if multiple == 1:
            return depth
        return F.pad(depth, (0, -width % multiple, 0, -height % multiple), mode="replicate")

    def stages(self, inverse: Tensor, valid: Tensor, features: Tensor, guarded: bool = False) -> list[StageResult]:
        """What every stage makes of it. Training supervises these, without the guard."""
        results = []
        for stage, of_stage, blend, planes in self._planes(inverse, valid, features, guarded):
            inverse, there, validity = map(blend.lay_out, planes)
            results.append(StageResult(inverse, there, validity, stage.strain(of_stage)))
        return results

    def _planes(
        self, inverse: Tensor, valid: Tensor, features: Tensor, guarded: bool
    ) -> Iterator[tuple[Stage, Tensor, Blend, tuple[Tensor, Tensor, Tensor]]]:
        """Every stage with its features, what lays out, and the maps a `StageResult` has, not laid out yet."""
        all_features = self.network(features.half() if self.half_network else features)
        there, depth_type, done = valid, valid.device.type, 1
        floor: Tensor | None = None  # what logits are at least, in the first stage's output
        for of_stage, stage in zip(all_features, self.network.each_stage()):
            assert stage.blend is not None
            # Under autocast, too, depth is not rounded to bfloat16.
            with torch.autocast(depth_type, enabled=False):
                blended, support, shift = stage.enlarge(inverse, there, of_stage, guarded)
            known = (support > 0).to(valid.dtype)
            blended = blended * known
            # Nothing is lost where nothing was missing: a slope, too steep for most cameras, that this one did measure.
            if floor is None:
                least = -UNBOUNDED * (support < WHOLE).to(valid.dtype)
                floor = stage.blend.lay_out(least)
            else:
                least = stage.blend.repeat(floor, done // self.network.config.factors[0])
            validity = torch.maximum(SUPPORT * (support - 0.5) + shift, least)
            yield stage, of_stage, stage.blend, (blended, known, validity)
            inverse, there = stage.blend.lay_out(blended), stage.blend.lay_out(known)
            done *= stage.blend.factor

    def forward(self, depth: Tensor, depth_range: Tensor) -> Tensor:
        """[B, 1, H, W] metres to [B, 1, sH, sW] metres, 0 invalid; see `prepare` for the range."""
        height, width = (size * self.network.config.scale for size in depth.shape[-2:])
        low, high = self._range_around(depth, depth_range)
        *_, last = self._planes(*self.prepare(depth, depth_range), guarded=True)
        *_, blend, (inverse, there, validity) = last
        # Rounding would take some results out of the range of what they are made of.
        low, high = (blend.repeat(side, self.network.config.scale // blend.factor) for side in (low, high))
        metres = torch.minimum(torch.maximum(1.0 / inverse.clamp(min=1e-6), low), high)
        return blend.lay_out((validity >= 0).to(depth.dtype) * there * metres)[..., :height, :width]

    def _range_around(self, depth: Tensor, depth_range: Tensor) -> tuple[Tensor, Tensor]:
        """Least and largest valid depth that a result may be made of, metres, of `prepare`'s size."""
        depth, valid = keep_within(self._padded(depth), depth_range)
        reach = min(len(self.network.stages), 2)
        low, high = -depth - UNBOUNDED * (1.0 - valid), depth * valid
        low, high = (F.max_pool2d(side, 2 * reach + 1, stride=1, padding=reach) for side in (low, high))
        return -low, high


def keep_within(depth: Tensor, depth_range: Tensor) -> tuple[Tensor, Tensor]:
    """Depth with 1 m wherever it is invalid, and where it is valid; see `CameraGraph.prepare`."""
    keep = (depth > 0) & (depth >= depth_range[0]) & (depth <= depth_range[1].clamp(max=FARTHEST))
    return torch.where(keep, depth, 1.0), keep.to(depth.dtype)


def invert(depth: Tensor, depth_range: Tensor) -> tuple[Tensor, Tensor]:
    """Depth to ``(inverse, valid)``; see `CameraGraph.prepare`."""
    kept, valid = keep_within(depth, depth_range)
    return valid / kept, valid


def describe(inverse: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a network is shown.

    Args:
        inverse: [B, 1, H, W] 1/m, 0 where invalid. valid: [B, 1, H, W], 1 or 0.

    Returns:
        ``(filled, mean, features)``: inverse depth with every hole filled and its local mean, both [B, 1, H, W], 1/m;
        and [B, INPUT_CHANNELS, H, W].
    """
    filled, mean = fill_holes(inverse, valid)
    # Noise is a hundredth of a step between surfaces: each is shown at its own magnification, and as a
    # share of depth, so that a doll's house and a street look alike.
    around = F.avg_pool2d(filled, 3, stride=1, padding=1, count_include_pad=False)
    mean = mean.clamp(min=1e-4)
    features = [0.5 * torch.log(mean)]
    features += [compress((filled - around) / mean, half_scale) for half_scale in NEARBY]
    features += [compress((filled - mean) / mean, FARTHER), valid]
    return filled, mean, torch.cat(features, dim=1)


def compress(difference: Tensor, half_scale: float) -> Tensor:
    """Differences of any size to (-1, 1); ``half_scale`` goes to 1/2."""
    return difference / (difference.abs() + half_scale)


def fill_holes(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Fills holes with the mean of what is valid around them, from near to far.

    A masked pyramid: each level averages the valid pixels of 2x2; on the way up, holes take the
    enlarged level above.

    Args:
        values: [B, 1, H, W], 0 where invalid. valid: [B, 1, H, W], 1 or 0.

    Returns:
        ``(filled, mean)``, both [B, 1, H, W]: the values with every hole filled, and the smooth local
        mean of the values.
    """
    levels = [(values * valid, valid)]
    sizes = []
    for _ in range(LEVELS):
        weighted, weight = levels[-1]
        height, width = weighted.shape[-2:]
        sizes.append((height, width))
        even = (0, width % 2, 0, height % 2)
        pooled = F.avg_pool2d(F.pad(weighted, even), 2)
        share = F.avg_pool2d(F.pad(weight, even), 2)
        known = (share > 0).to(values.dtype)
        levels.append((pooled / share.clamp(min=1e-6), known))
        # A coarse pixel with any valid pixel counts in full, or far holes would fade to zero.
    top, known = levels[-1]
    # Beyond the pyramid's reach there is only the mean of everything.
    everywhere = top.sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1.0)
    filled = torch.where(known > 0, top, everywhere)
    mean = filled
    for level in range(LEVELS - 1, -1, -1):
        height, width = sizes[level]
        above = enlarge(filled, 2)[..., :height, :width]
        mean = enlarge(mean, 2)[..., :height, :width]
        known_values, known = levels[level]
        filled = torch.where(known > 0, known_values, above)
        if level == MEAN_LEVEL:
            mean = filled
    return filled, mean
