# How good a fixer is on pairs with truth: numbers of the fixed and the unfixed render, and sheets.
from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from evaluation.metrics import PSNR_CAP, Metrics
from evaluation.pictures import error_map, to_uint8

GOOD = 0.1  # a pixel of the render is good where its RMS error over RGB is at most this (20 dB)
LUMA = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64) / 255


def luma(image: Tensor) -> Tensor:
    """BT.601 luma in studio swing, [H,W,3] three times over, for RGB [H,W,3] in [0,1]."""
    y = image.double() @ LUMA.to(image.device) + 16 / 255
    return y[..., None].expand(*y.shape, 3)


class FixingMetrics:
    """PSNR, SSIM and LPIPS of a fixed render and of the render itself, and PSNR where it was good
    or bad."""

    def __init__(self, metrics: Metrics, space: str = "rgb"):
        self.metrics, self.space = metrics, space
        pairs = product(("render", "fixed"), ("good", "bad"))
        self._errors = {pair: [0.0, 0] for pair in pairs}

    def one(self, image: Tensor, truth: Tensor) -> dict[str, float | None]:
        """psnr, ssim, lpips of an image [H,W,3] in [0,1]."""
        rgb = self.metrics(image, truth)
        if self.space == "rgb":
            return rgb
        y = Metrics(None)(luma(image).float(), luma(truth).float())
        return {"psnr": y["psnr"], "ssim": y["ssim"], "lpips": rgb["lpips"]}

    def __call__(self, render: Tensor, fixed: Tensor, truth: Tensor) -> dict[str, float | None]:
        """All numbers of one triplet, images [H,W,3] in [0,1].

        psnr, ssim, lpips of the fixed render; the same with `render_` before; `gain_`, positive
        where fixing helped; psnr_good, psnr_bad, render_psnr_good, render_psnr_bad over the
        pixels where the render was good or bad (see GOOD), None where there are none.
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
        good = errors["render"] <= GOOD**2
        for where, mask in (("good", good), ("bad", ~good)):
            count = int(mask.sum())
            for who, prefix in (("fixed", ""), ("render", "render_")):
                total = float(errors[who][mask].sum())
                self._errors[who, where][0] += total
                self._errors[who, where][1] += count
                result[f"{prefix}psnr_{where}"] = psnr(total, count)
        return result

    def pooled(self) -> dict[str, float | None]:
        """PSNR over all good and all bad pixels seen so far, and the share of good ones."""
        result = {
            f"{'render_' if who == 'render' else ''}psnr_{where}": psnr(*sums)
            for (who, where), sums in self._errors.items()
        }
        good, bad = (self._errors["render", where][1] for where in ("good", "bad"))
        return result | {"good_pixels": good / max(1, good + bad)}


def psnr(squared: float, count: int) -> float | None:
    """From a sum of squared errors over some pixels; None for no pixels."""
    if not count:
        return None
    return PSNR_CAP if squared == 0 else min(PSNR_CAP, -10 * float(np.log10(squared / count)))


def sheet(
    pictures: dict[str, Tensor | np.ndarray], truth: Tensor, compared: Sequence[str]
) -> np.ndarray:
    """Named pictures in a row, the truth last, and below `compared` their error maps.

    Returns uint8 [H',W',3].
    """
    height, width = truth.shape[:2]
    columns = {**pictures, "ground truth": truth}
    gap, line = 4, max(14, height // 24)
    size = 2 * (height + line) + gap, len(columns) * (width + gap) - gap
    canvas = np.full((*size, 3), 255, np.uint8)

    def put(image: np.ndarray, text: str, row: int, column: int) -> None:
        strip = Image.new("RGB", (width, line), "white")
        ImageDraw.Draw(strip).text((2, 0), text, "black", font_size=max(9, int(line * 0.75)))
        top, left = row * (height + line + gap), column * (width + gap)
        canvas[top : top + line, left : left + width] = np.asarray(strip)
        canvas[top + line : top + line + height, left : left + width] = image

    for i, (name, image) in enumerate(columns.items()):
        put(to_uint8(image), name, 0, i)
        if name in compared:
            put(error_map(image, truth), f"error of the {name}", 1, i)
    return canvas
