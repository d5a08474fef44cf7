# Public names of a package whose modules load at first use (PEP 562).
from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from pkgutil import iter_modules


def exports(path: Iterable[str], /, **modules: str) -> Callable[[str], object]:
    """A package's `__getattr__`; path: its `__path__`, modules: public name -> module with it.

    The returned function raises AttributeError, listing the public names, for any other name.
    ImportError for a public name that a submodule of the package has: once that is loaded, the name
    would be the module.
    """
    submodules = {module.name for module in iter_modules(path)}
    for name in modules:
        if name in submodules:
            raise ImportError(
                f"the public name {name!r} is that of a submodule too, which would hide it once it "
                f"is loaded; rename {name} or the module"
            )

    def __getattr__(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"no public name {name!r} here; there are {', '.join(modules)}")
        return getattr(import_module(modules[name]), name)

    return __getattr__
