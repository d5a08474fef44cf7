# What lies behind the splats, and behind photos with alpha: one colour for both, so that they agree
# only where the splats are as transparent as the photo. What masks hide is nobody's business.
from __future__ import annotations

import torch
from torch import Tensor

from reconstruction.config import Config
from scenes.scene import Scene

COLORS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


def name_background(scene: Scene, config: Config) -> str:
    """white or black, behind everything that is measured or shown: what is asked for, else the
    capture's own, else white behind photos with alpha."""
    if config.background in COLORS:
        return config.background
    return scene.background or ("black" if scene.alphas is None else "white")


def fixed_background(scene: Scene, config: Config) -> Tensor | None:
    """That colour, [3]; None if it is black and no photo has alpha."""
    name = name_background(scene, config)
    if name == "black" and scene.alphas is None:
        return None
    return torch.tensor(COLORS[name])


def is_random(scene: Scene, config: Config) -> bool:
    """Whether training takes another colour in every step: where that is asked for, and for photos
    with alpha, unless --background or the capture names a colour."""
    if config.background is not None or config.random_bkgd:
        return config.random_bkgd or config.background == "random"
    return scene.alphas is not None and scene.background is None


def training_background(scene: Scene, config: Config, device: torch.device) -> Tensor | None:
    """The colour [3] of a training step, drawn from torch's global generator where it is random."""
    if is_random(scene, config):
        return torch.rand(3, device=device)
    return fixed_background(scene, config)


def hide(image: Tensor, other: Tensor, mask: Tensor | None) -> Tensor:
    """An image [H, W, 3] that shows the other one where a mask [H, W] is False."""
    return image if mask is None else torch.where(mask.to(image.device)[..., None], image, other)


def hide_from_loss(render: Tensor, photo: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Render and photo [H, W, 3], both showing the render where the mask [H, W] is False.

    No gradient comes from there, and what the photo shows there has no influence, not even through
    the windows of SSIM.
    """
    still = render.detach()
    return hide(render, still, mask), hide(photo, still, mask)


def masked_mse(image: Tensor, photo: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared error of images [H, W, 3] where the mask [H, W] is True."""
    error = (hide(image, photo, mask) - photo).square().mean()  # 0 where it is False
    return error if mask is None else error * (mask.numel() / mask.sum().to(error))
