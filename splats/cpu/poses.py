# Gradients for the cameras' poses on the CPU, from the kernels' gradients for the Gaussians: to
# move a camera is to move the world the other way, except that harmonics do not turn with it.
from __future__ import annotations

import torch
from torch import Tensor

from scenes.cameras import Cameras
from splats.cpu.rasterize import project
from splats.harmonics import evaluate_colors


def project_from_poses(
    splats: tuple[Tensor, ...], cameras: Cameras, degree: int, **options: float
) -> tuple[Tensor, ...]:
    """As `splats.cpu.rasterize.project`, with gradients for viewmats too.

    They are exact for rigid motions of the cameras.
    """
    views = [_project_one(splats, cameras[i], degree, **options) for i in range(len(cameras))]
    return tuple(torch.cat(parts) for parts in zip(*views, strict=True))


def _project_one(
    splats: tuple[Tensor, ...], camera: Cameras, degree: int, **options: float
) -> tuple[Tensor, ...]:
    means, scales, quats, opacities, sh0, shN = splats
    viewmat = camera.viewmats[0].double()
    still = viewmat.detach()
    # The motion V0^-1 V of the world, less the identity: zero, but with a gradient.
    motion = (torch.linalg.inv(still) @ (viewmat - still)).float()
    linear, shift = motion[:3, :3], motion[:3, 3]
    skew = (linear - linear.T) / 2
    half_turn = torch.stack([skew[2, 1], skew[0, 2], skew[1, 0]]) / 2
    moved = (means + means @ linear.T + shift, scales, quats + _turn(quats, half_turn))
    *outputs, values, extents, radii = project(
        (*moved, opacities, sh0, shN),
        Cameras(camera.viewmats.detach(), camera.Ks, camera.sizes),
        -1,
        **options,
    )
    if degree >= 0:
        coefficients = torch.cat([sh0, shN], dim=1)
        colors = evaluate_colors(coefficients, means - camera.positions, degree)
        values = torch.cat([colors[None], values[..., 3:]], dim=-1)
    return *outputs, values, extents, radii


def _turn(quats: Tensor, half_turn: Tensor) -> Tensor:
    """The change of quaternions [N, 4] by a small rotation: (0, half_turn) times each."""
    w, v = quats[:, :1], quats[:, 1:]
    across = torch.linalg.cross(half_turn.expand_as(v), v)
    return torch.cat([-(v @ half_turn)[:, None], w * half_turn + across], dim=1)
