# What a stage of training is to the loop: a module that turns a batch into losses.
from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from models.gsvar import GSVAR
from training.triplets import Batch

Losses = dict[str, Tensor]
"""Scalars; "loss" is what is minimised."""


class Stage(Protocol):
    """A stage: an nn.Module whose forward(batch, player, detail) gives the Losses of a player.

    prefix: of its checkpoints' names. players: who learns, each with an optimiser of its own, in
    this order within a step; the first is the model. `detail` asks for numbers that only the log
    wants.
    """

    prefix: str
    model: GSVAR
    players: Sequence[str]

    def __call__(self, batch: Batch, player: str, detail: bool) -> Losses: ...

    def playing(self, player: str, step: int) -> bool:
        """Whether the player learns in this step."""
        ...

    def parameters_of(self, player: str) -> list[tuple[str, nn.Parameter]]:
        """Named parameters of a player."""
        ...

    def after_step(self, step: int) -> dict[str, float]:
        """Called after each step; numbers for the log."""
        ...

    def kept(self) -> dict[str, object]:
        """What a resumed run needs besides the model; called on all processes."""
        ...

    def restore(self, kept: dict) -> None:
        """Puts back what `kept` gave."""
        ...


class Networks(nn.Module):
    """What the stages share: a model, the precision they compute in, samples kept on disk."""

    players: Sequence[str] = ("model",)

    def __init__(self, model: GSVAR, dtype: torch.dtype, cache: Path | None):
        super().__init__()
        self.model, self.dtype, self.cache = model, dtype, cache

    def autocast(self) -> AbstractContextManager:
        """The stage's precision, for networks whose weights stay in float32."""
        kind = self.model.device.type
        return torch.autocast(kind, self.dtype, enabled=self.dtype != torch.float32)

    def playing(self, player: str, step: int) -> bool:
        return True

    def parameters_of(self, player: str) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]

    def after_step(self, step: int) -> dict[str, float]:
        return {}

    def kept(self) -> dict[str, object]:
        return {}

    def restore(self, kept: dict) -> None:
        pass
