"""Large curved, slanted and stepped surfaces: each function of random numbers builds one on the floor."""

from __future__ import annotations

import numpy as np

from dsca_ros.depth.small_things import Builder, any_rotation
from dsca_ros.depth.solids import Solid, rod, rotation_y, rotation_z, upright, vector


def barrel(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A thick cylinder: standing, lying or leaning."""
    radius, half = rng.uniform(0.15, 0.6), rng.uniform(0.3, 1.3)
    lean = rng.choice([0.0, np.pi / 2, rng.uniform(0.1, 1.2)])
    turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(lean)
    up = half * np.cos(lean) + radius * np.sin(lean)
    return [Solid("cylinder", at + vector(0, 0, up), np.array([radius, radius, half]), turn)]


def globe(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A large ball or egg, some half sunk."""
    radius = rng.uniform(0.15, 0.6)
    half = radius * rng.uniform(0.6, 1.4, 3)
    return [Solid("ellipsoid", at + vector(0, 0, rng.choice([0.0, 0.8]) * half.min()), half, any_rotation(rng))]


def steeple(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A large cone, on a drum or lying."""
    radius, half, drum = rng.uniform(0.2, 0.5), rng.uniform(0.25, 0.8), rng.uniform(0.05, 0.5)
    if rng.random() < 0.3:
        turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(np.pi / 2)
        return [Solid("cone", at + vector(0, 0, radius), np.array([radius, radius, half]), turn)]
    return [
        upright("cylinder", at[:2], at[2], (0.8 * radius, 0.8 * radius, drum)),
        upright("cone", at[:2], at[2] + 2 * drum, (radius, radius, half)),
    ]


def ramp(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A wedge: a thick slanted slab sunk in the floor, at times with rails."""
    half = np.array([rng.uniform(0.6, 1.3), rng.uniform(0.3, 0.7), 0.5])
    slope = rng.uniform(0.1, 0.5)
    turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(-slope)
    centre = at + vector(0, 0, half[0] * np.sin(slope)) - turn @ vector(0, 0, half[2])
    solids = [Solid("box", centre, half, turn)]
    if rng.random() < 0.5:
        for side in (-half[1], half[1]):
            ends = [centre + turn @ vector(along, side, half[2] + 0.6) for along in (-half[0], half[0])]
            solids.append(rod(ends[0], ends[1], 0.02))
            solids += [rod(end - vector(0, 0, 0.65), end, 0.015) for end in ends]
    return solids


def slanted_board(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A large board that leans or floats at an angle."""
    half = np.array([rng.uniform(0.3, 1.0), rng.uniform(0.3, 1.0), rng.uniform(0.008, 0.04)])
    turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(rng.uniform(0.2, 1.4))
    return [Solid("box", at + vector(0, 0, rng.uniform(0.3, 1.8)), half, turn @ rotation_z(rng.uniform(0, np.pi)))]


def stairs(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Steps up, of a flight or of a round pyramid."""
    count, rise, going = int(rng.integers(3, 9)), rng.uniform(0.06, 0.2), rng.uniform(0.12, 0.32)
    if rng.random() < 0.25:
        radii = [going * (count - k) for k in range(count)]
        return [upright("cylinder", at[:2], at[2], (r, r, rise * (k + 1) / 2)) for k, r in enumerate(radii)]
    wide, turn = rng.uniform(0.3, 0.8), rotation_z(rng.uniform(0, 2 * np.pi))
    solids = []
    for k in range(count):
        half = np.array([going / 2, wide, rise * (k + 1) / 2])
        solids.append(Solid("box", at + turn @ vector(going * (k - count / 2), 0, half[2]), half, turn))
    return solids


def corrugation(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A row of cylinders half sunk in a slab: on the floor, slanted or as a wall."""
    count, radius, half = int(rng.integers(6, 16)), rng.uniform(0.03, 0.1), rng.uniform(0.5, 1.1)
    pitch, slope = radius * rng.uniform(1.7, 2.6), rng.choice([0.0, rng.uniform(0.2, 1.3), np.pi / 2])
    turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(slope)
    wide = pitch * (count - 1) / 2
    across = bool(rng.integers(2))
    centre = at + vector(0, 0, np.sin(slope) * (wide if across else half) + 0.02)
    slab = np.array([wide, half, 0.02] if across else [half, wide, 0.02])
    solids = [Solid("box", centre, slab, turn)]
    for offset in np.linspace(-wide, wide, count):
        along, aside = (half * vector(0, 1, 0), offset * vector(1, 0, 0))
        if not across:
            along, aside = along[[1, 0, 2]], aside[[1, 0, 2]]
        solids.append(rod(centre + turn @ (aside - along), centre + turn @ (aside + along), radius))
    return solids


def colonnade(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Columns in a row or on an arc, on bases, under a beam."""
    count, radius, height = int(rng.integers(3, 7)), rng.uniform(0.05, 0.16), rng.uniform(0.8, 2.2)
    turn, step, bow = rotation_z(rng.uniform(0, np.pi)), radius * rng.uniform(3.0, 5.0), rng.uniform(-0.1, 0.1)
    solids = []
    for k in np.arange(count) - (count - 1) / 2:
        xy = (at + turn @ vector(step * k, bow * k * k, 0))[:2]
        solids.append(upright("cylinder", xy, at[2], (1.5 * radius, 1.5 * radius, 0.04)))
        solids.append(upright("cylinder", xy, at[2], (radius, radius, height / 2)))
        solids.append(upright("ellipsoid", xy, at[2] + height - 0.05, (1.4 * radius, 1.4 * radius, 0.06)))
    return solids


def pipes(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Pipes side by side at one height, with balls for elbows, and risers from the floor."""
    turn, half = rotation_z(rng.uniform(0, np.pi)), rng.uniform(0.6, 1.5)
    up, aside, solids = rng.uniform(0.2, 2.0), 0.0, []
    for _ in range(int(rng.integers(2, 6))):
        radius = rng.uniform(0.02, 0.12)
        aside += radius
        left, right = (at + turn @ vector(end, aside, up) for end in (-half, half))
        solids += [rod(left, right, radius), rod(right - vector(0, 0, up), right, radius)]
        solids.append(Solid("ellipsoid", right, np.full(3, 1.05 * radius)))
        aside += radius + rng.uniform(0.01, 0.08)
    return solids


def ball_heap(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Balls in a heap."""
    radius = rng.uniform(0.08, 0.2)
    solids = []
    for _ in range(int(rng.integers(6, 14))):
        where = at + radius * vector(*rng.normal(0, 1.6, 2), rng.choice([1.0, 1.0, 2.4]))
        solids.append(Solid("ellipsoid", where, np.full(3, radius * rng.uniform(0.8, 1.1))))
    return solids


CURVED: tuple[Builder, ...] = (
    barrel, barrel, globe, globe, steeple, ramp, ramp, slanted_board, slanted_board, stairs, corrugation, corrugation,
    colonnade, pipes, ball_heap,
)  # fmt: skip
