"""What one step of training sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batch:
    """Low-resolution maps and what every stage should make of them, float32.

    Metres with 0 invalid for cameras; levels of 0-255 for the benchmark.
    """

    low: np.ndarray  # [B, 1, h, w]
    targets: list[np.ndarray]  # [B, 1, 2^k h, 2^k w] for k = 1, 2, ...
