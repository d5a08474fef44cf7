# How far each Gaussian is borne out by the training photos.
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from reconstruction.config import Config
from reconstruction.rendering import render_view
from reconstruction.rounds.confidence import agreement
from scenes.scene import Scene
from splats.gaussians import Splats

CLOSE = 0.1  # error at which a photo speaks for a Gaussian by a third
BEHIND = 1.1  # times the rendered depth: farther away a Gaussian is hidden
FEW = 1.5  # photos that count for 63 % of certainty


@torch.no_grad()
def support(splats: Splats, scene: Scene, config: Config) -> Tensor:
    """[N] float32 in [0,1] on the CPU: how well the splats agree with the photos where a Gaussian
    is seen, the mean over the training views that see it, less where few do; 0 where none does."""
    device = splats["means"].device
    total = torch.zeros(splats.count, device=device)
    seen = torch.zeros(splats.count, device=device)
    means = F.pad(splats["means"].detach(), (0, 1), value=1.0)
    for view in scene.split.train:
        camera = scene.cameras[view].to(device)
        render = render_view(splats, camera, config)
        photo = scene.image(view).to(device)
        valid = torch.ones_like(render.alphas, dtype=torch.bool)
        agrees = agreement(render.colors.clamp(0, 1), photo[None], valid, CLOSE)[0]
        local = means @ camera.viewmats[0].T
        z = local[:, 2]
        uv = (local[:, :3] @ camera.Ks[0].T)[:, :2] / z.clamp(min=1e-6)[:, None]
        width, height = camera.size
        x, y = uv.floor().long().unbind(1)
        inside = (z > config.near_plane) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
        depth, alpha = render.depths[0][y, x], render.alphas[0][y, x]
        visible = inside & ((z <= BEHIND * depth) | (alpha < 0.5))
        total += torch.where(visible, agrees[y, x], 0.0)
        seen += visible
    certain = 1 - torch.exp(-seen / FEW)
    return (total / seen.clamp(min=1) * certain).cpu()
