# Metrics of a fixer on images with ground truth: the fixed render against the unfixed one.
from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from evaluation.metrics import METRICS, Metrics, mse_to_psnr

# A pixel of the render is good where its RMS error over RGB is at most this (20 dB). Publications
# with metrics over low-error and high-error pixels do not state their threshold.
GOOD = 0.1
LUMA = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64) / 255


def compute_luma(image: Tensor) -> Tensor:
    """BT.601 luma in studio swing of RGB [H,W,3] in [0,1], in three equal channels [H,W,3]."""
    y = image.double() @ LUMA.to(image.device) + 16 / 255
    return y[..., None].expand(*y.shape, 3)


def find_good_pixels(render: Tensor, truth: Tensor) -> Tensor:
    """[H,W] bool: where the RMS error of a render [H,W,3] over RGB is at most GOOD."""
    return (render.double() - truth.double()).square().mean(-1) <= GOOD**2


class FixingMetrics:
    """The metrics of a fixed render and of the unfixed one, and PSNR by pixel quality.

    space: "rgb", else PSNR and SSIM (`Metric.on_luma`) are computed on luma. Sums over good and bad
    pixels accumulate over calls, see `pool`.
    """

    def __init__(self, metrics: Metrics, space: str = "rgb"):
        self.metrics, self.space = metrics, space
        self._on_luma = Metrics(None, metrics.device)
        pairs = product(("render", "fixed"), ("good", "bad"))
        self._errors = {pair: [0.0, 0] for pair in pairs}

    @property
    def protocol(self) -> str:
        """One line on how the numbers were computed."""
        space = "RGB" if self.space == "rgb" else "luma of BT.601 in studio swing"
        text = self.metrics.describe_protocol(space, "8-bit pictures as written", "images")
        return text.format(resolution="each image's own")

    def measure(self, image: Tensor, truth: Tensor) -> dict[str, float | None]:
        """psnr, ssim, lpips (METRICS) of an image [H,W,3] in [0,1] against the ground truth."""
        rgb = self.metrics(image, truth)
        if self.space == "rgb":
            return rgb
        y = self._on_luma(compute_luma(image).float(), compute_luma(truth).float())
        return {name: (y if METRICS[name].on_luma else rgb)[name] for name in rgb}

    def __call__(self, render: Tensor, fixed: Tensor, truth: Tensor) -> dict[str, float | None]:
        """All metrics of one triplet, images [H,W,3] in [0,1].

        psnr, ssim, lpips of the fixed render; the same with `render_` of the unfixed one; `gain_`,
        positive where fixing helped; psnr_good, psnr_bad over the pixels where the render was good
        or bad (see GOOD), with the same prefixes, None where there are none.
        """
        after, before = self.measure(fixed, truth), self.measure(render, truth)
        result = dict(after) | {f"render_{k}": v for k, v in before.items()}
        for name in after:
            both = after[name], before[name]
            result[f"gain_{name}"] = (
                None if None in both else METRICS[name].sign * (both[0] - both[1])
            )
        errors = {
            who: (image.double() - truth.double()).square().mean(-1)
            for who, image in (("render", render), ("fixed", fixed))
        }
        good = find_good_pixels(render, truth)
        for where, mask in (("good", good), ("bad", ~good)):
            count = int(mask.sum())
            for who, prefix in (("fixed", ""), ("render", "render_")):
                total = float(errors[who][mask].sum())
                self._errors[who, where][0] += total
                self._errors[who, where][1] += count
                result[f"{prefix}psnr_{where}"] = compute_psnr(total, count)
            both = result[f"psnr_{where}"], result[f"render_psnr_{where}"]
            result[f"gain_psnr_{where}"] = None if None in both else both[0] - both[1]
        return result

    def pool(self) -> dict[str, float | None]:
        """PSNR over all good and over all bad pixels so far, and the share of good ones."""
        result = {
            f"{'render_' if who == 'render' else ''}psnr_{where}": compute_psnr(*sums)
            for (who, where), sums in self._errors.items()
        }
        for where in ("good", "bad"):
            both = result[f"psnr_{where}"], result[f"render_psnr_{where}"]
            result[f"gain_psnr_{where}"] = None if None in both else both[0] - both[1]
        good, bad = (self._errors["render", where][1] for where in ("good", "bad"))
        return result | {"good_pixels": good / max(1, good + bad)}


def compute_psnr(squared: float, count: int) -> float | None:
    """PSNR in dB from a sum of squared errors over `count` pixels; None for no pixels."""
    return mse_to_psnr(squared / count) if count else None
