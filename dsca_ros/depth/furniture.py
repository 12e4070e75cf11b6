"""Furniture and small things of procedural rooms: each function of random numbers builds one at a place."""

from __future__ import annotations

import numpy as np

from dsca_ros.depth.solids import Solid, rotation_y, rotation_z, upright


def _legs(xy: np.ndarray, half_x: float, half_y: float, height: float, radius: float, yaw: float) -> list[Solid]:
    turn = rotation_z(yaw)[:2, :2]
    offsets = [np.array([i * (half_x - radius), j * (half_y - radius)]) for i in (-1, 1) for j in (-1, 1)]
    return [upright("cylinder", xy + turn @ o, 0.0, (radius, radius, height / 2)) for o in offsets]


def _clutter(rng: np.random.Generator, xy: np.ndarray, spread: float, bottom: float, count: int) -> list[Solid]:
    """Small things on a surface: books, balls, mugs, cones."""
    solids = []
    for _ in range(count):
        where = xy + rng.uniform(-spread, spread, 2)
        size = rng.uniform(0.03, 0.16)
        shape = str(rng.choice(["box", "ellipsoid", "cylinder", "cone"]))
        half = (size, size * rng.uniform(0.5, 1.0), size * rng.uniform(0.4, 1.5))
        if shape in ("cylinder", "cone"):
            half = (size * 0.6, size * 0.6, half[2])
        solids.append(upright(shape, where, bottom, half, rng.uniform(0, np.pi)))
    return solids


def table(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A table with four round legs and things on it."""
    half_x, half_y = rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.45)
    height, yaw = rng.uniform(0.45, 0.9), rng.uniform(0, np.pi)
    top = upright("box", xy, height - 0.03, (half_x, half_y, rng.uniform(0.01, 0.03)), yaw)
    solids = [top, *_legs(xy, half_x, half_y, height - 0.03, rng.uniform(0.012, 0.035), yaw)]
    return solids + _clutter(rng, xy, 0.25, height, int(rng.integers(1, 5)))


def chair(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A chair: seat, thin legs, a back of slats."""
    yaw, seat, half = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.5), rng.uniform(0.18, 0.24)
    solids = [upright("box", xy, seat, (half, half, 0.015), yaw)]
    solids += _legs(xy, half, half, seat, rng.uniform(0.008, 0.022), yaw)
    turn = rotation_z(yaw)[:2, :2]
    for offset in np.linspace(-half, half, int(rng.integers(2, 6))):
        foot = xy + turn @ np.array([offset, half])
        solids.append(upright("box", foot, seat, (0.015, 0.01, 0.25), yaw))
    solids.append(upright("box", xy + turn @ np.array([0, half]), seat + 0.45, (half, 0.012, 0.05), yaw))
    return solids


def lamp(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A floor lamp: a pole a centimetre or two thick under a cone."""
    radius, height = rng.uniform(0.006, 0.02), rng.uniform(1.2, 1.8)
    shade = rng.uniform(0.12, 0.25)
    return [
        upright("cylinder", xy, 0.0, (0.14, 0.14, 0.015)),
        upright("cylinder", xy, 0.0, (radius, radius, height / 2)),
        upright("cone", xy, height - 0.1, (shade, shade, 0.15)),
    ]


def shelf(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """An open shelf: two sides, boards, things on them."""
    yaw, half, deep, height = rng.uniform(0, np.pi), rng.uniform(0.3, 0.6), 0.15, rng.uniform(0.9, 2.0)
    turn = rotation_z(yaw)[:2, :2]
    solids = [
        upright("box", xy + turn @ np.array([side * half, 0]), 0.0, (0.012, deep, height / 2), yaw) for side in (-1, 1)
    ]
    for level in np.linspace(0.1, height - 0.02, int(rng.integers(3, 6))):
        solids.append(upright("box", xy, float(level), (half, deep, 0.01), yaw))
        solids += _clutter(rng, xy, 0.12, float(level) + 0.02, 2)
    return solids


def plant(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A pot with thin slanted stems and flat leaves."""
    height = rng.uniform(0.5, 1.2)
    solids = [upright("cylinder", xy, 0.0, (0.13, 0.13, 0.13))]
    for _ in range(int(rng.integers(4, 9))):
        turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(rng.uniform(0.05, 0.5))
        foot, tip = np.array([*xy, 0.25]), np.array([*xy, 0.25]) + turn @ np.array([0, 0, height])
        solids.append(Solid("cylinder", (foot + tip) / 2, np.array([0.006, 0.006, height / 2]), turn))
        solids.append(Solid("ellipsoid", tip, np.array([0.11, 0.05, 0.015]), turn @ rotation_y(rng.uniform(0, 1.2))))
    return solids


def board(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A slanted board, as a ramp or something leaning."""
    turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(rng.uniform(0.2, 1.3))
    half = np.array([rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6), 0.015])
    return [Solid("box", np.array([*xy, rng.uniform(0.2, 1.4)]), half, turn)]


def column(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A thick curved surface: a column, a barrel or a large ball."""
    radius = rng.uniform(0.15, 0.5)
    kind = str(rng.choice(["cylinder", "ellipsoid"]))
    height = rng.uniform(0.3, 1.3) if kind == "cylinder" else radius * rng.uniform(0.6, 1.4)
    return [upright(kind, xy, 0.0, (radius, radius, height))]


def crate(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """Boxes, one on another."""
    size, yaw = rng.uniform(0.15, 0.4), rng.uniform(0, np.pi)
    solids = [upright("box", xy, 0.0, (size, size * rng.uniform(0.6, 1.2), size), yaw)]
    if rng.random() < 0.5:
        solids.append(upright("box", xy, 2 * size, (size * 0.6, size * 0.5, size * 0.5), yaw + rng.uniform(0, 0.6)))
    return solids


def pole(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A thin pole from floor to beyond eye height, sometimes leaning."""
    radius, half = rng.uniform(0.005, 0.03), rng.uniform(0.6, 1.2)
    turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(rng.uniform(0.0, 0.35))
    return [Solid("cylinder", np.array([*xy, half]), np.array([radius, radius, half]), turn)]


FURNITURE = (table, table, chair, chair, lamp, shelf, plant, board, column, crate, pole, pole)
