"""The whole algorithm as one torch module: a camera's depth in, larger depth out.

What every engine runs is the export of this module, so there is no second implementation of hole
filling, of the network's domain, of validity or of the guard anywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsca_ros.network.dsca import DSCA, accumulate, enlarge

#: Channels of the network's input: the map, two differences from local means, validity.
INPUT_CHANNELS = 4
#: Differences of this size (1/m) are half of full scale: that of a camera's noise, and of small steps.
FINE, COARSE = 0.01, 0.05
#: Levels of the hole-filling pyramid; holes of up to 2 ** LEVELS pixels are filled smoothly.
LEVELS = 6
#: The level of the pyramid that counts as the local mean.
MEAN_LEVEL = 3


class CameraGraph(nn.Module):
    """Metres to metres, 0 invalid at both ends.

    1. Depth outside the range, NaN and 0 become invalid; valid depth becomes inverse depth, in which
       a plane is linear, so that interpolation along it is exact.
    2. Holes are filled from a masked pyramid, only so that the network sees no cliffs at them.
    3. The network adds what is missing to the bilinear enlargement.
    4. The guard: an output pixel stays within the range of the valid inputs in the 3x3 pixels around
       it. Depth that no input nearby supports cannot come out.
    5. An output pixel is valid where at least half of its bilinear support is.

    Args:
        network: a `DSCA` with ``input_channels == INPUT_CHANNELS``.
        half: run the network in float16, everything around it in float32.
    """

    def __init__(self, network: DSCA, half: bool = False) -> None:
        super().__init__()
        self.network = network.half() if half else network
        self.half_network = half

    def prepare(self, depth: Tensor, depth_range: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Depth to ``(inverse, valid, features)``.

        Args:
            depth: [B, 1, H, W] metres; 0, NaN or infinite where invalid.
            depth_range: [2], nearest and farthest depth taken as valid, metres.

        Returns:
            inverse: [B, 1, H, W] 1/m, holes filled. valid: [B, 1, H, W], 1 or 0.
            features: [B, INPUT_CHANNELS, H, W], the network's input.
        """
        keep = (depth > 0) & (depth >= depth_range[0]) & (depth <= depth_range[1])
        valid = keep.to(depth.dtype)
        inverse = torch.where(keep, 1.0 / torch.where(keep, depth, 1.0), 0.0)
        filled, mean = fill_holes(inverse, valid)
        # Noise is a hundredth of a step between surfaces: each is shown at its own magnification.
        around = F.avg_pool2d(filled, 3, stride=1, padding=1, count_include_pad=False)
        features = [filled, compress(filled - around, FINE), compress(filled - mean, COARSE), valid]
        return filled, valid, torch.cat(features, dim=1)

    def stages(self, filled: Tensor, features: Tensor) -> list[Tensor]:
        """Inverse depth of every stage, [B, 1, 2^k H, 2^k W], unguarded. Training supervises these."""
        if self.half_network:
            residuals = [r.float() for r in self.network(features.half())]
        else:
            residuals = self.network(features)
        return accumulate(filled, residuals, self.network.config.factors)

    def guard(self, inverse: Tensor, filled: Tensor, valid: Tensor) -> Tensor:
        """Holds inverse depth to the range of the valid input pixels around each output pixel."""
        far, near = neighbourhood_range(filled, valid)
        scale = self.network.config.scale
        far, near = F.interpolate(torch.cat([far, near], 1), scale_factor=scale, mode="nearest").chunk(2, 1)
        return torch.minimum(torch.maximum(inverse, far), near)

    def forward(self, depth: Tensor, depth_range: Tensor) -> Tensor:
        """[B, 1, H, W] metres to [B, 1, sH, sW] metres, 0 invalid; see `prepare` for the range."""
        filled, valid, features = self.prepare(depth, depth_range)
        inverse = self.guard(self.stages(filled, features)[-1], filled, valid)
        return torch.where(result_validity(valid, self.network.config.scale), 1.0 / inverse, 0.0)


def compress(difference: Tensor, half_scale: float) -> Tensor:
    """Differences of any size to (-1, 1); ``half_scale`` goes to 1/2."""
    return difference / (difference.abs() + half_scale)


def result_validity(valid: Tensor, scale: int) -> Tensor:
    """[B, 1, sH, sW] bool: where at least half of the bilinear support is valid."""
    return enlarge(valid, scale) >= 0.5


def neighbourhood_range(filled: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest valid value within one pixel; 1 and 1 where there is none.

    Returns:
        Two [B, 1, H, W] maps of the values' own unit.
    """
    big = 1e6
    keep = valid > 0
    low = -F.max_pool2d(torch.where(keep, -filled, -big), 3, stride=1, padding=1)
    high = F.max_pool2d(torch.where(keep, filled, -big), 3, stride=1, padding=1)
    lonely = low > high
    return torch.where(lonely, 1.0, low), torch.where(lonely, 1.0, high)


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
