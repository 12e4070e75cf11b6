"""Procedural indoor scenes with exact depth at any resolution.

A scene is a closed room full of simple solids, ray-cast analytically: there is no mesh and no
sampling error, so the same scene gives the low-resolution frame a camera sees and the exact
high-resolution frame it should have seen. World axes: x and y on the floor, z up, metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dsca_ros.depth.camera import Intrinsics

#: Nothing nearer than this is drawn, metres.
NEAR = 0.05
#: Objects keep this far from where the camera stands, metres.
CLEARANCE = 0.75


@dataclass(frozen=True)
class Pose:
    """Camera to world: ``world = rotation @ camera + position``; camera x right, y down, z forward."""

    rotation: np.ndarray
    position: np.ndarray


@dataclass(frozen=True)
class Solid:
    """A convex solid in its own frame: ``box``, ``ellipsoid``, ``cylinder`` or ``cone``.

    ``half`` are half extents along its axes, metres. Cylinders and cones stand along their z;
    a cone's tip is at +z.
    """

    shape: str
    centre: np.ndarray
    half: np.ndarray
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))


def rotation_z(angle: float) -> np.ndarray:
    """Rotation about the vertical by ``angle`` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rotation_y(angle: float) -> np.ndarray:
    """Rotation about y by ``angle`` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


# --- ray casting --------------------------------------------------------------------------------
# A ray is origin + t * direction with a direction whose camera z is 1, so t *is* depth. Going into
# a solid's frame scaled to its half extents is linear and leaves t alone: every shape is tested as
# its unit version.


def _slab(origin: np.ndarray, direction: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Entry and exit depth of rays through the box [-1, 1]^3."""
    enter, leave = np.float32(-np.inf), np.float32(np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for o, d in zip(origin, direction):
            inverse = 1.0 / d
            near, far = (-1.0 - o) * inverse, (1.0 - o) * inverse
            # fmin and fmax pass over the NaN of a ray that runs along a face.
            enter = np.fmax(enter, np.minimum(near, far))
            leave = np.fmin(leave, np.maximum(near, far))
    return np.asarray(enter), np.asarray(leave)


def _box(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    enter, leave = _slab(origin, direction)
    return np.where((leave >= enter) & (enter > NEAR), enter, np.inf)


def _ellipsoid(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    dx, dy, dz = direction
    dd = dx * dx + dy * dy + dz * dz
    # Nearest approach first, then the half chord: float32 keeps thin far poles exact this way.
    t = -(origin[0] * dx + origin[1] * dy + origin[2] * dz) / dd
    px, py, pz = origin[0] + t * dx, origin[1] + t * dy, origin[2] + t * dz
    inside = 1.0 - (px * px + py * py + pz * pz)
    hit = t - np.sqrt(np.maximum(inside, 0.0) / dd)
    return np.where((inside >= 0.0) & (hit > NEAR), hit, np.inf)


def _cylinder(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    dx, dy, dz = direction
    dd = np.maximum(dx * dx + dy * dy, 1e-12)
    t = -(origin[0] * dx + origin[1] * dy) / dd
    px, py = origin[0] + t * dx, origin[1] + t * dy
    inside = 1.0 - (px * px + py * py)
    half = np.sqrt(np.maximum(inside, 0.0) / dd)
    with np.errstate(divide="ignore", invalid="ignore"):
        z0, z1 = (-1.0 - origin[2]) / dz, (1.0 - origin[2]) / dz
    enter = np.fmax(t - half, np.minimum(z0, z1))
    leave = np.fmin(t + half, np.maximum(z0, z1))
    return np.where((inside >= 0.0) & (leave >= enter) & (enter > NEAR), enter, np.inf)


def _cone(origin: np.ndarray, direction: list[np.ndarray]) -> np.ndarray:
    """x^2 + y^2 = ((1 - z) / 2)^2 for -1 <= z <= 1, closed by its base."""
    dx, dy, dz = direction
    ox, oy, oz = origin
    w, dw = 0.5 * (1.0 - oz), -0.5 * dz
    a = dx * dx + dy * dy - dw * dw
    a = np.where(np.abs(a) < 1e-9, 1e-9, a)
    b = ox * dx + oy * dy - w * dw
    c = ox * ox + oy * oy - w * w
    root = b * b - a * c
    sqrt = np.sqrt(np.maximum(root, 0.0))
    best = np.full_like(dz, np.inf)
    for t in ((-b - sqrt) / a, (-b + sqrt) / a):
        z = oz + t * dz
        ok = (root >= 0.0) & (np.abs(z) <= 1.0) & (t > NEAR)
        best = np.where(ok & (t < best), t, best)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (-1.0 - oz) / dz
        px, py = ox + t * dx, oy + t * dy
        ok = (px * px + py * py <= 1.0) & (t > NEAR)
    return np.where(ok & (t < best), t, best)


_SHAPES = {"box": _box, "ellipsoid": _ellipsoid, "cylinder": _cylinder, "cone": _cone}
_CORNERS = np.array([[i, j, k] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)], np.float64)


def _window(solid: Solid, pose: Pose, camera: Intrinsics) -> tuple[slice, slice] | None:
    """Rows and columns that can see the solid: the bounds of its box's corners, or None."""
    corners = (solid.rotation @ (_CORNERS * solid.half).T).T + solid.centre
    seen = (corners - pose.position) @ pose.rotation
    if (seen[:, 2] < NEAR).all():
        return None
    if (seen[:, 2] < NEAR).any():
        return slice(0, camera.height), slice(0, camera.width)
    u = camera.fx * seen[:, 0] / seen[:, 2] + camera.cx
    v = camera.fy * seen[:, 1] / seen[:, 2] + camera.cy
    left, right = max(int(np.floor(u.min())), 0), min(int(np.ceil(u.max())) + 1, camera.width)
    top, bottom = max(int(np.floor(v.min())), 0), min(int(np.ceil(v.max())) + 1, camera.height)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def render(room: np.ndarray, solids: list[Solid], pose: Pose, camera: Intrinsics) -> np.ndarray:
    """Exact depth of solids in a closed room.

    Args:
        room: length, width and height in metres; the room spans [0, room].
        pose: a camera inside the room.

    Returns:
        [H, W] float32 metres, valid everywhere.
    """
    x, y = camera.rays()

    def local_rays(to_local: np.ndarray, rows: slice, columns: slice) -> list[np.ndarray]:
        matrix = (to_local @ pose.rotation).astype(np.float32)
        xs, ys = x[None, columns], y[rows, None]
        return [m[0] * xs + (m[1] * ys + m[2]) for m in matrix]

    everything = slice(0, camera.height), slice(0, camera.width)
    half_room = np.asarray(room, np.float64) / 2.0
    to_unit = np.diag(1.0 / half_room)
    origin = (to_unit @ (pose.position - half_room)).astype(np.float32)
    depth = _slab(origin, local_rays(to_unit, *everything))[1]
    for solid in solids:
        window = _window(solid, pose, camera)
        if window is None:
            continue
        to_unit = solid.rotation.T / solid.half[:, None]
        origin = (to_unit @ (pose.position - solid.centre)).astype(np.float32)
        hit = _SHAPES[solid.shape](origin, local_rays(to_unit, *window))
        np.minimum(depth[window], hit, out=depth[window])
    return depth


# --- furniture ----------------------------------------------------------------------------------


def _upright(shape: str, xy: np.ndarray, bottom: float, half: tuple[float, float, float], yaw: float = 0.0) -> Solid:
    """A solid standing at height ``bottom``."""
    centre = np.array([xy[0], xy[1], bottom + half[2]])
    return Solid(shape, centre, np.array(half), rotation_z(yaw))


def _legs(xy: np.ndarray, half_x: float, half_y: float, height: float, radius: float, yaw: float) -> list[Solid]:
    turn = rotation_z(yaw)[:2, :2]
    offsets = [np.array([i * (half_x - radius), j * (half_y - radius)]) for i in (-1, 1) for j in (-1, 1)]
    return [_upright("cylinder", xy + turn @ o, 0.0, (radius, radius, height / 2)) for o in offsets]


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
        solids.append(_upright(shape, where, bottom, half, rng.uniform(0, np.pi)))
    return solids


def table(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A table with four round legs and things on it."""
    half_x, half_y = rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.45)
    height, yaw = rng.uniform(0.45, 0.9), rng.uniform(0, np.pi)
    top = _upright("box", xy, height - 0.03, (half_x, half_y, rng.uniform(0.01, 0.03)), yaw)
    solids = [top, *_legs(xy, half_x, half_y, height - 0.03, rng.uniform(0.012, 0.035), yaw)]
    return solids + _clutter(rng, xy, 0.25, height, int(rng.integers(1, 5)))


def chair(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A chair: seat, thin legs, a back of slats."""
    yaw, seat, half = rng.uniform(0, 2 * np.pi), rng.uniform(0.4, 0.5), rng.uniform(0.18, 0.24)
    solids = [_upright("box", xy, seat, (half, half, 0.015), yaw)]
    solids += _legs(xy, half, half, seat, rng.uniform(0.008, 0.022), yaw)
    turn = rotation_z(yaw)[:2, :2]
    for offset in np.linspace(-half, half, int(rng.integers(2, 6))):
        foot = xy + turn @ np.array([offset, half])
        solids.append(_upright("box", foot, seat, (0.015, 0.01, 0.25), yaw))
    solids.append(_upright("box", xy + turn @ np.array([0, half]), seat + 0.45, (half, 0.012, 0.05), yaw))
    return solids


def lamp(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A floor lamp: a pole a centimetre or two thick under a cone."""
    radius, height = rng.uniform(0.006, 0.02), rng.uniform(1.2, 1.8)
    shade = rng.uniform(0.12, 0.25)
    return [
        _upright("cylinder", xy, 0.0, (0.14, 0.14, 0.015)),
        _upright("cylinder", xy, 0.0, (radius, radius, height / 2)),
        _upright("cone", xy, height - 0.1, (shade, shade, 0.15)),
    ]


def shelf(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """An open shelf: two sides, boards, things on them."""
    yaw, half, deep, height = rng.uniform(0, np.pi), rng.uniform(0.3, 0.6), 0.15, rng.uniform(0.9, 2.0)
    turn = rotation_z(yaw)[:2, :2]
    solids = [
        _upright("box", xy + turn @ np.array([side * half, 0]), 0.0, (0.012, deep, height / 2), yaw) for side in (-1, 1)
    ]
    for level in np.linspace(0.1, height - 0.02, int(rng.integers(3, 6))):
        solids.append(_upright("box", xy, float(level), (half, deep, 0.01), yaw))
        solids += _clutter(rng, xy, 0.12, float(level) + 0.02, 2)
    return solids


def plant(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A pot with thin slanted stems and flat leaves."""
    height = rng.uniform(0.5, 1.2)
    solids = [_upright("cylinder", xy, 0.0, (0.13, 0.13, 0.13))]
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
    return [_upright(kind, xy, 0.0, (radius, radius, height))]


def crate(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """Boxes, one on another."""
    size, yaw = rng.uniform(0.15, 0.4), rng.uniform(0, np.pi)
    solids = [_upright("box", xy, 0.0, (size, size * rng.uniform(0.6, 1.2), size), yaw)]
    if rng.random() < 0.5:
        solids.append(_upright("box", xy, 2 * size, (size * 0.6, size * 0.5, size * 0.5), yaw + rng.uniform(0, 0.6)))
    return solids


def pole(rng: np.random.Generator, xy: np.ndarray) -> list[Solid]:
    """A thin pole from floor to beyond eye height, sometimes leaning."""
    radius, half = rng.uniform(0.005, 0.03), rng.uniform(0.6, 1.2)
    turn = rotation_z(rng.uniform(0, 2 * np.pi)) @ rotation_y(rng.uniform(0.0, 0.35))
    return [Solid("cylinder", np.array([*xy, half]), np.array([radius, radius, half]), turn)]


FURNITURE = (table, table, chair, chair, lamp, shelf, plant, board, column, crate, pole, pole)


@dataclass(frozen=True)
class Scene:
    """A furnished room and a closed, smooth camera path through it.

    The path circles a standing point that furniture keeps clear of, while the view sweeps.
    """

    room: np.ndarray
    solids: list[Solid]
    stand: np.ndarray
    yaw: float
    sweep: float
    pitch: float

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

    def pose(self, phase: float) -> Pose:
        """Camera pose at ``phase`` of the loop; phases 0 and 1 are the same pose."""
        a = 2.0 * np.pi * phase
        position = self.stand + 0.3 * np.array([np.cos(a), np.sin(a), 0.25 * np.sin(2.0 * a)])
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


def _horizontal_gap(solid: Solid, stand: np.ndarray) -> float:
    reach = float(np.abs(solid.rotation[:2] @ np.diag(solid.half)).sum(axis=1).max())
    return float(np.linalg.norm(solid.centre[:2] - stand[:2])) - reach
