# What the stages of GS-VAR share: the model, a cache of what is frozen, steps without references.
from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from models.gsvar import GSVAR
from runtime.seeds import mix_seeds
from training.stage import Stage

# spared by weight decay besides vectors and biases: embeddings of places and scales, gains, refiner
NO_DECAY = ("prefix_position", "scale_embedding", "offset", "log_temperature", "refiner.")


class GSVARStage(Stage):
    """A stage that trains parts of a GSVAR; cache: folder for what its frozen networks compute."""

    def __init__(self, model: GSVAR, dtype: torch.dtype, cache: Path | None = None):
        super().__init__(dtype)
        self.model, self.cache = model, cache

    def decays(self, name: str, parameter: Tensor) -> bool:
        """As the original divides them."""
        return super().decays(name, parameter) and not any(word in name for word in NO_DECAY)


def drops_references(seed: int, share: float) -> bool:
    """Whether a step with this seed goes without references: the same on all processes."""
    return share > 0 and mix_seeds(5, seed) / 2**63 < share
