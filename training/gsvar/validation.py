# Validation of GS-VAR: of stages 1 and 2 by the fixer as it will be used, of stage 0 by decoding
# the truth's own tokens.
from __future__ import annotations

from typing import Literal

from torch import Tensor

from fixers.gsvar import GSVARFixer
from models.gsvar import GSVAR
from training.validation import Predict, TripletValidation, Values, predict_by_fixing
from triplets.guides import Pictures


class FixerValidation(TripletValidation):
    """Whole pictures through the fixer, in tiles or squashed, with the bridge or without; see
    TripletValidation for the other options."""

    def __init__(self, *args, mode: Literal["tile", "resize"], bridge: bool, **options):
        super().__init__(*args, **options)
        self.mode, self.bridge = mode, bridge

    def __call__(self, model: GSVAR) -> tuple[Values, dict[str, Tensor]]:
        """Means of the fixed renders, and pictures."""
        fixer = GSVARFixer(model.eval(), mode=self.mode, bridge=self.bridge)
        return self.measure(predict_by_fixing(fixer.fix))


class TokenizerValidation(TripletValidation):
    """The truths through the tokens: the tokenizer's ceiling."""

    def __call__(self, model: GSVAR) -> tuple[Values, dict[str, Tensor]]:
        """Means of the reconstructions, and pictures."""
        return self.measure(predict_by_tokenizer(model))


def predict_by_tokenizer(model: GSVAR) -> Predict:
    """The truth, encoded to tokens and decoded."""
    vqvae = model.vqvae

    def predict(pictures: Pictures) -> Tensor:
        image = pictures.truth.permute(2, 0, 1)[None].to(model.device) * 2 - 1
        rows, columns = (n // vqvae.config.stride for n in image.shape[-2:])
        grids = model.fit_scales(rows, columns).grids
        return ((vqvae.reconstruct(image, grids)[0] + 1) / 2).permute(1, 2, 0).float()

    return predict
