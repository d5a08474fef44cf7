# Peak memory of a run, and whether the GPU's memory runs short.
from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SPARE = 0.25  # share of a GPU's memory that should be free


def measure_peak_gigabytes(device: torch.device) -> float:
    """Peak memory so far in GiB: of the GPU, or of the process on a CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 1024**3
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**3


def is_memory_short(device: torch.device) -> bool:
    """Whether less than a quarter of the GPU's memory is free; False on a CPU."""
    if device.type != "cuda":
        return False
    import torch

    free, whole = torch.cuda.mem_get_info(device)
    return free < SPARE * whole
