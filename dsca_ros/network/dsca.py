"""DSCA, the deeply supervised cross-scale attention network.

One map goes in. Each stage doubles its size and puts out a map of its own, so that training can
supervise every stage; the last one is the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsca_ros.network.blend import HOLD, TAP_COUNTS, Blend
from dsca_ros.network.blocks import BLOCKS, CrossScaleAttention, conv

RESIDUAL, WEIGHTS = "residual", "weights"
#: Logits of weights farther from 0 than this say no more: the sigmoid of 8 is 0.9997, and hardly moves.
FIRM = 8.0
#: Of channels, blocks and the like, and for `DSCAConfig.unshuffle`; no network of this kind has nearly as many.
MOST, MOST_UNSHUFFLE = 1024, 16


@dataclass(frozen=True)
class DSCAConfig:
    """Size and shape of a network.

    Attributes:
        scale: 2, 4 or 8; log2 of it is the number of stages.
        channels: width of each stage's features; the last entry serves all further stages.
        blocks: bilayer residual blocks of each stage, likewise.
        expansion: widening of the inner layer of a block.
        inner_kernel: kernel of the widening convolution, 1 or 3.
        attention_scales: scales of the cross-scale attention; 0 leaves the attention out.
        unshuffle: features live at 1/unshuffle of a stage's input size, with unshuffle squared
            pixels folded into channels: much cheaper, for real time on CPUs.
        input_channels: the map itself first, then anything known beside it.
        residual_gain: what the heads put out is multiplied by this: about the size of what the network
            has to add, so that a step of training is a small step of the result.
        block: residual block by its name in `BLOCKS`.
        multi_stage: a stage for every doubling; else one stage for the whole scale.
        head: what a stage puts out. ``residual``: a map to add to the enlarged one. ``weights``: for every
            output pixel the weights of the input pixels around it, and whether it is valid; see `Blend`.
        taps: of so many input pixels each stage's output is made under ``weights``, like ``channels``.
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
    block: str = "bilayer"
    multi_stage: bool = True
    head: str = RESIDUAL
    taps: tuple[int, ...] = (9,)

    def __post_init__(self) -> None:
        if self.scale not in (2, 4, 8):
            raise ValueError(f"scale must be 2, 4 or 8, not {self.scale}")
        if self.block not in BLOCKS:
            raise ValueError(f"block must be {' or '.join(BLOCKS)}, not {self.block!r}")
        if self.head not in (RESIDUAL, WEIGHTS):
            raise ValueError(f"head must be {RESIDUAL} or {WEIGHTS}, not {self.head!r}")
        for name in ("channels", "blocks", "taps"):
            sizes = getattr(self, name)
            least = 1 if name == "channels" else 0
            if (
                not isinstance(sizes, tuple)
                or not sizes
                or not all(type(n) is int and least <= n <= MOST for n in sizes)
            ):
                raise ValueError(f"{name} must be a list of whole numbers from {least} to {MOST}, not {sizes!r}")
        whole = {"expansion": (1, MOST), "unshuffle": (1, MOST_UNSHUFFLE), "attention_scales": (0, MOST)}
        for name, (least, most) in whole.items():
            if type(getattr(self, name)) is not int or not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, not {getattr(self, name)!r}")
        if not set(self.taps) <= set(TAP_COUNTS):
            raise ValueError(f"taps must be 9 or 4, not {self.taps!r}")
        if self.inner_kernel not in (1, 3, 5):
            raise ValueError(f"inner_kernel must be 1, 3 or 5, not {self.inner_kernel!r}")

    @property
    def factors(self) -> tuple[int, ...]:
        """By how much every stage enlarges."""
        return (2,) * (self.scale.bit_length() - 1) if self.multi_stage else (self.scale,)

    @property
    def multiple(self) -> int:
        """Height and width are padded to multiples of this inside the network."""
        return self.unshuffle


def _entry(values: tuple[int, ...], index: int) -> int:
    return values[min(index, len(values) - 1)]


class Stage(nn.Module):
    """Residual blocks, attention, and a map larger than the stage's input by its factor."""

    def __init__(self, config: DSCAConfig, index: int) -> None:
        super().__init__()
        channels = _entry(config.channels, index)
        if index == 0:
            # The same as folding u x u pixels into channels and a 3x3 convolution, in one step.
            u = config.unshuffle
            self.enter: nn.Module = nn.Conv2d(config.input_channels, channels, 3 * u, stride=u, padding=u)
        else:
            self.enter = nn.Sequential(conv(_entry(config.channels, index - 1), 4 * channels, 1), nn.PixelShuffle(2))
        block, count = BLOCKS[config.block], _entry(config.blocks, index)
        self.blocks = nn.Sequential(*(block(channels, config.expansion, config.inner_kernel) for _ in range(count)))
        self.gain = config.residual_gain
        scales = config.attention_scales
        self.attention: nn.Module = CrossScaleAttention(channels, scales) if scales else nn.Identity()
        factor, u = config.factors[index], config.unshuffle
        # All stages together stay as near to what was measured as one would.
        hold = HOLD / len(config.factors)
        with torch.device("cpu"):  # its tables are computed, also where the network is made of shapes alone
            self.blend = Blend(factor, u, _entry(config.taps, index), hold) if config.head == WEIGHTS else None
        if self.blend is not None:
            last = conv(channels, self.blend.outputs * (self.blend.taps + 1), 1)
            start = F.pad(self.blend.start, (0, self.blend.outputs))
        else:
            last = conv(channels, (factor * u) ** 2)
            start = torch.zeros((factor * u) ** 2)
        nn.init.normal_(last.weight, std=1e-2)
        last.bias = nn.Parameter(start)
        self.head = nn.Sequential(last, nn.PixelShuffle(factor * u))

    @property
    def last(self) -> nn.Conv2d:
        """The convolution of the head; under ``weights`` it is used in parts, and laid out by `Blend`."""
        layer = self.head[0]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features or input in; features out, and what the stage adds to its map (under ``weights`` nothing yet)."""
        entered = self.enter(x)
        features = entered + self.attention(self.blocks(entered))
        if self.blend is not None:
            return features, features
        # A residual is summed up to the last digit: under autocast, too, it is not rounded to bfloat16.
        with torch.autocast(features.device.type, enabled=False):
            return features, self.head(features.to(self.last.weight.dtype)) * self.gain

    def enlarge(
        self, inverse: Tensor, there: Tensor, features: Tensor, guarded: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Under ``weights``: an enlarged map, the share of its bilinear support that is there, logits of validity.

        As the planes of `Blend`, which lays them out.
        """
        assert self.blend is not None
        outputs, taps = self.blend.outputs, self.blend.taps
        blended, support = self.blend.planes(inverse, there, self.logits(features), guarded)
        return blended, support, part(self.last, features, slice(outputs * taps, None))

    def logits(self, features: Tensor) -> Iterator[Tensor]:
        """Under ``weights``: of every tap, those of the weights, as planes of `Blend`."""
        assert self.blend is not None
        outputs, taps = self.blend.outputs, self.blend.taps
        # In the head's outputs the taps of one output pixel are together, and validity comes last.
        return (part(self.last, features, slice(tap, outputs * taps, taps)) for tap in range(taps))

    def strain(self, features: Tensor) -> Tensor:
        """By how much the logits of the weights exceed `FIRM` on the mean, [].

        Out there two surfaces weigh the same, nothing is left to learn from, and the guard decides by chance.
        """
        excess = [F.relu(logit.abs() - FIRM).mean() for logit in self.logits(features)]
        return torch.stack(excess).mean()


def part(layer: nn.Conv2d, features: Tensor, rows: slice) -> Tensor:
    """Some of a pointwise convolution's outputs, float32."""
    bias = None if layer.bias is None else layer.bias[rows]
    return F.conv2d(features.to(layer.weight.dtype), layer.weight[rows], bias).float()


class DSCA(nn.Module):
    """The network: maps [B, input_channels, H, W] of any size to what every stage has to say."""

    def __init__(self, config: DSCAConfig) -> None:
        super().__init__()
        self.config = config
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.factors)))

    def each_stage(self) -> Iterator[Stage]:
        """The stages, in order."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            yield stage

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As of any module; the part of a stage that is called apart is fused as well."""
        super().compile(*args, **kwargs)
        for stage in self.each_stage():
            stage.enlarge = torch.compile(stage.enlarge, *args, **kwargs)  # type: ignore[method-assign]
            stage.strain = torch.compile(stage.strain, *args, **kwargs)  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> list[Tensor]:
        """All stages, one after the other.

        Args:
            x: [B, input_channels, H, W]; under ``weights``, H and W are multiples of ``unshuffle``.

        Returns:
            For stage k = 1, 2, ..., whose input is [B, 1, h, w] with h = 2^(k - 1) H: under ``residual`` a
            [B, 1, 2 h, 2 w] map to add to the enlarged one (see `accumulate`); under ``weights`` the features that
            `Stage.enlarge` makes a map with. Without multi_stage, that of one stage of the whole scale.
        """
        if self.config.head == WEIGHTS:
            all_features = []
            for stage in self.stages:
                x, _ = stage(x)
                all_features.append(x)
            return all_features
        height, width = x.shape[-2:]
        multiple = self.config.multiple
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        residuals = []
        size = 1
        for stage, factor in zip(self.stages, self.config.factors):
            x, residual = stage(x)
            size *= factor
            residuals.append(residual[..., : height * size, : width * size])
        return residuals


def enlarge(x: Tensor, factor: int) -> Tensor:
    """Bilinear enlargement on the half-pixel grid: output i lies at (i + 1/2) / factor - 1/2."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def accumulate(start: Tensor, residuals: list[Tensor], factors: tuple[int, ...]) -> list[Tensor]:
    """The map of every stage: the one before it, enlarged by the stage's factor, plus its residual."""
    maps, current = [], start
    for residual, factor in zip(residuals, factors):
        current = enlarge(current, factor) + residual
        maps.append(current)
    return maps
