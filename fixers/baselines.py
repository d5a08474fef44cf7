# What a fixer must beat: the render as it is, and a classical denoiser.
from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from fixers.fixer import blend_by_confidence, validate_inputs


class Identity:
    """Returns the renders."""

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


class Classical:
    """Non-local means (Buades 2011, OpenCV's); looks at no reference.

    strength: 0 keeps the render, 10 is OpenCV's own choice for noisy photos.
    """

    def __init__(self, strength: float = 5.0):
        if not 0 <= strength <= 100:
            raise ValueError(f"strength must lie between 0 and 100, not {strength}")
        self.strength = strength

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
        fixed = [self._one((image * 255).round().byte().cpu().numpy()) for image in renders]
        if not fixed:
            return renders
        answer = torch.from_numpy(np.stack(fixed)).float().div(255).to(renders.device)
        return blend_by_confidence(renders, answer, confidence)

    def _one(self, image: np.ndarray) -> np.ndarray:
        if self.strength == 0:
            return image
        return cv2.fastNlMeansDenoisingColored(image, None, self.strength, self.strength, 7, 21)
