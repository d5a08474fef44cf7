# Windows of a triplet's pictures: drawn, cut, and found again in a reference photo, by depth where
# that is known, else by the cameras' turn.
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scenes.cameras import Cameras
from triplets.manifest import View

SAMPLES = 5  # points along each side of a window that are looked up


def draw_corner(
    image: Tensor, window: tuple[int, int], generator: torch.Generator
) -> tuple[int, int]:
    """Top and left of a random window (height, width) in an image [H,W,C]."""
    choices = [max(0, n - w) + 1 for n, w in zip(image.shape[:2], window, strict=True)]
    top, left = (int(torch.randint(count, (), generator=generator)) for count in choices)
    return top, left


def cut_window(image: Tensor, corner: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """A window [h,w,C] of an image [H,W,C], continued by its last row and column if it is
    smaller."""
    (top, left), (height, width) = corner, window
    part = image[top : top + height, left : left + width]
    lack = height - part.shape[0], width - part.shape[1]
    if not any(lack):
        return part
    part = F.pad(part.permute(2, 0, 1)[None], (0, lack[1], 0, lack[0]), mode="replicate")
    return part[0].permute(1, 2, 0)


def to_cameras(views: Sequence[View], size: tuple[int, int] | None = None) -> Cameras:
    """Entries' cameras as tensors, for pictures of another width and height if `size` is given."""
    Ks = torch.tensor([view.K for view in views])
    sizes = torch.tensor([[view.width, view.height] for view in views])
    if size is not None:
        for K, view in zip(Ks, views, strict=True):
            K[0] *= size[0] / view.width
            K[1] *= size[1] / view.height
        sizes = torch.tensor([size]).expand(len(views), 2)
    return Cameras(torch.tensor([view.viewmat for view in views]), Ks, sizes)


def find_window(
    corner: tuple[int, int],
    window: tuple[int, int],
    camera: Cameras,
    reference: Cameras,
    depth: Tensor | None = None,
    *,
    step: int = 1,
    within: tuple[int, int],
) -> tuple[int, int]:
    """Top and left of the window in a reference that shows what the window at `corner` shows.

    In whole `step`s of pixels from there, inside pictures of `within` (height, width). The corner
    itself where the reference shows nothing of it. See `find_shift` for the others.
    """
    (top, left), (height, width) = corner, window
    moved = find_shift((left, top, left + width, top + height), camera, reference, depth)
    if moved is None:
        return corner
    top, left = top + round(moved[1] / step) * step, left + round(moved[0] / step) * step
    last = (max(0, n - w) for n, w in zip(within, window, strict=True))
    top, left = (min(max(at, 0), end) for at, end in zip((top, left), last, strict=True))
    return top, left


def find_shift(
    box: tuple[int, int, int, int], camera: Cameras, reference: Cameras, depth: Tensor | None
) -> tuple[int, int] | None:
    """How far right and down (pixels) a window's content has moved in the reference, the median.

    box: left, top, right, bottom in pixels of the render; camera, reference: one camera each, at
    the size of the images in hand; depth [H,W] along the optical axis, 0 or less where unknown.
    None where nothing of the window is in the reference.
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
