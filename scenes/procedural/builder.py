# Collects shapes, materials and lights in nested frames and bakes them into a World.
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from scenes.procedural import raycaster, textures
from scenes.procedural.raycaster import BOX, ELLIPSOID, FLAT, FRUSTUM, World

Vector = Sequence[float]
FACES = {BOX: 6, ELLIPSOID: 1, FRUSTUM: 4, FLAT: 2}
MAX_COLUMNS = 96


def turn_z(angle: float) -> np.ndarray:
    """Rotation [3, 3] about z by an angle in radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def tilt(axis: int, angle: float) -> np.ndarray:
    """Rotation [3, 3] about local x (0), y (1) or z (2) by an angle in radians."""
    a, b = (axis + 1) % 3, (axis + 2) % 3
    out = np.eye(3)
    out[a, a] = out[b, b] = math.cos(angle)
    out[a, b], out[b, a] = -math.sin(angle), math.sin(angle)
    return out


def frame_along(direction: np.ndarray) -> np.ndarray:
    """A rotation [3, 3] whose z axis is the given direction [3]."""
    z = direction / np.linalg.norm(direction)
    x = np.cross([0.0, 0.0, 1.0] if abs(z[2]) < 0.9 else [1.0, 0.0, 0.0], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


class Builder:
    """A world under construction, z up, in metres.

    The shapes (box, slab, ellipsoid, ball, capsule, rod, lathe, flat) and lights are added in the
    current frame, see `at`; `material` is the index that `Builder.material` returns.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.texel = 0.06  # metres between light samples on big faces
        self.inside = (np.full(3, -np.inf), np.full(3, np.inf))  # faces outside get no light
        self.sun = np.zeros(6)
        self.sky = np.full((2, 2, 3), 0.5, np.float32)
        self.dome = 60.0
        self._frame = np.eye(4)
        self._pictures: dict[int, tuple[int, np.ndarray]] = {}
        self._surface: list[list[float]] = []
        self._grain: list[bool] = []
        self._lights: list[list[float]] = []
        self._shapes: list[tuple] = []

    # Frames

    @contextmanager
    def at(self, x: float, y: float, z: float = 0.0, turn: float = 0.0, rotation=None) -> Iterator:
        """Within the block, shapes are relative to this point and turn (radians about z)."""
        before = self._frame
        step = np.eye(4)
        step[:3, :3] = turn_z(turn) if rotation is None else rotation
        step[:3, 3] = x, y, z
        self._frame = before @ step
        try:
            yield
        finally:
            self._frame = before

    def point(self, x: float, y: float, z: float) -> np.ndarray:
        """World position [3] of a point in the current frame."""
        return (self._frame @ [x, y, z, 1])[:3]

    # Materials and lights

    def material(
        self,
        picture: np.ndarray | None,
        tile: float = 1.0,
        *,
        tint: Vector = (1, 1, 1),
        f0: float = 0.04,
        sharpness: float = 0.0,
        mirror: float = 0.0,
        emission: float = 0.0,
        fit: bool = False,
        grain: bool = False,
    ) -> int:
        """Add a material and return its index.

        tile: metres that one texture covers; fit: stretch it over each face instead.
        f0, sharpness: reflectance at normal incidence, exponent of highlights (0: matt).
        mirror: share of the Fresnel reflection that is traced. emission: radiance per albedo.
        grain: the texture's u runs along the longer edge of each box face.
        """
        if picture is None:
            picture = np.full((4, 4, 3), 0.98, np.float32)
        index, _ = self._pictures.setdefault(id(picture), (len(self._pictures), picture))
        light = np.square(picture[::4, ::4]).reshape(-1, 3).mean(0) * np.asarray(tint)
        row = [
            index,
            1 / tile,
            1 / tile,
            *tint,
            f0,
            sharpness,
            mirror,
            emission,
            float(fit),
            *light,
        ]
        self._surface.append(row)
        self._grain.append(grain)
        return len(self._surface) - 1

    def window_light(
        self, centre: Vector, half_u: Vector, half_v: Vector, radiance: Vector
    ) -> None:
        """A rectangle that emits `radiance` (RGB) towards half_u x half_v."""
        R = self._frame[:3, :3]
        u, v = R @ np.asarray(half_u, float), R @ np.asarray(half_v, float)
        normal = np.cross(u, v)
        normal /= np.linalg.norm(normal)
        self._lights.append([*self.point(*centre), *u, *v, *normal, *radiance])

    def lamp(self, centre: Vector, radius: float, intensity: Vector) -> None:
        """A small sphere that emits in all directions; intensity: RGB."""
        row = [*self.point(*centre), radius, 0, 0, 0, 0, radius, 0, 0, 0, *intensity]
        self._lights.append(row)

    # Shapes

    def _add(self, kind, centre, rotation, size, material, detail=(0, 0, 1), shift=(0, 0, 0)):
        R = self._frame[:3, :3] @ rotation
        self._shapes.append((kind, R.T, self.point(*centre), size, detail, shift, material))

    def box(
        self,
        centre: Vector,
        size: Vector,
        material: int,
        rounding: float = 0.0,
        rotation: np.ndarray | None = None,
        shift: Vector | None = None,
    ) -> None:
        """A box of the full `size`. Textures shift at random unless `shift` aligns them."""
        half = np.asarray(size, float) / 2
        rounding = min(rounding, half.min() * 0.98)
        if shift is None:
            shift = self.rng.uniform(0, 1, 3)
        R = np.eye(3) if rotation is None else rotation
        self._add(BOX, centre, R, (*(half - rounding), rounding), material, shift=shift)

    def slab(self, low: Vector, high: Vector, material: int) -> None:
        """A box between two corners; neighbouring slabs continue each other's texture."""
        low, high = np.asarray(low, float), np.asarray(high, float)
        centre = (low + high) / 2
        self.box(centre, high - low, material, shift=centre)

    def ellipsoid(self, centre: Vector, radii: Vector, material: int, rotation=None) -> None:
        """An ellipsoid with the given radii."""
        R = np.eye(3) if rotation is None else rotation
        turns = self._turns(max(radii[:2]), material)
        self._add(ELLIPSOID, centre, R, (*radii, 0), material, (0, 0, turns))

    def ball(self, centre: Vector, radius: float, material: int) -> None:
        """A sphere, rolled to a random side."""
        R = turn_z(self.rng.uniform(0, 6.28)) @ tilt(0, self.rng.uniform(0, 3.14))
        self.ellipsoid(centre, (radius, radius, radius), material, R)

    def capsule(self, start: Vector, end: Vector, radius: float, material: int) -> None:
        """A cylinder with rounded ends between two points."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        size = (2 * radius, 2 * radius, np.linalg.norm(end - start) + 2 * radius)
        R = frame_along(end - start)
        half = np.asarray(size) / 2 - radius
        shift = self.rng.uniform(0, 1, 3)
        self._add(BOX, (start + end) / 2, R, (0, 0, half[2], radius), material, shift=shift)

    def rod(
        self,
        start: Vector,
        end: Vector,
        radius: float,
        material: int,
        end_radius: float | None = None,
        caps: int = 3,
    ) -> None:
        """A cylinder or cone frustum between two points; caps: 1 start + 2 end."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        r1 = radius if end_radius is None else end_radius
        half = np.linalg.norm(end - start) / 2
        slope = (r1 - radius) / (2 * half)
        turns = self._turns(max(radius, r1), material)
        R = frame_along(end - start)
        self._add(
            FRUSTUM, (start + end) / 2, R, (radius, r1, half, caps), material, (slope, slope, turns)
        )

    def lathe(self, profile: Sequence[tuple[float, float]], material: int, closed=True) -> None:
        """A turned body: (radius, z) from bottom to top, around the frame's z axis.

        closed: with a lid on top; the bottom always has one. Normals are smooth along the profile.
        """
        r, z = np.asarray(profile, float).T
        slopes = np.gradient(r, z)
        turns = self._turns(r.max(), material)
        last = len(r) - 2
        for k in range(last + 1):
            half = (z[k + 1] - z[k]) / 2
            # An inner piece of a closed body gets both lids: nobody sees them, and no ray enters.
            caps = 3 if closed else (1 if k == 0 else 0)
            centre = (0, 0, z[k] + half)
            self._add(
                FRUSTUM,
                centre,
                np.eye(3),
                (max(r[k], 1e-3), max(r[k + 1], 1e-3), half, caps),
                material,
                (slopes[k], slopes[k + 1], turns),
                centre,
            )

    def flat(self, centre: Vector, rotation, half: Vector, material: int, outline: int) -> None:
        """A two-sided sheet in the rotation's x-y plane: RECTANGLE, LEAF or DISC."""
        self._add(FLAT, centre, rotation, (half[0], half[1], 0, outline), material)

    def _turns(self, radius: float, material: int) -> float:
        return max(1.0, round(2 * math.pi * radius * self._surface[material][raycaster.TILES_U]))

    # Result

    def build(self, direct: int = 6, bounce: int = 8, sky_light: float = 0.0) -> World:
        """Pack all shapes, then bake shadows, one bounce and ambient light.

        direct, bounce: rays per light texel. sky_light: weight of the sky seen by surfaces
        (0 in rooms, whose windows are lights).
        """
        kind, rotation, position, size, detail, shift, material = (
            np.array(column) for column in zip(*self._shapes, strict=True)
        )
        kind, material = kind.astype(np.int32), material.astype(np.int32)
        position, size = position.astype(float), size.astype(float)
        detail, shift = detail.astype(float), shift.astype(float)
        rotation = np.ascontiguousarray(rotation)
        charts, texels = _charts(kind, rotation, position, size, self.texel, self.inside)
        low, high = _bounds(kind, rotation, position, size)
        bounds, skip, shape = _volumes(low, high)
        parts = [textures.build_levels(picture) for _, picture in self._pictures.values()]
        starts = np.cumsum([0] + [len(part) for part in parts])[:-1]
        bits = [int(math.log2(len(picture))) for _, picture in self._pictures.values()]
        total = len(texels)
        world = World(
            kind=kind,
            rotation=rotation,
            position=position,
            size=size,
            detail=detail,
            shift=shift,
            turned=_grain_turns(kind, size, np.array(self._grain)[material]),
            material=material,
            charts=charts,
            light_map=np.zeros((total, 4), np.float32),
            node_bounds=bounds,
            node_skip=skip,
            node_shape=shape,
            surface=np.array(self._surface, float),
            texture_start=starts.astype(np.int64),
            texture_bits=np.array(bits, np.int32),
            texels=np.concatenate(parts),
            lights=np.array(self._lights, float).reshape(-1, 15),
            sun=self.sun,
            sky=self.sky,
            dome=self.dome,
        )
        lit = np.zeros((total, 4), np.float32)
        bounced, gathered = np.zeros_like(lit), np.zeros_like(lit)
        raycaster.bake_direct(world, texels, direct, lit, bounced)
        flat_charts = charts.reshape(-1, 3)
        flat_charts = flat_charts[flat_charts[:, 1] > 0]
        # Later bounces arrive evenly: the mean light, dimmed by a usual albedo.
        ambient = np.zeros(3)
        if bounced.any():
            ambient = 0.3 * np.median(bounced[bounced.sum(1) > 1e-3, :3], 0)
        raycaster.bake_bounce(
            world, texels, bounce, bounced, ambient.astype(float), sky_light, gathered
        )
        light = raycaster.blur(flat_charts, raycaster.blur(flat_charts, lit, 2), 2)
        light += raycaster.blur(flat_charts, raycaster.blur(flat_charts, gathered, 4), 3)
        return world._replace(light_map=light)


def _charts(
    kind: np.ndarray,
    rotation: np.ndarray,
    position: np.ndarray,
    size: np.ndarray,
    texel: float,
    inside: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Light charts [P, 6, 3] and their texels [T, 6] (see `raycaster.bake_direct`)."""
    charts = np.zeros((len(kind), 6, 3), np.int64)
    parts, start = [], 0
    for i, (k, s) in enumerate(zip(kind, size, strict=True)):
        for face in range(FACES[int(k)]):
            if k == BOX:
                e = 2 * (s[:3] + s[3])
                axis = face >> 1
                lengths = (e[1] if axis == 0 else e[0], e[1] if axis == 2 else e[2])
                step = np.clip(0.4 * max(e), 0.012, texel)
                out = rotation[i][axis] * (e[axis] / 2 if face & 1 else -e[axis] / 2)
                centre = position[i] + out
                if (centre < inside[0]).any() or (centre > inside[1]).any():
                    step = max(e)
            elif k == ELLIPSOID:
                lengths = (6.28 * max(s[0], s[1]), 3.14 * max(s[:3]))
                step = np.clip(0.5 * max(s[:3]), 0.012, texel)
            elif k == FRUSTUM:
                r = max(s[0], s[1])
                caps = int(s[3])
                if (face == 1 and caps == 3) or (face >= 2 and not caps & (face - 1)):
                    continue
                lengths = (6.28 * r, 2 * s[2]) if face < 2 else (2 * r, 2 * r)
                step = np.clip(0.4 * r, 0.008, texel)
            else:
                lengths = (2 * s[0], 2 * s[1])
                step = np.clip(0.4 * max(s[:2]), 0.02, texel)
            least = 9 if (k == ELLIPSOID or (k == FRUSTUM and face < 2)) else 2
            columns = int(np.clip(math.ceil(lengths[0] / step) + 1, least, MAX_COLUMNS))
            rows = int(
                np.clip(math.ceil(lengths[1] / step) + 1, 2 if least == 2 else 3, MAX_COLUMNS)
            )
            charts[i, face] = start, columns, rows
            start += columns * rows
            x, y = np.meshgrid(np.arange(columns), np.arange(rows))
            # Samples on the border would lie inside the neighbour: move them in a little.
            cu = np.clip(x / (columns - 1), 0.2 / columns, 1 - 0.2 / columns)
            cv = np.clip(y / (rows - 1), 0.2 / rows, 1 - 0.2 / rows)
            columns_of = (np.full(x.shape, i), np.full(x.shape, face), cu, cv, x, y)
            parts.append(np.stack(columns_of, -1).reshape(-1, 6).astype(float))
    return charts, np.concatenate(parts)


def _grain_turns(kind: np.ndarray, size: np.ndarray, grain: np.ndarray) -> np.ndarray:
    turned = np.zeros(len(kind), np.int32)
    e = size[:, :3]
    for axis, (u, v) in enumerate(((1, 2), (0, 2), (0, 1))):
        turned |= ((e[:, v] > e[:, u]) & grain & (kind == BOX)).astype(np.int32) << axis
    return turned


def _bounds(kind, rotation, position, size) -> tuple[np.ndarray, np.ndarray]:
    """Axis-aligned corners [P, 3] of every shape, slightly padded."""
    local = size[:, :3].copy()
    boxes, rounds, flats = kind == BOX, kind == FRUSTUM, kind == FLAT
    local[boxes] += size[boxes, 3:]
    radius = np.maximum(size[rounds, 0], size[rounds, 1])
    local[rounds, 0] = local[rounds, 1] = radius
    local[flats, 2] = 0
    extent = np.einsum("pij,pi->pj", np.abs(rotation), local) + 1e-4
    return position - extent, position + extent


def _volumes(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bounding volumes by the surface-area heuristic, laid out for each of eight ray octants.

    Depth first, the near child first; a node says where to go on when it is missed, so that
    walking it needs no stack.
    """

    def area(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        d = b - a
        return d[..., 0] * d[..., 1] + d[..., 1] * d[..., 2] + d[..., 2] * d[..., 0]

    def split(items: np.ndarray) -> tuple:
        box = (low[items].min(0), high[items].max(0))
        if len(items) == 1:
            return box, int(items[0]), None, None, 0
        best = (np.inf, 0, 0, items)
        for axis in range(3):
            order = items[np.argsort(low[items, axis] + high[items, axis], kind="stable")]
            left = area(np.minimum.accumulate(low[order]), np.maximum.accumulate(high[order]))
            back = order[::-1]
            right = area(np.minimum.accumulate(low[back]), np.maximum.accumulate(high[back]))[::-1]
            n = np.arange(1, len(items))
            cost = left[:-1] * n + right[1:] * n[::-1]
            k = int(cost.argmin())
            if cost[k] < best[0]:
                best = (cost[k], axis, k + 1, order)
        _, axis, k, order = best
        return box, -1, split(order[:k]), split(order[k:]), axis

    root = split(np.arange(len(low)))
    count = 2 * len(low) - 1
    bounds = np.empty((8, count, 6), np.float32)
    skip, shape = np.empty((8, count), np.int32), np.empty((8, count), np.int32)
    for octant in range(8):
        position = 0

        def lay(node: tuple, octant: int = octant) -> None:
            nonlocal position
            here = position
            position += 1
            (a, b), item, first, second, axis = node
            bounds[octant, here, :3] = a - 1e-4
            bounds[octant, here, 3:] = b + 1e-4
            shape[octant, here] = item
            if item < 0:
                if (octant >> axis) & 1:
                    first, second = second, first
                lay(first)
                lay(second)
            skip[octant, here] = position

        lay(root)
    return bounds, skip, shape
