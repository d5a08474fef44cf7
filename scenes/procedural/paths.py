# Camera paths of a person filming: an orbit around something, or a walk through a place.
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from scenes.procedural.places import Place

Clearance = Callable[[np.ndarray], np.ndarray]  # points [Q, 3] -> metres to the nearest surface
NEAREST = 0.28  # metres that people keep from walls and furniture


def camera_to_world(position: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """[4, 4] in OpenCV axes, looking at the target with the world's z up; roll in radians."""
    z = target - position
    z = z / np.linalg.norm(z)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    c, s = math.cos(roll), math.sin(roll)
    out = np.eye(4)
    out[:3, :3] = np.stack([c * x + s * y, c * y - s * x, z], 1)
    out[:3, 3] = position
    return out


def _wander(rng: np.random.Generator, n: int, waves: float, dims: int = 1) -> np.ndarray:
    """Slow periodic drift [n, dims] of about unit deviation."""
    t = np.linspace(0, 2 * math.pi, n, endpoint=False)[:, None, None]
    k = np.arange(1, 4)[None, :, None]
    phase = rng.uniform(0, 2 * math.pi, (1, 3, dims))
    gain = rng.normal(0, 1, (1, 3, dims)) / k
    return (gain * np.sin(waves * k * t + phase)).sum(1)


def orbit(rng: np.random.Generator, place: Place, n: int, clear: Clearance) -> np.ndarray:
    """Camera-to-world [n, 4, 4] around the focus, looking across it, at varying heights.

    clear: distance to the nearest surface. Raises ValueError if there is no room.
    """
    start, way = rng.uniform(0, 2 * math.pi), rng.choice([-1, 1])
    # Nearly two rounds at different heights, when there are views enough.
    rounds = 1.0 if n < 24 else 1.93
    t = np.arange(n) / n
    angle = start + way * 2 * math.pi * rounds * t
    low, high = place.heights
    level = 0.5 - 0.32 * np.cos(2 * math.pi * np.floor(rounds * t) / 2 + 2 * math.pi * t)
    height = low + (high - low) * np.clip(level + 0.12 * _wander(rng, n, 2)[:, 0], 0, 1)
    focus = np.array(place.focus)
    # On each bearing, as far out as wanted and possible.
    fractions = np.linspace(1.0, 0.25, 31)
    radius = np.empty(n)
    wanted = place.reach * (0.86 + 0.07 * _wander(rng, n, 3)[:, 0])
    for k in range(n):
        r = wanted[k] * fractions
        points = np.stack(
            [focus[0] + r * np.cos(angle[k]), focus[1] + r * np.sin(angle[k]), r * 0 + height[k]], 1
        )
        good = (clear(points) > NEAREST) & (clear(points - [0, 0, 0.3]) > 0.12)
        radius[k] = r[np.argmax(good)] if good.any() else -1
    keep = radius > 0
    if not keep.any():
        raise ValueError("there is no room for an orbit in this scene; choose the path walk")
    index = np.flatnonzero(keep)[np.round(np.linspace(0, keep.sum() - 1, n)).astype(int)]
    angle, radius, height = angle[index], radius[index], height[index]
    position = np.stack(
        [focus[0] + radius * np.cos(angle), focus[1] + radius * np.sin(angle), height], 1
    )
    across = focus - 0.2 * (position - focus) * [1, 1, 0]
    target = across + place.reach * 0.09 * _wander(rng, n, 2, 3)
    return _handheld(rng, position, target)


def walk(rng: np.random.Generator, place: Place, n: int, clear: Clearance) -> np.ndarray:
    """Camera-to-world [n, 4, 4] along a smooth loop on free ground, looking around.

    clear: distance to the nearest surface. Raises ValueError if there is no room.
    """
    low, high = place.heights
    base = low + 0.6 * (high - low)
    half = np.array(place.half)
    points = np.concatenate([rng.uniform(-half, half, (600, 2)), np.full((600, 1), base)], 1)
    free = (clear(points) > NEAREST + 0.1) & (clear(points - [0, 0, 0.35]) > 0.15)
    points = points[free]
    if len(points) < 3:
        raise ValueError("there is no room to walk in this scene; choose the path orbit")
    # Way points far from each other, in order around the middle so that the walk does not cross.
    order = [int(rng.integers(len(points)))]
    distance = np.full(len(points), np.inf)
    for _ in range(min(6, len(points)) - 1):
        distance = np.minimum(distance, np.linalg.norm(points - points[order[-1]], axis=1))
        order.append(int(distance.argmax()))
    stops = points[order]
    middle = stops.mean(0)
    stops = stops[np.argsort(np.arctan2(stops[:, 1] - middle[1], stops[:, 0] - middle[0]))]
    line = _loop(stops, 40 * len(stops))
    # Where the smooth loop cuts through something, let it slide away a little at a time.
    line = _push_free(line, clear)
    good = (clear(line) > NEAREST) & (clear(line - [0, 0, 0.3]) > 0.08)
    line = line[good] if good.sum() >= 2 else points
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))]
    at = np.linspace(0, length[-1] * (n - 1) / n if n > 1 else 0, n)
    position = np.stack([np.interp(at, length, line[:, c]) for c in range(3)], 1)
    ahead = np.roll(position, -max(1, n // 12), axis=0)
    heading = np.arctan2(*(ahead - position)[:, 1::-1].T)
    inward = np.array(place.focus) - position
    inner = np.arctan2(inward[:, 1], inward[:, 0])
    # People pan between where they go and the middle of the place.
    turn = (inner - heading + math.pi) % (2 * math.pi) - math.pi
    weight = np.clip(0.72 + 0.25 * _wander(rng, n, 3)[:, 0], 0.4, 1.15)
    bearing = heading + weight * turn
    pitch = -0.2 + 0.07 * _wander(rng, n, 3)[:, 0]
    look = np.stack(
        [np.cos(bearing) * np.cos(pitch), np.sin(bearing) * np.cos(pitch), np.sin(pitch)], 1
    )
    return _handheld(rng, position, position + 2 * look)


def _loop(stops: np.ndarray, n: int) -> np.ndarray:
    """A closed Catmull-Rom curve [n, 3] through the stops."""
    t = np.linspace(0, len(stops), n, endpoint=False)
    i, f = t.astype(int), (t % 1)[:, None]
    a, b, c, d = (stops[(i + k) % len(stops)] for k in (-1, 0, 1, 2))
    return 0.5 * (
        2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - a - 3 * c + d) * f**3
    )


def _push_free(line: np.ndarray, clear: Clearance) -> np.ndarray:
    """Move points of the line against the gradient of clearance until they are free."""
    line = line.copy()
    for _ in range(25):
        near = clear(line)
        bad = near < NEAREST + 0.05
        if not bad.any():
            break
        step = 0.05
        slope = np.stack(
            [clear(line[bad] + step * e) - clear(line[bad] - step * e) for e in np.eye(3)[:2]], 1
        )
        slope /= np.linalg.norm(slope, axis=1, keepdims=True) + 1e-6
        line[bad, :2] += 0.05 * slope
    smooth = sum(np.roll(line, k, axis=0) for k in range(-3, 4)) / 7
    better = clear(smooth) >= np.minimum(clear(line), NEAREST)
    return np.where(better[:, None], smooth, line)


def _handheld(rng: np.random.Generator, position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Hands shake: centimetres in place, a degree or two in aim and roll."""
    n = len(position)
    position = position + rng.normal(0, 0.008, (n, 3))
    aim = np.linalg.norm(target - position, axis=1, keepdims=True)
    target = target + aim * rng.normal(0, 0.012, (n, 3))
    roll = rng.normal(0, 0.018, n)
    return np.stack([camera_to_world(*row) for row in zip(position, target, roll, strict=True)])
