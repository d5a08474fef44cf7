# Which samples make each step: a function of seed and place alone, so that a run can go on
# anywhere, on any number of processes, with steps of any size.
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from runtime.seeds import mix_seeds


@dataclass(frozen=True)
class Place:
    """How far a run is: steps made, whole epochs, and samples of the epoch after those."""

    step: int = 0
    epoch: int = 0
    taken: int = 0


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

    def of_size(self, samples: int) -> Order:
        """The same epochs cut into steps of another size, for one process."""
        return replace(self, batch=samples, world=1, rank=0, accumulate=1)

    def place(self, steps: float) -> Place:
        """After so many steps of this size, from the beginning."""
        epoch, at = divmod(steps, self.steps)
        return Place(int(steps), int(epoch), round(at * self.samples))

    def progress(self, place: Place) -> float:
        """How many steps of this size lead to a place; exact where all of them had it."""
        return place.epoch * self.steps + place.taken / self.samples

    def settle(self, place: Place) -> Place:
        """The place, or the next epoch's beginning if no step of this size is left before it."""
        if place.taken + self.samples <= self.count:
            return place
        return Place(place.step, place.epoch + 1)

    def after(self, place: Place) -> Place:
        """Where the step from a settled place leads, settled."""
        return self.settle(Place(place.step + 1, place.epoch, place.taken + self.samples))

    def count_steps(self, place: Place, stop: float) -> int:
        """How many steps from a settled place make `stop` steps of this size in all."""
        following = (place.epoch + 1) * self.steps
        if stop < following:
            return max(0, math.ceil(round(stop - self.progress(place), 6)))
        here = (self.count - place.taken) // self.samples
        return here + math.ceil(round(stop - following, 6))

    def resume(self, state: Mapping, samples: int | None) -> Place:
        """The settled place that a checkpoint's state tells; older ones know only the number of
        steps, each of so many samples (None: of as many as now)."""
        step = state["step"]
        if "taken" in state:
            return self.settle(Place(step, state["epoch"], state["taken"]))
        before = self if samples is None else self.of_size(samples)
        return self.settle(before.place(step) if before.steps else Place(step))

    def step(self, place: Place) -> list[list[tuple[int, int]]]:
        """This rank's micro-batches of the step from a settled place: (sample, its own seed)
        each."""
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, 1, place.epoch))
        order = torch.randperm(self.count, generator=generator)
        samples = order[place.taken : place.taken + self.samples].tolist()
        micro = []
        for m in range(self.accumulate):
            first = (m * self.world + self.rank) * self.batch
            places = range(first, first + self.batch)
            micro.append([(samples[p], mix_seeds(self.seed, 2, place.step, p)) for p in places])
        return micro


@dataclass(frozen=True)
class MicroBatches:
    """A DataLoader's batch_sampler: all micro-batches from the place `start` on until there are
    `stop` steps (of the order's size) in all."""

    order: Order
    start: Place
    stop: float

    def __iter__(self) -> Iterator[Sequence[tuple[int, int]]]:
        place = self.start
        for _ in range(self.order.count_steps(place, self.stop)):
            yield from self.order.step(place)
            place = self.order.after(place)

    def __len__(self) -> int:
        return self.order.count_steps(self.start, self.stop) * self.order.accumulate
