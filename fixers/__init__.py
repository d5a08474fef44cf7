# Fixers: renders and reference photos in, fixed renders out, behind one call.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from fixers.call import Fixer
    from fixers.registry import NAMES, load

__all__ = [
    "NAMES",
    "Fixer",
    "load",
]

__getattr__ = exports(
    Fixer="fixers.call",
    NAMES="fixers.registry",
    load="fixers.registry",
)
