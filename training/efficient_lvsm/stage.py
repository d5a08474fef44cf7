# One step: photos and rays of some views in, the pictures of others compared.
from __future__ import annotations

import random
from collections.abc import Mapping

import torch
from torch import Tensor

from models.efficient_lvsm import EfficientLVSM
from training.efficient_lvsm.objective import Objective
from training.efficient_lvsm.samples import Views
from training.efficient_lvsm.teachers import Teacher
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
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__(dtype)
        self.model = model
        self.objective, self.inputs = objective, inputs
        self.teacher = [teacher]  # not in the stage's state

    def forward(self, batch: Views, network: str, detail: bool) -> Losses:
        """The losses of a batch."""
        rays = batch.rays(self.model.config.plucker)
        count = random.Random(batch.step_seed).randint(*self.inputs)
        given, truth = batch.photos[:, :count], batch.pick(batch.photos)
        with self.autocast(batch.photos.device):
            return self.objective(
                self.model,
                2 * given - 1,
                rays[:, :count],
                batch.pick(rays),
                truth,
                getattr(self.model, "repa", None),
                self.teach(given, truth),
            )

    def teach(self, given: Tensor, truth: Tensor) -> Mapping[str, Mapping[int, Tensor]] | None:
        """The teacher's tokens of inputs and targets [B,V,3,H,W], as `Repa` takes them."""
        (teacher,) = self.teacher
        if teacher is None:
            return None
        patch, images = self.model.config.patch, {"input": given, "target": truth}
        grid = given.shape[-2] // patch, given.shape[-1] // patch
        return {
            stream: teacher(images[stream].flatten(0, 1), blocks, grid)
            for stream, blocks in self.model.repa.pairs.items()
        }
