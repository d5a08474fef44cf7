# Public names of a package whose modules load at first use (PEP 562).
from __future__ import annotations

from collections.abc import Callable
from importlib import import_module


def exports(**modules: str) -> Callable[[str], object]:
    """A package's `__getattr__`; modules: public name -> module that defines it.

    The returned function raises AttributeError, listing the public names, for any other name.
    """

    def __getattr__(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"no public name {name!r} here; there are {', '.join(modules)}")
        return getattr(import_module(modules[name]), name)

    return __getattr__
