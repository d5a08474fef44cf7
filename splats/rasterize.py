# One call from Gaussians and cameras to pictures: colours, signals, depth and alpha, by gsplat's
# kernels on CUDA and by our own on the CPU.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scenes.cameras import Cameras
from splats.gaussians import NAMES, Gaussians, Splats

CHUNK = 32  # channels that gsplat's kernels blend at once


@dataclass(frozen=True)
class Render:
    """C pictures of Gaussians, float32.

    colors: [C, H, W, 3], not clamped; None where they were not requested.
    alphas: [C, H, W].
    depths: [C, H, W], expected z-depth in world units, 0 where nothing was hit; None where not
        requested.
    signals: [C, H, W, D], blended like colours: the per-Gaussian signals in the order in which they
        were requested, then the per-view signals; None without either.
    info: what gsplat's densification strategies read (means2d [C, N, 2] in the graph,
        radii [C, N, 2], ...).
    """

    colors: Tensor | None
    alphas: Tensor
    depths: Tensor | None
    signals: Tensor | None
    info: dict[str, Any]


@dataclass(frozen=True)
class _Request:
    """What to draw, checked, for either backend; sh_degree is None without colours."""

    sh_degree: int | None
    depth: bool
    signals: Tensor | None  # [C, N, D]
    detach_geometry: bool
    background: Tensor  # [3] of colours, or [0] without
    signal_background: Tensor  # [D]
    near: float
    far: float
    eps2d: float
    antialiased: bool
    absgrad: bool
    packed: bool
    sparse_grad: bool


def rasterize(
    gaussians: Gaussians | Splats,
    cameras: Cameras,
    *,
    sh_degree: int | None = None,
    background: Tensor | None = None,
    signals: str | Sequence[str] | Tensor | None = None,
    view_signals: Tensor | None = None,
    signal_background: Tensor | None = None,
    detach_geometry: bool = False,
    near: float = 0.01,
    far: float = 1e10,
    eps2d: float = 0.3,
    antialiased: bool = False,
    absgrad: bool = False,
    colors: bool = True,
    depth: bool = True,
    packed: bool = False,
    sparse_grad: bool = False,
    backend: str = "auto",
) -> Render:
    """Render Gaussians into cameras of one size; differentiable, in one pass for all channels.

    Gradients also reach the cameras' viewmats if these require them (on the CPU exactly for rigid
    motions), but not Ks.

    Colour is the spherical harmonics up to sh_degree (default: all there are). signals are further
    channels of the Gaussians that are blended as they are: names of `gaussians.signals`, or values
    [N, D]; view_signals [C, N, D] are such channels that differ from camera to camera. background
    [3] and signal_background [D, both kinds] lie behind the Gaussians (default: zeros).

    detach_geometry: the signals, and their background, send gradients to their own values only, not
    to means, scales, quats and opacities; colours, depth and alpha still do.
    antialiased: gsplat's mode of that name (Mip-Splatting's compensated opacity).
    absgrad: backward also sets info["means2d"].absgrad [C, N, 2] (AbsGS), from all channels that
    reach the geometry; gsplat counts the first 32 of them, colours and depth before signals.
    colors, depth: whether these are rendered.
    packed, sparse_grad: gsplat's layouts of the projected Gaussians ([nnz, ...] in `info`, with
        gaussian_ids) and of gradients, which need less memory; the CPU has none of them. A packed
        pass has as many channels as gsplat blends at once, and no detached geometry.
    backend: auto, gsplat or cpu; auto takes gsplat where the Gaussians are on a CUDA device.

    Follows gsplat 1.5 (`gsplat.rasterization`). ValueError for cameras of several sizes, an unknown
    signal or backend, wrong shapes, or too high an sh_degree.
    """
    if isinstance(gaussians, Splats):
        gaussians = gaussians.gaussians
    if sh_degree is None:
        sh_degree = gaussians.sh_degree
    if not 0 <= sh_degree <= gaussians.sh_degree:
        raise ValueError(
            f"sh_degree {sh_degree} was requested of splats of degree {gaussians.sh_degree}"
        )
    device = gaussians.means.device
    if backend == "auto":
        backend = "gsplat" if device.type == "cuda" else "cpu"
    if backend not in ("gsplat", "cpu"):
        raise ValueError(f"unknown backend {backend!r}; choose auto, gsplat or cpu")
    values = _gather_signals(gaussians, len(cameras), signals, view_signals)
    request = _Request(
        sh_degree=sh_degree if colors else None,
        depth=depth,
        signals=values,
        detach_geometry=detach_geometry,
        background=_choose_background("background", background, 3 if colors else 0, device),
        signal_background=_choose_background(
            "signal_background",
            signal_background,
            0 if values is None else values.shape[-1],
            device,
        ),
        near=near,
        far=far,
        eps2d=eps2d,
        antialiased=antialiased,
        absgrad=absgrad,
        packed=packed,
        sparse_grad=sparse_grad,
    )
    draw = _draw_with_gsplat if backend == "gsplat" else _draw_on_cpu
    return draw(gaussians, cameras, request)


def _gather_signals(
    gaussians: Gaussians,
    n_cameras: int,
    signals: str | Sequence[str] | Tensor | None,
    view_signals: Tensor | None,
) -> Tensor | None:
    """All signals as float32 [C, N, D], per-Gaussian ones first."""
    n = len(gaussians)
    parts = []
    if isinstance(signals, Tensor):
        if signals.ndim != 2 or len(signals) != n:
            raise ValueError(f"signals need [{n}, D], got {tuple(signals.shape)}")
        parts.append(signals)
    elif signals is not None:
        names = (signals,) if isinstance(signals, str) else signals
        unknown = [name for name in names if name not in gaussians.signals]
        if unknown:
            there = ", ".join(gaussians.signals) or "none"
            raise ValueError(f"the Gaussians have no signal {unknown[0]!r}; they have {there}")
        parts += [gaussians.signals[name] for name in names]
    parts = [part.float().expand(n_cameras, -1, -1) for part in parts]
    if view_signals is not None:
        if view_signals.ndim != 3 or view_signals.shape[:2] != (n_cameras, n):
            raise ValueError(
                f"view_signals need [{n_cameras}, {n}, D], got {tuple(view_signals.shape)}"
            )
        parts.append(view_signals.float())
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _choose_background(
    name: str, values: Tensor | None, channels: int, device: torch.device
) -> Tensor:
    """The values as float32, zeros by default; ValueError unless there is one per channel."""
    if values is None:
        return torch.zeros(channels, device=device)
    if values.shape != (channels,):
        raise ValueError(f"{name} needs {channels} values, got {tuple(values.shape)}")
    return values.to(device, torch.float32)


def _render(
    colors: Tensor,
    depth_sums: Tensor,
    signals: Tensor,
    alphas: Tensor,
    request: _Request,
    info: dict[str, Any],
) -> Render:
    """The Render of what was requested; the depth's sum becomes its expectation (gsplat's "ED")."""
    return Render(
        None if request.sh_degree is None else colors,
        alphas,
        depth_sums[..., 0] / alphas.clamp(min=1e-10) if request.depth else None,
        None if request.signals is None else signals,
        info,
    )


def _draw_on_cpu(gaussians: Gaussians, cameras: Cameras, request: _Request) -> Render:
    from splats.cpu.poses import project_from_poses  # compiles on first use, as does the next
    from splats.cpu.rasterize import blend, project

    width, height = cameras.size
    follow = cameras.viewmats.requires_grad and torch.is_grad_enabled()
    means2d, conics, opacities, values, extents, radii = (
        project_from_poses if follow else project
    )(
        tuple(getattr(gaussians, name).float() for name in NAMES),
        cameras,
        -1 if request.sh_degree is None else request.sh_degree,
        near=request.near,
        far=request.far,
        eps2d=request.eps2d,
        antialiased=request.antialiased,
    )
    depths = values[..., 3]
    color_count = 0 if request.sh_degree is None else 3
    depth_count = int(request.depth)
    # the depth comes last, but those channels that reach the geometry come first
    parts = [(values[..., :color_count], request.background)]
    depth = (values[..., 4 - depth_count :], request.background.new_zeros(depth_count))
    if request.detach_geometry:
        parts.append(depth)
    if request.signals is not None:
        parts.append((request.signals, request.signal_background))
    if not request.detach_geometry:
        parts.append(depth)
    channels, backgrounds = zip(*parts, strict=True)
    sizes = [part.shape[-1] for part in channels]
    plain = request.signals is None and color_count  # as projected: nothing to copy
    image, alphas = blend(
        means2d,
        conics,
        opacities,
        values if plain else torch.cat(channels, dim=-1),
        torch.cat(backgrounds),
        depths,
        extents,
        radii,
        width=width,
        height=height,
        absgrad=request.absgrad,
        shown=sum(sizes),
        attached=color_count + depth_count if request.detach_geometry else sum(sizes),
    )
    pictures = list(image.split(sizes, dim=-1))
    signals = image[..., :0]
    if request.signals is not None:
        signals = pictures.pop(2 if request.detach_geometry else 1)
    colors, depth_sums = pictures
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
    return _render(colors, depth_sums, signals, alphas, request, info)


def _draw_with_gsplat(gaussians: Gaussians, cameras: Cameras, request: _Request) -> Render:
    """One blend of colours, depth and as many signals as fit into a chunk; the rest of them in
    further chunks over the same tiles, as are all signals with detached geometry."""
    from gsplat import rasterization

    width, height = cameras.size
    device = gaussians.means.device
    cameras = cameras.to(device)
    means = gaussians.means.float()
    with_colors = request.sh_degree is not None
    signals, behind = request.signals, request.signal_background
    count = 0 if signals is None else signals.shape[-1]
    together = 0 if request.detach_geometry else min(count, CHUNK - 3 * with_colors - request.depth)
    if request.packed and together < count:
        raise ValueError(f"a packed pass blends at most {CHUNK} channels, all with the geometry")

    # gsplat evaluates harmonics itself if there is nothing else
    degree, values = None, None
    if with_colors and not together:
        degree, values = request.sh_degree, gaussians.colors.float()
    elif with_colors:
        colors = _evaluate_harmonics(gaussians, cameras, request.sh_degree)
        values = torch.cat([colors, signals[..., :together]], dim=-1)
    elif together:
        values = signals[..., :together]
    mode = "D" if values is None else "RGB+D" if request.depth else "RGB"
    background = torch.cat([request.background, behind[:together]])
    image, alphas, info = rasterization(
        means=means,
        quats=gaussians.quats.float(),
        scales=gaussians.scales.float().exp(),
        opacities=gaussians.opacities.float().sigmoid(),
        colors=means if values is None else values,  # not read in mode D
        viewmats=cameras.viewmats,
        Ks=cameras.Ks,
        width=width,
        height=height,
        near_plane=request.near,
        far_plane=request.far,
        eps2d=request.eps2d,
        sh_degree=degree,
        packed=request.packed,
        sparse_grad=request.sparse_grad,
        backgrounds=background.expand(len(cameras), -1),
        render_mode=mode,
        absgrad=request.absgrad,
        rasterize_mode="antialiased" if request.antialiased else "classic",
        channel_chunk=CHUNK,
    )
    blended = [image[..., 3 * with_colors : 3 * with_colors + together]]
    if signals is not None:
        blended += _blend_over_tiles(info, signals, behind, together, request.detach_geometry)
    return _render(
        image[..., : 3 * with_colors],
        image[..., -1:],
        blended[0] if len(blended) == 1 else torch.cat(blended, dim=-1),
        alphas[..., 0],
        request,
        info,
    )


def _evaluate_harmonics(gaussians: Gaussians, cameras: Cameras, degree: int) -> Tensor:
    """Colours [C, N, 3] of the Gaussians from each camera, as `gsplat.rasterization` has them."""
    from gsplat import spherical_harmonics

    places = torch.inverse(cameras.viewmats)[:, None, :3, 3]
    coefficients = gaussians.colors.float().expand(len(cameras), -1, -1, -1)
    colors = spherical_harmonics(degree, gaussians.means.float() - places, coefficients)
    return (colors + 0.5).clamp(min=0)


def _blend_over_tiles(
    info: dict[str, Any], signals: Tensor, background: Tensor, start: int, detach: bool
) -> list[Tensor]:
    """Signals [C, N, start:] over the tile lists of gsplat's `info`: [C, H, W, <= CHUNK] each."""
    from gsplat import rasterize_to_pixels

    geometry = [info["means2d"], info["conics"], info["opacities"]]
    if detach:
        geometry = [tensor.detach() for tensor in geometry]
    means2d, conics, opacities = geometry
    images = []
    for first in range(start, signals.shape[-1], CHUNK):
        chunk = slice(first, first + CHUNK)
        image, _ = rasterize_to_pixels(
            means2d,
            conics,
            signals[..., chunk],
            opacities,
            info["width"],
            info["height"],
            info["tile_size"],
            info["isect_offsets"],
            info["flatten_ids"],
            backgrounds=background[chunk].expand(len(means2d), -1),
        )
        images.append(image)
    return images
