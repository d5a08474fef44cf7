# Fixers: renders and reference photos in, fixed renders out, behind one call.
import scenes  # noqa: F401  (first, before torch loads: it sets how threads wait)
from fixers.call import Fixer
from fixers.registry import NAMES, load

__all__ = ["NAMES", "Fixer", "load"]
