# Rays of pinhole cameras through pixel centres, and their Plücker coordinates.
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Plucker = Literal["default", "nearest", "augmented"]
CHANNELS: dict[str, int] = {"default": 6, "nearest": 6, "augmented": 9}


def pixel_rays(camtoworlds: Tensor, Ks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Origins [...,3] and unit directions [...,3,H,W] in the world, for camera-to-world matrices
    [...,4,4] (OpenCV axes) and Ks [...,3,3] in pixels; size is (width, height)."""
    x, y = (torch.arange(n, dtype=Ks.dtype, device=Ks.device) + 0.5 for n in size)
    fx, fy, cx, cy = (Ks[..., i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    u, v = torch.broadcast_tensors((x - cx) / fx, (y[:, None] - cy) / fy)
    local = torch.stack((u, v, torch.ones_like(u)), -3)
    directions = torch.einsum("...ij,...jhw->...ihw", camtoworlds[..., :3, :3], local)
    return camtoworlds[..., :3, 3], F.normalize(directions, dim=-3)


def plucker(origins: Tensor, directions: Tensor, kind: Plucker = "default") -> Tensor:
    """Coordinates [...,C,H,W] of rays through origins [...,3] along unit directions [...,3,H,W].

    default: moment o x d, then d. nearest: d, then the point of the ray that is nearest to the
    world's origin. augmented: moment, d and that point.
    """
    at = origins[..., None, None].expand_as(directions)
    parts = {"direction": directions}
    if kind != "nearest":
        parts["moment"] = torch.linalg.cross(at, directions, dim=-3)
    if kind != "default":
        parts["nearest"] = at - (at * directions).sum(-3, keepdim=True) * directions
    order = [name for name in ("moment", "direction", "nearest") if name in parts]
    return torch.cat([parts[name] for name in order], -3)
