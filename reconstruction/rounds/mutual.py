# Whether fixed views agree with each other: what one invents, its neighbour does not see there.
from __future__ import annotations

import torch
from torch import Tensor

from reconstruction.rounds.confidence import AGREES, local_mean
from reconstruction.rounds.guidance import Rendered
from scenes.cameras import Cameras
from scenes.nearest import choose_references
from splats.warp import warp


@torch.no_grad()
def contradicted(
    cameras: Cameras, views: list[Rendered], fixed: list[Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """For each fixed view [H,W,3] of `cameras`: where the fixed view that shares most with it
    shows something else at the same surface, and where that one can tell; bool [H,W] each.

    The renders differ there too, by what hides and shines: only what the fixing adds to that
    counts.
    """
    found = []
    for i, (view, image) in enumerate(zip(views, fixed, strict=True)):
        nothing = torch.zeros_like(view.alpha, dtype=torch.bool)
        others = [j for j in range(len(views)) if j != i]
        depth = (view.depth * (view.alpha >= 0.5))[None]
        chosen = choose_references(cameras[i], cameras[others], 1, depth)[0] if others else []
        if not chosen:
            found.append((nothing, nothing))
            continue
        j = others[chosen[0]]
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
        found.append((valid[0] & (after > before + AGREES)[0], valid[0]))
    return found
