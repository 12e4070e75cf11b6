"""A caller's array to what a graph takes, and a graph's result to what the caller gave."""

from __future__ import annotations

import numpy as np

from dsca_ros.depth import units
from dsca_ros.depth.imresize import to_uint8
from dsca_ros.engine.zoo import DEPTH


def graph_inputs(image: np.ndarray, depth_range: tuple[float, float], domain: str) -> dict[str, np.ndarray]:
    """The inputs of an exported graph by name; see `Engine.infer` and `engine.export`.

    Raises:
        ValueError, TypeError: if the image is not of a shape or kind that the graph's domain takes.
    """
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"expected a [H, W] image with pixels in it, not one of shape {image.shape}")
    if domain != DEPTH:
        if image.dtype not in (np.uint8, np.float32):
            raise TypeError(f"levels must be uint8, or float32 of 0-255, not {image.dtype}")
        return {"levels": np.ascontiguousarray(image, np.float32)[None, None]}
    if image.dtype not in (np.uint16, np.float32):
        raise TypeError(f"depth must be uint16 millimetres or float32 metres, not {image.dtype}")
    if image.dtype == np.uint16:
        metres = image * np.float32(1.0 / units.MM_PER_M)
        depth_range = depth_range[0], min(depth_range[1], units.FARTHEST_UINT16)
    else:
        metres = np.ascontiguousarray(image)
    return {"depth": metres[None, None], "depth_range": np.array(depth_range, np.float32)}


def like_input(result: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A graph's [1, 1, H, W] result as [H, W] of the input's dtype and unit."""
    return to_uint8(result[0, 0]) if dtype == np.uint8 else units.like(result[0, 0], dtype)
