# gsplat's kernels replaced by torch, so that its Python code, and ours on top of it, runs without
# CUDA: its own torch functions, and a blend over its lists of tiles.
from typing import ClassVar

import gsplat
import pytest
import torch
from gsplat import rendering
from gsplat.cuda import _torch_impl, _wrapper

KERNEL_CHANNELS = {1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 512, 513}


def project(means, covars, quats, scales, viewmats, Ks, width, height, **options):
    """`gsplat.fully_fused_projection` without packing."""
    assert covars is None and not options["packed"] and options["radius_clip"] == 0
    covars, _ = _torch_impl._quat_scale_to_covar_preci(quats, scales, True, False)
    return _torch_impl._fully_fused_projection(
        means, covars, viewmats, Ks, width, height, options["eps2d"], options["near_plane"],
        options["far_plane"], options["calc_compensations"],
    )  # fmt: skip


def harmonics(degree, directions, coefficients, masks=None):
    """`gsplat.spherical_harmonics`."""
    return _torch_impl._spherical_harmonics(degree, directions, coefficients)


def intersect(means2d, radii, depths, size, across, down, **_):
    """`gsplat.isect_tiles` without packing."""
    return _torch_impl._isect_tiles(means2d.detach(), radii, depths.detach(), size, across, down)


class Blend:
    """`_RasterizeToPixels`; `calls` holds (channels, absgrad, whether the means have a graph)."""

    calls: ClassVar[list] = []

    @classmethod
    def apply(
        cls, means2d, conics, colors, opacities, backgrounds, masks,
        width, height, size, offsets, ids, absgrad,
    ):  # fmt: skip
        assert colors.shape[-1] in KERNEL_CHANNELS and colors.is_contiguous()
        cls.calls.append((colors.shape[-1], absgrad, means2d.requires_grad))
        C, N, D = colors.shape
        ends = torch.cat([offsets.flatten()[1:], torch.tensor([len(ids)])]).reshape(offsets.shape)
        pictures, alphas = colors.new_zeros(C, height, width, D), colors.new_zeros(C, height, width)
        for c, row, column in torch.cartesian_prod(*map(torch.arange, offsets.shape)).tolist():
            n = ids[offsets[c, row, column] : ends[c, row, column]].long() - c * N
            ys = torch.arange(row * size, min(height, (row + 1) * size))
            xs = torch.arange(column * size, min(width, (column + 1) * size))
            dx = means2d[c, n, 0, None, None] - (xs + 0.5)
            dy = means2d[c, n, 1, None, None] - (ys[:, None] + 0.5)
            a, b, e = conics[c, n].T[..., None, None]
            sigma = 0.5 * (a * dx * dx + e * dy * dy) + b * dx * dy
            alpha = (opacities[c, n, None, None] * torch.exp(-sigma)).clamp(max=0.999)
            alpha = torch.where((alpha >= 1 / 255) & (sigma >= 0), alpha, 0)
            after = (1 - alpha).cumprod(0)
            alpha = torch.where(after > 1e-4, alpha, 0)
            after = (1 - alpha).cumprod(0)
            before = torch.cat([torch.ones_like(after[:1]), after[:-1]])[: len(n)]
            place = (c, slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1))
            left = after[-1] if len(n) else torch.ones(len(ys), len(xs))
            image = torch.einsum("ghw,gd->hwd", alpha * before, colors[c, n])
            pictures[place] = image + left[..., None] * backgrounds[c]
            alphas[place] = 1 - left
        return pictures, alphas[..., None]


@pytest.fixture
def torch_gsplat(monkeypatch):
    """backend="gsplat" works on the CPU; gives `Blend`, whose calls are counted."""
    monkeypatch.setattr(rendering, "fully_fused_projection", project)
    monkeypatch.setattr(rendering, "spherical_harmonics", harmonics)
    monkeypatch.setattr(gsplat, "spherical_harmonics", harmonics)
    monkeypatch.setattr(rendering, "isect_tiles", intersect)
    monkeypatch.setattr(rendering, "isect_offset_encode", _torch_impl._isect_offset_encode)
    monkeypatch.setattr(_wrapper, "_RasterizeToPixels", Blend)
    monkeypatch.setattr(Blend, "calls", [])
    return Blend
