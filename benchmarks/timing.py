# The benchmarks' clock, and the unit that makes machines comparable: one product of two float32
# 2048x2048 matrices by as many threads as the work has.
from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numba
import torch

from runtime.precision import multiplies_bf16, parse_dtype

log = logging.getLogger(__name__)

SIDE = 2048
FREE = 0.85  # share of the cores; with less the unit slows down more than most work does

Work = Callable[[], object]


def clock(device: torch.device | str = "cpu") -> float:
    """Seconds on the clock, once the device has finished its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(work: Work, device: torch.device | str = "cpu") -> float:
    """Seconds of one run."""
    start = clock(device)
    work()
    return clock(device) - start


def best(work: Work, repeats: int, device: torch.device | str = "cpu") -> float:
    """Seconds of the fastest run."""
    return min(seconds(work, device) for _ in range(repeats))


def product(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Callable[[], torch.Tensor]:
    """The unit as work to time, or the same product in another precision."""
    a, b = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return lambda: a @ b


def measurable(names: Sequence[str], device: torch.device | str) -> list[torch.dtype]:
    """The precisions of these names (`auto` is the fastest) without bf16 on a processor that only
    emulates it, which is logged; ValueError for an unknown name."""
    fast = multiplies_bf16(device)
    auto = "bf16" if fast else "float32"
    dtypes = [parse_dtype(auto if name == "auto" else name) for name in names]
    if torch.bfloat16 in dtypes and not fast:
        log.warning("bf16 is left out: this processor has no bfloat16 instructions")
    return [dtype for dtype in dtypes if fast or dtype != torch.bfloat16]


def use_threads(count: int) -> None:
    """Set the threads of torch and numba; numba gets fewer where the machine has fewer."""
    torch.set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))


def warn_if_busy(threads: int) -> None:
    """Warn that figures will be off if other processes use the cores."""
    share = free_share(threads)
    if share < FREE:
        log.warning("others use the cores (%.0f%% is left): figures will be off", 100 * share)


def free_share(threads: int) -> float:
    """The share of so many cores that the unit gets: 1 on an idle machine."""
    use_threads(threads)
    unit, start, used = product(), time.perf_counter(), time.process_time()
    for _ in range(10):
        unit()
    return (time.process_time() - used) / (time.perf_counter() - start) / threads
