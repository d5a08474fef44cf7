# World normalisation as in gsplat's examples: centred where the cameras look, unit size.
from __future__ import annotations

import numpy as np

from scenes.outliers import find_outliers

CANCELS = 1e-3  # length of a mean of directions that cancel
COINCIDENT = 1e-6  # distances of cameras at one place, relative to their coordinates


def compute_normalization(camtoworlds: np.ndarray, points: np.ndarray) -> np.ndarray:
    """[4, 4] similarity (scale times rotation, translation) from poses [N,4,4] and points [P,3].

    The cameras' mean up direction becomes z, the origin lies where their optical axes pass nearest
    to their mean position, and their median distance from it becomes 1. Then, as in gsplat, the
    points' principal axes become x, y and z: z is the one with the least variance, up for a scene
    on level ground, but the normal of the wall for a flat facade. Outlying cameras do not count.

    All is float64 and measured from the cameras' mean: the world's own origin does not matter.
    """
    camtoworlds = camtoworlds[~find_outliers(camtoworlds[:, :3, 3])]
    origin = camtoworlds[:, :3, 3].mean(0)
    to_origin = np.eye(4)
    to_origin[:3, 3] = -origin
    return _normalize_near(to_origin @ camtoworlds, points - origin) @ to_origin


def _normalize_near(camtoworlds: np.ndarray, points: np.ndarray) -> np.ndarray:
    upright = _from_cameras(camtoworlds)
    if len(points) < 3:
        return upright
    aligned = _principal_axes(transform_points(upright, points)) @ upright
    z = transform_points(aligned, points)[:, 2]
    # Most points lie low with a tail upwards; if it is the other way round, rotate about x.
    if np.median(z) > np.mean(z):
        aligned = np.diag([1.0, -1.0, -1.0, 1.0]) @ aligned
    return aligned


def compute_gsplat_normalization(camtoworlds: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The same as gsplat's examples compute it, which measure from the world's origin."""
    return _normalize_near(camtoworlds, points)


def transform_points(similarity: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [P, 3] transformed by a similarity [4, 4]."""
    return points @ similarity[:3, :3].T + similarity[:3, 3]


def transform_viewmats(similarity: np.ndarray, viewmats: np.ndarray) -> np.ndarray:
    """Viewmats [N, 4, 4] of the same cameras in the transformed world; rotations stay rotations."""
    moved = viewmats @ np.linalg.inv(similarity)
    moved[:, :3] *= np.cbrt(np.linalg.det(similarity[:3, :3]))
    return moved


def _from_cameras(camtoworlds: np.ndarray) -> np.ndarray:
    up = -camtoworlds[:, :3, 1].mean(0)
    length = np.linalg.norm(up)
    R = _rotation_to_z(up / length) if length > 1e-6 else np.eye(3)
    positions = camtoworlds[:, :3, 3] @ R.T
    forward = camtoworlds[:, :3, 2] @ R.T
    nearest = positions - (forward * positions).sum(1, keepdims=True) * forward
    centre = np.median(nearest, axis=0)
    distance = np.median(np.linalg.norm(positions - centre, axis=1))
    scale = 1 / distance if distance > 1e-9 else 1.0
    similarity = np.eye(4)
    similarity[:3, :3] = scale * R
    similarity[:3, 3] = -scale * centre
    return similarity


def _rotation_to_z(direction: np.ndarray) -> np.ndarray:
    """The smallest rotation [3, 3] that turns a unit vector into z."""
    cosine = direction[2]
    if cosine < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    x, y, z = np.cross(direction, [0.0, 0.0, 1.0])
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + skew + skew @ skew / (1 + cosine)


def _principal_axes(points: np.ndarray) -> np.ndarray:
    centre = np.median(points, axis=0)
    _, axes = np.linalg.eigh(np.cov(points - centre, rowvar=False))
    R = axes[:, ::-1].T
    if np.linalg.det(R) < 0:
        R[0] *= -1
    rigid = np.eye(4)
    rigid[:3, :3] = R
    rigid[:3, 3] = -R @ centre
    return rigid


def compute_mean_pose_normalization(camtoworlds: np.ndarray, margin: float = 1.35) -> np.ndarray:
    """[4, 4] similarity from poses [N,4,4]: their mean pose becomes the identity, and the largest
    coordinate of a camera 1 / margin (LVSM and pixelSplat's heirs).

    Where cameras look in all directions, so that these cancel, the first camera's axes are taken.
    ValueError where all cameras are at one place, whose scale nothing tells.
    """
    center = camtoworlds[:, :3, 3].mean(0)
    forward, down = camtoworlds[:, :3, 2].mean(0), camtoworlds[:, :3, 1].mean(0)
    right = np.cross(down, forward)
    if np.linalg.norm(forward) < CANCELS or np.linalg.norm(right) < CANCELS:
        forward, down = camtoworlds[0, :3, 2], camtoworlds[0, :3, 1]
        right = np.cross(down, forward)
    forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
    down = np.cross(forward, right)
    rotation = np.stack([right, down / np.linalg.norm(down), forward])
    positions = (camtoworlds[:, :3, 3] - center) @ rotation.T
    extent = np.abs(positions).max()
    # float32's rounding of the coordinates is no distance
    if extent <= COINCIDENT * max(1.0, np.abs(camtoworlds[:, :3, 3]).max()):
        raise ValueError(
            f"the {len(camtoworlds)} cameras are at one place, so that nothing tells the scene's "
            "scale; give views from different places"
        )
    similarity = np.eye(4)
    similarity[:3, :3] = rotation / (margin * extent)
    similarity[:3, 3] = -similarity[:3, :3] @ center
    return similarity
