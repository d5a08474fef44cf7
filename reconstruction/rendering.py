# Views of the splats, rendered as they are optimised, and how well they show what the photos do.
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.metrics import mse_to_psnr
from generators.confidence import agreement
from reconstruction.backgrounds import fixed_background, masked_mse
from reconstruction.config import Config
from scenes.cameras import Cameras
from scenes.scene import Scene
from splats.gaussians import Splats
from splats.rasterize import Render, rasterize

CLOSE = 0.1  # error at which a photo speaks for a Gaussian by a third
BEHIND = 1.1  # times the rendered depth: farther away a Gaussian is hidden
FEW = 1.5  # photos that count for 63 % of certainty


def render_view(
    splats: Splats,
    camera: Cameras,
    config: Config,
    *,
    sh_degree: int | None = None,
    background: Tensor | None = None,
    depth: bool = True,
    view_colors: Tensor | None = None,
    training: bool = False,
) -> Render:
    """The splats seen by cameras of one size, with the config's planes and filter.

    view_colors: [C, N, 3], the Gaussians' colours in each view, in place of their harmonics.
    training: with the config's memory layout, for which gradients are.
    """
    options: dict[str, Any] = {"background": background}
    if view_colors is not None:
        options = {"view_signals": view_colors, "signal_background": background, "colors": False}
    if training:
        options |= {"packed": config.packed, "sparse_grad": config.sparse_grad}
    render = rasterize(
        splats,
        camera,
        sh_degree=sh_degree,
        depth=depth,
        **options,
        near=config.near_plane,
        far=config.far_plane,
        antialiased=config.antialiased,
        absgrad=getattr(config.strategy, "absgrad", False),
    )
    return render if view_colors is None else replace(render, colors=render.signals, signals=None)


def psnr(image: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """PSNR in dB of an image [H,W,3] in [0,1], where a mask [H,W] is True; NaN if not finite."""
    return mse_to_psnr(masked_mse(image, truth, mask).item())


@torch.no_grad()
def measure(
    splats: Splats, scene: Scene, views: Sequence[int], config: Config
) -> tuple[float, float]:
    """Mean alpha, where masks and the photos' own alpha leave pixels, and mean PSNR (dB) of the
    splats at these views of the scene."""
    device, alpha, counted, total = splats["means"].device, 0.0, 0.0, 0.0
    background = fixed_background(scene, config)
    for view in views:
        camera, photo = scene.cameras[view].to(device), scene.image(view, background).to(device)
        render = render_view(splats, camera, config, background=background)
        total += psnr(render.colors[0].clamp(0, 1), photo, scene.mask(view))
        weights = torch.ones_like(render.alphas[0])
        for layer in (scene.mask(view), scene.alpha(view)):
            weights = weights if layer is None else weights * layer.to(device)
        alpha += (render.alphas[0] * weights).sum().item()
        counted += weights.sum().item()
    return alpha / max(counted, 1.0), total / len(views)


def mean_psnr(splats: Splats, scene: Scene, views: Sequence[int], config: Config) -> float:
    """Mean PSNR (dB) of the splats at these views of the scene; -inf where it is not finite."""
    value = measure(splats, scene, views, config)[1]
    return value if math.isfinite(value) else -math.inf


@torch.no_grad()
def compute_support(splats: Splats, scene: Scene, config: Config) -> Tensor:
    """How well the training photos support each Gaussian, [N] float32 in [0,1] on the CPU.

    The mean agreement of render and photo where the Gaussian is seen, over the training views that
    see it; less where few do, 0 where none does.
    """
    device = splats["means"].device
    background = fixed_background(scene, config)
    total = torch.zeros(splats.count, device=device)
    seen = torch.zeros(splats.count, device=device)
    means = F.pad(splats["means"].detach(), (0, 1), value=1.0)
    for view in scene.split.train:
        camera = scene.cameras[view].to(device)
        render = render_view(splats, camera, config, background=background)
        photo, mask = scene.image(view, background).to(device), scene.mask(view)
        valid = torch.ones_like(render.alphas, dtype=torch.bool)
        if mask is not None:
            valid &= mask.to(device)
        agrees = agreement(render.colors.clamp(0, 1), photo[None], valid, CLOSE)[0]
        local = means @ camera.viewmats[0].T
        z = local[:, 2]
        uv = (local[:, :3] @ camera.Ks[0].T)[:, :2] / z.clamp(min=1e-6)[:, None]
        width, height = camera.size
        x, y = uv.floor().long().unbind(1)
        inside = (z > config.near_plane) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
        depth, alpha = render.depths[0][y, x], render.alphas[0][y, x]
        visible = inside & valid[0][y, x] & ((z <= BEHIND * depth) | (alpha < 0.5))
        total += torch.where(visible, agrees[y, x], 0.0)
        seen += visible
    certain = 1 - torch.exp(-seen / FEW)
    return (total / seen.clamp(min=1) * certain).cpu()
