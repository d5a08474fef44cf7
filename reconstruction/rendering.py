# One view of the splats, rendered as they are optimised.
from __future__ import annotations

from torch import Tensor

from reconstruction.config import Config
from scenes.cameras import Cameras
from splats.gaussians import Splats
from splats.rasterize import Render, rasterize


def render_view(
    splats: Splats,
    camera: Cameras,
    config: Config,
    *,
    sh_degree: int | None = None,
    background: Tensor | None = None,
    depth: bool = True,
) -> Render:
    """The splats seen by cameras of one size, with the config's planes and filter."""
    return rasterize(
        splats,
        camera,
        sh_degree=sh_degree,
        background=background,
        depth=depth,
        near=config.near_plane,
        far=config.far_plane,
        antialiased=config.antialiased,
        absgrad=getattr(config.strategy, "absgrad", False),
    )
