# What is black in a picture because nothing was rendered there.
from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

BLACK = 1.5 / 255  # splats leave what they do not cover at exactly 0; photos rarely do
LEAST_SHARE, LEAST_PIXELS = 2e-4, 16  # of a region
CONTRADICTION = 0.5  # share of the pixels of a kind


Holes = Literal["none", "auto"]


def guess_alpha(image: Tensor, holes: Holes) -> Tensor:
    """Alpha [H,W] of a picture [H,W,3] whose own is not known: opaque, or with "auto" as
    `find_holes` sees it."""
    return find_holes(image) if holes == "auto" else torch.ones_like(image[..., 0])


def find_holes(image: Tensor) -> Tensor:
    """Alpha [H,W] of a render [H,W,3] in [0,1] without one: 0 in connected regions that are black
    throughout, 1 elsewhere.

    A guess: a dark, unlit part of the scene may be black, too.
    """
    black = (image.amax(-1) <= BLACK).numpy().astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(black, connectivity=8)
    least = max(LEAST_PIXELS, LEAST_SHARE * black.size)
    large = stats[:, cv2.CC_STAT_AREA] >= least
    large[0] = False  # what is not black
    return 1 - torch.from_numpy(large[labels].astype(np.float32))


def contradicts(image: Tensor, alpha: Tensor) -> bool:
    """Whether an alpha [H,W] is opaque where the render [H,W,3] is black and transparent where it
    is not: what marks holes was given in the place of opacity."""
    holes = find_holes(image) < 0.5
    opaque = alpha > 0.5
    if not holes.any() or holes.all():
        return False
    return bool(opaque[holes].float().mean() > CONTRADICTION > opaque[~holes].float().mean())
