# Camera paths for videos and the viewer: through a capture's own cameras, or an orbit around what
# they look at. Outliers among the cameras are left out.
from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scenes.cameras import Cameras
from scenes.outliers import drop_outliers

if TYPE_CHECKING:
    from scipy.interpolate import CubicHermiteSpline

FULL_ORBIT = np.radians(240)  # a wider arc of cameras gives an orbit all the way round


def interpolate_path(
    cameras: Cameras,
    n_frames: int,
    *,
    K: Tensor | None = None,
    size: tuple[int, int] | None = None,
    keyframes: int | None = None,
) -> Cameras:
    """`n_frames` cameras at even speed along a smooth path through the capture's.

    Positions follow a Catmull-Rom spline, rotations SLERP. The path visits the views in their own
    order, or in that of a much shorter tour if there is one; `keyframes` of them are used (default:
    one for every 15 frames). K [3,3] and size (width, height) default to the first camera's.
    ValueError without cameras or frames.
    """
    _check(cameras, n_frames)
    cameras = drop_outliers(cameras)
    poses = cameras.camtoworlds.double().cpu().numpy()
    poses = _distinct(poses[_visiting_order(poses)])
    count = min(len(poses), max(2, n_frames // 15 if keyframes is None else keyframes))
    poses = poses[np.linspace(0, len(poses) - 1, count).round().astype(int)]
    if len(poses) == 1:
        return _as_cameras(np.repeat(poses, n_frames, axis=0), cameras, K, size)

    from scipy.ndimage import gaussian_filter1d
    from scipy.spatial.transform import Rotation, Slerp

    knots = np.concatenate([[0], _steps(poses[:-1], poses[1:], _extent(poses)).cumsum()])
    at = np.linspace(0, knots[-1], n_frames)
    frames = np.tile(np.eye(4), (n_frames, 1, 1))
    frames[:, :3, 3] = _catmull_rom(knots, poses[:, :3, 3])(at)
    quats = Slerp(knots, Rotation.from_matrix(poses[:, :3, :3]))(at).as_quat()
    # SLERP turns at once at a keyframe: ease that over a fraction of the way to the next one.
    flips = np.where((quats[1:] * quats[:-1]).sum(1) < 0, -1.0, 1.0).cumprod()
    quats[1:] *= flips[:, None]
    sigma = 0.15 * n_frames / len(poses)
    quats = gaussian_filter1d(quats, sigma, axis=0, mode="nearest") if sigma > 0.5 else quats
    frames[:, :3, :3] = Rotation.from_quat(quats).as_matrix()
    return _as_cameras(frames, cameras, K, size)


def orbit_path(
    cameras: Cameras,
    n_frames: int,
    *,
    K: Tensor | None = None,
    size: tuple[int, int] | None = None,
) -> Cameras:
    """A closed orbit of `n_frames` around the point the cameras look at, at their mean height.

    For captures from all sides it is a whole ellipse; for captures from one side it swings to and
    fro over the arc that was photographed. K, size and errors as in `interpolate_path`.
    """
    _check(cameras, n_frames)
    cameras = drop_outliers(cameras)
    poses = cameras.camtoworlds.double().cpu().numpy()
    center = estimate_focus(cameras).double().cpu().numpy()
    up = estimate_up(cameras).double().cpu().numpy()
    relative = poses[:, :3, 3] - center
    height = (relative @ up).mean()
    flat = relative - (relative @ up)[:, None] * up
    distance = max(np.median(np.linalg.norm(flat, axis=1)), 1e-3 * _extent(poses))

    # Axes of the ellipse: principal directions about the centre, in the plane across `up`.
    basis = np.linalg.svd(up[None])[2][1:]
    variances, turn = np.linalg.eigh((flat @ basis.T).T @ (flat @ basis.T) / len(flat))
    basis = turn.T[::-1] @ basis
    angles = np.sort(np.arctan2(flat @ basis[1], flat @ basis[0]))
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    arc = 2 * np.pi - gaps.max()
    t = np.arange(n_frames) / n_frames * 2 * np.pi
    if arc > FULL_ORBIT:
        a = max(np.sqrt(2 * variances[1]), distance / 2)
        b = max(np.sqrt(2 * variances[0]), a / 2)
    else:
        a = b = distance
        middle = angles[(gaps.argmax() + 1) % len(angles)] + arc / 2
        t = middle + max(arc / 2, np.radians(5)) * np.sin(t)
    positions = (
        center + height * up + a * np.cos(t)[:, None] * basis[0] + b * np.sin(t)[:, None] * basis[1]
    )
    return _as_cameras(look_at(positions, center, up), cameras, K, size)


def estimate_focus(cameras: Cameras) -> Tensor:
    """The point nearest to all optical axes, [3] float32 in the world.

    If it is not in front of most cameras (parallel axes, or cameras that look outwards), a point
    ahead of their mean position.
    """
    poses = drop_outliers(cameras).camtoworlds.double().cpu().numpy()
    positions, forward = poses[:, :3, 3], poses[:, :3, 2]
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    system = across.mean(0)
    middle = positions.mean(0)
    ahead = middle + forward.mean(0) * _extent(poses)
    if np.linalg.eigvalsh(system)[0] > 1e-3:
        point = np.linalg.solve(system, (across @ positions[:, :, None]).mean(0)[:, 0])
        in_front = ((point - positions) * forward).sum(1) > 0
        ahead = point if in_front.mean() > 0.5 else ahead
    return torch.from_numpy(ahead).float()


def estimate_up(cameras: Cameras) -> Tensor:
    """The mean of the cameras' up vectors, [3] float32 of unit length."""
    ups = -drop_outliers(cameras).camtoworlds.double().cpu()[:, :3, 1]
    up = ups.mean(0) if ups.mean(0).norm() > 1e-2 else ups[0]
    return (up / up.norm()).float()


def look_at(positions: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Camera-to-world matrices [N,4,4] float64 (OpenCV axes), at positions [N,3], that look at
    target [3].

    up [3] of unit length; the image's up is as near to it as possible.
    """
    forward = target - positions
    length = np.linalg.norm(forward, axis=1, keepdims=True)
    spare = np.linalg.svd(up[None])[2][1]  # a direction across `up`
    forward = np.where(length > 1e-9, forward / np.maximum(length, 1e-9), spare)
    right = np.cross(forward, up)
    length = np.linalg.norm(right, axis=1, keepdims=True)
    right = np.where(length > 1e-6, right / np.maximum(length, 1e-6), spare)
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, :3] = np.stack([right, np.cross(forward, right), forward], axis=2)
    poses[:, :3, 3] = positions
    return poses


def _check(cameras: Cameras, n_frames: int) -> None:
    if len(cameras) == 0 or n_frames < 1:
        raise ValueError("a camera path needs at least one camera and one frame")


def _extent(poses: np.ndarray) -> float:
    """Root mean square distance of the cameras from their mean; 1 if they are in one place."""
    positions = poses[:, :3, 3]
    extent = float(np.sqrt(((positions - positions.mean(0)) ** 2).sum(1).mean()))
    return extent if extent > 1e-6 * max(1e-6, float(np.abs(positions).max())) else 1.0


def _steps(a: np.ndarray, b: np.ndarray, extent: float) -> np.ndarray:
    """Distance of poses b [..., 4, 4] from poses a: in extents plus the angle in radians."""
    moved = np.linalg.norm(a[..., :3, 3] - b[..., :3, 3], axis=-1) / extent
    cosine = ((a[..., :3, :3] * b[..., :3, :3]).sum((-1, -2)) - 1) / 2
    return moved + np.arccos(cosine.clip(-1, 1))


def _visiting_order(poses: np.ndarray) -> np.ndarray:
    """The capture's own order, unless a greedy tour with 2-opt is much shorter."""
    n = len(poses)
    if n < 4:
        return np.arange(n)
    own = np.arange(n)
    sample = np.linspace(0, n - 1, min(n, 200)).round().astype(int)  # 2-opt is quadratic
    extent = _extent(poses)
    distances = _steps(poses[sample][:, None], poses[sample][None], extent)
    tour = _short_tour(distances)
    length = distances[tour[:-1], tour[1:]].sum()
    own_length = _steps(poses[sample][:-1], poses[sample][1:], extent).sum()
    return own if own_length < 1.5 * length else sample[tour]


def _short_tour(distances: np.ndarray) -> np.ndarray:
    """An open tour from the first of n places: nearest neighbour, then 2-opt until no gain."""
    n = len(distances)
    open_places = distances.copy()
    tour = [0]
    for _ in range(n - 1):
        open_places[:, tour[-1]] = np.inf
        tour.append(int(open_places[tour[-1]].argmin()))
    tour = np.array(tour)
    for _ in range(10 * n):
        # Reversing tour[i:j+1] swaps edges (i-1, i) and (j, j+1) for (i-1, j) and (i, j+1).
        hops = distances[tour[:-1], tour[1:]]
        by_place = distances[np.ix_(tour, tour)]
        after = np.append(hops, 0)  # the last place has no edge after it
        onward = np.concatenate([by_place[:, 1:], np.zeros((n, 1))], axis=1)
        gain = hops[:, None] + after[None, 1:] - by_place[:-1, 1:] - onward[1:, 1:]
        gain = np.triu(gain)
        i, j = np.unravel_index(gain.argmax(), gain.shape)
        if gain[i, j] < 1e-9:
            break
        tour[i + 1 : j + 2] = tour[i + 1 : j + 2][::-1]
    return tour


def _distinct(poses: np.ndarray) -> np.ndarray:
    """The poses without those that repeat the one before."""
    steps = _steps(poses[:-1], poses[1:], _extent(poses))
    return poses[np.concatenate([[True], steps > 1e-4])]


def _catmull_rom(knots: np.ndarray, points: np.ndarray) -> CubicHermiteSpline:
    """Through points [N,3] at uneven knots [N]; tangents of the parabola through three."""
    from scipy.interpolate import CubicHermiteSpline

    widths = np.diff(knots)[:, None]
    slopes = np.diff(points, axis=0) / widths
    inner = (widths[1:] * slopes[:-1] + widths[:-1] * slopes[1:]) / (widths[1:] + widths[:-1])
    return CubicHermiteSpline(knots, points, np.concatenate([slopes[:1], inner, slopes[-1:]]))


def _as_cameras(
    poses: np.ndarray, like: Cameras, K: Tensor | None, size: tuple[int, int] | None
) -> Cameras:
    """Camera-to-world [N,4,4] as Cameras; without K, the first camera's at the height of `size`."""
    n = len(poses)
    first = like[0]
    sizes = first.sizes if size is None else torch.tensor([size])
    if K is None:
        K = first.Ks[0].clone()
        factors = (sizes[0] / first.sizes[0]).to(K)
        K[:2, :2] *= factors[
            1
        ]  # another aspect ratio changes the field of view, it does not stretch
        K[:2, 2] *= factors
    R = poses[:, :3, :3].transpose(0, 2, 1)
    viewmats = np.tile(np.eye(4), (n, 1, 1))
    viewmats[:, :3, :3] = R
    viewmats[:, :3, 3] = -(R @ poses[:, :3, 3:])[:, :, 0]
    return Cameras(
        torch.from_numpy(viewmats).float().to(first.viewmats.device),
        K[None].repeat(n, 1, 1).to(first.Ks),
        sizes.repeat(n, 1),
    )


def interpolate_pairs(
    camtoworlds: np.ndarray, Ks: np.ndarray, frames: int, *, loop: bool = False, order: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """From each camera to the next, `frames` of them with both ends, as LVSM's videos do: positions
    and intrinsics linearly, rotations by SLERP.

    camtoworlds [N,4,4], Ks [N,3,3] -> [T,4,4], [T,3,3]. order: begin at the first, then always go
    to the nearest of the rest. loop: back to the first at last. ValueError for fewer than two
    cameras or frames.
    """
    from scipy.spatial.transform import Rotation, Slerp

    if len(camtoworlds) < 2 or frames < 2:
        raise ValueError(f"a path needs two cameras and frames, not {len(camtoworlds)}, {frames}")
    way = _nearest_order(camtoworlds[:, :3, 3]) if order else list(range(len(camtoworlds)))
    way += way[:1] if loop else []
    share = np.linspace(0, 1, frames)
    poses, intrinsics = [], []
    for a, b in itertools.pairwise(way):
        part = np.tile(np.eye(4), (frames, 1, 1))
        ends = Rotation.from_matrix(camtoworlds[[a, b], :3, :3])
        part[:, :3, :3] = Slerp([0, 1], ends)(share).as_matrix()
        weight = share[:, None]
        part[:, :3, 3] = (1 - weight) * camtoworlds[a, :3, 3] + weight * camtoworlds[b, :3, 3]
        poses.append(part)
        weight = share[:, None, None]
        intrinsics.append((1 - weight) * Ks[a] + weight * Ks[b])
    return np.concatenate(poses), np.concatenate(intrinsics)


def _nearest_order(positions: np.ndarray) -> list[int]:
    """The first, then always the nearest of those that are left."""
    way, rest = [0], list(range(1, len(positions)))
    while rest:
        way.append(min(rest, key=lambda i: np.linalg.norm(positions[i] - positions[way[-1]])))
        rest.remove(way[-1])
    return way
