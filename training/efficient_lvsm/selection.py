# Which frames of a scene are looked at, and which are asked for.
from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np


def select_frames(
    frames: int, views: int, rng: random.Random, least: int = 25, most: int = 100
) -> list[int] | None:
    """Frames of a scene to train on: two that are `least` to `most` apart, then views - 2 from
    between them, not sorted. None where the scene has too few frames.

    The draws are the original's, in its order, so that a seed of Python's `random` gives its
    frames.
    """
    lowest, highest = max(least, views), min(frames - 1, most)
    if frames < views or highest <= lowest:
        return None
    distance = rng.randint(lowest, highest)
    start = rng.randint(0, frames - distance - 1)
    between = rng.sample(range(start + 1, start + distance), views - 2)
    return [start, start + distance, *between]


def select_targets(
    views: int, targets: int, rng: random.Random, *, has_input: bool = True
) -> list[int]:
    """Which of the selected views are asked for in training: any, or (not `has_input`) the last.

    ValueError unless there are more views than targets."""
    if targets >= views:
        raise ValueError(f"{targets} targets need more than {views} views")
    return rng.sample(range(views), targets) if has_input else list(range(views - targets, views))


def spread_inputs(first: int, last: int, count: int) -> list[int]:
    """Input frames of an evaluation whose index names two: one is the first, more are evenly
    between both, rounded to even."""
    if count == 1:
        return [first]
    return np.rint(np.linspace(first, last, count)).astype(int).tolist()


def evaluated_frames(context: Sequence[int], targets: Sequence[int], inputs: int) -> list[int]:
    """Frames of one entry of an evaluation's index, inputs first."""
    return [*spread_inputs(context[0], context[-1], inputs), *targets]
