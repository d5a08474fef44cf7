# Differentiable losses between images [B, 3, H, W] in [-1, 1], and the sum of them that stage 2 and
# the tokenizer learn by. LPIPS: Zhang et al. 2018; the Gram loss is that of Difix3D+ (Wu et al.
# 2025), which GS-VAR trains with: Reda et al., "FILM", 2022.
from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.backbones.network import load_lpips
from evaluation.ssim import ssim

PixelLoss = Literal["l1", "l2"]
SSIM_WINDOW = 11  # pixels
L2_WEIGHT = 4.0  # beside 1 - SSIM: as steep as L1 where 1/8 is missing
GRAM_WEIGHT = 0.5
GRAM_LAYERS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)  # relu1_2, 2_2, 3_3, 4_3, 5_3
VGG_LEAST = 16  # pixels; four poolings leave one


def l1(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference."""
    prediction, truth = _pair(prediction, truth)
    return (prediction - truth).abs().mean()


def l2(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean squared difference."""
    prediction, truth = _pair(prediction, truth)
    return (prediction - truth).square().mean()


def ssim_loss(prediction: Tensor, truth: Tensor) -> Tensor:
    """1 - SSIM, of the images brought to [0, 1]: there SSIM is what `evaluation` reports.

    On [-1, 1] its luminance term would call two mid-greys opposites for having different signs.
    ValueError: a side is below 11 pixels.
    """
    prediction, truth = _pair(prediction, truth, SSIM_WINDOW)
    with _full_precision(prediction):
        x, y = (prediction + 1) / 2, (truth + 1) / 2
        if x.device.type != "cpu" or x.dtype != torch.float32:
            # torchmetrics takes longer to load than torch itself
            from torchmetrics.functional.image import structural_similarity_index_measure

            return 1 - structural_similarity_index_measure(x, y, data_range=1.0)
        x, y = (F.pad(z, (SSIM_WINDOW // 2,) * 4, "reflect").permute(0, 2, 3, 1) for z in (x, y))
        parts = [ssim(*pair) for pair in zip(x, y, strict=True)]
        return 1 - torch.stack(parts).mean()  # the same in a twentieth of the time


def harm(fixed: Tensor, render: Tensor, truth: Tensor) -> Tensor:
    """How much farther from the truth than the render a pixel is, in L1, mean over all pixels."""
    after, before = ((image - truth).abs().mean(1) for image in (fixed, render))
    return (after - before).relu().mean()


class Perceptual(nn.Module):
    """LPIPS and the Gram loss, both by the features of one frozen VGG16.

    network: the `lpips` package's `LPIPS(net="vgg")`; its weights are frozen, its dropout is off.
    Inputs are [B, 3, H, W] in [-1, 1], computed in the network's precision whatever autocast says.
    ValueError: a side is below 16 pixels, or sizes differ.

    These 15 million weights belong in no checkpoint: who holds a Perceptual keeps it outside of
    `nn.Module`s (an ImageObjective is none), or in a tuple there, where modules are not registered.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Perceptual:
        """Stay in eval mode."""
        return super().train(False)  # or a holder's train() would switch the dropout on

    def forward(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """LPIPS, mean over the batch."""
        prediction, truth = _pair(prediction, truth, VGG_LEAST)
        with _full_precision(prediction):
            return self.network(*map(self._ready, (prediction, truth))).mean()

    def gram(
        self,
        prediction: Tensor,
        truth: Tensor,
        generator: torch.Generator | None = None,
        crop: int = 400,
    ) -> Tensor:
        """The Gram loss on a window of at most `crop` x `crop` pixels.

        Sum over five layers of weight * mean((G - G')^2) / (d h w), where G is the Gram matrix
        [B d, B d] of features [B, d, h, w] as rows of h w, not normalised. The window is drawn by
        `generator`; without one it is the middle.
        """
        prediction, truth = _pair(prediction, truth, VGG_LEAST)
        window = _window(prediction, crop, generator)
        total = prediction.new_zeros(())
        with _full_precision(prediction):
            layers = (self._features(image[window]) for image in (prediction, truth))
            for weight, a, b in zip(GRAM_LAYERS, *layers, strict=True):
                error = (_gram(a) - _gram(b)).square().mean()
                total = total + weight * error / a[0].numel()
        return total

    def _features(self, image: Tensor) -> tuple[Tensor, ...]:
        """relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 of the image, normalised as ImageNet's."""
        return tuple(self.network.net(self.network.scaling_layer(self._ready(image))))

    def _ready(self, image: Tensor) -> Tensor:
        return image.to(next(self.network.parameters()).dtype)


def load_perceptual(
    device: torch.device | str, backbones: Path | str | None = None
) -> tuple[Perceptual | None, str | None]:
    """The Perceptual with its weights and None, or None and the sentence why there is none.

    backbones: a folder with VGG16's weights, see `evaluation.backbones.features`.
    """
    network, reason = load_lpips("vgg", backbones)
    return (None, reason) if network is None else (Perceptual(network).to(device), None)


class ImageObjective:
    """What images are trained by: L2 + LPIPS (+ 0.5 Gram), or without VGG16 L1 + (1 - SSIM) or,
    with `pixel_loss` "l2", 4 L2 + (1 - SSIM).

    perceptual, reason: as `load_perceptual` returns them. ValueError: `gram` without VGG16.
    """

    def __init__(
        self,
        perceptual: Perceptual | None,
        gram: bool = False,
        reason: str | None = None,
        pixel_loss: PixelLoss = "l1",
    ):
        self.perceptual = perceptual
        self.gram = gram
        self.pixel_loss: PixelLoss = pixel_loss
        self.reason = reason or "LPIPS is not available: there is no VGG16."
        if gram and perceptual is None:
            raise ValueError(
                f"--use_gram_loss needs VGG16. {self.reason} Or train without --use_gram_loss."
            )

    def __call__(
        self,
        prediction: Tensor,
        truth: Tensor,
        generator: torch.Generator | None = None,
        with_gram: bool = True,
    ) -> dict[str, Tensor]:
        """{"loss", "l2", "lpips"[, "gram"]} or {"loss", "l1" or "l2", "ssim_loss"}.

        The parts are unweighted and detached, to be logged. generator: of the Gram loss's window;
        with_gram: False leaves that loss out, as before its warm-up ends.
        """
        if self.perceptual is None:
            structure = ssim_loss(prediction, truth)
            if self.pixel_loss == "l1":
                parts = {"l1": l1(prediction, truth), "ssim_loss": structure}
                loss = parts["l1"] + structure
            else:
                parts = {"l2": l2(prediction, truth), "ssim_loss": structure}
                loss = L2_WEIGHT * parts["l2"] + structure
        else:
            parts = {"l2": l2(prediction, truth), "lpips": self.perceptual(prediction, truth)}
            loss = parts["l2"] + parts["lpips"]
            if self.gram and with_gram:
                parts["gram"] = self.perceptual.gram(prediction, truth, generator)
                loss = loss + GRAM_WEIGHT * parts["gram"]
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def describe(self) -> str:
        """A sentence for the log: which objective, and why."""
        if self.perceptual is None:
            pixels = "L1" if self.pixel_loss == "l1" else f"{L2_WEIGHT:g} L2"
            return f"Images are trained by {pixels} + (1 - SSIM), not by L2 + LPIPS. {self.reason}"
        gram = f" + {GRAM_WEIGHT} Gram" if self.gram else ""
        return f"Images are trained by L2 + LPIPS{gram} (VGG16)."


def _pair(prediction: Tensor, truth: Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    """Both in float32 at least; ValueError if they are not two batches of images of one size."""
    if prediction.shape != truth.shape or prediction.ndim != 4 or prediction.shape[1] != 3:
        raise ValueError(
            f"The prediction is {list(prediction.shape)} and the truth {list(truth.shape)}; "
            "a loss compares two batches [B, 3, H, W] of one size."
        )
    height, width = prediction.shape[-2:]
    if min(height, width) < least:
        raise ValueError(
            f"The images are {width}x{height} pixels; this loss needs at least {least} a side."
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return prediction.to(dtype), truth.to(dtype)


def _full_precision(image: Tensor) -> torch.autocast:
    """No autocast: half precision loses SSIM's variances and overflows in Gram matrices."""
    return torch.autocast(image.device.type, enabled=False)


def _gram(features: Tensor) -> Tensor:
    rows = features.flatten(0, 1).flatten(1)  # [B C, H W]
    return rows @ rows.T


def _window(image: Tensor, crop: int, generator: torch.Generator | None) -> tuple:
    """Slices of a window of at most crop x crop pixels."""
    window = []
    for size in image.shape[-2:]:
        spare = max(0, size - crop)
        start = spare // 2
        if generator is not None:
            draw = torch.randint(spare + 1, (), generator=generator, device=generator.device)
            start = int(draw)
        window.append(slice(start, start + min(size, crop)))
    return (..., *window)
