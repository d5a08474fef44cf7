# Colours of a render fitted to those of its photo before both are compared: the corrected metrics
# (cc_psnr, ...) of gsplat and multinerf, for scenes whose photos differ in exposure.
from __future__ import annotations

import torch
from torch import Tensor

METHODS = ("affine", "quadratic")
ITERATIONS = 5
CLIPPED = 0.5 / 255  # from 0 or 1: what lies closer may have been beyond it
LEAST_SLOPE = 1e-4


def correct_colors(
    image: Tensor, truth: Tensor, mask: Tensor | None = None, method: str = "affine"
) -> Tensor:
    """The image [H, W, 3] in [0, 1] with its colours fitted to the truth's, where a mask [H, W] is
    True.

    affine: of each channel alone, image = a truth + b by least squares, undone. quadratic: RGB as a
    polynomial of degree 2 of the image's RGB, fitted where neither is clipped, repeatedly, since
    each fit changes what is clipped.
    """
    pixels = image.reshape(-1, 3).double().clamp(0, 1)
    wanted = truth.reshape(-1, 3).to(pixels)
    counts = torch.ones_like(pixels[:, 0]) if mask is None else mask.reshape(-1).to(pixels)
    fit = {"affine": _fit_affine, "quadratic": _fit_quadratic}[method]
    return fit(pixels, wanted, counts > 0).clamp(0, 1).to(image).reshape(image.shape)


def _fit_affine(pixels: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    x, y = wanted[valid], pixels[valid]
    x_mean, y_mean = x.mean(0), y.mean(0)
    variance = (x - x_mean).square().mean(0)
    slope = ((x - x_mean) * (y - y_mean)).mean(0) / variance.clamp(min=1e-12)
    slope = torch.where(slope.abs() < LEAST_SLOPE, 1.0, slope)  # nothing in common to be fitted
    return (pixels - y_mean) / slope + x_mean


def _fit_quadratic(pixels: Tensor, wanted: Tensor, valid: Tensor) -> Tensor:
    def is_inside(values: Tensor) -> Tensor:
        return (values >= CLIPPED) & (values <= 1 - CLIPPED)

    usable = is_inside(pixels) & is_inside(wanted) & valid[:, None]
    for _ in range(ITERATIONS):
        r, g, b = pixels.unbind(1)
        terms = [r * r, r * g, r * b, g * g, g * b, b * b, r, g, b, torch.ones_like(r)]
        terms = torch.stack(terms, dim=1)
        fitted = pixels.clone()
        for channel in range(3):
            rows = usable[:, channel] & is_inside(pixels[:, channel])
            if int(rows.sum()) < terms.shape[1]:
                continue
            A, y = terms[rows], wanted[rows, channel]
            # by normal equations, since the pixels are many and the terms few
            weights = torch.linalg.lstsq(A.T @ A, (A.T @ y)[:, None], driver="gelsd").solution
            fitted[:, channel] = (terms @ weights)[:, 0]
        pixels = fitted.clamp(0, 1)
    return pixels
