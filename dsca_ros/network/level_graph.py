"""The network on the benchmark's maps: levels of 0-255 in, levels out, no pixel invalid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsca_ros.network.camera_graph import compress
from dsca_ros.network.dsca import DSCA, accumulate

#: Channels of the network's input: the map, and its differences from two local means.
LEVEL_CHANNELS = 3
#: Differences of this many levels are half of full scale: that of staircases, and of small steps.
FINE, COARSE = 1.0, 8.0
#: Side of the larger local mean, pixels.
MEAN_SIZE = 9


class LevelGraph(nn.Module):
    """[B, 1, H, W] levels to [B, 1, sH, sW] levels within 0-255, not rounded.

    Args:
        network: a `DSCA` with ``input_channels == LEVEL_CHANNELS``.
        half: run the network in float16, everything around it in float32.
    """

    def __init__(self, network: DSCA, half: bool = False) -> None:
        super().__init__()
        self.network = network.half() if half else network
        self.half_network = half

    def features(self, levels: Tensor) -> Tensor:
        """[B, 1, H, W] levels to [B, LEVEL_CHANNELS, H, W], the network's input."""
        # Staircases are a hundredth of an occlusion: each is shown at its own magnification.
        around = box_mean(levels, 3)
        mean = box_mean(levels, MEAN_SIZE)
        return torch.cat(
            [(levels - 128.0) / 64.0, compress(levels - around, FINE), compress(levels - mean, COARSE)], dim=1
        )

    def stages(self, levels: Tensor) -> list[Tensor]:
        """Levels of every stage, [B, 1, 2^k H, 2^k W], not clipped. Training supervises these."""
        features = self.features(levels)
        if self.half_network:
            residuals = [r.float() for r in self.network(features.half())]
        else:
            residuals = self.network(features)
        return accumulate(levels, residuals, self.network.config.factors)

    def forward(self, levels: Tensor) -> Tensor:
        """See the class."""
        return self.stages(levels)[-1].clamp(0.0, 255.0)


def box_mean(x: Tensor, side: int) -> Tensor:
    """Mean over the pixels of a square that lie inside the image."""
    return F.avg_pool2d(x, side, stride=1, padding=side // 2, count_include_pad=False)
