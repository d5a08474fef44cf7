# Photos warped into other views by the depth of those views (backward warping).
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scenes.cameras import Cameras

NEAR = 1e-6


@torch.no_grad()
def warp(
    photos: Tensor,
    photo_cameras: Cameras,
    cameras: Cameras,
    depths: Tensor,
    *,
    alphas: Tensor | None = None,
    photo_depths: Tensor | None = None,
    tolerance: float = 0.05,
    least_alpha: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Each photo as its view would see it, [N,H,W,3], and where that is valid, bool [N,H,W].

    Every pixel of cameras [N] is lifted by depths [N,H,W] (z in world units; 0 or less is unknown)
    and looked up, bilinearly, in photos [N,h,w,3] of photo_cameras [N]. A pixel is valid if its
    depth is known, if its alphas [N,H,W] reach `least_alpha`, if its point lies in front of the
    photo's camera and inside the photo and, with photo_depths [N,h,w], if the point's depth there
    agrees with the photo's within `tolerance` (relative), so that nothing hides it. Invalid pixels
    are black. ValueError for cameras of several sizes.
    """
    (width, height), (photo_width, photo_height) = cameras.size, photo_cameras.size
    device = photos.device
    x = torch.arange(width, device=device, dtype=torch.float64) + 0.5
    y = torch.arange(height, device=device, dtype=torch.float64) + 0.5
    pixels = torch.stack(
        [x.expand(height, -1), y[:, None].expand(-1, width), x.new_ones(height, width)], -1
    )
    between = photo_cameras.viewmats.double() @ torch.linalg.inv(cameras.viewmats.double())
    turn = photo_cameras.Ks.double() @ between[:, :3, :3] @ torch.linalg.inv(cameras.Ks.double())
    shift = torch.einsum("nij,nj->ni", photo_cameras.Ks.double(), between[:, :3, 3])
    rays = torch.einsum("nij,hwj->nhwi", turn.to(device), pixels)
    points = rays * depths[..., None].double() + shift.to(device)[:, None, None]
    z = points[..., 2]
    uv = points[..., :2] / z.clamp(min=NEAR)[..., None]

    size = torch.tensor([photo_width, photo_height], device=device, dtype=torch.float64)
    valid = (depths > 0) & depths.isfinite() & (z > NEAR)
    valid &= ((uv >= 0) & (uv <= size)).all(-1)
    if alphas is not None:
        valid &= alphas >= least_alpha
    grid = torch.where(valid[..., None], uv / size * 2 - 1, 0.0).to(photos.dtype)
    if photo_depths is not None:
        seen = _sample(photo_depths[..., None].to(photos), grid, "nearest")[..., 0]
        valid &= (seen > 0) & ((z - seen).abs() <= tolerance * z)
    return _sample(photos, grid, "bilinear") * valid[..., None], valid


def _sample(images: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Images [N,h,w,C] at grid [N,H,W,2], where -1 and 1 are the images' outer edges."""
    samples = F.grid_sample(
        images.permute(0, 3, 1, 2), grid, mode=mode, padding_mode="border", align_corners=False
    )
    return samples.permute(0, 2, 3, 1)
