# Fixers: renders and reference photos in, fixed renders out, behind one call.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from fixers.fixer import Fixer, Needs
    from fixers.registry import FIXERS, NAMES, load

__all__ = ["FIXERS", "NAMES", "Fixer", "Needs", "load"]

__getattr__ = exports(
    __path__,
    Fixer="fixers.fixer",
    Needs="fixers.fixer",
    FIXERS="fixers.registry",
    NAMES="fixers.registry",
    load="fixers.registry",
)
