"""Procedural disparity maps in the manner of Middlebury's: as many as a training can use.

What makes those maps what they are: surfaces seen by a stereo pair, slanted or curved, whose
disparity is stored in whole numbers and so forms staircases; sharp occlusions; thin sticks, cones,
objects with holes through them; outlines a little rough, as measured ones are.
"""

from __future__ import annotations

import numpy as np

#: Whole numbers of this step are stored; larger ones imitate maps of few levels spread over 0-255.
STEPS, STEP_SHARES = (1, 2, 4, 8, 16), (0.64, 0.10, 0.08, 0.09, 0.09)


def disparity_scene(rng: np.random.Generator, size: int) -> np.ndarray:
    """A map of [size, size] uint8 disparity, no pixel unknown."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) - 0.5 * size
    # Slopes of a whole scene seen in a few hundred up to a few thousand pixels.
    steep = float(np.exp(rng.uniform(np.log(0.01), np.log(0.35))))
    disparity = rng.uniform(15, 130) + surface(rng, x, y, steep, size)
    roughness = ripple(rng, x, y, size) * rng.choice([0.0, 0.6, 1.5])
    for _ in range(rng.integers(1, 10)):
        centre = rng.uniform(-0.5, 0.5, 2) * size
        inside, profile = outline(rng, x - centre[0], y - centre[1], size, roughness)
        near = disparity[inside].mean() if inside.any() else 0.0
        lift = np.exp(rng.uniform(np.log(2.0), np.log(90.0)))
        shape = near + lift + surface(rng, x - centre[0], y - centre[1], steep, size)
        shape = shape + profile * lift * rng.choice([0.0, 0.0, 0.5, 1.0])
        # The nearer surface hides the farther one.
        disparity = np.where(inside, np.maximum(disparity, shape), disparity)
    step = rng.choice(STEPS, p=STEP_SHARES)
    return np.clip(np.floor(disparity / step + 0.5) * step, 0, 255).astype(np.uint8)


def surface(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, steep: float, size: int) -> np.ndarray:
    """Disparity of a surface around its centre: fronto-parallel, slanted or curved."""
    kind = rng.random()
    if kind < 0.2:
        return np.zeros_like(x)
    slope = rng.normal(0.0, steep, 2)
    plane = slope[0] * x + slope[1] * y
    if kind < 0.7:
        return plane
    bend = rng.normal(0.0, steep, 3) / size
    return plane + bend[0] * x * x + bend[1] * y * y + bend[2] * x * y


def ripple(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """A smooth field of about unit size, a few pixels to tens of pixels from crest to crest."""
    field = np.zeros_like(x)
    for length in np.exp(rng.uniform(np.log(3.0), np.log(0.4 * size), 4)):
        angle, phase = rng.uniform(0, 2 * np.pi, 2)
        field += np.sin((np.cos(angle) * x + np.sin(angle) * y) * (2 * np.pi / length) + phase)
    return 0.5 * field


def outline(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, size: int, roughness: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """An object's pixels around its centre, and its relief: 1 at the middle falling to 0 at the rim."""
    angle = rng.uniform(0, 2 * np.pi)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    radius = np.exp(rng.uniform(np.log(4.0), np.log(0.6 * size)))
    kind = rng.choice(["ellipse", "polygon", "stick", "sticks", "cone", "ring", "grid"], p=SHAPE_SHARES)
    if kind in ("stick", "sticks"):
        width = np.exp(rng.uniform(np.log(0.8), np.log(8.0)))
        across = v
        if kind == "sticks":  # brushes in a jar, rails of a chair
            period = width * rng.uniform(3.0, 8.0)
            across = np.mod(v + 0.5 * period, period) - 0.5 * period
            across = np.where(np.abs(v) < 0.4 * size, across, np.inf)
        # Often tapering towards one end.
        distance = np.abs(across) - width * (1.0 + rng.uniform(0.0, 0.8) * u / size)
        distance = np.maximum(distance, np.abs(u) - rng.uniform(0.2, 1.0) * size)
        relief = np.clip(1.0 - np.abs(np.where(np.isfinite(across), across, 0.0)) / (2 * width), 0, 1)
    elif kind == "polygon":
        turns = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        sides = [np.cos(t) * u + np.sin(t) * v - radius * rng.uniform(0.5, 1.0) for t in turns]
        distance = np.maximum(np.max(sides, axis=0), np.hypot(u, v) - 1.5 * radius)
        relief = np.clip(-distance / radius, 0, 1)
    elif kind == "cone":  # seen from the side: a triangle with a rounded front
        height = radius * rng.uniform(1.5, 3.0)
        half = radius * np.clip((v + height) / (2 * height), 0.0, 1.0)
        distance = np.maximum(np.abs(u) - half, np.abs(v) - height)
        relief = np.sqrt(np.clip(1.0 - (u / np.maximum(half, 1e-3)) ** 2, 0, 1))
    else:
        squash = rng.uniform(0.4, 1.0)
        around = np.hypot(u, v / squash)
        distance = around - radius
        relief = np.sqrt(np.clip(1.0 - (around / radius) ** 2, 0, 1))
        if kind == "ring":
            distance = np.maximum(distance, rng.uniform(0.4, 0.85) * radius - around)
        if kind == "grid":  # a lattice or a basket: what is behind shows through
            period, bar = rng.uniform(5, 24), rng.uniform(0.25, 0.6)
            gaps = np.minimum(np.mod(u, period), np.mod(v, period)) - bar * period
            distance = np.maximum(distance, gaps)
    return distance + roughness < 0.0, relief.astype(np.float32)


SHAPE_SHARES = (0.20, 0.26, 0.14, 0.10, 0.12, 0.10, 0.08)
