# A plain U-Net as a fixer: a baseline.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from fixers.unet.fixer import UNetFixer
    from fixers.unet.options import UNetOptions

__all__ = ["UNetFixer", "UNetOptions"]

__getattr__ = exports(UNetFixer="fixers.unet.fixer", UNetOptions="fixers.unet.options")
