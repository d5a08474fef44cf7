# What the optimisation minimises (Kerbl et al. 2023, equation 7; MCMC's regularisers).
from __future__ import annotations

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.nn.functional import grid_sample

from evaluation.ssim import C1, C2, TAPS, WINDOW, ssim
from runtime.kernels import WarmUp, kernel
from scenes.cameras import Cameras
from splats.gaussians import Splats

# Backgrounds alone tell of transparency only by colours, which are wrong at first: on random ones,
# splats then fade before they learn. With this term a run is a decibel better after 600 steps.
ALPHA_WEIGHT = 0.2


def photometric(render: Tensor, photo: Tensor, ssim_lambda: float = 0.2) -> Tensor:
    """(1 - lambda) L1 + lambda (1 - SSIM) of images [H, W, 3] in [0, 1], as a scalar."""
    fits = min(render.shape[:2]) >= TAPS and ssim_lambda > 0
    if fits and render.device.type == "cpu" and render.dtype == torch.float32:
        return _Photometric.apply(render, photo, ssim_lambda)
    return photometric_plain(render, photo, ssim_lambda)


def photometric_plain(render: Tensor, photo: Tensor, ssim_lambda: float = 0.2) -> Tensor:
    """The same as a sum of two losses, for any size, device and dtype."""
    loss = (render - photo).abs().mean()
    if ssim_lambda > 0:
        loss = (1 - ssim_lambda) * loss + ssim_lambda * (1 - ssim(render, photo))
    return loss


def alpha_difference(render: Tensor, photo: Tensor, mask: Tensor | None = None) -> Tensor:
    """ALPHA_WEIGHT times the L1 distance of alphas [H, W], of splats and photo, where the mask
    [H, W] is True."""
    difference = (render - photo).abs()
    return ALPHA_WEIGHT * (difference if mask is None else difference * mask).mean()


def disparity_difference(depths: Tensor, camera: Cameras, points: Tensor) -> Tensor:
    """Mean difference of 1 / depth of a render [H, W] and of points [M, 3] that its camera sees;
    0 without any in the picture."""
    R, t = camera.viewmats[0, :3, :3], camera.viewmats[0, :3, 3]
    local = points @ R.T + t
    z = local[:, 2]
    places = (local @ camera.Ks[0].T)[:, :2] / z.clamp(min=1e-6)[:, None]
    at = 2 * places / places.new_tensor(camera.size) - 1
    shown = (z > 0) & (at.abs() < 1).all(1)
    if not shown.any():
        return depths.sum() * 0
    rendered = grid_sample(
        depths[None, None], at[shown][None, None], padding_mode="border", align_corners=False
    ).flatten()
    hit = rendered > 0  # where nothing is, depths say nothing
    disparity = torch.where(hit, 1 / rendered.where(hit, rendered.new_tensor(1.0)), 0.0)
    return (disparity - 1 / z[shown]).abs().mean()


def regularisation(splats: Splats, opacity_reg: float, scale_reg: float) -> Tensor | float:
    """Mean opacity and mean scale, weighted (arXiv 2404.09591, equation 10); 0 without weights."""
    loss = 0.0
    if opacity_reg > 0:
        loss = loss + opacity_reg * splats["opacities"].sigmoid().mean()
    if scale_reg > 0:
        loss = loss + scale_reg * splats["scales"].exp().mean()
    return loss


class _Photometric(torch.autograd.Function):
    """Value and gradient in one kernel."""

    @staticmethod
    def forward(ctx, render: Tensor, photo: Tensor, ssim_lambda: float) -> Tensor:
        images = (np.ascontiguousarray(image.detach().numpy()) for image in (render, photo))
        x, y = (image.reshape(len(image), -1) for image in images)
        value, gradient = _photometric(x, y, np.float32(ssim_lambda))
        ctx.save_for_backward(torch.from_numpy(gradient).view(render.shape))
        return render.new_tensor(value)

    @staticmethod
    def backward(ctx, v_loss: Tensor):
        (gradient,) = ctx.saved_tensors
        return gradient * v_loss, None, None


# Rows hold pixels and channels side by side (3 floats a pixel), so that inner loops run over
# contiguous floats. A row is done in strips, through scratch at constant offsets: the compiler then
# knows that its parts do not overlap, and vectorises. Sums have loops of their own, in a written
# order, so that the others vectorise and all compilations agree.
STRIP = 256
EDGE = TAPS - 1
HALO = STRIP + 3 * EDGE
F, I = np.float32, np.uintp
ZERO, ONE, TWO = F(0), F(1), F(2)


@kernel(parallel=True, fastmath={"nsz"})
def _photometric(x, y, ssim_lambda):
    """Loss of images [H, 3W] and its gradient by x."""
    H, W3 = x.shape
    rows, columns = H - EDGE, W3 - 3 * EDGE
    l1_weight = (ONE - ssim_lambda) / F(H * W3)
    weight = -ssim_lambda / F(rows * columns)
    # derivatives of the loss by blurred x, x^2 and x y, in a border of zeros
    partials = np.zeros((H + EDGE, 3, W3 + 3 * EDGE), np.float32)
    sums = np.zeros((H, 2))
    for row in prange(rows):
        s = np.empty(9 * HALO, np.float32)
        for left in range(0, columns, STRIP):
            wide = min(STRIP, columns - left)
            for i in range(wide + 3 * EDGE):
                s0 = s1 = s2 = s3 = s4 = ZERO
                for tap in range(TAPS):
                    a, b = x[I(row + tap), I(left + i)], y[I(row + tap), I(left + i)]
                    wa, wb = WINDOW[tap] * a, WINDOW[tap] * b
                    s0 += wa
                    s1 += wb
                    s2 += wa * a
                    s3 += wb * b
                    s4 += wa * b
                s[I(i)], s[I(HALO + i)] = s0, s1
                s[I(2 * HALO + i)], s[I(3 * HALO + i)], s[I(4 * HALO + i)] = s2, s3, s4
            for i in range(wide):
                mu_x = mu_y = xx = yy = xy = ZERO
                for tap in range(TAPS):
                    w, q = WINDOW[tap], i + 3 * tap
                    mu_x += w * s[I(q)]
                    mu_y += w * s[I(HALO + q)]
                    xx += w * s[I(2 * HALO + q)]
                    yy += w * s[I(3 * HALO + q)]
                    xy += w * s[I(4 * HALO + q)]
                A = TWO * mu_x * mu_y + F(C1)
                B = TWO * (xy - mu_x * mu_y) + F(C2)
                C = mu_x * mu_x + mu_y * mu_y + F(C1)
                D = (xx - mu_x * mu_x) + (yy - mu_y * mu_y) + F(C2)
                scale = ONE / (C * D)
                S = A * B * scale
                by_xx = -S / D
                by_xy = TWO * A * scale
                by_mu = TWO * (mu_y * B * scale - S * mu_x / C) - TWO * mu_x * by_xx - mu_y * by_xy
                s[I(5 * HALO + i)], s[I(6 * HALO + i)] = weight * by_mu, weight * by_xx
                s[I(7 * HALO + i)], s[I(8 * HALO + i)] = weight * by_xy, S
            for k in range(3):
                for i in range(wide):
                    partials[row + EDGE, k, 3 * EDGE + left + i] = s[(5 + k) * HALO + i]
            for i in range(wide):
                sums[row, 0] += s[8 * HALO + i]

    gradient = np.empty((H, W3), np.float32)
    for row in prange(H):
        s = np.empty(3 * HALO, np.float32)
        for left in range(0, W3, STRIP):
            wide = min(STRIP, W3 - left)
            for k in range(3):
                for i in range(wide + 3 * EDGE):
                    s0 = ZERO
                    for tap in range(TAPS):
                        s0 += WINDOW[tap] * partials[I(row + tap), I(k), I(left + i)]
                    s[I(k * HALO + i)] = s0
            for i in range(wide):
                s0 = s1 = s2 = ZERO
                for tap in range(TAPS):
                    w, q = WINDOW[tap], i + 3 * tap
                    s0 += w * s[I(q)]
                    s1 += w * s[I(HALO + q)]
                    s2 += w * s[I(2 * HALO + q)]
                a, b = x[I(row), I(left + i)], y[I(row), I(left + i)]
                sign = l1_weight if a > b else (-l1_weight if a < b else ZERO)
                gradient[I(row), I(left + i)] = s0 + TWO * a * s1 + b * s2 + sign
            for i in range(wide):
                s[I(i)] = abs(x[I(row), I(left + i)] - y[I(row), I(left + i)])
            for i in range(wide):
                sums[row, 1] += s[i]
    ssim = sums[:, 0].sum() / (rows * columns)
    return l1_weight * sums[:, 1].sum() + ssim_lambda * (1 - ssim), gradient


def compile_photometric() -> None:
    """Have numba compile the kernel, on a tiny image."""
    image = torch.zeros(TAPS, TAPS, 3)
    photometric(image, image)


PHOTOMETRIC = WarmUp(compile_photometric, (_photometric,))
