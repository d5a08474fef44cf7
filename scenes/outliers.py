# Cameras and points thrown far away, which must not decide where a world's middle is and how large.
from __future__ import annotations

import numpy as np

from runtime.text import format_count, format_list
from scenes.cameras import Cameras

FAR = 5.0  # times the median distance; in captures without errors the farthest camera is at 1 to 3
GAP = 2.0  # times the distance of the next nearer camera: long tails are no outliers
RAREST = 5  # one camera of so many, at most
FAR_POINT = 100.0  # times the points' median distance; points of the background are at up to 50
RAREST_POINT = 20  # one point of so many, at most


def find_outliers(positions: np.ndarray) -> np.ndarray:
    """[N] bool: which cameras at positions [N, 3] lie far from all others.

    They are beyond FAR times the median distance from the cameras' median and beyond a gap, and at
    most every RAREST-th camera; otherwise none is.
    """
    if len(positions) < RAREST:
        return np.zeros(len(positions), bool)
    distances = _measure_distances(positions)
    nearest_first = np.sort(distances)
    unit = np.median(distances)
    for rank in range(len(distances) - len(distances) // RAREST, len(distances)):
        limit = max(FAR * unit, GAP * nearest_first[rank - 1])
        if unit > 0 and nearest_first[rank] > limit:
            return distances > limit
    return np.zeros(len(distances), bool)


def find_outlying_points(points: np.ndarray) -> np.ndarray:
    """[P] bool: which points [P, 3] lie beyond FAR_POINT times the median distance from their
    median, if they are few: errors of the matching, or as good as at infinity."""
    if not len(points):
        return np.zeros(0, bool)
    distances = _measure_distances(points)
    unit = np.median(distances)
    outlying = distances > FAR_POINT * unit
    few = unit > 0 and outlying.sum() <= len(points) // RAREST_POINT
    return outlying if few else np.zeros(len(points), bool)


def drop_outliers(cameras: Cameras) -> Cameras:
    """The cameras without outliers; the same object if there are none."""
    outlying = find_outliers(cameras.positions.double().cpu().numpy())
    return cameras[np.flatnonzero(~outlying).tolist()] if outlying.any() else cameras


def describe_outliers(names: tuple[str, ...], positions: np.ndarray) -> str | None:
    """A note that names the outliers with their distances from the others, or None."""
    outlying = find_outliers(positions)
    if not outlying.any():
        return None
    distances = _measure_distances(positions, positions[~outlying])
    unit = np.median(distances[~outlying])
    listed = [
        f"{names[i]} ({distances[i] / unit:,.0f} times the median distance, "
        f"{distances[i]:,.6g} units)"
        for i in np.flatnonzero(outlying)
    ]
    return (
        f"{format_count(len(listed), 'camera')} far from all others: {format_list(listed, 5)}; "
        "their photos are used, but they do not count for the scene's middle and scale. If these "
        "poses are wrong, remove the photos"
    )


def _measure_distances(positions: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
    """[N]: distances from the median of `of` (default: of the positions themselves)."""
    middle = np.median(positions if of is None else of, axis=0)
    return np.linalg.norm(positions - middle, axis=1)
