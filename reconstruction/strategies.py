# gsplat's densification strategies, ready to run on the device at hand.
from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from gsplat.strategy import DefaultStrategy, MCMCStrategy
from gsplat.strategy.ops import reset_opa

from reconstruction.torch_mcmc import TorchMCMCStrategy


@dataclass
class ResettingDefaultStrategy(DefaultStrategy):
    """gsplat's DefaultStrategy that does lower the opacities every `reset_every` steps.

    gsplat 1.5.3 tests `step % reset_every == 0 & step > 0`, which is never true, since `&` binds
    tighter than the comparisons. Resetting twice, with a gsplat that does it, changes nothing.
    """

    def step_post_backward(self, params, optimizers, state, step, info, packed=False) -> None:
        super().step_post_backward(params, optimizers, state, step, info, packed)
        if 0 < step < self.refine_stop_iter and step % self.reset_every == 0:
            reset_opa(params, optimizers, state, value=2 * self.prune_opa)


def make_strategy(
    config: DefaultStrategy | MCMCStrategy, device: torch.device
) -> DefaultStrategy | MCMCStrategy:
    """A strategy with the settings of `config`, whose operations exist on `device`."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    if isinstance(config, DefaultStrategy):
        return ResettingDefaultStrategy(**values)
    if device.type == "cuda":
        return MCMCStrategy(**values)
    return TorchMCMCStrategy(**values)
