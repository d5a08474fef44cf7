# What a bridge does without the transformer: it decodes the render's own tokens.
from __future__ import annotations

from torch import Tensor

from fixers.gsvar import GSVARFixer


class BridgeOnly(GSVARFixer):
    """A GS-VAR whose tokens are the render's own, to be trained with `--own_tokens=True`."""

    def _encoded(self, guides: Tensor) -> None:
        return None

    def _restore(self, images: Tensor, guides: None) -> Tensor:
        grids = self.model.restorer.schedule_for(images).grids
        return self.model.vqvae.quantized(images, grids)
