# Training views set aside to judge a round by, and what they say.
from __future__ import annotations

import math

import torch

from evaluation.metrics import mse_to_psnr
from reconstruction.config import Config
from reconstruction.rendering import render_view
from reconstruction.rounds.settings import FixConfig
from scenes.scene import Scene
from splats.gaussians import Splats


def set_aside(train: tuple[int, ...], settings: FixConfig, number: int) -> tuple[int, ...]:
    """Indices of the views that round `number` does without: spread over the capture, others in
    each round; none where there are few."""
    if settings.gate == "off" or len(train) < settings.gate_least:
        return ()
    count = max(2, round(len(train) * settings.gate_share))
    gap = len(train) / count
    return tuple(sorted({train[int((i + 0.5) * gap + number) % len(train)] for i in range(count)}))


@torch.no_grad()
def mean_psnr(splats: Splats, scene: Scene, views: tuple[int, ...], config: Config) -> float:
    """PSNR of the splats at these views, the mean over them; -inf where it is no number."""
    device, total = splats["means"].device, 0.0
    for view in views:
        render = render_view(splats, scene.cameras[view].to(device), config)
        error = (render.colors[0].clamp(0, 1) - scene.image(view).to(device)).square().mean()
        total += mse_to_psnr(error.item())
    mean = total / len(views)
    return mean if math.isfinite(mean) else -math.inf
