# Ray casting over analytic shapes: exact hits, baked light, sun shadows and mirror reflections.
# All compiled code is in this one file: the on-disk cache of a compiled function does not notice
# when a function that it calls in another file changes.
from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import prange

from runtime.kernels import kernel

BOX, ELLIPSOID, FRUSTUM, FLAT = range(4)
RECTANGLE, LEAF, DISC = range(3)
FAR = 1e30
NEAR = 1e-5  # closer hits are the surface that the ray starts from
LIFT = 1e-3  # metres by which a secondary ray starts above its surface

# Columns of World.surface, one row a material.
TEXTURE, TILES_U, TILES_V, TINT_R, TINT_G, TINT_B, F0, SHARPNESS, MIRROR, EMISSION, FIT = range(11)
MEAN_R, MEAN_G, MEAN_B, SURFACE_COLUMNS = 11, 12, 13, 14

# No assumption about infinities or NaN: slab tests divide by zero on purpose.
_allocating = kernel(fastmath={"nsz"})
# Without the run-time's reference counts: they cost two atomic operations for every array that a
# function touches, on a counter that all threads share, and doubled the time of a frame.
# Nothing compiled in this way may allocate.
_jit = kernel(_nrt=False, fastmath={"nsz"})
# A call that is not inlined copies the whole World, which costs more than most of these do.
_inline = kernel(_nrt=False, forceinline=True, fastmath={"nsz"})
_parallel = kernel(parallel=True, fastmath={"nsz"})


class World(NamedTuple):
    """Everything that a ray can meet. P shapes, M materials, N nodes, L lights, T light texels.

    size [P, 4]: box: half extents inside the rounding, rounding; ellipsoid: radii;
        frustum: radius at -z, radius at +z, half height, caps (1 bottom + 2 top);
        flat: half extents, 0, outline.
    detail [P, 3]: frustum: slopes of the smoothed profile at -z and +z; round shapes: how often
        the texture goes around.
    charts [P, 6, 3]: per face, where its light texels start and their columns and rows.
    nodes_*: the bounding volumes in depth-first order for each of the eight ray octants.
    lights [L, 15]: centre, half edge u, half edge v, normal (0 for a lamp that shines everywhere),
        radiance (a rectangle) or intensity (a lamp).
    sun [6]: direction towards it, irradiance. sky [h, w, 3]: radiance on a dome of radius `dome`.
    """

    kind: np.ndarray
    rotation: np.ndarray  # [P, 3, 3] world to local
    position: np.ndarray  # [P, 3]
    size: np.ndarray
    detail: np.ndarray
    shift: np.ndarray  # [P, 3] added to local positions before texturing
    turned: np.ndarray  # [P] bit a: swap u and v on the faces across axis a
    material: np.ndarray
    charts: np.ndarray
    light_map: np.ndarray  # [T, 4] irradiance without the sun, share of sunny texels around
    node_bounds: np.ndarray  # [8, N, 6]
    node_skip: np.ndarray  # [8, N] where to go on a miss
    node_shape: np.ndarray  # [8, N] the leaf's shape, else -1
    surface: np.ndarray  # [M, SURFACE_COLUMNS]
    texture_start: np.ndarray  # [textures]
    texture_bits: np.ndarray  # [textures] log2 of the side
    texels: np.ndarray  # [.., 4] uint8, square root of the linear colour, all levels of detail
    lights: np.ndarray
    sun: np.ndarray
    sky: np.ndarray
    dome: float


@_inline
def _to_local(world, i, x, y, z):
    R = world.rotation
    return (
        R[i, 0, 0] * x + R[i, 0, 1] * y + R[i, 0, 2] * z,
        R[i, 1, 0] * x + R[i, 1, 1] * y + R[i, 1, 2] * z,
        R[i, 2, 0] * x + R[i, 2, 1] * y + R[i, 2, 2] * z,
    )


@_inline
def _to_world(world, i, x, y, z):
    R = world.rotation
    return (
        R[i, 0, 0] * x + R[i, 1, 0] * y + R[i, 2, 0] * z,
        R[i, 0, 1] * x + R[i, 1, 1] * y + R[i, 2, 1] * z,
        R[i, 0, 2] * x + R[i, 1, 2] * y + R[i, 2, 2] * z,
    )


@_inline
def _hit_box(hx, hy, hz, radius, ox, oy, oz, dx, dy, dz):
    """(t, face) of the entry into a box, rounded or not; rays from inside miss."""
    dx = dx if abs(dx) > 1e-12 else 1e-12
    dy = dy if abs(dy) > 1e-12 else 1e-12
    dz = dz if abs(dz) > 1e-12 else 1e-12
    mx, my, mz = 1 / dx, 1 / dy, 1 / dz
    kx, ky, kz = abs(mx) * (hx + radius), abs(my) * (hy + radius), abs(mz) * (hz + radius)
    ax, ay, az = -mx * ox - kx, -my * oy - ky, -mz * oz - kz
    near = max(ax, max(ay, az))
    far = min(kx - mx * ox, min(ky - my * oy, kz - mz * oz))
    if near > far or far < NEAR:
        return FAR, 0
    if radius == 0.0:
        if near < NEAR:
            return FAR, 0
        if near == ax:
            return near, 0 if dx > 0 else 1
        if near == ay:
            return near, 2 if dy > 0 else 3
        return near, 4 if dz > 0 else 5
    # Rounded: mirror into the first octant; the faces, else one corner ball and three edges.
    r2 = radius * radius
    if near < NEAR:  # the ray starts between the box and its rounding, or inside
        near = 0.0
        qx, qy, qz = max(abs(ox) - hx, 0.0), max(abs(oy) - hy, 0.0), max(abs(oz) - hz, 0.0)
        if qx * qx + qy * qy + qz * qz <= r2:
            return FAR, 0
    px, py, pz = ox + near * dx, oy + near * dy, oz + near * dz
    if px < 0:
        px, ox, dx = -px, -ox, -dx
    if py < 0:
        py, oy, dy = -py, -oy, -dy
    if pz < 0:
        pz, oz, dz = -pz, -oz, -dz
    px, py, pz = px - hx, py - hy, pz - hz
    if near > NEAR and min(max(px, py), min(max(py, pz), max(pz, px))) < 0:
        return near, 0
    cx, cy, cz = ox - hx, oy - hy, oz - hz
    xx, yy, zz = dx * dx, dy * dy, dz * dz
    bx, by, bz = cx * dx, cy * dy, cz * dz
    qx, qy, qz = cx * cx, cy * cy, cz * cz
    best = FAR
    a = xx + yy + zz
    b = bx + by + bz
    h = b * b - a * (qx + qy + qz - r2)
    if h > 0:
        t = (-b - math.sqrt(h)) / a
        if t > NEAR:
            best = t
    a, b = yy + zz, by + bz
    h = b * b - a * (qy + qz - r2)
    if h > 0:
        t = (-b - math.sqrt(h)) / a
        if NEAR < t < best and abs(ox + t * dx) < hx:
            best = t
    a, b = zz + xx, bz + bx
    h = b * b - a * (qz + qx - r2)
    if h > 0:
        t = (-b - math.sqrt(h)) / a
        if NEAR < t < best and abs(oy + t * dy) < hy:
            best = t
    a, b = xx + yy, bx + by
    h = b * b - a * (qx + qy - r2)
    if h > 0:
        t = (-b - math.sqrt(h)) / a
        if NEAR < t < best and abs(oz + t * dz) < hz:
            best = t
    return best, 0


@_inline
def _hit_ellipsoid(rx, ry, rz, ox, oy, oz, dx, dy, dz):
    ox, oy, oz = ox / rx, oy / ry, oz / rz
    dx, dy, dz = dx / rx, dy / ry, dz / rz
    a = dx * dx + dy * dy + dz * dz
    b = ox * dx + oy * dy + oz * dz
    h = b * b - a * (ox * ox + oy * oy + oz * oz - 1)
    if h <= 0:
        return FAR, 0
    t = (-b - math.sqrt(h)) / a
    return (t if t > NEAR else FAR), 0


@_inline
def _hit_frustum(r0, r1, half, caps, ox, oy, oz, dx, dy, dz):
    """Faces: 0 outside, 1 inside (seen through an open end), 2 bottom, 3 top."""
    k = (r1 - r0) / (2 * half)
    mean = 0.5 * (r0 + r1)
    a = dx * dx + dy * dy - k * k * dz * dz
    w = mean + k * oz
    b = ox * dx + oy * dy - k * dz * w
    h = b * b - a * (ox * ox + oy * oy - w * w)
    best, face = FAR, 0
    if h > 0:
        if abs(a) < 1e-12:
            a = 1e-12
        root = math.sqrt(h)
        for sign in (-1.0, 1.0):
            t = (-b + sign * root) / a
            z = oz + t * dz
            if NEAR < t < best and -half <= z <= half and mean + k * z >= 0:
                inward = (ox + t * dx) * dx + (oy + t * dy) * dy - k * (mean + k * z) * dz < 0
                if inward:
                    best, face = t, 0
                elif caps != 3:
                    best, face = t, 1
    if caps & 1 and dz > 1e-12:
        t = (-half - oz) / dz
        if NEAR < t < best and (ox + t * dx) ** 2 + (oy + t * dy) ** 2 <= r0 * r0:
            best, face = t, 2
    if caps & 2 and dz < -1e-12:
        t = (half - oz) / dz
        if NEAR < t < best and (ox + t * dx) ** 2 + (oy + t * dy) ** 2 <= r1 * r1:
            best, face = t, 3
    return best, face


@_inline
def _hit_flat(hx, hy, outline, ox, oy, oz, dx, dy, dz):
    if abs(dz) < 1e-12:
        return FAR, 0
    t = -oz / dz
    x, y = (ox + t * dx) / hx, (oy + t * dy) / hy
    if t < NEAR or abs(x) > 1 or abs(y) > 1:
        return FAR, 0
    if outline == LEAF and abs(y) > 1 - x * x:
        return FAR, 0
    if outline == DISC and x * x + y * y > 1:
        return FAR, 0
    return t, 0 if oz > 0 else 1


@_inline
def _hit_shape(world, i, ox, oy, oz, dx, dy, dz):
    """(t, face) where the ray meets shape i; t = FAR if it does not."""
    p, s = world.position, world.size
    ox, oy, oz = _to_local(world, i, ox - p[i, 0], oy - p[i, 1], oz - p[i, 2])
    dx, dy, dz = _to_local(world, i, dx, dy, dz)
    kind = world.kind[i]
    if kind == BOX:
        return _hit_box(s[i, 0], s[i, 1], s[i, 2], s[i, 3], ox, oy, oz, dx, dy, dz)
    if kind == ELLIPSOID:
        return _hit_ellipsoid(s[i, 0], s[i, 1], s[i, 2], ox, oy, oz, dx, dy, dz)
    if kind == FRUSTUM:
        return _hit_frustum(s[i, 0], s[i, 1], s[i, 2], int(s[i, 3]), ox, oy, oz, dx, dy, dz)
    return _hit_flat(s[i, 0], s[i, 1], int(s[i, 3]), ox, oy, oz, dx, dy, dz)


@_jit
def _trace(world, ox, oy, oz, dx, dy, dz, limit, any_hit):
    """(t, shape, face) of the nearest hit before `limit`, or the first found; shape -1 for none."""
    octant = (1 if dx < 0 else 0) + (2 if dy < 0 else 0) + (4 if dz < 0 else 0)
    b, skip, leaf = world.node_bounds, world.node_skip, world.node_shape
    ix = 1 / (dx if abs(dx) > 1e-12 else 1e-12)
    iy = 1 / (dy if abs(dy) > 1e-12 else 1e-12)
    iz = 1 / (dz if abs(dz) > 1e-12 else 1e-12)
    # Columns of the near and the far planes for this octant.
    x0, y0, z0 = (3 if ix < 0 else 0), (4 if iy < 0 else 1), (5 if iz < 0 else 2)
    x1, y1, z1 = 3 - x0, 5 - y0, 7 - z0
    best, shape, face = limit, -1, 0
    n = 0
    count = skip.shape[1]
    while n < count:
        near = max(
            (b[octant, n, x0] - ox) * ix,
            max((b[octant, n, y0] - oy) * iy, (b[octant, n, z0] - oz) * iz),
        )
        far = min(
            (b[octant, n, x1] - ox) * ix,
            min((b[octant, n, y1] - oy) * iy, (b[octant, n, z1] - oz) * iz),
        )
        if near > far or far < 0 or near > best:
            n = skip[octant, n]
            continue
        i = leaf[octant, n]
        if i >= 0:
            t, f = _hit_shape(world, i, ox, oy, oz, dx, dy, dz)
            if t < best:
                best, shape, face = t, i, f
                if any_hit:
                    return best, shape, face
        n += 1
    return best, shape, face


@_inline
def _surface(world, i, face, x, y, z):
    """What is at the local point (x, y, z) of shape i.

    Returns the face, its light-chart coordinates in [0, 1]^2, texture coordinates (metres, or
    [0, 1]^2 if the material fits the face), the local normal and the local direction of u.
    """
    s, shift = world.size, world.shift
    kind = world.kind[i]
    fit = world.surface[world.material[i], FIT] > 0
    if kind == BOX:
        r = s[i, 3]
        ex, ey, ez = s[i, 0] + r, s[i, 1] + r, s[i, 2] + r
        nx, ny, nz = 0.0, 0.0, 0.0
        if r > 0:
            nx = (x - min(max(x, -s[i, 0]), s[i, 0])) / r
            ny = (y - min(max(y, -s[i, 1]), s[i, 1])) / r
            nz = (z - min(max(z, -s[i, 2]), s[i, 2])) / r
            length = math.sqrt(nx * nx + ny * ny + nz * nz)
            if length > 1e-6:
                nx, ny, nz = nx / length, ny / length, nz / length
            else:
                nz = 1.0
            mx, my, mz = abs(nx), abs(ny), abs(nz)
            # Push the point out along the normal onto the unrounded box: there charts are flat.
            if mx >= my and mx >= mz:
                face = 1 if nx > 0 else 0
                out = r / mx - r
            elif my >= mz:
                face = 3 if ny > 0 else 2
                out = r / my - r
            else:
                face = 5 if nz > 0 else 4
                out = r / mz - r
            x, y, z = x + nx * out, y + ny * out, z + nz * out
        sign = 1.0 if face & 1 else -1.0
        axis = face >> 1
        if axis == 0:
            if r == 0:
                nx = sign
            cu, cv = 0.5 + 0.5 * y / ey, 0.5 + 0.5 * z / ez
            tu, tv, ux, uy, uz = y + shift[i, 1], z + shift[i, 2], 0.0, 1.0, 0.0
        elif axis == 1:
            if r == 0:
                ny = sign
            cu, cv = 0.5 + 0.5 * x / ex, 0.5 + 0.5 * z / ez
            tu, tv, ux, uy, uz = x + shift[i, 0], z + shift[i, 2], 1.0, 0.0, 0.0
        else:
            if r == 0:
                nz = sign
            cu, cv = 0.5 + 0.5 * x / ex, 0.5 + 0.5 * y / ey
            tu, tv, ux, uy, uz = x + shift[i, 0], y + shift[i, 1], 1.0, 0.0, 0.0
        if fit:
            # A picture reads left to right from outside.
            flip = face == 0 or face == 3
            tu, tv = (1 - cu if flip else cu), cv
        elif (world.turned[i] >> axis) & 1:
            tu, tv = tv, tu
            ux, uy, uz = (0.0, 0.0, 1.0) if axis < 2 else (0.0, 1.0, 0.0)
        return face, cu, cv, tu, tv, nx, ny, nz, ux, uy, uz
    turns = world.detail[i, 2]
    if kind == ELLIPSOID:
        wx, wy, wz = x / s[i, 0], y / s[i, 1], min(max(z / s[i, 2], -1.0), 1.0)
        cu = math.atan2(wy, wx) / (2 * math.pi) + 0.5
        cv = math.acos(-wz) / math.pi
        nx, ny, nz = wx / s[i, 0], wy / s[i, 1], wz / s[i, 2]
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        tu = cu if fit else cu * turns + shift[i, 0]
        tv = cv if fit else cv * max(s[i, 0], s[i, 2]) * math.pi + shift[i, 2]
        return 0, cu, cv, tu, tv, nx / length, ny / length, nz / length, 0.0, 0.0, 0.0
    if kind == FRUSTUM:
        if face >= 2:
            r = s[i, 0] if face == 2 else s[i, 1]
            cu, cv = 0.5 + 0.5 * x / r, 0.5 + 0.5 * y / r
            nz = -1.0 if face == 2 else 1.0
            tu, tv = (cu, cv) if fit else (x + shift[i, 0], y + shift[i, 1])
            return face, cu, cv, tu, tv, 0.0, 0.0, nz, 1.0, 0.0, 0.0
        rho = math.sqrt(x * x + y * y) + 1e-12
        cu = math.atan2(y, x) / (2 * math.pi) + 0.5
        cv = 0.5 + 0.5 * z / s[i, 2]
        slope = world.detail[i, 0] * (1 - cv) + world.detail[i, 1] * cv
        length = math.sqrt(1 + slope * slope) * (1.0 if face == 0 else -1.0)
        nx, ny, nz = x / rho / length, y / rho / length, -slope / length
        tu, tv = (cu, cv) if fit else (cu * turns + shift[i, 0], z + shift[i, 2])
        return face, cu, cv, tu, tv, nx, ny, nz, -y / rho, x / rho, 0.0
    cu, cv = 0.5 + 0.5 * x / s[i, 0], 0.5 + 0.5 * y / s[i, 1]
    nz = 1.0 if face == 0 else -1.0
    tu, tv = (cu, cv) if fit else (x + shift[i, 0], y + shift[i, 1])
    return face, cu, cv, tu, tv, 0.0, 0.0, nz, 1.0, 0.0, 0.0


@_jit
def _chart_point(world, i, face, cu, cv):
    """The inverse of `_surface`: local point and normal at chart coordinates of a face."""
    s, kind = world.size, world.kind[i]
    a, b = 2 * cu - 1, 2 * cv - 1
    if kind == BOX:
        r = s[i, 3]
        ex, ey, ez = s[i, 0] + r, s[i, 1] + r, s[i, 2] + r
        sign = 1.0 if face & 1 else -1.0
        axis = face >> 1
        if axis == 0:
            x, y, z, nx, ny, nz = sign * ex, a * ey, b * ez, sign, 0.0, 0.0
        elif axis == 1:
            x, y, z, nx, ny, nz = a * ex, sign * ey, b * ez, 0.0, sign, 0.0
        else:
            x, y, z, nx, ny, nz = a * ex, b * ey, sign * ez, 0.0, 0.0, sign
        if r > 0:
            qx, qy = min(max(x, -s[i, 0]), s[i, 0]), min(max(y, -s[i, 1]), s[i, 1])
            qz = min(max(z, -s[i, 2]), s[i, 2])
            nx, ny, nz = x - qx, y - qy, z - qz
            length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
            nx, ny, nz = nx / length, ny / length, nz / length
            x, y, z = qx + r * nx, qy + r * ny, qz + r * nz
        return x, y, z, nx, ny, nz
    if kind == ELLIPSOID:
        angle, polar = (cu - 0.5) * 2 * math.pi, cv * math.pi
        wx, wy = math.cos(angle) * math.sin(polar), math.sin(angle) * math.sin(polar)
        wz = -math.cos(polar)
        nx, ny, nz = wx / s[i, 0], wy / s[i, 1], wz / s[i, 2]
        length = math.sqrt(nx * nx + ny * ny + nz * nz)
        return wx * s[i, 0], wy * s[i, 1], wz * s[i, 2], nx / length, ny / length, nz / length
    if kind == FRUSTUM:
        if face >= 2:
            r = s[i, 0] if face == 2 else s[i, 1]
            rho = math.sqrt(a * a + b * b)
            if rho > 0.97:
                a, b = a * 0.97 / rho, b * 0.97 / rho
            nz = -1.0 if face == 2 else 1.0
            return a * r, b * r, nz * s[i, 2], 0.0, 0.0, nz
        angle = (cu - 0.5) * 2 * math.pi
        r = s[i, 0] * (1 - cv) + s[i, 1] * cv
        slope = world.detail[i, 0] * (1 - cv) + world.detail[i, 1] * cv
        length = math.sqrt(1 + slope * slope) * (1.0 if face == 0 else -1.0)
        cx, cy = math.cos(angle), math.sin(angle)
        return r * cx, r * cy, b * s[i, 2], cx / length, cy / length, -slope / length
    if s[i, 3] == LEAF:
        b *= 1 - a * a
    elif s[i, 3] == DISC:
        a *= math.sqrt(1 - 0.5 * b * b)
        b *= math.sqrt(1 - 0.5 * a * a)
    return a * s[i, 0], b * s[i, 1], 0.0, 0.0, 0.0, 1.0 if face == 0 else -1.0


@_inline
def _irradiance(world, values, i, face, cu, cv):
    """Bilinear look-up in a face's light chart: irradiance, and how much sun falls nearby."""
    c = world.charts
    start, columns, rows = c[i, face, 0], c[i, face, 1], c[i, face, 2]
    x = min(max(cu, 0.0), 1.0) * (columns - 1)
    y = min(max(cv, 0.0), 1.0) * (rows - 1)
    x0, y0 = min(int(x), columns - 2), min(int(y), rows - 2)
    fx, fy = x - x0, y - y0
    a = start + y0 * columns + x0
    b = a + columns
    w00, w01, w10, w11 = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    v = values
    return (
        w00 * v[a, 0] + w01 * v[a + 1, 0] + w10 * v[b, 0] + w11 * v[b + 1, 0],
        w00 * v[a, 1] + w01 * v[a + 1, 1] + w10 * v[b, 1] + w11 * v[b + 1, 1],
        w00 * v[a, 2] + w01 * v[a + 1, 2] + w10 * v[b, 2] + w11 * v[b + 1, 2],
        w00 * v[a, 3] + w01 * v[a + 1, 3] + w10 * v[b, 3] + w11 * v[b + 1, 3],
    )


@_inline
def _level(texels, start, bits, level, u, v):
    """Bilinear look-up in one level of detail of a wrapping texture."""
    n = 1 << (bits - level)
    # Levels lie one after another: 4^bits + 4^(bits-1) + ...
    start += ((1 << (2 * bits + 2)) - (1 << (2 * (bits - level) + 2))) // 3
    x, y = u * n - 0.5, v * n - 0.5
    fx, fy = math.floor(x), math.floor(y)
    x0, y0 = int(fx) & (n - 1), int(fy) & (n - 1)
    x1, y1 = (x0 + 1) & (n - 1), (y0 + 1) & (n - 1)
    fx, fy = x - fx, y - fy
    a, b = start + y0 * n, start + y1 * n
    w00, w01, w10, w11 = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    p, q, r, s = a + x0, a + x1, b + x0, b + x1
    return (
        w00 * texels[p, 0] + w01 * texels[q, 0] + w10 * texels[r, 0] + w11 * texels[s, 0],
        w00 * texels[p, 1] + w01 * texels[q, 1] + w10 * texels[r, 1] + w11 * texels[s, 1],
        w00 * texels[p, 2] + w01 * texels[q, 2] + w10 * texels[r, 2] + w11 * texels[s, 2],
    )


@_inline
def _texture(world, m, u, v, narrow, wide, du, dv):
    """Linear colour over a footprint: `narrow` and `wide` in tiles, (du, dv) the wide direction."""
    k = int(world.surface[m, TEXTURE])
    bits = world.texture_bits[k]
    start = world.texture_start[k]
    side = 1 << bits
    taps = min(4, max(1, int(wide / max(narrow, 1e-9) + 0.5)))
    width = 0.7 * max(narrow, wide / taps) * side  # slightly sharper than the strict filter
    lod = min(max(math.log2(max(width, 1e-9)), 0.0), bits - 1.001)
    level = int(lod)
    f = lod - level
    r, g, b = 0.0, 0.0, 0.0
    for tap in range(taps):
        step = ((tap + 0.5) / taps - 0.5) * wide
        r0, g0, b0 = _level(world.texels, start, bits, level, u + du * step, v + dv * step)
        if f > 0:
            r1, g1, b1 = _level(world.texels, start, bits, level + 1, u + du * step, v + dv * step)
            r0, g0, b0 = r0 + f * (r1 - r0), g0 + f * (g1 - g0), b0 + f * (b1 - b0)
        r, g, b = r + r0, g + g0, b + b0
    scale = 1.0 / (255.0 * taps)
    r, g, b = r * scale, g * scale, b * scale
    s = world.surface
    return r * r * s[m, TINT_R], g * g * s[m, TINT_G], b * b * s[m, TINT_B]


@_jit
def _sky(world, ox, oy, oz, dx, dy, dz):
    """(t, r, g, b) of the sky dome, a sphere around the origin."""
    b = ox * dx + oy * dy + oz * dz
    c = ox * ox + oy * oy + oz * oz - world.dome * world.dome
    t = -b + math.sqrt(max(b * b - c, 0.0))
    x, y, z = (ox + t * dx) / world.dome, (oy + t * dy) / world.dome, (oz + t * dz) / world.dome
    rows, columns, _ = world.sky.shape
    u = (math.atan2(y, x) / (2 * math.pi) + 0.5) * columns - 0.5
    v = math.acos(min(max(z, -1.0), 1.0)) / math.pi * rows - 0.5
    u0 = math.floor(u)
    fu = u - u0
    a, b1 = u0 % columns, (u0 + 1) % columns
    v0 = min(max(math.floor(v), 0), rows - 2)
    fv = min(max(v - v0, 0.0), 1.0)
    w00, w01, w10, w11 = (1 - fu) * (1 - fv), fu * (1 - fv), (1 - fu) * fv, fu * fv
    s, v1 = world.sky, v0 + 1
    return (
        t,
        w00 * s[v0, a, 0] + w01 * s[v0, b1, 0] + w10 * s[v1, a, 0] + w11 * s[v1, b1, 0],
        w00 * s[v0, a, 1] + w01 * s[v0, b1, 1] + w10 * s[v1, a, 1] + w11 * s[v1, b1, 1],
        w00 * s[v0, a, 2] + w01 * s[v0, b1, 2] + w10 * s[v1, a, 2] + w11 * s[v1, b1, 2],
    )


@_jit
def _shine(world, m, x, y, z, nx, ny, nz, dx, dy, dz, sunny):
    """Normalised Blinn-Phong highlights of the lamps, the windows and the sun."""
    s = world.surface
    e = s[m, SHARPNESS]
    scale = (e + 8) / (8 * math.pi)
    r, g, b = 0.0, 0.0, 0.0
    for l in range(len(world.lights) + 1):
        if l == len(world.lights):
            if not sunny:
                break
            lx, ly, lz = world.sun[0], world.sun[1], world.sun[2]
            distance, strength = FAR, 1.0
            cr, cg, cb = world.sun[3], world.sun[4], world.sun[5]
        else:
            light = world.lights
            lx, ly, lz = light[l, 0] - x, light[l, 1] - y, light[l, 2] - z
            distance = math.sqrt(lx * lx + ly * ly + lz * lz)
            lx, ly, lz = lx / distance, ly / distance, lz / distance
            facing = -(lx * light[l, 9] + ly * light[l, 10] + lz * light[l, 11])
            oriented = light[l, 9] != 0 or light[l, 10] != 0 or light[l, 11] != 0
            if oriented and facing <= 0:
                continue
            # A wide light makes a wide, weak highlight; 4|u||v| is a rectangle's area.
            area = 4 * math.sqrt(
                (light[l, 3] ** 2 + light[l, 4] ** 2 + light[l, 5] ** 2)
                * (light[l, 6] ** 2 + light[l, 7] ** 2 + light[l, 8] ** 2)
            )
            strength = (facing * area if oriented else 1.0) / (distance * distance + 0.05)
            cr, cg, cb = light[l, 12], light[l, 13], light[l, 14]
        cosine = nx * lx + ny * ly + nz * lz
        if cosine <= 0:
            continue
        hx, hy, hz = lx - dx, ly - dy, lz - dz
        h = math.sqrt(hx * hx + hy * hy + hz * hz) + 1e-12
        half = max((nx * hx + ny * hy + nz * hz) / h, 0.0)
        if (1 - half) * e > 9:  # far outside the lobe
            continue
        along = max((lx * hx + ly * hy + lz * hz) / h, 0.0)
        fresnel = s[m, F0] + (1 - s[m, F0]) * (1 - along) ** 5
        value = fresnel * scale * half**e * cosine * strength
        # What nobody would see needs no shadow ray; subtracting keeps the lobe's rim smooth.
        value -= 0.015 / max(cr, max(cg, cb))
        if value <= 0:
            continue
        if distance < FAR:
            _, shape, _ = _trace(world, x, y, z, lx, ly, lz, distance - 0.25, True)
            if shape >= 0:
                continue
        r, g, b = r + value * cr, g + value * cg, b + value * cb
    return r, g, b


@_jit
def _shade(world, ox, oy, oz, dx, dy, dz, spread, shiny):
    """Radiance along a ray without its mirror reflection.

    Returns t, rgb, a number that changes across edges, the shape, the point lifted off the
    surface and its normal. `spread` is the width of a pixel's footprint per metre.
    """
    t, i, face = _trace(world, ox, oy, oz, dx, dy, dz, FAR, False)
    if i < 0:
        t, r, g, b = _sky(world, ox, oy, oz, dx, dy, dz)
        return t, r, g, b, -1, -1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
    p = world.position
    lx, ly, lz = _to_local(world, i, x - p[i, 0], y - p[i, 1], z - p[i, 2])
    face, cu, cv, tu, tv, nx, ny, nz, ux, uy, uz = _surface(world, i, face, lx, ly, lz)
    m = world.material[i]
    s = world.surface
    # The pixel's footprint in the texture: along the view it is stretched by 1 / cosine.
    vx, vy, vz = _to_local(world, i, dx, dy, dz)
    cosine = max(-(nx * vx + ny * vy + nz * vz), 0.04)
    if s[m, FIT] > 0:
        if world.kind[i] == BOX:
            axis = face >> 1
            e = world.size
            hu, hv = (e[i, 1] if axis == 0 else e[i, 0]), (e[i, 1] if axis == 2 else e[i, 2])
            scale_u, scale_v = 0.5 / (hu + e[i, 3]), 0.5 / (hv + e[i, 3])
        else:
            scale_u = scale_v = 0.25 / max(world.size[i, 0], world.size[i, 1])
    else:
        scale_u, scale_v = s[m, TILES_U], s[m, TILES_V]
        if world.kind[i] == ELLIPSOID or (world.kind[i] == FRUSTUM and face < 2):
            tu, scale_u = tu / s[m, TILES_U], s[m, TILES_U]  # already counted in whole tiles
        tu, tv = tu * scale_u, tv * scale_v
    width = t * spread
    tx, ty, tz = vx + nx * cosine, vy + ny * cosine, vz + nz * cosine
    along_u = tx * ux + ty * uy + tz * uz
    wx, wy, wz = ny * uz - nz * uy, nz * ux - nx * uz, nx * uy - ny * ux
    along_v = tx * wx + ty * wy + tz * wz
    # The second direction's sign is the face's: only its line matters to a symmetric filter,
    # but it must agree with u, so take the direction in which v grows.
    if wx + wy + wz < 0:
        along_v = -along_v
    length = math.sqrt(along_u * along_u + along_v * along_v)
    tiles = max(scale_u, scale_v)
    narrow = width * tiles
    if length > 1e-3:
        du, dv = along_u / length * scale_u / tiles, along_v / length * scale_v / tiles
        wide = narrow / cosine
    else:
        du, dv = 0.0, 0.0
        wide = narrow
        narrow = narrow / math.sqrt(cosine)
        wide = narrow
    ar, ag, ab = _texture(world, m, tu, tv, narrow, wide, du, dv)
    nx, ny, nz = _to_world(world, i, nx, ny, nz)
    er, eg, eb, sunshine = _irradiance(world, world.light_map, i, face, cu, cv)
    x, y, z = x + nx * LIFT, y + ny * LIFT, z + nz * LIFT
    sun = world.sun
    towards = nx * sun[0] + ny * sun[1] + nz * sun[2]
    sunny = False
    # Deep in shadow, as baked, no ray need be sent.
    if towards > 0 and sunshine > 0:
        _, blocker, _ = _trace(world, x, y, z, sun[0], sun[1], sun[2], FAR, True)
        if blocker < 0:
            sunny = True
            er, eg, eb = er + sun[3] * towards, eg + sun[4] * towards, eb + sun[5] * towards
    glow = s[m, EMISSION]
    r = ar * (er / math.pi + glow)
    g = ag * (eg / math.pi + glow)
    b = ab * (eb / math.pi + glow)
    if shiny and s[m, SHARPNESS] > 0:
        hr, hg, hb = _shine(world, m, x, y, z, nx, ny, nz, dx, dy, dz, sunny)
        r, g, b = r + hr, g + hg, b + hb
    key = i * 16 + (face * 2 if world.kind[i] != BOX or world.size[i, 3] == 0 else 0)
    return t, r, g, b, key + (1 if sunny else 0), i, x, y, z, nx, ny, nz


@_jit
def _radiance(world, ox, oy, oz, dx, dy, dz, spread):
    """(t, r, g, b, key) along a unit ray, with one mirror reflection on polished materials."""
    t, r, g, b, key, i, x, y, z, nx, ny, nz = _shade(world, ox, oy, oz, dx, dy, dz, spread, True)
    if i >= 0:
        s, m = world.surface, world.material[i]
        if s[m, MIRROR] > 0:
            cosine = -(nx * dx + ny * dy + nz * dz)
            if cosine > 0:
                weight = s[m, MIRROR] * (s[m, F0] + (1 - s[m, F0]) * (1 - cosine) ** 5)
                # Reflections too weak to see fade out, so that most of a floor needs no ray.
                fade = min(max((weight - 0.02) / 0.05, 0.0), 1.0)
                weight *= fade * fade * (3 - 2 * fade)
                if weight > 0:
                    rx, ry, rz = dx + 2 * cosine * nx, dy + 2 * cosine * ny, dz + 2 * cosine * nz
                    _, r1, g1, b1, key1 = _shade(world, x, y, z, rx, ry, rz, spread * 3, False)[:5]
                    if s[m, F0] > 0.3:  # metal colours its reflection
                        r1, g1, b1 = r1 * s[m, TINT_R], g1 * s[m, TINT_G], b1 * s[m, TINT_B]
                    r += weight * (r1 - r)
                    g += weight * (g1 - g)
                    b += weight * (b1 - b)
                    if weight > 0.1:
                        key += (key1 + 2) * 100003
    return t, r, g, b, key


@_inline
def _tone(x, exposure):
    """A filmic curve with a soft shoulder (Narkowicz's fit of ACES), still linear light."""
    x = max(x, 0.0) * exposure
    return min((x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14), 1.0)


@_inline
def _pixel(world, camera, K, u, v):
    """(z-depth, r, g, b, key) of the picture position (u, v)."""
    x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    n = 1 / math.sqrt(x * x + y * y + 1)
    dx = (camera[0, 0] * x + camera[0, 1] * y + camera[0, 2]) * n
    dy = (camera[1, 0] * x + camera[1, 1] * y + camera[1, 2]) * n
    dz = (camera[2, 0] * x + camera[2, 1] * y + camera[2, 2]) * n
    ox, oy, oz = camera[0, 3], camera[1, 3], camera[2, 3]
    t, r, g, b, key = _radiance(world, ox, oy, oz, dx, dy, dz, 1 / K[0, 0])
    return t * n, r, g, b, key


@_jit
def _first_pass(world, camera, K, row, exposure, first, depth, keys):
    """One ray through the centre of every pixel of a row."""
    for column in range(first.shape[1]):
        z, r, g, b, key = _pixel(world, camera, K, column + 0.5, row + 0.5)
        depth[row, column] = z
        keys[row, column] = key
        first[row, column, 0] = _tone(r, exposure)
        first[row, column, 1] = _tone(g, exposure)
        first[row, column, 2] = _tone(b, exposure)


@_jit
def _second_pass(world, camera, K, row, exposure, first, keys, image):
    """Three more rays for the pixels of a row beside a visible edge; then the display's gamma."""
    height, width, _ = first.shape
    for column in range(width):
        edge = False
        for k in range(4):
            a = min(max(row + (-1, 1, 0, 0)[k], 0), height - 1)
            b = min(max(column + (0, 0, -1, 1)[k], 0), width - 1)
            if keys[a, b] != keys[row, column]:
                for c in range(3):
                    here, there = first[row, column, c], first[a, b, c]
                    edge |= abs(here - there) > 0.01 + 0.04 * max(here, there)
        red, green, blue = first[row, column, 0], first[row, column, 1], first[row, column, 2]
        if edge:
            for k in range(3):
                u, v = column + (0.22, 0.82, 0.46)[k], row + (0.32, 0.2, 0.86)[k]
                _, r, g, b, _ = _pixel(world, camera, K, u, v)
                red += _tone(r, exposure)
                green += _tone(g, exposure)
                blue += _tone(b, exposure)
            red, green, blue = red / 4, green / 4, blue / 4
        image[row, column, 0] = red ** (1 / 2.2)
        image[row, column, 1] = green ** (1 / 2.2)
        image[row, column, 2] = blue ** (1 / 2.2)


@_parallel
def render(world, camera, K, exposure, image, depth, first, keys):
    """One view into image [H, W, 3] and depth [H, W]; first [H, W, 3], keys [H, W] are scratch.

    camera [3, 4] is camera to world. Depth is the exact z of the ray through the pixel's centre.
    """
    for row in prange(len(image)):
        _first_pass(world, camera, K, row, exposure, first, depth, keys)
    for row in prange(len(image)):
        _second_pass(world, camera, K, row, exposure, first, keys, image)


@_inline
def _fraction(k, n, turn):
    """The k-th of n stratified numbers in [0, 1), turned."""
    value = (k + 0.5) / n + turn
    return value - math.floor(value)


@_jit
def _direct(world, texels, j, samples, lit, bounced):
    """One texel of `bake_direct`."""
    i, face = int(texels[j, 0]), int(texels[j, 1])
    cu, cv = texels[j, 2], texels[j, 3]
    x, y, z, nx, ny, nz = _chart_point(world, i, face, cu, cv)
    x, y, z = _to_world(world, i, x, y, z)
    nx, ny, nz = _to_world(world, i, nx, ny, nz)
    p = world.position[i]
    x, y, z = x + p[0] + nx * LIFT, y + p[1] + ny * LIFT, z + p[2] + nz * LIFT
    pattern = (int(texels[j, 4]) & 1) + 2 * (int(texels[j, 5]) & 1)
    er, eg, eb = 0.0, 0.0, 0.0
    for l in range(len(world.lights)):
        light = world.lights[l]
        oriented = light[9] != 0 or light[10] != 0 or light[11] != 0
        area = 4 * math.sqrt(
            (light[3] ** 2 + light[4] ** 2 + light[5] ** 2)
            * (light[6] ** 2 + light[7] ** 2 + light[8] ** 2)
        )
        total = 0.0
        for k in range(samples):
            a = 2 * _fraction(k, samples, pattern * 0.25 / samples) - 1
            b = 2 * _fraction(k * 5 % samples, samples, pattern * 0.381966) - 1
            lx = light[0] + a * light[3] + b * light[6] - x
            ly = light[1] + a * light[4] + b * light[7] - y
            lz = light[2] + a * light[5] + b * light[8] - z
            distance = math.sqrt(lx * lx + ly * ly + lz * lz)
            lx, ly, lz = lx / distance, ly / distance, lz / distance
            weight = nx * lx + ny * ly + nz * lz
            if oriented:
                weight *= -(lx * light[9] + ly * light[10] + lz * light[11]) * area
                if -(lx * light[9] + ly * light[10] + lz * light[11]) <= 0:
                    continue
            if weight <= 0:
                continue
            _, blocker, _ = _trace(world, x, y, z, lx, ly, lz, distance - 0.01, True)
            if blocker < 0:
                total += weight / (distance * distance + 0.02)
        er += total * light[12] / samples
        eg += total * light[13] / samples
        eb += total * light[14] / samples
    lit[j, 0], lit[j, 1], lit[j, 2], lit[j, 3] = er, eg, eb, 0.0
    sun = world.sun
    towards = nx * sun[0] + ny * sun[1] + nz * sun[2]
    if towards > 0 and sun[3] > 0:
        _, blocker, _ = _trace(world, x, y, z, sun[0], sun[1], sun[2], FAR, True)
        if blocker < 0:
            lit[j, 3] = 1.0
            er, eg, eb = er + sun[3] * towards, eg + sun[4] * towards, eb + sun[5] * towards
    bounced[j, 0], bounced[j, 1], bounced[j, 2] = er, eg, eb


@_parallel
def bake_direct(world, texels, samples, lit, bounced):
    """Irradiance of lamps and windows with soft shadows into lit [T, 4]; its last column: sunny or
    not; lamps, windows and sun together in bounced [T, 4].

    texels [T, 6]: shape, face, chart u, chart v, column, row. A 2x2 pattern of texels shares the
    samples; `blur` then joins them.
    """
    for j in prange(len(texels)):
        _direct(world, texels, j, samples, lit, bounced)


@_jit
def _bounce(world, texels, j, samples, bounced, ambient, sky_weight, out):
    """One texel of `bake_bounce`."""
    i, face = int(texels[j, 0]), int(texels[j, 1])
    x, y, z, nx, ny, nz = _chart_point(world, i, face, texels[j, 2], texels[j, 3])
    x, y, z = _to_world(world, i, x, y, z)
    nx, ny, nz = _to_world(world, i, nx, ny, nz)
    p = world.position[i]
    x, y, z = x + p[0] + nx * LIFT, y + p[1] + ny * LIFT, z + p[2] + nz * LIFT
    # A frame around the normal (Duff et al. 2017).
    sign = 1.0 if nz >= 0 else -1.0
    a = -1 / (sign + nz)
    b = nx * ny * a
    pattern = (int(texels[j, 4]) & 3) + 4 * (int(texels[j, 5]) & 3)
    er, eg, eb = 0.0, 0.0, 0.0
    for k in range(samples):
        rho2 = (k + (pattern + 0.5) / 16) / samples
        phi = 2 * math.pi * (k * 0.618034 + pattern * 0.3819 * 0.618034)
        rho = math.sqrt(rho2)
        u, v, w = rho * math.cos(phi), rho * math.sin(phi), math.sqrt(1 - rho2)
        dx = u * (1 + sign * nx * nx * a) + v * b + w * nx
        dy = u * sign * b + v * (sign + ny * ny * a) + w * ny
        dz = -u * sign * nx - v * ny + w * nz
        t, h, f = _trace(world, x, y, z, dx, dy, dz, FAR, False)
        if h < 0:
            if sky_weight > 0:
                _, r, g, bl = _sky(world, x, y, z, dx, dy, dz)
                er += sky_weight * r * math.pi
                eg += sky_weight * g * math.pi
                eb += sky_weight * bl * math.pi
            continue
        q = world.position[h]
        hx, hy, hz = _to_local(world, h, x + t * dx - q[0], y + t * dy - q[1], z + t * dz - q[2])
        f, cu, cv = _surface(world, h, f, hx, hy, hz)[:3]
        r, g, bl, _ = _irradiance(world, bounced, h, f, cu, cv)
        s = world.surface[world.material[h]]
        glow = min(s[EMISSION], 1.0) * math.pi
        er += s[MEAN_R] * (r + ambient[0] + glow)
        eg += s[MEAN_G] * (g + ambient[1] + glow)
        eb += s[MEAN_B] * (bl + ambient[2] + glow)
    out[j, 0], out[j, 1], out[j, 2] = er / samples, eg / samples, eb / samples


@_parallel
def bake_bounce(world, texels, samples, bounced, ambient, sky_weight, out):
    """Irradiance that arrives over one bounce and from the sky into out [T, 4].

    ambient [3] stands for all later bounces. A 4x4 pattern of texels shares the directions.
    sky_weight 0 is for rooms, whose windows are lights already.
    """
    for j in prange(len(texels)):
        _bounce(world, texels, j, samples, bounced, ambient, sky_weight, out)


@_allocating
def blur(charts, values, width):
    """Box-blur each chart of values [T, 4] over `width` texels, clamped at its borders."""
    out = np.empty_like(values)
    low = (width - 1) // 2
    for c in range(len(charts)):
        start, columns, rows = charts[c]
        for y in range(rows):
            for x in range(columns):
                for channel in range(4):
                    total, count = 0.0, 0
                    for b in range(max(y - low, 0), min(y - low + width, rows)):
                        for a in range(max(x - low, 0), min(x - low + width, columns)):
                            total += values[start + b * columns + a, channel]
                            count += 1
                    out[start + y * columns + x, channel] = total / count
    return out


@_allocating
def hits(world, origins, directions):
    """Distances [R] to the nearest surface along unit rays; FAR if only sky is there."""
    out = np.empty(len(origins))
    for k in range(len(origins)):
        o, d = origins[k], directions[k]
        out[k], _, _ = _trace(world, o[0], o[1], o[2], d[0], d[1], d[2], FAR, False)
    return out


@_allocating
def clearance(world, points):
    """About how far each point [Q, 3] is from the nearest surface; negative inside a shape."""
    out = np.empty(len(points))
    for k in range(len(points)):
        best = FAR
        for i in range(len(world.kind)):
            p, s, kind = world.position[i], world.size[i], world.kind[i]
            x, y, z = _to_local(
                world, i, points[k, 0] - p[0], points[k, 1] - p[1], points[k, 2] - p[2]
            )
            if kind == BOX:
                ax, ay, az, r = abs(x) - s[0], abs(y) - s[1], abs(z) - s[2], s[3]
            elif kind == ELLIPSOID:
                scale = math.sqrt((x / s[0]) ** 2 + (y / s[1]) ** 2 + (z / s[2]) ** 2)
                best = min(best, (scale - 1) * min(s[0], min(s[1], s[2])))
                continue
            elif kind == FRUSTUM:
                ax, ay = math.sqrt(x * x + y * y) - max(s[0], s[1]), -FAR
                az, r = abs(z) - s[2], 0.0
            else:
                ax, ay, az, r = abs(x) - s[0], abs(y) - s[1], abs(z), 0.0
            outside = math.sqrt(max(ax, 0.0) ** 2 + max(ay, 0.0) ** 2 + max(az, 0.0) ** 2)
            best = min(best, outside + min(max(ax, max(ay, az)), 0.0) - r)
        out[k] = best
    return out
