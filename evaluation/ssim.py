# Structural similarity as a training loss (Wang et al. 2004: 11x11 Gaussian window, sigma 1.5).
# Value and gradient come from one fused kernel on a CPU; a plain torch twin serves elsewhere.
from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numba import prange
from torch import Tensor

from runtime.kernels import kernel

Padding = Literal["same", "valid"]

TAPS = 11
C1, C2 = 0.01**2, 0.03**2
_x = np.arange(TAPS) - TAPS // 2
WINDOW = np.exp(-(_x**2) / (2 * 1.5**2))
WINDOW = (WINDOW / WINDOW.sum()).astype(np.float32)


def ssim(prediction: Tensor, truth: Tensor, *, padding: Padding = "valid") -> Tensor:
    """Mean SSIM of two images [H, W, 3] in [0, 1]; differentiable in the first.

    "valid" averages where the window fits into the image, "same" everywhere, with zeros outside.
    Images of fewer than 11 pixels a side always use "same".
    """
    if min(prediction.shape[:2]) < TAPS:
        padding = "same"
    if prediction.device.type == "cpu" and prediction.dtype == torch.float32:
        return _FusedSSIM.apply(prediction, truth, padding)
    return ssim_plain(prediction, truth, padding=padding)


def ssim_plain(prediction: Tensor, truth: Tensor, *, padding: Padding = "valid") -> Tensor:
    """The same in torch operations, for any device and dtype."""
    x, y = (image.permute(2, 0, 1)[None] for image in (prediction, truth))
    maps = torch.cat([x, y, x * x, y * y, x * y], dim=1)  # [1, 15, H, W]
    window = torch.from_numpy(WINDOW).to(maps).expand(maps.shape[1], 1, TAPS)
    pad = TAPS // 2 if padding == "same" else 0
    maps = F.conv2d(maps, window[..., None], padding=(pad, 0), groups=maps.shape[1])
    maps = F.conv2d(maps, window[:, :, None], padding=(0, pad), groups=maps.shape[1])
    mu_x, mu_y, xx, yy, xy = maps.chunk(5, dim=1)
    luminance = (2 * mu_x * mu_y + C1) / (mu_x**2 + mu_y**2 + C1)
    contrast = (2 * (xy - mu_x * mu_y) + C2) / ((xx - mu_x**2) + (yy - mu_y**2) + C2)
    return (luminance * contrast).mean()


class _FusedSSIM(torch.autograd.Function):
    """One pass over the image for the value, a second one for the gradient."""

    @staticmethod
    def forward(ctx, prediction: Tensor, truth: Tensor, padding: Padding) -> Tensor:
        x, y = prediction.detach().numpy(), truth.detach().numpy()
        pad = TAPS // 2 if padding == "same" else 0
        if pad:
            x, y = (np.pad(image, ((pad, pad), (pad, pad), (0, 0))) for image in (x, y))
        x, y = (np.ascontiguousarray(image).reshape(len(image), -1) for image in (x, y))
        value, partials = _forward(x, y, WINDOW)
        if ctx.needs_input_grad[0]:
            gradient = _backward(x, y, partials, WINDOW)
            gradient = torch.from_numpy(gradient.reshape(len(x), -1, 3))
            H, W, _ = prediction.shape
            ctx.save_for_backward(gradient[pad : pad + H, pad : pad + W])
        return prediction.new_tensor(value)

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None


# Rows hold pixels and channels side by side (3 floats a pixel), so that every inner loop below
# runs over contiguous floats. Threads share no output row: results do not depend on their number.


@kernel(parallel=True, fastmath=True)
def _forward(x, y, window):
    """Mean SSIM and its partial derivatives by blurred x, x^2 and xy, in a border of zeros.

    x, y: float32 [H, 3W]. partials: float32 [3, H + 10, 3(W + 10)].
    """
    H, W3 = x.shape
    edge = TAPS - 1
    rows, columns = H - edge, W3 - 3 * edge
    count = np.float32(rows * columns)
    partials = np.zeros((3, H + edge, W3 + 3 * edge), np.float32)
    sums = np.zeros(rows)
    c1, c2, one, two = np.float32(C1), np.float32(C2), np.float32(1), np.float32(2)
    for row in prange(rows):
        tall = np.zeros((5, W3), np.float32)
        for tap in range(TAPS):
            w = window[tap]
            for i in range(W3):
                a, b = x[row + tap, i], y[row + tap, i]
                tall[0, i] += w * a
                tall[1, i] += w * b
                tall[2, i] += w * a * a
                tall[3, i] += w * b * b
                tall[4, i] += w * a * b
        wide = np.zeros((5, columns), np.float32)
        for m in range(5):
            for tap in range(TAPS):
                w = window[tap]
                for i in range(columns):
                    wide[m, i] += w * tall[m, i + 3 * tap]
        total = np.float32(0)
        for i in range(columns):
            mu_x, mu_y = wide[0, i], wide[1, i]
            A = two * mu_x * mu_y + c1
            B = two * (wide[4, i] - mu_x * mu_y) + c2
            C = mu_x * mu_x + mu_y * mu_y + c1
            D = (wide[2, i] - mu_x * mu_x) + (wide[3, i] - mu_y * mu_y) + c2
            scale = one / (C * D)
            S = A * B * scale
            total += S
            by_xx = -S / D
            by_xy = two * A * scale
            by_mu = two * (mu_y * B * scale - S * mu_x / C) - two * mu_x * by_xx - mu_y * by_xy
            partials[0, row + edge, i + 3 * edge] = by_mu / count
            partials[1, row + edge, i + 3 * edge] = by_xx / count
            partials[2, row + edge, i + 3 * edge] = by_xy / count
        sums[row] = total
    return sums.sum() / count, partials


@kernel(parallel=True, fastmath=True)
def _backward(x, y, partials, window):
    """Gradient of the mean SSIM by x, float32 [H, 3W]: the partials blurred back."""
    H, W3 = x.shape
    gradient = np.empty((H, W3), np.float32)
    for row in prange(H):
        tall = np.zeros((3, partials.shape[2]), np.float32)
        wide = np.zeros((3, W3), np.float32)
        for m in range(3):
            for tap in range(TAPS):
                w = window[tap]
                for i in range(partials.shape[2]):
                    tall[m, i] += w * partials[m, row + tap, i]
            for tap in range(TAPS):
                w = window[tap]
                for i in range(W3):
                    wide[m, i] += w * tall[m, i + 3 * tap]
        for i in range(W3):
            gradient[row, i] = (
                wide[0, i] + np.float32(2) * x[row, i] * wide[1, i] + y[row, i] * wide[2, i]
            )
    return gradient
