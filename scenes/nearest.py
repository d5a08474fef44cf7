# Which photos serve as references of a view: the nearest by pose, or the most covisible ones.
from __future__ import annotations

import math

import torch
from torch import Tensor

from scenes.cameras import Cameras
from scenes.outliers import drop_outliers

GRID = 16  # sample points along each side of a view
NEAR = 1e-6


def measure_nearest_distances(cameras: Cameras) -> Tensor:
    """[M] float64: distance of each camera to the nearest one at another place, M <= N.

    Cameras without such a neighbour are omitted.
    """
    distances = _measure_distances(cameras, cameras)
    near = drop_outliers(cameras)
    distances[distances <= NEAR * _measure_distances(near, near).max()] = math.inf
    nearest = distances.min(1).values
    return nearest[nearest.isfinite()]


def measure_spacing(cameras: Cameras) -> float:
    """Median distance of cameras to their nearest neighbour at another place; 1 if none."""
    nearest = measure_nearest_distances(cameras)
    return float(nearest.median()) if len(nearest) else 1.0


def measure_pose_distances(views: Cameras, photos: Cameras, spacing: float | None = None) -> Tensor:
    """[N,M] float64: distance in units of the photos' spacing, plus the angle between in radians.

    spacing: in world units, of the photos (`measure_spacing`) if None.
    """
    spacing = measure_spacing(photos) if spacing is None else spacing
    R, Q = views.viewmats[:, :3, :3].double(), photos.viewmats[:, :3, :3].double()
    trace = torch.einsum("nij,mij->nm", R, Q)
    angles = ((trace - 1) / 2).clamp(-1, 1).arccos()
    return _measure_distances(views, photos) / spacing + angles


def _measure_distances(views: Cameras, photos: Cameras) -> Tensor:
    """[N,M] float64 between positions; without the products that lose digits for many cameras."""
    a, b = views.positions.double(), photos.positions.double()
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def measure_covisibility(views: Cameras, photos: Cameras, depths: Tensor | None = None) -> Tensor:
    """[N,M] float64: the share of each view that a photo sees.

    A grid of pixels is unprojected to its depth (depths [N,H,W] along the optical axis, 0 or less
    where unknown) and projected into each photo; without depths it lies at infinity, so that only
    the directions count.
    """
    shares = torch.zeros(len(views), len(photos), dtype=torch.float64)
    inverse = torch.linalg.inv(views.viewmats.double())
    for n in range(len(views)):
        width, height = views.sizes[n].tolist()
        x = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID * width
        y = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID * height
        pixels = torch.cartesian_prod(x, y)
        rays = torch.cat((pixels, torch.ones(len(pixels), 1, dtype=torch.float64)), 1)
        rays = rays @ torch.linalg.inv(views.Ks[n].double()).T @ inverse[n, :3, :3].T
        w, known = torch.zeros(len(rays), 1, dtype=torch.float64), torch.ones(len(rays)).bool()
        if depths is not None:
            z = depths[n].detach().cpu().double()[pixels[:, 1].long(), pixels[:, 0].long()]
            known = (z > 0) & z.isfinite()
            rays = rays * torch.where(known, z, 1.0)[:, None] + inverse[n, :3, 3]
            w = torch.ones(len(rays), 1, dtype=torch.float64)
        local = torch.einsum(
            "mij,pj->mpi", photos.viewmats[:, :3].double(), torch.cat((rays, w), 1)
        )
        projected = torch.einsum("mij,mpj->mpi", photos.Ks.double(), local)
        front = projected[..., 2] > NEAR
        uv = projected[..., :2] / projected[..., 2:].clamp(min=NEAR)
        inside = (uv >= 0).all(-1) & (uv < photos.sizes.double()[:, None]).all(-1)
        shares[n] = (front & inside & known).double().sum(1) / max(1, int(known.sum()))
    return shares


def choose_references(
    views: Cameras, photos: Cameras, k: int = 1, depths: Tensor | None = None
) -> list[list[int]]:
    """For each view the indices of up to k photos, best first, without those that see none of it.

    With depths [N,H,W] ordered by co-visibility (ties by pose), else by pose distance among the
    photos that look the same way. Raises ValueError for k < 1.
    """
    if k < 1:
        raise ValueError(f"at least one reference must be asked for, not {k}")
    if not len(photos):
        return [[] for _ in range(len(views))]
    distance, share = (
        measure_pose_distances(views, photos),
        measure_covisibility(views, photos, depths),
    )
    cost = distance if depths is None else -share + 1e-3 * distance / (1 + distance)
    cost = cost.masked_fill(share == 0, math.inf)
    order = cost.argsort(dim=1, stable=True)[:, :k]
    return [
        [int(m) for m in row if math.isfinite(cost[n, m])] for n, row in enumerate(order.tolist())
    ]
