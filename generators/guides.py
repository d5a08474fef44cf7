# Photos that guide the fixing of a render: chosen for it, and warped into it by the splats' depth.
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generators.generator import References, Renderer
from scenes.cameras import Cameras
from scenes.nearest import choose_references
from splats.warp import warp


@dataclass(frozen=True)
class RenderedView:
    """A render of the splats, on the CPU: color [H,W,3] in [0,1], alpha [H,W], depth [H,W]."""

    color: Tensor
    alpha: Tensor
    depth: Tensor


@dataclass(frozen=True)
class Guide:
    """A photo seen from another view: its name, the photo [h,w,3] (what its mask hides replaced by
    the splats' render), the same warped into the view [H,W,3] and where that is valid, bool [H,W].
    """

    name: str
    photo: Tensor
    warped: Tensor
    valid: Tensor

    def over(self, render: Tensor) -> Tensor:
        """The warped photo, and the render [H,W,3] where that is not valid."""
        return torch.where(self.valid[..., None], self.warped, render)


@torch.no_grad()
def render_one(render: Renderer, camera: Cameras) -> RenderedView:
    """One camera's view of the splats."""
    result = render(camera)
    parts = (result.colors[0].clamp(0, 1), result.alphas[0], result.depths[0])
    return RenderedView(*(part.float().cpu() for part in parts))


class Guides:
    """Finds and warps guides for renders of the splats as they are now.

    select_by: "covisibility" takes the photos that see most of what the render shows, "pose" those
    whose cameras are nearest. Each photo's own depth is rendered once.
    """

    def __init__(
        self,
        render: Renderer,
        references: References,
        select_by: Literal["covisibility", "pose"] = "covisibility",
    ) -> None:
        self.render, self.references, self.select_by = render, references, select_by
        self._depths: dict[int, Tensor] = {}

    def find(self, camera: Cameras, view: RenderedView, count: int) -> list[Guide]:
        """Up to `count` guides of one camera's view, best first; none that shows nothing of it."""
        depth = view.depth * (view.alpha >= 0.5)
        depths = depth[None] if self.select_by == "covisibility" else None
        nearest = choose_references(camera, self.references.cameras, count, depths)[0]
        return [self._warp(camera, view, i) for i in nearest]

    def _warp(self, camera: Cameras, view: RenderedView, index: int) -> Guide:
        photo, own = self.references.images[index], self.references.cameras[index]
        masks = self.references.masks
        mask = None if masks is None else masks[index]
        if mask is not None or index not in self._depths:
            rendered = render_one(self.render, own)
            self._depths[index] = rendered.depth
        if mask is not None:
            photo = torch.where(mask[..., None], photo, rendered.color)
        layers = photo if mask is None else torch.cat((photo, mask[..., None].to(photo)), -1)
        warped, valid = warp(
            layers[None],
            own,
            camera,
            view.depth[None],
            alphas=view.alpha[None],
            photo_depths=self._depths[index][None],
        )
        if mask is not None:  # all four pixels that a value is interpolated from must count
            valid &= warped[..., 3] > 0.999
            warped = warped[..., :3] * valid[..., None]
        return Guide(self.references.names[index], photo, warped[0], valid[0])
