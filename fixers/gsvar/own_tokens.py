# Upper bounds and controls of GS-VAR: the bridge decodes tokens that no transformer predicted.
from __future__ import annotations

from torch import Tensor

from fixers.gsvar.fixer import GSVARFixer
from fixers.tiling import pad


class OwnTokensFixer(GSVARFixer):
    """Decodes the render's own tokens: what the bridge does alone (stage 2's `--own_tokens`)."""

    def _remember(self, guides: Tensor) -> None:
        return None

    def _restore(self, images: Tensor, references: None) -> Tensor:
        grids = self.restorer.fit_scales(images).grids
        return self.model.vqvae.quantized(images, grids)


class TruthTokensFixer(OwnTokensFixer):
    """Decodes the ground truth's tokens: the most that any transformer could bring.

    `truth` [H,W,3] in [0,1] is set before each call, which fixes that one render.
    """

    truth: Tensor

    def _restore(self, images: Tensor, references: None) -> Tensor:
        truth = self.truth.permute(2, 0, 1)[None] * 2 - 1
        return super()._restore(pad(truth, *images.shape[-2:]), references)
