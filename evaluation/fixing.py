# How good a fixer is on pairs with truth: numbers of the fixed and the unfixed render.
from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from evaluation.metrics import Metrics, mse_to_psnr

# A pixel of the render is good where its RMS error over RGB is at most this (20 dB). Published
# numbers over low-error and high-error pixels do not tell their threshold.
GOOD = 0.1
LUMA = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64) / 255


def compute_luma(image: Tensor) -> Tensor:
    """BT.601 luma in studio swing, [H,W,3] three times over, for RGB [H,W,3] in [0,1]."""
    y = image.double() @ LUMA.to(image.device) + 16 / 255
    return y[..., None].expand(*y.shape, 3)


def find_good_pixels(render: Tensor, truth: Tensor) -> Tensor:
    """Where a render is good, [H,W] bool, for images [H,W,3]."""
    return (render.double() - truth.double()).square().mean(-1) <= GOOD**2


class FixingMetrics:
    """PSNR, SSIM and LPIPS of a fixed render and of the render itself, and PSNR where it was good
    or bad."""

    def __init__(self, metrics: Metrics, space: str = "rgb"):
        self.metrics, self.space = metrics, space
        self._on_luma = Metrics(None, metrics.device)
        pairs = product(("render", "fixed"), ("good", "bad"))
        self._errors = {pair: [0.0, 0] for pair in pairs}

    @property
    def protocol(self) -> str:
        """One line that belongs beside the numbers."""
        space = "RGB" if self.space == "rgb" else "luma of BT.601 in studio swing"
        text = self.metrics.described(space, "8-bit pictures as written", "images")
        return text.format(resolution="each image's own")

    def one(self, image: Tensor, truth: Tensor) -> dict[str, float | None]:
        """psnr, ssim, lpips of an image [H,W,3] in [0,1]."""
        rgb = self.metrics(image, truth)
        if self.space == "rgb":
            return rgb
        y = self._on_luma(compute_luma(image).float(), compute_luma(truth).float())
        return {"psnr": y["psnr"], "ssim": y["ssim"], "lpips": rgb["lpips"]}

    def __call__(self, render: Tensor, fixed: Tensor, truth: Tensor) -> dict[str, float | None]:
        """All numbers of one triplet, images [H,W,3] in [0,1].

        psnr, ssim, lpips of the fixed render; the same with `render_` before; `gain_`, positive
        where fixing helped; psnr_good, psnr_bad over the pixels where the render was
        good or bad (see GOOD), with the same prefixes, None where there are none.
        """
        after, before = self.one(fixed, truth), self.one(render, truth)
        result = dict(after) | {f"render_{k}": v for k, v in before.items()}
        for name in after:
            sign = -1 if name == "lpips" else 1
            both = after[name], before[name]
            result[f"gain_{name}"] = None if None in both else sign * (both[0] - both[1])
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

    def pooled(self) -> dict[str, float | None]:
        """PSNR over all good and all bad pixels seen so far, and the share of good ones."""
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
    """From a sum of squared errors over some pixels; None for no pixels."""
    return mse_to_psnr(squared / count) if count else None
