# A plain U-Net as a fixer: whole pictures of any size, one after the other.
from __future__ import annotations

import torch
from torch import Tensor

from fixers.fixer import (
    Needs,
    blend_by_confidence,
    finite_answer,
    mark_infinite,
    validate_inputs,
)
from fixers.tiling import grid_of, pad
from fixers.unet.options import UNetOptions
from models.unet import UNet, load
from runtime.arguments import ArgumentError
from runtime.precision import choose_dtype
from triplets.guides import UNKNOWN_ALPHA


class UNetFixer:
    """Fixes renders with a trained U-Net; without a reference the render takes its place.

    dtype: of the products.
    """

    def __init__(self, net: UNet, dtype: torch.dtype = torch.float32):
        self.net, self.dtype = net.eval(), dtype
        config, guided = net.config, net.config.views > 1
        self.needs = Needs(references=guided, warped=guided and config.warped, alpha=config.alpha)

    def widen(self) -> bool:
        """Compute in float32 from now on; whether it did not already."""
        was, self.dtype = self.dtype, torch.float32
        return was != torch.float32

    @classmethod
    def load(cls, options: UNetOptions, device: torch.device | str | None = None) -> UNetFixer:
        """The fixer with the weights that the options name, on the best device by default."""
        if options.checkpoint is None:
            raise ArgumentError(
                "the unet fixer needs weights: name a unet.safetensors with {argument}",
                "checkpoint",
            )
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = choose_dtype(options.dtype, device, force_bf16=options.force_bf16)
        return cls(load(options.checkpoint).to(device), dtype)

    @finite_answer
    @torch.no_grad()
    def fix(
        self,
        renders: Tensor,
        references: Tensor | None = None,
        *,
        confidence: Tensor | None = None,
        alphas: Tensor | None = None,
    ) -> Tensor:
        """See `fixers.Fixer`."""
        renders, references = validate_inputs(renders, references, confidence, alphas)
        if not len(renders):
            return renders
        H, W = renders.shape[1:3]
        views = [renders]
        if self.net.config.views > 1:
            views.append(renders if references is None else references[:, 0])
        if self.net.config.alpha:
            unknown = torch.full_like(renders[..., 0], UNKNOWN_ALPHA)
            views.append((unknown if alphas is None else alphas)[..., None])
        images = torch.cat(views, -1).permute(0, 3, 1, 2) * 2 - 1
        stride = self.net.config.stride
        rows, columns = grid_of(H, W, (1, 1), stride)
        images = pad(images, rows * stride, columns * stride)
        device = self.net.conv_in.weight.device
        images = images.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            fixed = torch.cat([self.net(image[None]) for image in images])
        fixed = mark_infinite(fixed[..., :H, :W].float())
        fixed = ((fixed + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
        return blend_by_confidence(renders, fixed.to(renders.device), confidence)
