# A plain U-Net as a fixer, a baseline: its options, light to import, and what builds it.
from __future__ import annotations

from typing import TYPE_CHECKING

from fixers.unet.options import UNetOptions
from runtime.lazy import exports

if TYPE_CHECKING:
    import torch

    from fixers.unet.fixer import UNetFixer

__all__ = ["UNetFixer", "UNetOptions", "build"]

__getattr__ = exports(__path__, UNetFixer="fixers.unet.fixer")


def build(options: UNetOptions, device: torch.device | str | None = None) -> UNetFixer:
    """The fixer with its weights on a device, the best by default.

    Raises FileNotFoundError and ValueError for weights that are not there or do not fit.
    """
    from fixers.unet.fixer import UNetFixer

    return UNetFixer.load(options, device)
