"""Clutter that a robot's hand is near to: each function of random numbers builds one thing at a point of a surface."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dsca_ros.depth.solids import Solid, rod, rotation_y, rotation_z, upright, vector

#: A function of random numbers and of the place where a thing stands, x, y and z.
Builder = Callable[[np.random.Generator, np.ndarray], list[Solid]]


def any_rotation(rng: np.random.Generator) -> np.ndarray:
    """Any direction up, any turn about it."""
    return (
        rotation_z(rng.uniform(0, 2 * np.pi))
        @ rotation_y(np.arccos(rng.uniform(-1, 1)))
        @ rotation_z(rng.uniform(0, 2 * np.pi))
    )


def parcel(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """One box, or a smaller one on it."""
    half = rng.uniform(0.015, 0.08, 3)
    yaw = rng.uniform(0, np.pi)
    solids = [Solid("box", at + vector(0, 0, half[2]), half, rotation_z(yaw))]
    if rng.random() < 0.3:
        upper = half * rng.uniform(0.4, 0.8, 3)
        turn = rotation_z(yaw + rng.uniform(-0.5, 0.5))
        solids.append(Solid("box", at + vector(0, 0, 2 * half[2] + upper[2]), upper, turn))
    return solids


def tumbled(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A box that lies on an edge, as in a heap."""
    half = rng.uniform(0.01, 0.06, 3)
    return [Solid("box", at + vector(0, 0, 0.7 * half.mean()), half, any_rotation(rng))]


def mug(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A mug: a cylinder with a handle of three thin bars."""
    radius, height, thick = rng.uniform(0.025, 0.05), rng.uniform(0.06, 0.14), rng.uniform(0.003, 0.006)
    yaw = rng.uniform(0, 2 * np.pi)
    out = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    lower, upper = at + vector(0, 0, 0.2 * height), at + vector(0, 0, 0.8 * height)
    near, far = 0.9 * radius * out, (radius + rng.uniform(0.02, 0.035)) * out
    handle = [(lower + near, lower + far), (lower + far, upper + far), (upper + far, upper + near)]
    body = upright("cylinder", at[:2], at[2], (radius, radius, height / 2))
    return [body, *(rod(start, end, thick) for start, end in handle)]


def ball(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A ball, an egg or a bowl upside down."""
    radius = rng.uniform(0.015, 0.08)
    half = (radius, radius * rng.uniform(0.7, 1.0), radius * rng.uniform(0.5, 1.0))
    return [upright("ellipsoid", at[:2], at[2] - half[2] * rng.choice([0.0, 1.0]), half, rng.uniform(0, np.pi))]


def cone(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A cone or a funnel."""
    radius, half = rng.uniform(0.02, 0.07), rng.uniform(0.03, 0.12)
    return [upright("cone", at[:2], at[2], (radius, radius, half))]


def bottle(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A bottle: body, shoulders, neck; some lie."""
    radius, height = rng.uniform(0.02, 0.045), rng.uniform(0.12, 0.22)
    neck, length = radius * rng.uniform(0.3, 0.5), rng.uniform(0.05, 0.09)
    parts = [
        ("cylinder", radius, height / 2, height / 2),
        ("ellipsoid", radius, 0.6 * radius, height),
        ("cylinder", neck, length / 2, height + length / 2 + 0.3 * radius),
    ]
    turn, foot = np.eye(3), at
    if rng.random() < 0.3:
        turn, foot = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(np.pi / 2), at + vector(0, 0, radius)
    return [Solid(shape, foot + turn @ vector(0, 0, up), np.array([r, r, half]), turn) for shape, r, half, up in parts]


def book_stack(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Books, one on another, none quite in line."""
    solids, height, yaw = [], at[2], rng.uniform(0, np.pi)
    for _ in range(int(rng.integers(1, 7))):
        half = (rng.uniform(0.07, 0.12), rng.uniform(0.05, 0.09), rng.uniform(0.005, 0.02))
        where = at[:2] + rng.uniform(-0.015, 0.015, 2)
        solids.append(upright("box", where, height, half, yaw + rng.uniform(-0.3, 0.3)))
        height += 2 * half[2]
    return solids


def book_row(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Books side by side, of many heights; the last one leans."""
    yaw, along = np.pi / 2 + rng.normal(0.0, 0.3), -0.1
    turn = rotation_z(yaw)
    solids = []
    for _ in range(int(rng.integers(3, 8))):
        half = np.array([rng.uniform(0.006, 0.02), rng.uniform(0.05, 0.08), rng.uniform(0.07, 0.12)])
        solids.append(Solid("box", at + turn @ vector(along + half[0], 0, half[2]), half, turn))
        along += 2 * half[0] + rng.uniform(0.0, 0.003)
    leaning = np.array([0.01, 0.07, 0.1])
    solids.append(Solid("box", at + turn @ vector(along + 0.04, 0, 0.095), leaning, turn @ rotation_y(-0.3)))
    return solids


def plates(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A pile of plates: flat discs, each a step of a few millimetres."""
    radius, solids = rng.uniform(0.06, 0.12), []
    for level in range(int(rng.integers(1, 6))):
        r = radius * rng.uniform(0.85, 1.0)
        solids.append(upright("cylinder", at[:2] + rng.normal(0, 0.004, 2), at[2] + 0.012 * level, (r, r, 0.005)))
    return solids


def tilted_board(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A small board, tray or book that leans."""
    half = np.array([rng.uniform(0.04, 0.12), rng.uniform(0.04, 0.15), rng.uniform(0.002, 0.01)])
    angle = rng.uniform(0.1, 1.4)
    turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(angle)
    return [Solid("box", at + vector(0, 0, half[0] * np.sin(angle)), half, turn)]


def bars(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Rods and slats that lie and lean, at all angles."""
    solids = []
    for _ in range(int(rng.integers(1, 4))):
        length, radius = rng.uniform(0.1, 0.5), rng.uniform(0.003, 0.015)
        yaw, rise = rng.uniform(0, 2 * np.pi), rng.choice([0.0, rng.uniform(0.1, 1.4)])
        way = np.array([np.cos(yaw) * np.cos(rise), np.sin(yaw) * np.cos(rise), np.sin(rise)])
        foot = at + vector(*rng.normal(0, 0.05, 2), radius)
        solids.append(rod(foot, foot + length * way, radius))
        if rng.random() < 0.4:
            half = np.array([radius, 2 * radius, length / 2])
            solids[-1] = Solid("box", solids[-1].centre + vector(0, 0, radius), half, solids[-1].rotation)
    return solids


def wire(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A cable or bent wire, 2 to 10 mm thick: it lies in bends or stands up in a bow."""
    radius, count, step = rng.uniform(0.001, 0.005), int(rng.integers(5, 10)), rng.uniform(0.03, 0.07)
    yaw, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.4)
    height = rng.choice([0.0, rng.uniform(0.05, 0.3)])
    solids, start = [], at + vector(0, 0, radius)
    for k in range(1, count + 1):
        yaw += bend + rng.normal(0, 0.3)
        end = start + vector(step * np.cos(yaw), step * np.sin(yaw), 0.0)
        end[2] = at[2] + radius + height * np.sin(np.pi * k / count)
        solids.append(rod(start, end, radius))
        start = end
    return solids


def rack(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """Thin wires in a row between two rails: a dish rack, a toaster's grid, a letter rack."""
    turn, count = rotation_z(rng.uniform(0, np.pi)), int(rng.integers(5, 12))
    pitch, height, width = rng.uniform(0.012, 0.035), rng.uniform(0.06, 0.2), rng.uniform(0.03, 0.08)
    radius, half = rng.uniform(0.001, 0.003), 0.5 * pitch * (count - 1)
    solids = []
    for side in (-width, width):
        for up in (radius, height):
            solids.append(rod(at + turn @ vector(-half, side, up), at + turn @ vector(half, side, up), 1.3 * radius))
        for along in np.linspace(-half, half, count):
            solids.append(rod(at + turn @ vector(along, side, 0.0), at + turn @ vector(along, side, height), radius))
    return solids


def pencils(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A cup of pencils, or of kitchen tools with round heads."""
    radius, height = rng.uniform(0.025, 0.05), rng.uniform(0.07, 0.12)
    solids = [upright("cylinder", at[:2], at[2], (radius, radius, height / 2))]
    for _ in range(int(rng.integers(3, 9))):
        lean = rng.uniform(-1, 1, 2)
        foot = at + vector(*(0.2 * radius * lean), 0.3 * height)
        tip = at + vector(*(1.6 * radius * lean), height + rng.uniform(0.04, 0.16))
        solids.append(rod(foot, tip, rng.uniform(0.002, 0.005)))
        if rng.random() < 0.3:
            head = np.array([0.02, 0.006, 0.03]) * rng.uniform(0.6, 1.3)
            solids.append(Solid("ellipsoid", tip, head, solids[-1].rotation @ rotation_z(rng.uniform(0, np.pi))))
    return solids


def open_box(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A box without a lid: four thin walls, and something in it."""
    half = np.array([rng.uniform(0.06, 0.15), rng.uniform(0.05, 0.12), rng.uniform(0.03, 0.08)])
    turn, thick = rotation_z(rng.uniform(0, np.pi)), rng.uniform(0.002, 0.006)
    walls = [(0, np.array([thick, half[1], half[2]])), (1, np.array([half[0], thick, half[2]]))]
    solids = []
    for axis, wall in walls:
        for side in (-1, 1):
            offset = np.array([0.0, 0.0, half[2]])
            offset[axis] = side * half[axis]
            solids.append(Solid("box", at + turn @ offset, wall, turn))
    for _ in range(int(rng.integers(0, 5))):
        inside = turn @ vector(*rng.uniform(-0.6, 0.6, 2) * half[:2], 0.0)
        solids += (ball, tumbled)[int(rng.integers(2))](rng, at + inside)
    return solids


def lying_cylinder(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
    """A tin, a roll or a tube on its side."""
    radius, half = rng.uniform(0.01, 0.06), rng.uniform(0.03, 0.15)
    turn = rotation_z(rng.uniform(0, np.pi)) @ rotation_y(np.pi / 2)
    return [Solid("cylinder", at + vector(0, 0, radius), np.array([radius, radius, half]), turn)]


SMALL_THINGS: tuple[Builder, ...] = (
    parcel, parcel, tumbled, mug, mug, ball, cone, bottle, book_stack, book_row, plates, tilted_board, bars, bars,
    wire, wire, rack, pencils, open_box, lying_cylinder,
)  # fmt: skip
