# What a bridge does without the transformer: it decodes the render's own tokens, or the truth's.
from __future__ import annotations

from torch import Tensor

from fixers.gsvar import GSVARFixer
from fixers.tiling import pad


class BridgeOnly(GSVARFixer):
    """A GS-VAR whose tokens are the render's own, to be trained with `--own_tokens=True`."""

    def _remember(self, guides: Tensor) -> None:
        return None

    def _restore(self, images: Tensor, references: None) -> Tensor:
        grids = self.restorer.fit_scales(images).grids
        return self.model.vqvae.quantized(images, grids)


class TruthTokens(BridgeOnly):
    """A GS-VAR whose tokens are the truth's: the most that a transformer could bring."""

    truth: Tensor  # [H,W,3] in [0,1], of the render that is fixed next

    def _restore(self, images: Tensor, references: None) -> Tensor:
        truth = self.truth.permute(2, 0, 1)[None] * 2 - 1
        return super()._restore(pad(truth, *images.shape[-2:]), references)
