# Whether existing splats and a capture's poses belong together.
from __future__ import annotations

import torch

from evaluation.metrics import mse_to_psnr
from reconstruction.config import Config
from reconstruction.rendering import render_view
from scenes.scene import Scene
from splats.gaussians import Splats

LOOKED_AT = 8  # training views
GOOD = 15.0  # dB: that cannot be chance
LEAST_ALPHA, LEAST_PSNR = 0.3, 12.0  # below both, they do not


@torch.no_grad()
def fit(splats: Splats, scene: Scene, config: Config) -> tuple[float, float]:
    """Mean alpha and PSNR of the splats at some training views."""
    train, device = scene.split.train, splats["means"].device
    some = train[:: max(1, -(-len(train) // LOOKED_AT))]
    alpha = psnr = 0.0
    for i in some:
        render = render_view(splats, scene.cameras[i].to(device), config)
        error = (render.colors[0].clamp(0, 1) - scene.image(i).to(device)).square().mean().item()
        alpha += render.alphas.mean().item() / len(some)
        psnr += mse_to_psnr(error) / len(some)
    return alpha, psnr


def check(alpha: float, psnr: float) -> None:
    """ValueError where `fit` found next to nothing of the splats, and that is not what the photos
    show (as of an object on black)."""
    if alpha < LEAST_ALPHA and psnr < LEAST_PSNR:
        raise ValueError(
            f"the capture's cameras see the splats on {100 * alpha:.0f} % of their pixels: do "
            "splats and poses belong together, in one world? Check --ply, --ckpt and --data_dir"
        )
