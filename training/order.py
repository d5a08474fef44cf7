# Which samples make each step: a function of seed and step alone, so that a run can go on anywhere,
# on any number of processes.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from runtime.seeds import mix_seeds


@dataclass(frozen=True)
class Order:
    """Epochs of `count` samples in a new random order each, cut into steps; what is left over at
    an epoch's end is left out.

    A step takes batch * world * accumulate samples. Rank r's micro-batch m holds the places
    (m * world + r) * batch and following: the step's samples do not depend on how it is divided.
    """

    count: int
    batch: int
    world: int = 1
    rank: int = 0
    accumulate: int = 1
    seed: int = 0

    @property
    def samples(self) -> int:
        """Number of samples in a step."""
        return self.batch * self.world * self.accumulate

    @property
    def steps(self) -> int:
        """Number of steps in an epoch."""
        return self.count // self.samples

    def step(self, number: int) -> list[list[tuple[int, int]]]:
        """This rank's micro-batches of a step: (sample, its own seed) each."""
        epoch, at = divmod(number, self.steps)
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, 1, epoch))
        order = torch.randperm(self.count, generator=generator)
        samples = order[at * self.samples : (at + 1) * self.samples].tolist()
        micro = []
        for m in range(self.accumulate):
            first = (m * self.world + self.rank) * self.batch
            places = range(first, first + self.batch)
            micro.append([(samples[p], mix_seeds(self.seed, 2, number, p)) for p in places])
        return micro


@dataclass(frozen=True)
class MicroBatches:
    """A DataLoader's batch_sampler: all micro-batches of the steps from `start` on."""

    order: Order
    start: int
    stop: int

    def __iter__(self) -> Iterator[Sequence[tuple[int, int]]]:
        for number in range(self.start, self.stop):
            yield from self.order.step(number)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.order.accumulate
