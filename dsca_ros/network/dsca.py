"""DSCA, the deeply supervised cross-scale attention network.

One map goes in. Each stage doubles its size and puts out a map of its own, so that training can
supervise every stage; the last one is the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from dsca_ros.network.blocks import BilayerResidualBlock, CrossScaleAttention, conv


@dataclass(frozen=True)
class DSCAConfig:
    """Size and shape of a network.

    Attributes:
        scale: 2, 4 or 8; log2 of it is the number of stages.
        channels: width of each stage's features; the last entry serves all further stages.
        blocks: bilayer residual blocks of each stage, likewise.
        expansion: widening of the inner layer of a block.
        inner_kernel: kernel of the widening convolution, 1 or 3.
        attention_scales: scales of the cross-scale attention.
        unshuffle: features live at 1/unshuffle of a stage's input size, with unshuffle squared
            pixels folded into channels: much cheaper, for real time on CPUs.
        input_channels: the map itself first, then anything known beside it.
        residual_gain: what the heads put out is multiplied by this: about the size of what the network
            has to add, so that a step of training is a small step of the result.
    """

    scale: int
    channels: tuple[int, ...] = (32,)
    blocks: tuple[int, ...] = (4, 2)
    expansion: int = 2
    inner_kernel: int = 3
    attention_scales: int = 3
    unshuffle: int = 1
    input_channels: int = 1
    residual_gain: float = 1.0

    def __post_init__(self) -> None:
        if self.scale not in (2, 4, 8):
            raise ValueError(f"scale must be 2, 4 or 8, not {self.scale}")

    @property
    def stages(self) -> int:
        """Number of times the size doubles."""
        return self.scale.bit_length() - 1

    @property
    def multiple(self) -> int:
        """Height and width are padded to multiples of this inside the network."""
        return self.unshuffle * 2 ** (self.attention_scales - 1)


def _entry(values: tuple[int, ...], index: int) -> int:
    return values[min(index, len(values) - 1)]


class Stage(nn.Module):
    """Bilayer residual blocks, attention, and a map of twice the stage's input size."""

    def __init__(self, config: DSCAConfig, index: int) -> None:
        super().__init__()
        channels = _entry(config.channels, index)
        if index == 0:
            # The same as folding u x u pixels into channels and a 3x3 convolution, in one step.
            u = config.unshuffle
            self.enter: nn.Module = nn.Conv2d(config.input_channels, channels, 3 * u, stride=u, padding=u)
        else:
            self.enter = nn.Sequential(conv(_entry(config.channels, index - 1), 4 * channels, 1), nn.PixelShuffle(2))
        blocks = _entry(config.blocks, index)
        self.blocks = nn.Sequential(
            *(BilayerResidualBlock(channels, config.expansion, config.inner_kernel) for _ in range(blocks))
        )
        self.gain = config.residual_gain
        self.attention = CrossScaleAttention(channels, config.attention_scales)
        fold = 2 * config.unshuffle
        last = conv(channels, fold**2)
        nn.init.normal_(last.weight, std=1e-2)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.head = nn.Sequential(last, nn.PixelShuffle(fold))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features or input in; features and this stage's residual map out."""
        entered = self.enter(x)
        features = entered + self.attention(self.blocks(entered))
        return features, self.head(features) * self.gain


class DSCA(nn.Module):
    """The network: maps [B, input_channels, H, W] of any size to one map a stage."""

    def __init__(self, config: DSCAConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(config, index) for index in range(config.stages))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Residual maps of every stage.

        Args:
            x: [B, input_channels, H, W].

        Returns:
            For stage k = 1, 2, ... a [B, 1, 2^k H, 2^k W] map: what that stage adds to the map of
            the stage before it, enlarged (see `accumulate`).
        """
        height, width = x.shape[-2:]
        multiple = self.config.multiple
        features = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        residuals = []
        for index, stage in enumerate(self.stages):
            features, residual = stage(features)
            factor = 2 ** (index + 1)
            residuals.append(residual[..., : height * factor, : width * factor])
        return residuals


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Bilinear enlargement on the half-pixel grid: output i lies at (i + 1/2) / factor - 1/2."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def accumulate(start: Tensor, residuals: list[Tensor]) -> list[Tensor]:
    """The map of every stage: the one before it, enlarged, plus the stage's residual."""
    maps, current = [], start
    for residual in residuals:
        current = enlarge(current, 2) + residual
        maps.append(current)
    return maps
