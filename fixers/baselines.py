# What a fixer must beat: the render as it is, and a classical denoiser.
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fixers.fixer import (
    FixerOptions,
    Needs,
    blend_by_confidence,
    finite_answer,
    validate_inputs,
)
from runtime.arguments import ArgumentError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class IdentityOptions(FixerOptions):
    """Returns the picture as it is, as a baseline."""


class Identity:
    """Returns the renders."""

    needs = Needs()

    def __init__(self, options: IdentityOptions | None = None):
        self.options = options or IdentityOptions()

    @finite_answer
    def fix(
        self,
        renders: Tensor,
        references: Tensor | None = None,
        *,
        confidence: Tensor | None = None,
        alphas: Tensor | None = None,
    ) -> Tensor:
        """See `fixers.Fixer`."""
        return validate_inputs(renders, references, confidence, alphas)[0]


@dataclass(frozen=True)
class ClassicalOptions(FixerOptions):
    """A denoiser, as a baseline."""

    strength: float = 5.0
    """Of the denoiser: 0 keeps the render, 10 is OpenCV's own choice for noisy photos."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 100:
            raise ArgumentError(
                f"{{argument}} must lie between 0 and 100, not {self.strength}", "strength"
            )


class Classical:
    """Non-local means (Buades 2011, OpenCV's); looks at no reference."""

    needs = Needs()

    def __init__(self, options: ClassicalOptions | None = None):
        self.options = options or ClassicalOptions()

    @finite_answer
    def fix(
        self,
        renders: Tensor,
        references: Tensor | None = None,
        *,
        confidence: Tensor | None = None,
        alphas: Tensor | None = None,
    ) -> Tensor:
        """See `fixers.Fixer`."""
        renders, _ = validate_inputs(renders, references, confidence, alphas)
        if not len(renders):
            return renders
        return blend_by_confidence(renders, denoise(renders, self.options.strength), confidence)


def denoise(images: Tensor, strength: float) -> Tensor:
    """Non-local means of images [N,H,W,3] in [0,1], through 8 bits."""
    import cv2
    import numpy as np
    import torch

    pixels = (images * 255).round().byte().cpu().numpy()
    if strength > 0:
        smooth = cv2.fastNlMeansDenoisingColored
        pixels = np.stack([smooth(image, None, strength, strength, 7, 21) for image in pixels])
    return torch.from_numpy(pixels).float().div(255).to(images.device)


def build_identity(options: IdentityOptions, device: torch.device | str | None = None) -> Identity:
    """Runs where the renders are, whatever the device."""
    return Identity(options)


def build_classical(
    options: ClassicalOptions, device: torch.device | str | None = None
) -> Classical:
    """Runs on the CPU, whatever the device."""
    return Classical(options)
