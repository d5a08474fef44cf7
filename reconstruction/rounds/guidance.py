# What guides the fixing of novel views: training photos, warped into them by the splats' depth.
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reconstruction.config import Config
from reconstruction.rendering import render_view
from reconstruction.rounds.settings import FixConfig
from scenes.cameras import Cameras
from scenes.nearest import choose_references
from scenes.scene import Scene
from splats.gaussians import Splats
from splats.warp import warp


@dataclass(frozen=True)
class Rendered:
    """A view of the splats, on the CPU: color [H,W,3] in [0,1], alpha [H,W], depth [H,W]."""

    color: Tensor
    alpha: Tensor
    depth: Tensor


@dataclass(frozen=True)
class Guide:
    """A training photo seen from a novel view: its index in the scene, the photo [h,w,3], the same
    warped [H,W,3] and where that is valid, bool [H,W]."""

    index: int
    photo: Tensor
    warped: Tensor
    valid: Tensor

    def over(self, render: Tensor) -> Tensor:
        """The warped photo, and the render [H,W,3] where that is not valid."""
        return torch.where(self.valid[..., None], self.warped, render)


@torch.no_grad()
def rendered(splats: Splats, camera: Cameras, config: Config) -> Rendered:
    """One view."""
    device = splats["means"].device
    found = render_view(splats, camera.to(device), config)
    parts = (found.colors[0].clamp(0, 1), found.alphas[0], found.depths[0])
    return Rendered(*(part.float().cpu() for part in parts))


class Guidance:
    """References for views of a scene, chosen and warped by the splats as they are now.

    photos: indices of the views whose photos may be used. A photo's own depth is rendered once.
    """

    def __init__(
        self,
        splats: Splats,
        scene: Scene,
        photos: tuple[int, ...],
        config: Config,
        settings: FixConfig,
    ) -> None:
        self.splats, self.scene, self.photos = splats, scene, photos
        self.config, self.settings = config, settings
        self._depths: dict[int, Tensor] = {}

    def of(
        self, camera: Cameras, view: Rendered, count: int, leave: int | None = None
    ) -> list[Guide]:
        """Up to `count` guides of one camera's view, best first; photo `leave` is none of them."""
        photos = tuple(i for i in self.photos if i != leave)
        depth = view.depth * (view.alpha >= 0.5)
        depths = depth[None] if self.settings.reference_by == "covisibility" else None
        cameras = self.scene.cameras[list(photos)]
        chosen = choose_references(camera, cameras, count, depths)[0]
        return [self._guide(camera, view, photos[i]) for i in chosen]

    def _guide(self, camera: Cameras, view: Rendered, index: int) -> Guide:
        if index not in self._depths:
            own = rendered(self.splats, self.scene.cameras[index], self.config)
            self._depths[index] = own.depth
        photo = self.scene.image(index)
        warped, valid = warp(
            photo[None],
            self.scene.cameras[index],
            camera,
            view.depth[None],
            alphas=view.alpha[None],
            photo_depths=self._depths[index][None],
        )
        return Guide(index, photo, warped[0], valid[0])
