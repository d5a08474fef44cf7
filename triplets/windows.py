# Where in a reference photo a tile's content is: by depth where known, else by the cameras' turn.
from __future__ import annotations

import torch
from torch import Tensor

from scenes.cameras import Cameras

SAMPLES = 5  # points along each side of a tile


def shift(
    box: tuple[int, int, int, int], camera: Cameras, reference: Cameras, depth: Tensor | None
) -> tuple[int, int] | None:
    """How far right and down (pixels) a tile's content has moved in the reference, the median.

    box: left, top, right, bottom in pixels of the render; camera, reference: one camera each, at
    the size of the images in hand; depth [H,W] along the optical axis, 0 or less where unknown.
    None where none of the tile is in the reference.
    """
    left, top, right, bottom = box
    width, height = camera.size
    x = torch.linspace(left, min(right, width) - 1, SAMPLES, dtype=torch.float64)
    y = torch.linspace(top, min(bottom, height) - 1, SAMPLES, dtype=torch.float64)
    pixels = torch.cartesian_prod(x, y)  # [n,2]
    rays = torch.cat((pixels + 0.5, torch.ones(len(pixels), 1, dtype=torch.float64)), 1)
    rays = rays @ torch.linalg.inv(camera.Ks[0].double()).T
    relative = reference.viewmats[0].double() @ torch.linalg.inv(camera.viewmats[0].double())
    points, known = rays @ relative[:3, :3].T, torch.ones(len(rays), dtype=torch.bool)
    if depth is not None:
        z = depth.detach().cpu().double()[pixels[:, 1].long(), pixels[:, 0].long()]
        known = (z > 0) & z.isfinite()
        points = points * torch.where(known, z, 1.0)[:, None] + relative[:3, 3]
    projected = points @ reference.Ks[0].double().T
    landed = projected[:, :2] / projected[:, 2:].clamp(min=1e-9) - 0.5
    inside = (landed >= 0).all(1) & (
        landed < torch.tensor(reference.size, dtype=torch.float64)
    ).all(1)
    seen = inside & known & (projected[:, 2] > 1e-9)
    if not seen.any():
        return None
    dx, dy = (landed - pixels)[seen].median(0).values.round().long().tolist()
    return dx, dy
