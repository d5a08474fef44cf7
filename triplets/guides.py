# The references of a triplet as a fixer takes them: as taken, or warped into the render's view.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from triplets.pictures import read_image, resized

VALID = 0.5  # of a mask


class Reference(Protocol):
    """A photo of the same scene, and the same warped into the render's view with a mask of where
    that is valid."""

    path: Path
    warped: Path | None
    mask: Path | None


class Guided(Protocol):
    """What is needed of an entry; references nearest first."""

    key: str
    references: Sequence[Reference]
    alpha: Path | None


@dataclass(frozen=True)
class Guides:
    """What of an entry is used beside its render: how many references, whether the warped ones,
    and whether the render's alpha."""

    count: int = 1
    warped: bool = False
    alpha: bool = False

    def of(self, entry: Guided) -> list[Path]:
        """Their files; ValueError if they should be warped and are not."""
        files = [self.file(r) for r in entry.references[: self.count]]
        if None in files:
            raise ValueError(
                f"{entry.key}: no warped reference: make them (gen_data_json.py --warp), or "
                "--use_warped=False for photos as taken"
            )
        return files

    def file(self, reference: Reference) -> Path | None:
        return reference.warped if self.warped else reference.path

    def read(self, entry: Guided, render: Tensor) -> list[Tensor]:
        """Their pictures [H,W,3] at the render's size. Raises ValueError and OSError."""
        return [self.picture(r, render) for r in entry.references[: self.count]]

    def opacity(self, entry: Guided, render: Tensor) -> Tensor | None:
        """The render's alpha [H,W], if it is used and there is one. Raises ValueError and
        OSError."""
        if not self.alpha or entry.alpha is None:
            return None
        return sized(read_image(entry.alpha), render)[..., 0]

    def picture(self, reference: Reference, render: Tensor) -> Tensor:
        """One of them; where a warped one is not valid it is the render [H,W,3]."""
        picture = sized(read_image(self.file(reference)), render)
        if self.warped and reference.mask is not None:
            valid = sized(read_image(reference.mask), render) > VALID
            picture = torch.where(valid, picture, render)
        return picture


def sized(image: Tensor, render: Tensor) -> Tensor:
    """An image [h,w,3] at the render's size."""
    if image.shape == render.shape:
        return image
    return resized(image[None], *render.shape[:2])[0]
