# Fixers by name. A new fixer has a file of its own, or a folder, with its options (a frozen
# dataclass, importable without torch) and a function that builds it, and a line here: all command
# lines then have it and its flags.
from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from fixers import baselines, gsvar, unet
from fixers.fixer import Fixer, FixerOptions

if TYPE_CHECKING:
    import torch

FIXERS: dict[str, tuple[type[FixerOptions], Callable[..., Fixer]]] = {
    "gsvar": (gsvar.GSVAROptions, gsvar.build),
    "unet": (unet.UNetOptions, unet.build),
    "identity": (baselines.IdentityOptions, baselines.build_identity),
    "classical": (baselines.ClassicalOptions, baselines.build_classical),
}
NAMES = tuple(FIXERS)


def load(name: str, *, device: torch.device | str | None = None, **options: object) -> Fixer:
    """The fixer of that name on a device, the best by default; `options` are fields of its options
    dataclass.

    Raises ValueError for an unknown name or option, and what loading the weights raises.
    """
    if name not in FIXERS:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no fixer {name!r}: use {', '.join(NAMES)}{hint}")
    kind, build = FIXERS[name]
    known = [f.name for f in fields(kind)]
    for option in options:
        if option not in known:
            has = ", ".join(known) or "none"
            raise ValueError(f"the fixer {name!r} has no option {option} (it has {has})")
    return build(kind(**options), device)
