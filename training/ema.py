# An exponential moving average of trained parameters.
from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Averages of the trainable parameters of a module, by name; `decay` is near 1.

    Early on the decay is lower, (1 + n) / (10 + n) after n updates, so that the start is forgotten.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.live = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self.live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the parameters, after an optimizer's step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        live = [p.detach() for p in self.live.values()]
        torch._foreach_lerp_(list(self.average.values()), live, 1 - decay)
        self.updates += 1

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within the block the module's parameters are the averages."""
        live = {name: p.data for name, p in self.live.items()}
        try:
            for name, p in self.live.items():
                p.data = self.average[name]
            yield
        finally:
            for name, p in self.live.items():
                p.data = live[name]

    def state_dict(self) -> dict[str, object]:
        """The live parameters on the CPU: the averages are in the model that is saved."""
        live = {name: p.detach().cpu() for name, p in self.live.items()}
        return {"updates": self.updates, "live": live}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping) -> None:
        """Resume, after the module was filled with the averages. Raises KeyError for the state of
        another module."""
        self.updates = state["updates"]
        for name, p in self.live.items():
            self.average[name].copy_(p)
            live: Tensor = state["live"][name]
            p.copy_(live)
