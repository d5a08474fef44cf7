# One step: photos and rays of some views in, the pictures of others compared.
from __future__ import annotations

import random

import torch

from models.efficient_lvsm import EfficientLVSM
from training.efficient_lvsm.objective import Objective
from training.efficient_lvsm.samples import Views
from training.stage import Losses, Stage


class ViewStage(Stage):
    """Trains a network on views; each step has a number of inputs of its own, the same for all of
    its scenes, drawn from `inputs` (least and most)."""

    def __init__(
        self,
        model: EfficientLVSM,
        objective: Objective,
        inputs: tuple[int, int] = (2, 2),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(dtype)
        self.model = model
        self.objective, self.inputs = objective, inputs

    def forward(self, batch: Views, network: str, detail: bool) -> Losses:
        """The losses of a batch."""
        rays = batch.rays(self.model.config.plucker)
        count = random.Random(batch.step_seed).randint(*self.inputs)
        with self.autocast(batch.photos.device):
            return self.objective(
                self.model,
                2 * batch.photos[:, :count] - 1,
                rays[:, :count],
                batch.pick(rays),
                batch.pick(batch.photos),
            )
