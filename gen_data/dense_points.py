# Dense points as stereo or a depth network would give: many, and wrong between the measured ones.
from __future__ import annotations

import torch
from torch import Tensor

from scenes.scene import Scene

NEIGHBOURS = 4  # measured points from which a pixel's depth is interpolated


def sample_dense_points(scene: Scene, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Up to `count` points [P,3] and colours [P,3] in [0,1] from the scene's training views.

    Pixels are drawn at random; their depth is interpolated between the capture's points in that
    view, whether hidden or not. Raises ValueError if no view has enough points.
    """
    generator = torch.Generator().manual_seed(seed)
    each = -(-count // len(scene.split.train))
    parts = [_sample_view(scene, view, each, generator) for view in scene.split.train]
    points, colors = (torch.cat(part) for part in zip(*parts, strict=True))
    if not len(points):
        raise ValueError(
            f"{scene.path} has too few points for dense ones; use --noise_start random"
        )
    return points[:count], colors[:count]


def _sample_view(
    scene: Scene, view: int, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    camera = scene.cameras[view]
    width, height = camera.size
    viewmat, K = camera.viewmats[0].double(), camera.Ks[0].double()
    local = scene.points.double() @ viewmat[:3, :3].T + viewmat[:3, 3]
    z = local[:, 2]
    uv = (local @ K.T)[:, :2] / z.clamp(min=1e-9)[:, None]
    seen = (z > 0) & (uv >= 0).all(1) & (uv < torch.tensor([width, height])).all(1)
    if int(seen.sum()) < NEIGHBOURS:
        return torch.zeros(0, 3), torch.zeros(0, 3)

    from scipy.spatial import cKDTree

    column = torch.randint(width, (count,), generator=generator)
    row = torch.randint(height, (count,), generator=generator)
    pixels = torch.stack([column, row], 1).double() + 0.5
    distance, nearest = map(
        torch.from_numpy, cKDTree(uv[seen].numpy()).query(pixels.numpy(), k=NEIGHBOURS)
    )
    weight = 1 / (distance + 0.5)
    inverse = (weight / z[seen][nearest]).sum(1) / weight.sum(1)  # stereo measures disparity
    rays = torch.cat([pixels, torch.ones(count, 1).double()], 1) @ torch.linalg.inv(K).T
    points = (rays / inverse[:, None] - viewmat[:3, 3]) @ viewmat[:3, :3]
    counts = torch.ones(height, width, dtype=torch.bool)
    if scene.mask(view) is not None:
        counts &= scene.mask(view)
    if scene.alpha(view) is not None:
        counts &= scene.alpha(view) > 0.5
    counts = counts[row, column]
    return points.float()[counts], scene.image(view)[row, column][counts]
