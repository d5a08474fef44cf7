# The GS-VAR fixer.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from fixers.gsvar.fixer import GSVARFixer
    from fixers.gsvar.options import SHIPPED, GSVAROptions

__all__ = ["SHIPPED", "GSVARFixer", "GSVAROptions"]

__getattr__ = exports(
    GSVARFixer="fixers.gsvar.fixer",
    SHIPPED="fixers.gsvar.options",
    GSVAROptions="fixers.gsvar.options",
)
