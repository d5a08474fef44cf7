# Precisions of networks: their names, and whether this machine multiplies in bfloat16.
from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

NAMES = {"float32": "float32", "bf16": "bfloat16", "bfloat16": "bfloat16"}
NAMES |= {"fp16": "float16", "float16": "float16"}


def multiplies_bf16(device: torch.device | str) -> bool:
    """Whether the device has instructions for bfloat16 products.

    A CPU without them emulates each product, some 300 times slower than in float32.
    """
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if hasattr(torch.cpu, "get_capabilities"):  # torch 2.9 and later
        names = {name for name, has in torch.cpu.get_capabilities().items() if has is True}
    else:
        try:
            names = set(Path("/proc/cpuinfo").read_text().split())
        except OSError:
            names = set()
    return bool(names & {"avx512_bf16", "amx_bf16"})


def parse_dtype(name: torch.dtype | str) -> torch.dtype:
    """float32, bf16 (bfloat16) or fp16 (float16) as a torch.dtype; ValueError otherwise."""
    import torch

    if isinstance(name, torch.dtype):
        return name
    if name not in NAMES:
        raise ValueError(f"dtype must be auto, float32, bf16 or fp16, not {name!r}")
    return getattr(torch, NAMES[name])


def choose_dtype(
    name: torch.dtype | str, device: torch.device | str, *, force_bf16: bool = False
) -> torch.dtype:
    """The precision to compute in: `auto` is bf16 where the device multiplies it, else float32.

    bf16 asked of a device that would emulate it becomes float32, with a warning, unless forced.
    """
    import torch

    if name == "auto":
        return torch.bfloat16 if multiplies_bf16(device) else torch.float32
    dtype = parse_dtype(name)
    if dtype == torch.bfloat16 and not force_bf16 and not multiplies_bf16(device):
        log.warning(
            "this processor has no bfloat16 instructions (avx512_bf16, amx_bf16): float32 is used "
            "instead; --force_bf16 emulates it, some 300 times slower"
        )
        return torch.float32
    return dtype
