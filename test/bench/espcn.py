"""ESPCN, the plain network that dsca-nano is measured beside, for cameras at x2.

Source: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
Neural Network" (2016): three convolutions at the input's size, and a pixel shuffle; here with ReLU in place of tanh. It
is shown what dsca-nano is shown and costs what dsca-nano costs; what it lacks is what this project adds: attention,
weights in place of values, a decision on validity, the guard.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsca_ros.network.blocks import conv
from dsca_ros.network.camera_graph import INPUT_CHANNELS, StageResult, describe, invert
from dsca_ros.network.dsca import enlarge

SCALE = 2
#: Channels after the first and the second convolution, 64 and 32 in the paper: what dsca-nano's cost leaves of them.
WIDTHS = (32, 20)
#: What the network puts out is multiplied by this, so that a step of training is a small step of the result.
RESIDUAL_GAIN = 0.1


class Espcn(nn.Module):
    """The network: [B, INPUT_CHANNELS, H, W] to what is to be added, [B, SCALE ** 2, H, W], before the shuffle."""

    def __init__(self) -> None:
        super().__init__()
        first, second = WIDTHS
        last = conv(second, SCALE**2)
        # It starts from bilinear interpolation, as dsca-nano does.
        nn.init.normal_(last.weight, std=1e-2)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(conv(INPUT_CHANNELS, first, 5), nn.ReLU(), conv(first, second), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return RESIDUAL_GAIN * self.layers(x)


class EspcnGraph(nn.Module):
    """Metres to metres, 0 invalid at both ends, as `CameraGraph`: every engine can run its export.

    1. Depth becomes inverse depth with its holes filled, as in `CameraGraph`.
    2. The bilinear enlargement of that, plus what the network says, as a share of the local mean.
    3. An output pixel is valid where the nearest input pixel is.

    Args:
        network: an `Espcn`.
        half: run the network in float16, everything around it in float32.
    """

    def __init__(self, network: Espcn, half: bool = False) -> None:
        super().__init__()
        self.network = network.half() if half else network
        self.half_network = half

    def prepare(self, depth: Tensor, depth_range: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `CameraGraph.prepare`, but for the holes of inverse depth, which are filled."""
        inverse, valid = invert(depth, depth_range)
        filled, _, features = describe(inverse, valid)
        return filled, valid, features

    def stages(self, inverse: Tensor, valid: Tensor, features: Tensor) -> list[StageResult]:
        """The one stage, as training takes it."""
        added = self.network(features.half() if self.half_network else features).float()
        # The first feature is half the logarithm of the mean.
        shares = F.pixel_shuffle(torch.exp(2.0 * features[:, :1]) * added, SCALE)
        there = F.interpolate(valid, scale_factor=SCALE, mode="nearest")
        return [StageResult(enlarge(inverse, SCALE) + shares, there, torch.zeros_like(there))]

    def forward(self, depth: Tensor, depth_range: Tensor) -> Tensor:
        """[B, 1, H, W] metres to [B, 1, 2H, 2W] metres within ``depth_range`` [2], 0 invalid."""
        (result,) = self.stages(*self.prepare(depth, depth_range))
        metres = 1.0 / result.inverse.clamp(min=1e-6)
        return result.there * metres.clamp(depth_range[0], depth_range[1])
