# One Adam per parameter, since gsplat's strategies add and remove rows of each by name.
from __future__ import annotations

import torch

from reconstruction.config import Config
from splats.gaussians import NAMES, Splats


def make_optimisers(
    splats: Splats, config: Config, scene_scale: float
) -> dict[str, torch.optim.Adam]:
    """Adam with gsplat's learning rates, by parameter name; scene_scale in world units."""
    rates = {name: getattr(config, f"{name}_lr") for name in NAMES}
    rates["means"] *= scene_scale
    return {
        name: torch.optim.Adam([splats[name]], lr=rate, eps=1e-15, fused=True)
        for name, rate in rates.items()
    }


def means_rate(config: Config, scene_scale: float, progress: float) -> float:
    """Learning rate of the means: exponential, 1 % at the end; progress from 0 to 1."""
    return config.means_lr * scene_scale * 0.01**progress
