# A room's public names without the cost of loading all of it (PEP 562).
from __future__ import annotations

from collections.abc import Callable
from importlib import import_module


def exports(**modules: str) -> Callable[[str], object]:
    """A package's `__getattr__`: each name is looked up in its module at its first use."""

    def __getattr__(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"no public name {name!r} here; there are {', '.join(modules)}")
        return getattr(import_module(modules[name]), name)

    return __getattr__
