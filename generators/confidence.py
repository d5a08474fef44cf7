# How far each pixel of a render or of a fixed view can be trusted, judged by photos warped into the
# view and by the other fixed views.
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from generators.guides import Guide, RenderedView
from scenes.cameras import Cameras
from scenes.nearest import choose_references
from splats.warp import warp

GOOD_ERROR = 0.04  # difference to a photo, mean over RGB of a neighbourhood, that a good pixel has
WINDOW = 5  # pixels of that neighbourhood
SOLID_ALPHA = 0.7  # alpha from which on there is a surface
NOTABLE_CHANGE = 0.02  # change of colour in a neighbourhood from which on it matters
LARGE_CHANGE = 0.35  # change of colour by the fixer at which its answer counts for a third
LEAST_SEEN = 0.05  # share of a view that a photo must see to check it


def agreement(image: Tensor, warped: Tensor, valid: Tensor, scale: float = GOOD_ERROR) -> Tensor:
    """How well images [N,H,W,3] agree with photos warped into their views [N,H,W,3].

    [N,H,W] in [0,1]: 1/e at an error of `scale`, 0 where the photos are not valid (bool [N,H,W]).
    """
    near = local_mean((image - warped).abs().mean(-1), valid)
    return torch.exp(-((near / scale) ** 2)) * valid


def local_mean(error: Tensor, valid: Tensor | None = None) -> Tensor:
    """Means of errors [N,H,W] over each pixel's neighbourhood, counting valid pixels only."""
    weight = torch.ones_like(error) if valid is None else valid.to(error)
    window = torch.stack((error * weight, weight), 1)
    total, count = F.avg_pool2d(window, WINDOW, 1, WINDOW // 2, count_include_pad=False).unbind(1)
    return total / count.clamp(min=1e-6)


def render_confidence(render: Tensor, warped: Tensor | None, valid: Tensor | None) -> Tensor:
    """How far to keep renders [N,H,W,3] as they are: where they agree with a photo. [N,H,W]."""
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
    surface = (alpha / SOLID_ALPHA).clamp(0, 1) ** 2
    changed = (fixed - render).abs().mean(-1)
    modest = torch.exp(-((changed / LARGE_CHANGE) ** 2))
    near = local_mean(changed)
    weight = surface * modest * (1 - torch.exp(-((near / NOTABLE_CHANGE) ** 2)))
    if warped is None:
        return weight
    before, after = ((image - warped).abs().mean(-1) for image in (render, fixed))
    refuted = valid & (after > before + GOOD_ERROR)
    return torch.where(refuted, torch.zeros_like(weight), weight)


def compare_with_photo(
    view: RenderedView, fixed: Tensor, guide: Guide | None
) -> tuple[float, float] | None:
    """The render's mean error to a photo over that of the fixed view [H,W,3] (above 1 the fixed
    view is nearer), and the render's mean squared error to it. None without a photo, or where it
    sees too little of the view."""
    if guide is None or guide.valid.float().mean() < LEAST_SEEN:
        return None
    before, after = ((image - guide.warped)[guide.valid] for image in (view.color, fixed))
    ratio = before.abs().mean() / after.abs().mean().clamp(min=1e-6)
    return ratio.item(), before.square().mean().item()


@torch.no_grad()
def find_contradictions(
    cameras: Cameras, views: list[RenderedView], fixed: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """For each fixed view [H,W,3]: where the nearest other one shows something else on the same
    surface, and where that one can tell; bool [H,W] each.

    The renders differ there too, because of occlusion and reflections: only what fixing adds to
    that difference counts. The nearest view is the one that shares most with it.
    """
    contradictions = []
    for i, (view, image) in enumerate(zip(views, fixed, strict=True)):
        nothing = torch.zeros_like(view.alpha, dtype=torch.bool)
        others = [j for j in range(len(views)) if j != i]
        depth = (view.depth * (view.alpha >= 0.5))[None]
        nearest = choose_references(cameras[i], cameras[others], 1, depth)[0] if others else []
        if not nearest:
            contradictions.append((nothing, nothing))
            continue
        j = others[nearest[0]]
        both = torch.cat((views[j].color, fixed[j]), -1)
        seen, valid = warp(
            both[None],
            cameras[j],
            cameras[i],
            view.depth[None],
            alphas=view.alpha[None],
            photo_depths=views[j].depth[None],
        )
        before, after = (
            local_mean((a - b).abs().mean(-1), valid)
            for a, b in ((view.color, seen[..., :3]), (image, seen[..., 3:]))
        )
        contradictions.append((valid[0] & (after > before + GOOD_ERROR)[0], valid[0]))
    return contradictions
