# The GS-VAR fixer: its options, light to import, and what builds it.
from __future__ import annotations

from typing import TYPE_CHECKING

from fixers.gsvar.options import SHIPPED, GSVAROptions
from runtime.lazy import exports

if TYPE_CHECKING:
    import torch

    from fixers.gsvar.fixer import GSVARFixer

__all__ = ["SHIPPED", "GSVARFixer", "GSVAROptions", "build"]

__getattr__ = exports(__path__, GSVARFixer="fixers.gsvar.fixer")


def build(options: GSVAROptions, device: torch.device | str | None = None) -> GSVARFixer:
    """The fixer with its weights on a device, the best by default. Raises what loading them
    raises."""
    from fixers.gsvar.fixer import GSVARFixer

    return GSVARFixer.load(options, device)
