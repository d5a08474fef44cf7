# The benchmarks' clock, and the unit in which machines can be compared: one product of two float32
# matrices of 2048x2048, by as many threads as the work itself has.
from __future__ import annotations

import time
from collections.abc import Callable

import numba
import torch

SIDE = 2048

Work = Callable[[], object]


def clock(device: torch.device | str = "cpu") -> float:
    """Seconds, once the device has done all it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(work: Work, device: torch.device | str = "cpu") -> float:
    start = clock(device)
    work()
    return clock(device) - start


def best(work: Work, repeats: int, device: torch.device | str = "cpu") -> float:
    """Seconds of the fastest run."""
    return min(seconds(work, device) for _ in range(repeats))


def product(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Callable[[], torch.Tensor]:
    """The unit's work, or the same in another precision."""
    a, b = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return lambda: a @ b


def use_threads(count: int) -> None:
    """Of torch and of numba; fewer where the machine has fewer."""
    torch.set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
