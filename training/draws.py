# Random numbers of a batch, drawn sample by sample from the samples' own seeds: they do not depend
# on how a step is divided among processes.
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """Streams of the samples with these seeds; every call goes on in them."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu"):
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.device = torch.device(device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, [B, *shape]."""
        return self._each(lambda g: torch.randn(shape, generator=g, device=self.device))

    def uniform(self, *shape: int) -> Tensor:
        """In [0,1), [B, *shape]."""
        return self._each(lambda g: torch.rand(shape, generator=g, device=self.device))

    def integers(self, high: int, *shape: int) -> Tensor:
        """0 to high - 1, int64 [B, *shape]."""
        return self._each(lambda g: torch.randint(high, shape, generator=g, device=self.device))

    def _each(self, draw) -> Tensor:
        return torch.stack([draw(generator) for generator in self.generators])
