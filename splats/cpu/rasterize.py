# The CPU backend: projection, and binning with blending, as two differentiable functions.
from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scenes.cameras import Cameras
from splats.cpu.blend import INLINE, blend_backward, blend_forward
from splats.cpu.project import project_backward, project_forward
from splats.cpu.tiles import bin_tiles, sort_by_depth, sum_pairs

# numba's fallback threading layer must not be entered by two threads (the viewer beside training)
_kernel_lock = threading.RLock()


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [np.ascontiguousarray(t.detach().numpy()) for t in tensors]


def _gradients(values: Sequence[Tensor | None], shapes: Sequence[tuple]) -> list[np.ndarray]:
    """Gradients of outputs as arrays, zeros for outputs that were not used."""
    return [
        np.zeros(shape, np.float32) if value is None else _arrays(value)[0]
        for value, shape in zip(values, shapes, strict=True)
    ]


def _stack(views: Sequence[np.ndarray]) -> Tensor:
    """The arrays of all views as one tensor, without a copy if there is one view."""
    return torch.from_numpy(views[0][None] if len(views) == 1 else np.stack(views))


def project(
    splats: tuple[Tensor, ...],
    cameras: Cameras,
    degree: int,
    *,
    near: float,
    far: float,
    eps2d: float,
    antialiased: bool,
) -> tuple[Tensor, ...]:
    """Project Gaussians, given as the six raw float32 parameters, into C cameras of one size.

    Returns means2d [C,N,2], conics [C,N,3], opacities [C,N], values [C,N,4] (colour, zeros for
    degree -1, and depth), all differentiable, and extents [C,N,2], radii [C,N,2] int32.
    """
    return _Project.apply(*splats, cameras, degree, (*cameras.size, near, far, eps2d, antialiased))


def blend(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    colors: Tensor,
    background: Tensor,
    depths: Tensor,
    extents: Tensor,
    radii: Tensor,
    *,
    width: int,
    height: int,
    absgrad: bool = False,
    shown: int | None = None,
    attached: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend projected Gaussians with colors [C,N,D] over background [shown].

    Returns images [C,H,W,shown] of the first channels (default: all) and alphas [C,H,W]. Of the
    images only the first `attached` channels (default: all) send gradients to means2d, conics and
    opacities; colors and background have theirs from all of them.

    With absgrad, backward also sets means2d.absgrad [C,N,2], the sum of absolute gradients.
    """
    channels = colors.shape[-1]
    shown = channels if shown is None else shown
    attached = channels if attached is None else attached
    if channels < INLINE:
        colors = torch.nn.functional.pad(colors, (0, INLINE - channels))
    if len(background) < colors.shape[-1]:
        background = torch.nn.functional.pad(background, (0, colors.shape[-1] - len(background)))
    return _Blend.apply(
        means2d,
        conics,
        opacities,
        colors,
        background,
        (depths, extents, radii),
        (shown, attached, width, height, absgrad),
    )


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, scales, quats, opacities, sh0, shN, cameras, degree, options):
        width, height, near, far, eps2d, antialiased = options
        # float64: with cameras and points far from the origin, float32 is visible as jitter
        exact = Cameras(cameras.viewmats.double(), cameras.Ks.double(), cameras.sizes)
        view = _arrays(exact.viewmats, exact.Ks, exact.positions)
        with _kernel_lock:
            *outputs, extents, radii = project_forward(
                *_arrays(means, scales, quats, opacities, sh0, shN), degree, *view,
                width, height, near, far, eps2d, antialiased,
            )  # fmt: skip
        ctx.constants = (degree, *view, width, height, eps2d, antialiased, radii, outputs[3])
        ctx.save_for_backward(means, scales, quats, opacities, sh0, shN)
        outputs = [torch.from_numpy(array) for array in (*outputs, extents, radii)]
        ctx.mark_non_differentiable(*outputs[4:])
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *v_outputs):
        C, N = ctx.constants[-1].shape[:2]
        gradients = _gradients(v_outputs[:4], [(C, N, 2), (C, N, 3), (C, N), (C, N, 4)])
        with _kernel_lock:
            result = project_backward(*_arrays(*ctx.saved_tensors), *ctx.constants, *gradients)
        return (*(torch.from_numpy(v) for v in result), None, None, None)


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means2d, conics, opacities, colors, background, order_by, options):
        shown, attached, width, height, absgrad = options
        splats = _arrays(means2d, conics, opacities, colors)
        depths, extents, radii = _arrays(*order_by)
        (behind,) = _arrays(background)
        images, alphas, ctx.views = [], [], []
        for c in range(len(means2d)):
            xy, conic, opacity, color = (array[c] for array in splats)
            reach = np.ascontiguousarray(extents[c, :, 1])
            with _kernel_lock:
                order = sort_by_depth(depths[c], radii[c])
                offsets, ids, starts, places = bin_tiles(
                    order, xy, conic, opacity, extents[c], width, height
                )
                image, transmittance, last = blend_forward(
                    xy, conic, opacity, color, reach, offsets, ids, behind, shown, width, height
                )
            lists = (reach, offsets, ids, behind, transmittance, last)
            ctx.views.append((lists, (starts, places)))
            images.append(image)
            alphas.append(1 - transmittance)
        ctx.absgrad, ctx.shown, ctx.attached = absgrad, shown, attached
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(means2d, conics, opacities, colors)
        return _stack(images), _stack(alphas)

    @staticmethod
    def backward(ctx, v_images, v_alphas):
        splats = _arrays(*ctx.saved_tensors)
        shape = (len(ctx.views), *ctx.views[0][0][4].shape)
        v_images, v_alphas = _gradients((v_images, v_alphas), [(*shape, ctx.shown), shape])
        sums, v_background = [], None
        for c, (lists, pairs_of) in enumerate(ctx.views):
            with _kernel_lock:
                pairs = blend_backward(
                    *(array[c] for array in splats), *lists, v_images[c], v_alphas[c],
                    ctx.attached, ctx.absgrad,
                )  # fmt: skip
                sums.append(sum_pairs(pairs, *pairs_of))
        v_means2d, absolute, *v_others = map(_stack, zip(*sums, strict=True))
        if ctx.absgrad:
            ctx.saved_tensors[0].absgrad = absolute
        if ctx.needs_input_grad[4]:
            transmittances = np.stack([lists[4] for lists, _ in ctx.views])
            v_shown = torch.from_numpy(np.einsum("chwd,chw->d", v_images, transmittances))
            v_background = v_shown.new_zeros(splats[3].shape[-1])
            v_background[: ctx.shown] = v_shown
        return v_means2d, *v_others, v_background, None, None
