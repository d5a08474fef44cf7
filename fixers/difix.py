# Difix3D's pipeline call on any fixer, so that trainers made for Difix swap it in by one line:
#   pipe = DifixCall(fixers.load("gsvar", checkpoint="..."))
from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.pictures import to_uint8
from fixers.fixer import Fixer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """What a diffusers pipeline returns."""

    images: list[Image.Image]


class DifixCall:
    """pipe(prompt, image=..., ref_image=...).images[0], at the image's own size."""

    def __init__(self, fixer: Fixer):
        self.fixer = fixer

    def to(self, *_: object, **__: object) -> DifixCall:
        """Accepted as of a pipeline; the fixer stays where it was loaded."""
        return self

    def set_progress_bar_config(self, **_: object) -> None:
        """Accepted as of a pipeline."""

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        image: Image.Image | Sequence[Image.Image] | None = None,
        ref_image: Image.Image | Sequence[Image.Image] | None = None,
        **_: object,
    ) -> Output:
        """Fixed PIL images; prompt, steps, timesteps and guidance mean nothing here.

        image, ref_image: one picture or as many as each other. Raises ValueError otherwise.
        """
        images = as_list(image)
        references = as_list(ref_image)
        if references and self.fixer.needs.warped:
            log.warning("ref_image is ignored: these weights need photos warped into the view")
            references = []
        if not images:
            raise ValueError("the call needs image=, a PIL image or a list of them")
        if references and len(references) != len(images):
            raise ValueError(f"{len(images)} images and {len(references)} ref_images do not pair")
        fixed = []
        for i, picture in enumerate(images):
            guide = to_tensor(references[i])[None, None] if references else None
            answer = self.fixer.fix(to_tensor(picture)[None], guide)[0]
            fixed.append(Image.fromarray(to_uint8(answer)))
        return Output(fixed)


def as_list(images: Image.Image | Sequence[Image.Image] | None) -> list[Image.Image]:
    """One picture, several or none, as a list."""
    if images is None:
        return []
    return [images] if isinstance(images, Image.Image) else list(images)


def to_tensor(image: Image.Image) -> Tensor:
    """A picture as [H,W,3] in [0,1]."""
    return torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
