"""The two building blocks of DSCA: bilayer residual blocks and high-order cross-scale attention.

Source: "Depth Map Super-Resolution Reconstruction Based on Deeply Supervised Cross-Scale Attention
Network" (2023), called the paper below. Where it is silent, the nearest published idea it names is
followed: wide activation as in WDSR, second-order statistics as in SAN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class BilayerResidualBlock(nn.Module):
    """A wide-activated residual inside a plain one.

    The inner layer widens the channels before the activation, so that more of the signal passes it,
    and narrows them again; its residual is wrapped in a second, outer one around a 3x3 convolution.

    Args:
        channels: width C of the block's input and output.
        expansion: the inner layer is ``expansion * C`` wide.
        inner_kernel: size of the widening convolution; 1 makes the inner layer pointwise.
    """

    def __init__(self, channels: int, expansion: int, inner_kernel: int) -> None:
        super().__init__()
        self.widen = conv(channels, channels * expansion, inner_kernel)
        self.narrow = conv(channels * expansion, channels, 1)
        self.outer = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        inner = x + self.narrow(F.relu(self.widen(x)))
        return x + self.outer(inner)


class PlainResidualBlock(nn.Module):
    """Two 3x3 convolutions with an activation between them and a residual around them.

    What the paper's ablation compares the bilayer block with. Its hidden layer is as wide as it takes to
    have the parameters of the bilayer block of the same arguments.
    """

    def __init__(self, channels: int, expansion: int, inner_kernel: int) -> None:
        super().__init__()
        bilayer = channels * channels * (expansion * inner_kernel**2 + expansion + 9)
        hidden = round(bilayer / (18 * channels))
        self.first = conv(channels, hidden)
        self.second = conv(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        return x + self.second(F.relu(self.first(x)))


#: Residual blocks by the name a configuration gives.
BLOCKS: dict[str, type[nn.Module]] = {"bilayer": BilayerResidualBlock, "plain": PlainResidualBlock}


class CrossScaleAttention(nn.Module):
    """Re-weights the channels of a feature pyramid by their second-order statistics.

    The pyramid has scales 1, 1/2, 1/4, ... For every two scales i and j (i = j is the in-scale case)
    the correlation of each channel of i with each channel of j is taken over the coarser of their
    two grids: a [C, C] matrix of second-order statistics. The rows of all of them that belong to one
    channel say how it moves together with every other channel of every scale; a learned pooling of
    that row and two small layers give its weight. The re-weighted scales are then merged at full size.

    Args:
        channels: width C of the features.
        scales: number of scales S.
        reduction: the hidden layer of the gate is ``S * C / reduction`` wide.
    """

    def __init__(self, channels: int, scales: int = 3, reduction: int = 4) -> None:
        super().__init__()
        self.scales = scales
        total = channels * scales
        self.descend = nn.ModuleList(conv(channels, channels) for _ in range(scales - 1))
        self.merge = nn.ModuleList(conv(channels, channels, 1) for _ in range(scales))
        self.row_pooling = nn.Parameter(torch.randn(total, total) / total)
        last = nn.Linear(total // reduction, total)
        # Starts as weight one everywhere: attention is learned away from the plain pyramid.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.gate = nn.Sequential(nn.Linear(total, total // reduction), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to the same."""
        height, width = x.shape[-2:]
        multiple = 2 ** (self.scales - 1)
        # Here and not around the network: its convolutions see the border where it is. An exported graph takes
        # any size; elsewhere nothing is padded where there is nothing to pad.
        if torch.jit.is_tracing() or height % multiple or width % multiple:
            x_padded = F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        else:
            x_padded = x
        pyramid = [x_padded]
        for down in self.descend:
            pyramid.append(F.relu(down(F.avg_pool2d(pyramid[-1], 2))))
        weights = self.attention(pyramid)
        scaled = [level(features * weight) for level, features, weight in zip(self.merge, pyramid, weights)]
        merged = scaled[-1]
        for finer in reversed(scaled[:-1]):
            merged = finer + F.interpolate(merged, scale_factor=2, mode="bilinear", align_corners=False)
        return x + merged[..., :height, :width]

    def attention(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Weights [B, C, 1, 1] in (0, 2), one for each scale."""
        # In float32, whatever the features are: second moments of a whole image leave the range of half
        # precision, and autocast would bring them back into it.
        with torch.autocast(pyramid[0].device.type, enabled=False):
            statistics = self.statistics([features.float() for features in pyramid])
        descriptor = (statistics.to(pyramid[0].dtype) * self.row_pooling).sum(dim=2)
        weights = 2.0 * torch.sigmoid(self.gate(descriptor))
        return [w[:, :, None, None] for w in weights.chunk(self.scales, dim=1)]

    def statistics(self, pyramid: list[Tensor]) -> Tensor:
        """Correlations within and across scales: [B, S * C, S * C], entries in [-1, 1]."""
        # grids[i][j]: scale i averaged down to the grid of the coarser scale j.
        grids: list[dict[int, Tensor]] = []
        for i, features in enumerate(pyramid):
            on_grid = {i: features}
            for j in range(i + 1, self.scales):
                on_grid[j] = F.avg_pool2d(on_grid[j - 1], 2)
            grids.append(on_grid)
        rows = []
        for i in range(self.scales):
            coarser = [max(i, j) for j in range(self.scales)]
            rows.append(torch.cat([correlation(grids[i][g], grids[j][g]) for j, g in enumerate(coarser)], dim=2))
        return torch.cat(rows, dim=1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Correlation over all pixels of each channel of ``a`` with each of ``b``.

    Args:
        a, b: [B, C, H, W], float32, on the same grid.

    Returns:
        [B, C, C].
    """
    return _unit(a.flatten(2)) @ _unit(b.flatten(2)).transpose(1, 2)


def _unit(rows: Tensor) -> Tensor:
    """[B, C, N], every row without its mean and of length 1 (less, where it hardly varies).

    Before the product, not after it: so nothing in it leaves the range of half precision, in which some GPUs
    compute it.
    """
    centred = rows - rows.mean(dim=2, keepdim=True)
    return centred * torch.rsqrt(centred.square().sum(dim=2, keepdim=True).clamp(min=1e-6 * rows.shape[2]))
