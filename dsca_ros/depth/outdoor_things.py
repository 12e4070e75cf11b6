"""Plants, and what stands in streets and yards: each function of random numbers builds one thing on the ground."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from dsca_ros.depth.small_things import Builder, any_rotation
from dsca_ros.depth.solids import Solid, rod, rotation_y, rotation_z, upright, vector


def leaves(rng: np.random.Generator, centre: np.ndarray, spread: np.ndarray, count: int, size: float) -> list[Solid]:
    """Flat leaves at all angles in an ellipsoid of half extents ``spread``, more of them near its surface."""
    solids = []
    for _ in range(count):
        way = rng.normal(size=3)
        where = centre + spread * way / np.linalg.norm(way) * rng.uniform(0.3, 1.0) ** 0.5
        length = size * rng.uniform(0.6, 1.4)
        half = np.array([length, length * rng.uniform(0.35, 0.9), 0.02 * length + 0.0005])
        solids.append(Solid("ellipsoid", where, half, any_rotation(rng)))
    return solids


def bush(rng: np.random.Generator, at: np.ndarray, count: int = 170) -> list[Solid]:
    """A bush: branches from one foot, leaves all around."""
    spread = np.array([rng.uniform(0.25, 0.5), rng.uniform(0.25, 0.5), rng.uniform(0.3, 0.6)])
    centre = at + vector(0, 0, spread[2] * rng.uniform(0.8, 1.5))
    solids = []
    for _ in range(int(rng.integers(4, 9))):
        solids.append(rod(at, centre + spread * rng.uniform(-0.7, 0.7, 3), rng.uniform(0.003, 0.012)))
    return solids + leaves(rng, centre, spread, count, rng.uniform(0.02, 0.06))


def twig(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A branching plant: a bent stem, side branches, a leaf or two on each."""
    solids, start, way = [], at, np.array([*rng.normal(0, 0.1, 2), 1.0])
    size = rng.uniform(0.02, 0.07)
    for _ in range(int(rng.integers(5, 10))):
        way = way + np.array([*rng.normal(0, 0.15, 2), 0.0])
        end = start + way * rng.uniform(0.1, 0.2)
        solids.append(rod(start, end, 0.006))
        for _ in range(int(rng.integers(1, 4))):
            tip = end + np.array([*rng.normal(0, 0.12, 2), rng.uniform(0.0, 0.15)])
            solids.append(rod(end, tip, 0.003))
            half = size * np.array([rng.uniform(0.7, 1.4), rng.uniform(0.3, 0.7), 0.03])
            solids.append(Solid("ellipsoid", tip, half, any_rotation(rng)))
        start = end
    return solids


def grass(rng: np.random.Generator, at: np.ndarray, count: int = 70) -> list[Solid]:
    """A tuft of blades: long thin flat ellipsoids, leaning outwards."""
    solids, height = [], rng.uniform(0.2, 0.8)
    for _ in range(count):
        foot = at + vector(*rng.normal(0, 0.12, 2), 0.0)
        half = np.array([rng.uniform(0.002, 0.008), 0.0007, 0.5 * height * rng.uniform(0.5, 1.1)])
        turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(abs(rng.normal(0, 0.3)))
        turn = turn @ rotation_z(rng.uniform(0, np.pi))
        solids.append(Solid("ellipsoid", foot + turn @ vector(0, 0, 0.9 * half[2]), half, turn))
    return solids


def vine(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Strings with leaves that hang from above."""
    solids, top = [], rng.uniform(1.8, 2.6)
    for _ in range(int(rng.integers(2, 5))):
        start = at + vector(*rng.normal(0, 0.25, 2), top)
        for _ in range(int(rng.integers(6, 14))):
            end = start + vector(*rng.normal(0, 0.02, 2), -rng.uniform(0.07, 0.13))
            size = rng.uniform(0.02, 0.05)
            solids.append(rod(start, end, 0.002))
            half = np.array([size, 0.6 * size, 0.001])
            solids.append(Solid("ellipsoid", end + rng.normal(0, 0.02, 3), half, any_rotation(rng)))
            start = end
    return solids


def lattice(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A grid of thin bars: a trellis, a mesh fence or a window's bars."""
    half, height = rng.uniform(0.4, 0.9), rng.uniform(0.8, 1.8)
    radius, pitch = rng.uniform(0.003, 0.012), rng.uniform(0.06, 0.18)
    turn = rotation_z(rng.uniform(0, np.pi))
    if rng.random() < 0.3:
        turn = turn @ rotation_y(rng.uniform(-0.3, 0.3))
    solids = []
    for along in np.arange(-half, half, pitch):
        solids.append(rod(at + turn @ vector(0, along, 0), at + turn @ vector(0, along, height), radius))
    if rng.random() < 0.7:
        for up in np.arange(pitch, height, pitch):
            solids.append(rod(at + turn @ vector(0, -half, up), at + turn @ vector(0, half, up), radius))
    return solids


def leafy_branch(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A bough across the view at some height, with many leaves along it."""
    yaw, length, up = rng.uniform(0, np.pi), rng.uniform(0.4, 0.9), rng.uniform(0.6, 2.0)
    way = np.array([np.cos(yaw), np.sin(yaw), rng.uniform(-0.4, 0.4)])
    middle = at + vector(0, 0, up)
    solids = [rod(middle - length * way, middle + length * way, rng.uniform(0.008, 0.025))]
    for _ in range(5):
        foot = middle + rng.uniform(-length, length) * way
        tip = foot + rng.normal(0, 0.15, 3)
        solids.append(rod(foot, tip, 0.004))
        solids += leaves(rng, tip, np.full(3, 0.15), int(rng.integers(8, 16)), rng.uniform(0.02, 0.05))
    return solids


PLANTS: tuple[Builder, ...] = (bush, bush, bush, twig, twig, grass, grass, vine, lattice, leafy_branch)


def tree(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A trunk with boughs, and a crown of many balls or of stacked cones."""
    radius, height = rng.uniform(0.06, 0.3), rng.uniform(2.0, 5.0)
    solids = [rod(at, at + vector(*rng.normal(0, 0.15, 2), height), radius)]
    crown = at + vector(0, 0, height)
    if rng.random() < 0.3:
        for k in range(4):
            wide = (1.8 - 0.35 * k) * rng.uniform(0.6, 0.8)
            solids.append(upright("cone", at[:2], at[2] + 0.3 * height + 0.9 * k, (wide, wide, 0.8)))
        return solids
    for _ in range(int(rng.integers(3, 6))):
        tip = crown + vector(*rng.normal(0, 0.9, 2), rng.uniform(0.3, 1.5))
        solids.append(rod(crown - vector(0, 0, rng.uniform(0.0, 0.8)), tip, 0.3 * radius))
    for _ in range(int(rng.integers(14, 30))):
        half = rng.uniform(0.15, 0.6, 3)
        where = crown + vector(*rng.normal(0, 0.8, 2), rng.uniform(0.1, 2.0))
        solids.append(Solid("ellipsoid", where, half, any_rotation(rng)))
    return solids


def house(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A house: walls, gable roof, chimney, and window frames that stand out."""
    half = np.array([rng.uniform(2.5, 6.0), rng.uniform(2.0, 4.0), rng.uniform(1.4, 3.5)])
    turn = rotation_z(rng.uniform(0, np.pi))
    solids = [Solid("box", at + vector(0, 0, half[2]), half, turn)]
    # A square bar on its edge, half sunk in the walls, is a gable roof.
    eave = half[1] * 1.08 / np.sqrt(2.0)
    bar = turn @ rotation_z(np.pi / 2) @ rotation_y(np.pi / 4)
    if rng.random() < 0.7:
        solids.append(Solid("box", at + vector(0, 0, 2 * half[2]), np.array([eave, half[0] * 1.05, eave]), bar))
        solids.append(Solid("box", at + turn @ vector(half[0] / 2, 0.6, 2 * half[2] + half[1]), np.full(3, 0.4), turn))
    for up in np.arange(1.4, 2 * half[2] - 0.6, 2.6):
        for along in np.arange(-half[0] + 1.0, half[0] - 0.5, 2.0):
            for side in (-1, 1):
                place = at + turn @ vector(along, side * half[1], up)
                solids.append(Solid("box", place, np.array([0.5, rng.uniform(0.05, 0.25), 0.06]), turn))
    return solids


def car(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A car: body, cabin, four wheels, mirrors."""
    half = np.array([rng.uniform(1.7, 2.4), rng.uniform(0.75, 0.95), rng.uniform(0.28, 0.4)])
    turn, wheel, cabin = rotation_z(rng.uniform(0, 2 * np.pi)), rng.uniform(0.27, 0.36), rng.uniform(0.25, 0.6)
    cab = np.array([0.55 * half[0], 0.9 * half[1], cabin])
    solids = [
        Solid("box", at + vector(0, 0, wheel + half[2]), half, turn),
        Solid("box", at + turn @ vector(-0.25, 0, wheel + 2 * half[2] + cabin), cab, turn),
    ]
    screen = np.array([0.05, 0.8 * half[1], 1.25 * cabin])
    for along, lean in ((0.57 * half[0] - 0.2, -0.6), (-0.57 * half[0] - 0.3, 0.5)):
        place = at + turn @ vector(along, 0, wheel + 2 * half[2] + 0.9 * cabin)
        solids.append(Solid("box", place, screen, turn @ rotation_y(lean)))
    axle = turn @ rotation_z(np.pi / 2) @ rotation_y(np.pi / 2)
    for i in (-0.62, 0.62):
        for j in (-1, 1):
            place = at + turn @ vector(i * half[0], j * half[1], wheel)
            solids.append(Solid("cylinder", place, np.array([wheel, wheel, 0.1]), axle))
    for j in (-1, 1):
        place = at + turn @ vector(0.3 * half[0], j * (half[1] + 0.1), wheel + 2 * half[2] + 0.1)
        solids.append(Solid("ellipsoid", place, np.array([0.06, 0.12, 0.07]), turn))
    return solids


def person(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A standing or walking person: legs, trunk, arms, head."""
    size, turn = rng.uniform(0.7, 1.1), rotation_z(rng.uniform(0, 2 * np.pi))

    def limb(start: tuple[float, float, float], end: tuple[float, float, float], radius: float) -> Solid:
        return rod(at + size * (turn @ start), at + size * (turn @ end), size * radius)

    stride = rng.uniform(0.0, 0.35)
    solids = [
        limb((stride, 0.1, 0.0), (0, 0.08, 0.85), 0.07),
        limb((-stride, -0.1, 0.0), (0, -0.08, 0.85), 0.07),
        limb((0, 0, 1.4), (0, 0, 1.6), 0.05),
        Solid("ellipsoid", at + vector(0, 0, 1.12 * size), size * np.array([0.13, 0.21, 0.36]), turn),
        Solid("ellipsoid", at + vector(0, 0, 1.66 * size), size * np.array([0.1, 0.09, 0.12]), turn),
    ]
    for side in (-1, 1):
        hand = (rng.uniform(-0.3, 0.4), side * rng.uniform(0.25, 0.6), rng.uniform(0.7, 1.3))
        solids.append(limb((0, side * 0.2, 1.38), hand, 0.045))
    return solids


def fence(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Pickets on two rails."""
    half, height, gap = rng.uniform(1.5, 4.0), rng.uniform(0.8, 1.6), rng.uniform(0.12, 0.4)
    width, turn = rng.uniform(0.01, 0.05), rotation_z(rng.uniform(0, np.pi))
    picket = np.array([width, 0.012, height / 2])
    solids = [
        Solid("box", at + turn @ vector(along, 0, height / 2), picket, turn) for along in np.arange(-half, half, gap)
    ]
    for share in (0.25, 0.8):
        solids.append(Solid("box", at + turn @ vector(0, 0.03, share * height), np.array([half, 0.02, 0.035]), turn))
    return solids


def street_lamp(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A lamp or sign on a pole."""
    height, radius, turn = rng.uniform(2.2, 6.0), rng.uniform(0.025, 0.09), rotation_z(rng.uniform(0, 2 * np.pi))
    top = at + vector(0, 0, height)
    solids = [rod(at, top, radius)]
    if rng.random() < 0.5:
        arm = top + turn @ vector(rng.uniform(0.5, 1.5), 0, 0.1)
        return [*solids, rod(top, arm, 0.6 * radius), Solid("ellipsoid", arm, np.array([0.35, 0.15, 0.08]), turn)]
    plate = np.array([0.015, rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5)])
    return [*solids, Solid("box", top - vector(0, 0, plate[2]) + turn @ vector(radius, 0, 0), plate, turn)]


def power_line(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Two poles with cross-arms, and sagging wires between them."""
    height, half, turn = rng.uniform(4.0, 7.0), rng.uniform(4.0, 9.0), rotation_z(rng.uniform(0, np.pi))
    solids = []
    for end in (-half, half):
        solids.append(rod(at + turn @ vector(end, 0, 0), at + turn @ vector(end, 0, height), 0.11))
        solids.append(Solid("box", at + turn @ vector(end, 0, height - 0.4), np.array([0.05, 0.9, 0.06]), turn))
    knots = np.linspace(-1.0, 1.0, 7)
    for side in (-0.8, 0.0, 0.8):
        points = [at + turn @ vector(half * k, side, height - 0.35 - 0.5 * (1 - k * k)) for k in knots]
        solids += [rod(a, b, 0.015) for a, b in pairwise(points)]
    return solids


def low_wall(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A garden wall with a coping and pillars."""
    half, height, turn = rng.uniform(1.5, 5.0), rng.uniform(0.4, 1.8), rotation_z(rng.uniform(0, np.pi))
    solids = [
        Solid("box", at + vector(0, 0, height / 2), np.array([half, 0.12, height / 2]), turn),
        Solid("box", at + vector(0, 0, height), np.array([half + 0.05, 0.18, 0.05]), turn),
    ]
    for end in (-half, half):
        pillar = np.array([0.22, 0.22, height / 2 + 0.1])
        solids.append(Solid("box", at + turn @ vector(end, 0, pillar[2]), pillar, turn))
    return solids


def hedge(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Bushes and boulders in a row."""
    turn, solids = rotation_z(rng.uniform(0, np.pi)), []
    for along in np.arange(0, rng.uniform(0.8, 5.0), 0.5):
        half = rng.uniform(0.25, 0.7, 3)
        where = at + turn @ vector(along, rng.normal(0, 0.15), 0.5 * half[2])
        solids.append(Solid("ellipsoid", where, half, any_rotation(rng)))
    return solids


def bench(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A bench of slats."""
    turn, half = rotation_z(rng.uniform(0, 2 * np.pi)), rng.uniform(0.5, 1.0)
    slats = [(-0.15, 0.45), (0.0, 0.45), (0.15, 0.45), (0.24, 0.65), (0.28, 0.85)]
    solids = [Solid("box", at + turn @ vector(0, y, z), np.array([half, 0.055, 0.02]), turn) for y, z in slats]
    for end in (-0.85 * half, 0.85 * half):
        for y in (-0.15, 0.2):
            foot = at + turn @ vector(end, y, 0)
            solids.append(rod(foot, foot + turn @ vector(0, 0.03, 0.45 if y < 0 else 0.9), 0.025))
    return solids


def bollards(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Bollards or traffic cones in a row."""
    turn, shape = rotation_z(rng.uniform(0, np.pi)), str(rng.choice(["cylinder", "cone"]))
    radius, half, step = rng.uniform(0.06, 0.2), rng.uniform(0.25, 0.5), rng.uniform(0.8, 2.0)
    places = [at + turn @ vector(k * step, 0, 0) for k in range(int(rng.integers(2, 6)))]
    return [upright(shape, place[:2], place[2], (radius, radius, half)) for place in places]


def mound(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A flat hill."""
    half = (rng.uniform(2.0, 6.0), rng.uniform(1.5, 4.0), rng.uniform(0.3, 1.0))
    return [upright("ellipsoid", at[:2], at[2] - half[2], half, rng.uniform(0, np.pi))]


STREET: tuple[Builder, ...] = (
    tree, tree, tree, car, car, person, person, person, fence, fence, street_lamp, street_lamp, hedge, bench, bollards,
)  # fmt: skip
#: What fills the view where it is near.
BUILDINGS: tuple[Builder, ...] = (house, house, house, power_line, power_line, low_wall, low_wall, mound)
