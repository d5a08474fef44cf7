# Fixers: renders and reference photos in, fixed renders out, behind one call.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from fixers.fixer import Fixer
    from fixers.registry import NAMES, load

__all__ = [
    "NAMES",
    "Fixer",
    "load",
]

__getattr__ = exports(
    Fixer="fixers.fixer",
    NAMES="fixers.registry",
    load="fixers.registry",
)
