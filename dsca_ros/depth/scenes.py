"""Procedural scenes with exact depth at any resolution: closed rooms full of simple solids.

A scene is one of the `KINDS`, and a pure function of its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dsca_ros.depth.camera import Intrinsics
from dsca_ros.depth.curved_things import CURVED
from dsca_ros.depth.furniture import FURNITURE
from dsca_ros.depth.outdoor_things import BUILDINGS, PLANTS, STREET
from dsca_ros.depth.small_things import SMALL_THINGS, Builder
from dsca_ros.depth.solids import Pose, Solid, gap, render, rotation_y, rotation_z, upright, vector

__all__ = ["CLEARANCE", "KINDS", "Pose", "Scene", "Solid", "render", "rotation_y", "rotation_z"]

#: Objects keep this far from where the camera stands, metres.
CLEARANCE = 0.75
#: The same for clutter that a hand is near to.
NEAR_CLEARANCE = 0.3


# --- where things stand -------------------------------------------------------------------------


@dataclass(frozen=True)
class Surface:
    """A level rectangle that ``count`` things stand on."""

    centre: np.ndarray
    half_x: float
    half_y: float
    count: int

    def point(self, rng: np.random.Generator) -> np.ndarray:
        """Any point of it."""
        return self.centre + rng.uniform(-1, 1, 3) * vector(self.half_x, self.half_y, 0.0)


def _sector(
    room: np.ndarray, stand: np.ndarray, yaw: float, near: float, far: float, spread: float
) -> Callable[[np.random.Generator], np.ndarray]:
    """Points of the floor ahead of the camera, from ``near`` to ``far`` of it, evenly in the logarithm."""

    def point(rng: np.random.Generator) -> np.ndarray:
        distance, angle = near * (far / near) ** rng.random(), yaw + rng.uniform(-spread, spread)
        xy = stand[:2] + distance * np.array([np.cos(angle), np.sin(angle)])
        return vector(*np.clip(xy, 0.1, room[:2] - 0.1), 0.0)

    return point


def _scatter(
    rng: np.random.Generator,
    builders: Sequence[Builder],
    count: int,
    place: Callable[[np.random.Generator], np.ndarray],
    stand: np.ndarray,
    clearance: float,
) -> list[Solid]:
    """Things at places that leave the camera room; one that finds none in ten tries is left out."""
    solids: list[Solid] = []
    for _ in range(count):
        build = builders[int(rng.integers(len(builders)))]
        for _ in range(10):
            parts = build(rng, place(rng))
            # A broad thing is to be further away than a thin one, or it is all there is to see.
            if all(gap(part, stand) > clearance + 2.0 * np.median(part.half) for part in parts):
                solids += parts
                break
    return solids


def _on_floor(build: Builder) -> Builder:
    """A builder at x and y as one at x, y and z."""
    return lambda rng, at: build(rng, at[:2])


ROOM_THINGS = tuple(_on_floor(build) for build in FURNITURE)


def _table(rng: np.random.Generator, focus: np.ndarray) -> tuple[list[Solid], list[Surface]]:
    """A large table around a point of its top."""
    half_x, half_y = rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.9)
    solids = [upright("box", focus[:2], focus[2] - 0.03, (half_x, half_y, 0.015))]
    for i in (-0.9, 0.9):
        for j in (-0.9, 0.9):
            foot = focus[:2] + np.array([i * half_x, j * half_y])
            solids.append(upright("cylinder", foot, 0.0, (0.03, 0.03, focus[2] / 2 - 0.02)))
    return solids, [Surface(focus, 0.95 * half_x, 0.9 * half_y, int(70 * half_x / 0.6 * half_y / 0.9) + 12)]


def _shelf(rng: np.random.Generator, foot: np.ndarray) -> tuple[list[Solid], list[Surface]]:
    """A high shelf across the view, at times without a back, and its boards."""
    half, deep, height = rng.uniform(0.5, 0.9), rng.uniform(0.12, 0.25), 2.1
    middle = foot + vector(deep, 0, 0)
    solids = [
        upright("box", middle[:2] + np.array([0, side]), 0.0, (deep, 0.012, height / 2))
        for side in np.linspace(-half, half, int(rng.integers(2, 4)))
    ]
    if rng.random() < 0.6:
        solids.append(upright("box", middle[:2] + np.array([deep, 0]), 0.0, (0.005, half, height / 2)))
    surfaces = []
    for level in np.arange(rng.uniform(0.1, 0.3), height, rng.uniform(0.24, 0.42)):
        solids.append(upright("box", middle[:2], float(level) - 0.02, (deep, half, 0.01)))
        surfaces.append(Surface(middle + vector(0, 0, level), 0.8 * deep, 0.9 * half, int(12 * half)))
    return solids, surfaces


def _horizontal_gap(solid: Solid, stand: np.ndarray) -> float:
    reach = float(np.abs(solid.rotation[:2] @ np.diag(solid.half)).sum(axis=1).max())
    return float(np.linalg.norm(solid.centre[:2] - stand[:2])) - reach


# --- scenes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A furnished room and a closed, smooth camera path through it.

    The path circles a standing point that furniture keeps clear of, while the view sweeps.

    Attributes:
        room: length, width and height in metres.
        stand: the middle of the path; ``radius`` is the path's.
        yaw, pitch: the middle of the view's directions, radians; a positive pitch looks down.
        sweep: how far the view swings to each side, radians.
    """

    room: np.ndarray
    solids: list[Solid]
    stand: np.ndarray
    yaw: float
    sweep: float
    pitch: float
    radius: float = 0.3

    @classmethod
    def of_kind(cls, kind: str, seed: int) -> Scene:
        """The scene of this seed and of a kind in `KINDS`.

        Raises:
            ValueError: if there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"there is no kind of scene {kind!r}; there are: {', '.join(KINDS)}")
        return KINDS[kind](seed)

    @classmethod
    def random(cls, seed: int) -> Scene:
        """The scene of this seed; the same seed gives the same scene on every machine."""
        rng = np.random.default_rng([seed, 0x5CE])
        room = np.array([rng.uniform(3.5, 9.0), rng.uniform(3.5, 7.0), rng.uniform(2.3, 3.2)])
        stand = np.array([*(room[:2] * rng.uniform(0.25, 0.75, 2)), rng.uniform(0.5, 1.6)])
        solids: list[Solid] = []
        for _ in range(int(rng.integers(18, 32))):
            build = FURNITURE[int(rng.integers(len(FURNITURE)))]
            for _ in range(20):
                xy = rng.uniform(0.2, room[:2] - 0.2)
                parts = build(rng, xy)
                if all(_horizontal_gap(p, stand) > CLEARANCE for p in parts):
                    solids += parts
                    break
        for _ in range(int(rng.integers(1, 4))):  # flat things on the walls: small, easily lost steps
            along, up = rng.uniform(0.5, room[0] - 0.5), rng.uniform(0.9, 1.9)
            half = np.array([rng.uniform(0.2, 0.6), rng.uniform(0.02, 0.06), rng.uniform(0.2, 0.5)])
            solids.append(Solid("box", np.array([along, room[1] * rng.integers(0, 2), up]), half))
        # Look across the room, not into the nearest corner.
        to_middle = room[:2] / 2.0 - stand[:2]
        yaw = float(np.arctan2(to_middle[1], to_middle[0]) + rng.uniform(-0.6, 0.6))
        return cls(room, solids, stand, yaw, float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.05, 0.45)))

    @classmethod
    def cluttered(cls, seed: int) -> Scene:
        """Dozens of small things on a table, on the floor or in a shelf, from as near as a robot's hand."""
        rng = np.random.default_rng([seed, 0xC1])
        room = vector(*rng.uniform(2.4, 3.8, 2), rng.uniform(2.2, 2.8))
        focus = vector(room[0] * rng.uniform(0.5, 0.65), room[1] * rng.uniform(0.35, 0.65), 0.0)
        place = str(rng.choice(["table", "floor", "shelf"], p=[0.45, 0.2, 0.35]))
        yaw, distance, rise = rng.uniform(-0.35, 0.35), rng.uniform(0.35, 0.9), rng.uniform(0.36, 0.8)
        if place == "table":
            focus[2] = rng.uniform(0.6, 0.9)
            solids, surfaces = _table(rng, focus)
        elif place == "floor":
            solids, surfaces = [], [Surface(focus, 0.7, 0.7, 55)]
        else:
            solids, surfaces = _shelf(rng, focus)
            focus[2] = rng.uniform(0.7, 1.4)
            distance, rise = rng.uniform(0.6, 1.1), rng.uniform(-0.3, 0.4)
        stand = focus + vector(-distance * np.cos(yaw), -distance * np.sin(yaw), rise)
        clear = NEAR_CLEARANCE + 0.05
        for surface in surfaces:
            solids += _scatter(rng, SMALL_THINGS, surface.count, surface.point, stand, clear)
        behind = Surface(vector(focus[0] + 1.0, room[1] / 2, 0.0), 0.4, room[1] / 2 - 0.2, 3)
        solids += _scatter(rng, ROOM_THINGS, behind.count, behind.point, stand, CLEARANCE)
        pitch = float(np.arctan2(rise, distance))
        return cls(room, solids, stand, float(yaw), float(rng.uniform(0.08, 0.25)), pitch, 0.08)

    @classmethod
    def foliage(cls, seed: int) -> Scene:
        """Hundreds of leaves, twigs, blades and thin bars, and through the gaps what is behind."""
        rng = np.random.default_rng([seed, 0xF0])
        room = vector(rng.uniform(4.5, 9.0), rng.uniform(4.0, 7.0), rng.uniform(2.6, 4.0))
        stand = vector(rng.uniform(0.6, 1.5), room[1] * rng.uniform(0.35, 0.65), rng.uniform(0.5, 1.5))
        yaw = float(rng.uniform(-0.3, 0.3))

        def planted(rng: np.random.Generator, at: np.ndarray) -> list[Solid]:
            up = rng.choice([0.0, rng.uniform(0.1, stand[2])], p=[0.7, 0.3])
            wide = rng.uniform(0.03, 0.12)
            plinth = upright("box", at[:2], 0.0, (wide, wide, 0.5 * up + 0.01))
            return [plinth, *PLANTS[int(rng.integers(len(PLANTS)))](rng, at + vector(0, 0, up))]

        solids = _scatter(rng, [planted], 12, _sector(room, stand, yaw, 0.9, 3.2, 0.7), stand, CLEARANCE)
        behind = _sector(room, stand, yaw, 2.5, room[0], 0.8)
        solids += _scatter(rng, [*ROOM_THINGS, *CURVED], 7, behind, stand, 1.5)
        return cls(room, solids, stand, yaw, float(rng.uniform(0.1, 0.4)), float(rng.uniform(-0.05, 0.3)))

    @classmethod
    def outdoors(cls, seed: int) -> Scene:
        """A street or a yard: houses, trees, cars, people, fences; walls far away stand for the horizon."""
        rng = np.random.default_rng([seed, 0x0D])
        room = vector(rng.uniform(40.0, 80.0), rng.uniform(40.0, 80.0), rng.uniform(12.0, 30.0))
        stand = vector(rng.uniform(2.0, 8.0), room[1] * rng.uniform(0.35, 0.65), rng.uniform(0.4, 1.7))
        yaw = float(rng.uniform(-0.4, 0.4))
        solids = _scatter(rng, STREET, 13, _sector(room, stand, yaw, 2.0, 16.0, 0.7), stand, 1.5)
        far = _sector(room, stand, yaw, 12.0, 50.0, 0.8)
        solids += _scatter(rng, [*STREET, *BUILDINGS], 24, far, stand, 6.0)
        return cls(room, solids, stand, yaw, float(rng.uniform(0.1, 0.6)), float(rng.uniform(-0.1, 0.12)), 0.5)

    @classmethod
    def curved(cls, seed: int) -> Scene:
        """A room of large round, slanted, stepped and corrugated surfaces."""
        rng = np.random.default_rng([seed, 0xCE])
        room = vector(rng.uniform(4.0, 9.0), rng.uniform(4.0, 7.0), rng.uniform(2.3, 4.0))
        stand = vector(rng.uniform(0.6, 1.5), room[1] * rng.uniform(0.3, 0.7), rng.uniform(0.4, 1.6))
        yaw = float(rng.uniform(-0.4, 0.4))
        places = _sector(room, stand, yaw, 1.2, room[0] - 1.0, 1.0)
        solids = _scatter(rng, CURVED, int(rng.integers(16, 26)), places, stand, CLEARANCE)
        solids += _scatter(rng, ROOM_THINGS, 4, places, stand, CLEARANCE)
        return cls(room, solids, stand, yaw, float(rng.uniform(0.2, 0.7)), float(rng.uniform(0.0, 0.35)))

    def pose(self, phase: float) -> Pose:
        """Camera pose at ``phase`` of the loop; phases 0 and 1 are the same pose."""
        a = 2.0 * np.pi * phase
        position = self.stand + self.radius * np.array([np.cos(a), np.sin(a), 0.25 * np.sin(2.0 * a)])
        yaw = self.yaw + self.sweep * np.sin(a)
        pitch = self.pitch + 0.1 * np.sin(2.0 * a + 1.0)
        roll = 0.06 * np.sin(a + 2.0)
        forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
        right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
        down = np.cross(forward, right)
        right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
        return Pose(np.stack([right, down, forward], axis=1), position)

    def render(self, camera: Intrinsics, phase: float) -> np.ndarray:
        """Exact depth [H, W] float32 metres seen at ``phase`` of the camera path."""
        return render(self.room, self.solids, self.pose(phase), camera)


#: Every kind of scene, by its name: a function of the seed.
KINDS: dict[str, Callable[[int], Scene]] = {
    "room": Scene.random,
    "clutter": Scene.cluttered,
    "foliage": Scene.foliage,
    "outdoors": Scene.outdoors,
    "curved": Scene.curved,
}
