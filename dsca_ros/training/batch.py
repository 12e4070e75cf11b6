"""What one step of training sees."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Low-resolution maps and what every stage should make of them, float32.

    Metres with 0 invalid for cameras; levels of 0-255 for the benchmark.
    """

    low: np.ndarray  # [B, 1, h, w]
    targets: list[np.ndarray]  # [B, 1, 2^k h, 2^k w] for k = 1, 2, ...
    #: [B] for every stage: 1 where the target is what a camera measured, so that its holes are holes.
    measured: list[np.ndarray] = field(default_factory=list)
    #: As the targets: 1 where an error counts, else 0; none: everywhere.
    counted: list[np.ndarray] = field(default_factory=list)

    def tensors(self, device: torch.device) -> TensorBatch:
        """The same on a device."""

        def moved(arrays: list[np.ndarray]) -> list[Tensor]:
            return [torch.from_numpy(array).to(device, non_blocking=True) for array in arrays]

        return TensorBatch(moved([self.low])[0], moved(self.targets), moved(self.measured), moved(self.counted))


@dataclass(frozen=True)
class TensorBatch:
    """A `Batch` on its device."""

    low: Tensor
    targets: list[Tensor]
    measured: list[Tensor]
    counted: list[Tensor]
