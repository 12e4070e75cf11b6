"""Simple solids, and exact depth of many of them in a closed room.

They are ray-cast analytically: there is no mesh and no sampling error, so the same solids give the
low-resolution frame a camera sees and the exact high-resolution frame it should have seen. World axes:
x and y on the floor, z up, metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dsca_ros.depth.camera import Intrinsics

#: Nothing nearer than this is drawn, metres.
NEAR = 0.05


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


def vector(*xyz: float) -> np.ndarray:
    """A point or a way, of three numbers."""
    return np.array(xyz, np.float64)


def tilt(direction: np.ndarray) -> np.ndarray:
    """Rotation that takes the vertical to ``direction``."""
    x, y, z = direction
    return rotation_z(float(np.arctan2(y, x))) @ rotation_y(float(np.arctan2(np.hypot(x, y), z)))


def upright(shape: str, xy: np.ndarray, bottom: float, half: tuple[float, float, float], yaw: float = 0.0) -> Solid:
    """A solid standing at height ``bottom``."""
    centre = np.array([xy[0], xy[1], bottom + half[2]])
    return Solid(shape, centre, np.array(half), rotation_z(yaw))


def rod(start: np.ndarray, end: np.ndarray, radius: float) -> Solid:
    """A round bar between two points."""
    half = np.array([radius, radius, float(np.linalg.norm(end - start)) / 2])
    return Solid("cylinder", (start + end) / 2, half, tilt(end - start))


def gap(solid: Solid, point: np.ndarray) -> float:
    """Distance of a point from the box around a solid, metres; 0 inside of it."""
    local = np.abs((point - solid.centre) @ solid.rotation)
    return float(np.linalg.norm(np.maximum(local - solid.half, 0.0)))


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


def _windows(solids: list[Solid], pose: Pose, camera: Intrinsics) -> list[tuple[Solid, tuple[slice, slice]]]:
    """The solids in view, each with the rows and columns that can see it: the bounds of its box's corners."""
    if not solids:
        return []
    half, rotation = np.stack([s.half for s in solids]), np.stack([s.rotation for s in solids])
    corners = (_CORNERS * half[:, None]) @ rotation.transpose(0, 2, 1) + np.stack([s.centre for s in solids])[:, None]
    x, y, z = np.moveaxis((corners - pose.position) @ pose.rotation, -1, 0)
    ahead, far = (z >= NEAR), np.maximum(z, NEAR)
    whole = ~ahead.all(axis=1)  # it reaches behind the camera: may be seen anywhere
    u, v = camera.fx * x / far + camera.cx, camera.fy * y / far + camera.cy

    def bounds(values: np.ndarray, size: int) -> tuple[list[int], list[int]]:
        first = np.where(whole, 0, np.clip(np.floor(values.min(axis=1)), 0, size))
        last = np.where(whole, size, np.clip(np.ceil(values.max(axis=1)) + 1, 0, size))
        return first.astype(int).tolist(), np.where(ahead.any(axis=1), last, 0).astype(int).tolist()

    places = zip(solids, *bounds(v, camera.height), *bounds(u, camera.width))
    return [
        (solid, (slice(top, bottom), slice(left, right)))
        for solid, top, bottom, left, right in places
        if left < right and top < bottom
    ]


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
    for solid, window in _windows(solids, pose, camera):
        to_unit = solid.rotation.T / solid.half[:, None]
        origin = (to_unit @ (pose.position - solid.centre)).astype(np.float32)
        hit = _SHAPES[solid.shape](origin, local_rays(to_unit, *window))
        np.minimum(depth[window], hit, out=depth[window])
    return depth
