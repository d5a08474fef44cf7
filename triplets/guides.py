# What of a triplet a fixer is given beside the render, and its pictures in memory.
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from triplets.manifest import Reference, Triplet
from triplets.pictures import read_image, read_render, resize

VALID = 0.5  # of a mask
UNKNOWN_ALPHA = 0.5  # what networks are given where the render's alpha is not known


@dataclass(frozen=True)
class Guides:
    """What of a triplet is used beside its render: how many references, nearest first; whether
    the warped ones; and whether the render's alpha."""

    count: int = 1
    warped: bool = False
    alpha: bool = False

    def files(self, triplet: Triplet) -> list[Path]:
        """The references' files; ValueError if they should be warped and are not."""
        files = [self._file(r) for r in triplet.references[: self.count]]
        if None in files:
            raise ValueError(
                f"the entry {triplet.key!r} has no warped reference: make it with gen_data_json.py "
                "--warp, or give --use_warped=False for unwarped photos"
            )
        return files

    def read_references(self, triplet: Triplet, render: Tensor) -> list[Tensor]:
        """The references [H,W,3] at the render's size; a warped one is the render [H,W,3] where it
        is not valid. Raises ValueError and OSError."""
        return [self._read_reference(r, render) for r in triplet.references[: self.count]]

    def read_render(self, triplet: Triplet) -> tuple[Tensor, Tensor | None]:
        """The render [H,W,3], black where it is transparent, and its alpha [H,W] if that is used
        and known: from a file of its own, else the render's own channel. Raises ValueError and
        OSError."""
        render, alpha = read_render(triplet.render)
        if self.alpha and triplet.alpha is not None:
            alpha = resize(read_image(triplet.alpha), *render.shape[:2])[..., 0]
        return render, alpha if self.alpha else None

    def _file(self, reference: Reference) -> Path | None:
        return reference.warped if self.warped else reference.path

    def _read_reference(self, reference: Reference, render: Tensor) -> Tensor:
        size = render.shape[:2]
        picture = resize(read_image(self._file(reference)), *size)
        if self.warped and reference.mask is not None:
            valid = resize(read_image(reference.mask), *size) > VALID
            picture = torch.where(valid, picture, render)
        return picture


@dataclass(frozen=True)
class Pictures:
    """A triplet in memory: images [H,W,3] in [0,1], references [R,H,W,3] of the render's size and
    alpha [H,W]; None where there are none or they are not used."""

    render: Tensor
    truth: Tensor
    references: Tensor | None = None
    alpha: Tensor | None = None

    @classmethod
    def read(cls, triplet: Triplet, guides: Guides) -> Pictures:
        """Raises ValueError and OSError for what cannot be read."""
        render, alpha = guides.read_render(triplet)
        truth = read_image(triplet.truth)
        references = guides.read_references(triplet, render)
        return cls(render, truth, torch.stack(references) if references else None, alpha)

    @property
    def reference(self) -> Tensor | None:
        """The first reference [H,W,3]."""
        return None if self.references is None else self.references[0]
