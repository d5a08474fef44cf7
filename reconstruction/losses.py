# What the optimisation minimises (Kerbl et al. 2023, equation 7; MCMC's regularisers).
from __future__ import annotations

from torch import Tensor

from evaluation.ssim import ssim
from splats.gaussians import Splats


def photometric(render: Tensor, photo: Tensor, ssim_lambda: float = 0.2) -> Tensor:
    """(1 - lambda) L1 + lambda (1 - SSIM) of images [H, W, 3] in [0, 1], as a scalar."""
    loss = (render - photo).abs().mean()
    if ssim_lambda > 0:
        loss = (1 - ssim_lambda) * loss + ssim_lambda * (1 - ssim(render, photo))
    return loss


def regularisation(splats: Splats, opacity_reg: float, scale_reg: float) -> Tensor | float:
    """Mean opacity and mean scale, weighted (arXiv 2404.09591, equation 10); 0 without weights."""
    loss = 0.0
    if opacity_reg > 0:
        loss = loss + opacity_reg * splats["opacities"].sigmoid().mean()
    if scale_reg > 0:
        loss = loss + scale_reg * splats["scales"].exp().mean()
    return loss
