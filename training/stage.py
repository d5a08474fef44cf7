# What the engine asks of a system: a stage that turns batches into losses, the samples they are
# made of, and a codec that carries the weights to and from checkpoint files.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from training.optimizer import decays_matrices

Losses = dict[str, Tensor]
"""Scalars by name; "loss" is minimized, the others are detached and logged."""


class Batch(Protocol):
    """What the loop needs of a batch; `pin_memory` too where it is to be pinned."""

    keys: list[str]
    """Names of the samples, for messages."""

    def to(self, device: torch.device) -> Batch:
        """The batch on the device, as the stage takes it."""
        ...

    def at_step(self, step: int, seed: int) -> Batch:
        """The batch with the step's number and seed, which are the same on all processes."""
        ...


@dataclass(frozen=True)
class Broken:
    """A sample that could not be read, and why: what `Samples` give in its place."""

    key: str
    reason: str


class Samples(Protocol):
    """A dataset whose items are asked for by (index, the sample's own seed)."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: tuple[int, int]) -> object: ...

    def collate(self, samples: Sequence) -> Batch | Broken:
        """A batch of the items, or the first that is broken."""
        ...


class Stage(nn.Module):
    """One stage of a system's training: forward(batch, network, detail) gives a network's Losses.

    networks: names of the submodules that learn, each with an optimizer of its own, in this order
    within a step. The first learns in every step; its weights are what is averaged, saved and
    validated. A forward may be dropped with its step: it changes nothing that `resume_state` gives;
    what it counts is added in `after_step`. `detail` asks for numbers that only the log wants.
    dtype: what to compute in.
    """

    networks: Sequence[str] = ("model",)

    def __init__(self, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.dtype = dtype

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The stage's precision, for networks whose weights stay in float32."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    def learns(self, network: str, step: int) -> bool:
        """Whether the network learns in this step."""
        return True

    def parameters_of(self, network: str) -> list[tuple[str, nn.Parameter]]:
        """Trainable parameters of a network, by name."""
        named = self.get_submodule(network).named_parameters()
        return [(name, parameter) for name, parameter in named if parameter.requires_grad]

    def decays(self, name: str, parameter: Tensor) -> bool:
        """Whether weight decay acts on a network's parameter; `name` is without the network's."""
        return decays_matrices(name, parameter)

    def after_step(self, step: int) -> dict[str, float]:
        """Called after each step, on all processes; numbers for the log."""
        return {}

    def resume_state(self) -> dict[str, object]:
        """What a resumed run needs besides the first network; called on all processes."""
        return {}

    def load_resume_state(self, state: Mapping) -> None:
        """Put back what `resume_state` gave."""

    # models that are divided among processes --------------------------------------------------

    def shard(self) -> None:
        """Divide the first network among the processes (FSDP2). Raises ValueError where a stage
        does not support that."""
        raise ValueError("this stage cannot be divided among processes: leave --fsdp out")

    def whole_model(self) -> nn.Module:
        """The first network with all its weights, on every process."""
        return self.get_submodule(self.networks[0])


class Codec(Protocol):
    """How a system's weights are laid out in checkpoints (dictionaries for torch.save)."""

    def load_weights(self, model: nn.Module, content: dict, file: Path) -> None:
        """Fill a model of the same sizes from a checkpoint's content. Raises ValueError naming the
        file where they do not fit."""
        ...

    def encode(
        self, model: nn.Module, *, optimizer: dict, args: dict, epoch: int, step: int
    ) -> dict:
        """The content of a checkpoint: the weights, the first network's optimizer state, the
        run's flags and how far it came. The engine adds "resume"."""
        ...

    def optimizer_state(self, content: dict) -> dict | None:
        """The optimizer state that `encode` put into the content; None if there is none."""
        ...
