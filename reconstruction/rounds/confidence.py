# How much speaks for each pixel of a fixed view, and for a render as it is.
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

AGREES = 0.04  # difference to a photo, mean over RGB of a neighbourhood, that a good pixel has
BLUR = 5  # pixels of that neighbourhood
SURE = 0.7  # alpha from which on there is a surface
NOTABLE = 0.02  # change of colour in a neighbourhood from which on it has something to say
CHANGE = 0.35  # change of colour by the fixer at which its answer counts for a third


def agreement(image: Tensor, warped: Tensor, valid: Tensor, close: float = AGREES) -> Tensor:
    """How well images [N,H,W,3] agree with photos warped into their views [N,H,W,3]: [N,H,W] in
    [0,1], a third at an error of `close`, 0 where the photos say nothing."""
    near = local_mean((image - warped).abs().mean(-1), valid)
    return torch.exp(-((near / close) ** 2)) * valid


def local_mean(error: Tensor, valid: Tensor) -> Tensor:
    """Means of errors [N,H,W] over each pixel's neighbourhood, of valid pixels alone."""
    weight = valid.to(error)
    window = torch.stack((error * weight, weight), 1)
    total, count = F.avg_pool2d(window, BLUR, 1, BLUR // 2, count_include_pad=False).unbind(1)
    return total / count.clamp(min=1e-6)


def render_confidence(render: Tensor, warped: Tensor | None, valid: Tensor | None) -> Tensor:
    """How far to keep renders [N,H,W,3] as they are: where they agree with a photo."""
    if warped is None:
        return render.new_zeros(render.shape[:3])
    return agreement(render, warped, valid)


def fixed_confidence(
    render: Tensor, fixed: Tensor, alpha: Tensor, warped: Tensor | None, valid: Tensor | None
) -> Tensor:
    """Weights [N,H,W] of fixed views [N,H,W,3] in training.

    Low where the splats show nothing (alpha [N,H,W]), where the fixer has changed much or nothing
    (a view of what the splats show already only holds them back), and where a photo warped into
    the view contradicts it more than the render.
    """
    surface = (alpha / SURE).clamp(0, 1) ** 2
    changed = (fixed - render).abs().mean(-1)
    modest = torch.exp(-((changed / CHANGE) ** 2))
    near = local_mean(changed, torch.ones_like(changed, dtype=torch.bool))
    weight = surface * modest * (1 - torch.exp(-((near / NOTABLE) ** 2)))
    if warped is None:
        return weight
    before, after = ((image - warped).abs().mean(-1) for image in (render, fixed))
    refuted = valid & (after > before + AGREES)
    return torch.where(refuted, torch.zeros_like(weight), weight)
