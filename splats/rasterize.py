# One call from splats and cameras to pictures: gsplat's kernels on CUDA, our own on the CPU.
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scenes.cameras import Cameras
from splats.gaussians import NAMES, Splats


@dataclass(frozen=True)
class Render:
    """C pictures of splats.

    colors [C,H,W,3], or [C,H,W,D] for D feature channels; not clamped.
    alphas [C,H,W], depths [C,H,W]: expected z-depth in world units where something was hit, 0
    elsewhere; None where they were not wanted.
    info: what gsplat's densification strategies read (means2d [C,N,2] in the graph,
    radii [C,N,2], ...).
    """

    colors: Tensor
    alphas: Tensor
    depths: Tensor | None
    info: dict[str, Any]


def rasterize(
    splats: Splats,
    cameras: Cameras,
    *,
    sh_degree: int | None = None,
    features: Tensor | None = None,
    background: Tensor | None = None,
    near: float = 0.01,
    far: float = 1e10,
    eps2d: float = 0.3,
    antialiased: bool = False,
    absgrad: bool = False,
    depth: bool = True,
    backend: str = "auto",
) -> Render:
    """Render splats into cameras of one size, differentiable in all six parameters.

    Colour is the spherical harmonics up to sh_degree (default: all there are), or `features` [N,D]
    as they are. background [3] or [D] lies behind the splats (default black). antialiased is
    gsplat's mode of that name (Mip-Splatting's compensated opacity). depth: whether depths are
    wanted. backend: auto, gsplat or cpu; auto takes gsplat where the splats are on a CUDA device.
    Follows gsplat 1.5 (`gsplat.rasterization`). ValueError for cameras of several sizes, a wrong
    background or backend, or too high an sh_degree.
    """
    if sh_degree is None:
        sh_degree = splats.sh_degree
    if not 0 <= sh_degree <= splats.sh_degree:
        raise ValueError(f"sh_degree {sh_degree} was asked of splats of degree {splats.sh_degree}")
    channels = 3 if features is None else features.shape[-1]
    if features is not None and features.shape != (splats.count, channels):
        raise ValueError(f"features need [{splats.count}, D], got {tuple(features.shape)}")
    device = splats["means"].device
    if background is None:
        background = torch.zeros(channels, device=device)
    if background.shape != (channels,):
        raise ValueError(f"background needs {channels} values, got {tuple(background.shape)}")
    if backend == "auto":
        backend = "gsplat" if device.type == "cuda" else "cpu"
    if backend not in ("gsplat", "cpu"):
        raise ValueError(f"unknown backend {backend!r}; choose auto, gsplat or cpu")
    draw = _draw_gsplat if backend == "gsplat" else _draw_cpu
    options = {"near": near, "far": far, "eps2d": eps2d, "antialiased": antialiased}
    return draw(splats, cameras, sh_degree, features, background, absgrad, depth, options)


def _finish(values: Tensor, alphas: Tensor, depth: bool, info: dict[str, Any]) -> Render:
    """Split blended [colours | depth]; the depth sum becomes an expectation, gsplat's "ED"."""
    if not depth:
        return Render(values, alphas, None, info)
    colors, depth_sums = values.split([values.shape[-1] - 1, 1], dim=-1)
    return Render(colors, alphas, depth_sums[..., 0] / alphas.clamp(min=1e-10), info)


def _draw_cpu(splats, cameras, sh_degree, features, background, absgrad, depth, options) -> Render:
    from splats.cpu.rasterize import blend, project  # compiles on first use

    width, height = cameras.size
    degree = sh_degree if features is None else -1
    raw = tuple(splats[name] for name in NAMES)
    means2d, conics, opacities, colors, extents, radii = project(raw, cameras, degree, **options)
    depths = colors[..., 3]
    if features is not None:
        features = features.expand(len(cameras), -1, -1)
        colors = torch.cat([features, depths[..., None]], dim=-1)
    values, alphas = blend(
        means2d,
        conics,
        opacities,
        colors,
        torch.cat([background, background.new_zeros(1)]),
        depths,
        extents,
        radii,
        width=width,
        height=height,
        absgrad=absgrad,
        shown=None if depth else colors.shape[-1] - 1,
    )
    info = {
        "means2d": means2d,
        "radii": radii,
        "depths": depths,
        "conics": conics,
        "opacities": opacities,
        "extents": extents,
        "width": width,
        "height": height,
        "n_cameras": len(cameras),
        "gaussian_ids": None,
    }
    return _finish(values, alphas, depth, info)


def _draw_gsplat(
    splats, cameras, sh_degree, features, background, absgrad, depth, options
) -> Render:
    from gsplat import rasterization

    width, height = cameras.size
    device = splats["means"].device
    cameras = cameras.to(device)
    values, alphas, info = rasterization(
        means=splats["means"],
        quats=splats["quats"],
        scales=splats["scales"].exp(),
        opacities=splats["opacities"].sigmoid(),
        colors=splats.colors if features is None else features,
        viewmats=cameras.viewmats,
        Ks=cameras.Ks,
        width=width,
        height=height,
        near_plane=options["near"],
        far_plane=options["far"],
        eps2d=options["eps2d"],
        sh_degree=sh_degree if features is None else None,
        packed=False,
        backgrounds=background.to(device).expand(len(cameras), -1),
        render_mode="RGB+D" if depth else "RGB",
        absgrad=absgrad,
        rasterize_mode="antialiased" if options["antialiased"] else "classic",
    )
    return _finish(values, alphas[..., 0], depth, info)
