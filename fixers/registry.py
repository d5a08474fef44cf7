# Fixers by name.
from __future__ import annotations

import difflib

from fixers.baselines import Classical, Identity
from fixers.fixer import Fixer
from fixers.gsvar import GSVARFixer

_KINDS = {"gsvar": GSVARFixer.load, "identity": Identity, "classical": Classical}
NAMES = tuple(_KINDS)


def load(name: str, **options: object) -> Fixer:
    """The fixer of that name; `options` are its own (see fixers/gsvar.py, fixers/baselines.py).

    Raises ValueError for an unknown name or option, and what loading the weights raises.
    """
    if name not in _KINDS:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no fixer {name!r}: use {', '.join(NAMES)}{hint}")
    try:
        return _KINDS[name](**options)
    except TypeError as error:
        if any(text in str(error) for text in ("unexpected keyword", "required", "no arguments")):
            raise ValueError(f"fixer {name!r}: {error}") from None
        raise
