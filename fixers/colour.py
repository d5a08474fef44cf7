# Colour corrections after fixing, on images [N,H,W,3] in [0,1].
from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Colour = Literal["none", "render-adain", "render-wavelet", "reference"]
LEVELS = 5  # of the wavelet: 2^5 pixels


def correct(fixed: Tensor, renders: Tensor, references: Tensor | None, colour: Colour) -> Tensor:
    """`fixed` with colours moved towards the render's own, or (as the original) the reference's.

    "reference" shifts colours wherever the two views show different things: for comparison only.
    """
    if colour == "none":
        return fixed
    if colour == "render-wavelet":
        return (fixed - low(fixed) + low(renders)).clamp(0, 1)
    source = renders
    if colour == "reference":
        if references is None:
            return fixed
        source = references[:, 0]
    return adain(fixed, source).clamp(0, 1)


def adain(images: Tensor, source: Tensor) -> Tensor:
    """Mean and deviation of each channel moved to the source's (AdaIN, arXiv 1703.06868)."""

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        flat = x.flatten(1, 2)
        correction = min(1, flat.shape[1] - 1)
        variance, mean = torch.var_mean(flat, 1, correction=correction)
        return mean[:, None, None], (variance + 1e-5).sqrt()[:, None, None]

    mean, deviation = moments(images)
    wanted_mean, wanted_deviation = moments(source)
    return (images - mean) / deviation * wanted_deviation + wanted_mean


def low(images: Tensor) -> Tensor:
    """What an a-trous wavelet leaves after five levels: [1 2 1] / 4 both ways, ever wider."""
    x = images.permute(0, 3, 1, 2)
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    kernel = (taps[:, None] * taps).expand(3, 1, 3, 3)
    for level in range(LEVELS):
        reach = 2**level
        padded = F.pad(x, (reach,) * 4, mode="replicate")
        x = F.conv2d(padded, kernel, groups=3, dilation=reach)
    return x.permute(0, 2, 3, 1)
