# PSNR, SSIM and LPIPS as LVSM's and Efficient-LVSM's evaluations compute them, for numbers that can
# be held against their tables. Ours are in evaluation/metrics.py.
from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.backbones.network import load_lpips
from evaluation.metrics import measure_psnr

SIGMA, RADIUS = 1.5, 5  # of the Gaussian window, in pixels; scikit-image cuts it at 3.5 sigma
C1, C2 = 0.01**2, 0.03**2


class ReferenceMetrics:
    """PSNR of clamped pictures, SSIM as scikit-image has it and LPIPS of VGG16 (pictures in
    [-1,1]), both of pictures that are not clamped.

    lpips_reason: None if LPIPS is computed, else a sentence with the reason."""

    def __init__(self, device: torch.device | str = "cpu", backbones: Path | None = None) -> None:
        network, self.lpips_reason = load_lpips("vgg", backbones)
        self.network = network and network.to(device)

    @torch.inference_mode()
    def __call__(self, prediction: Tensor, truth: Tensor) -> dict[str, float | None]:
        """The metrics of a picture [3,H,W], about in [0,1]; psnr is at most PSNR_CAP. ValueError
        for one below 11 pixels."""
        prediction, truth = prediction.float(), truth.float()
        lpips = None
        if self.network is not None:
            lpips = self.network(prediction[None], truth[None], normalize=True).item()
        return {
            "psnr": measure_clamped_psnr(prediction, truth),
            "ssim": measure_ssim(prediction, truth),
            "lpips": lpips,
        }


def measure_clamped_psnr(prediction: Tensor, truth: Tensor) -> float:
    """PSNR in dB of pictures [3,H,W] clamped to [0,1], at most PSNR_CAP."""
    return measure_psnr(prediction.clamp(0, 1)[None], truth.clamp(0, 1)[None])


def measure_ssim(prediction: Tensor, truth: Tensor) -> float:
    """Mean SSIM of pictures [3,H,W] in [0,1] as scikit-image's structural_similarity gives it with
    gaussian_weights, sigma 1.5 and data_range 1: covariances of a sample (121/120), no border.

    ValueError for a side below 11 pixels."""
    side = 2 * RADIUS + 1
    if min(prediction.shape[1:]) < side:
        height, width = prediction.shape[1:]
        raise ValueError(f"the pictures are {width}x{height}; SSIM needs {side} pixels a side")
    x, y = prediction.double()[:, None], truth.double()[:, None]
    at = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64, device=x.device)
    window = torch.exp(-(at**2) / (2 * SIGMA**2))
    window /= window.sum()

    def mean(values: Tensor) -> Tensor:  # no border is needed: it would not count
        values = F.conv2d(values, window[None, None, :, None])
        return F.conv2d(values, window[None, None, None, :])

    sample = side**2 / (side**2 - 1)
    mx, my = mean(x), mean(y)
    xx, yy, xy = (sample * (mean(a * b) - mean(a) * mean(b)) for a, b in ((x, x), (y, y), (x, y)))
    similarity = (2 * mx * my + C1) * (2 * xy + C2) / ((mx**2 + my**2 + C1) * (xx + yy + C2))
    return similarity.mean().item()
