# Errors of library functions whose arguments a command line knows by other names.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ArgumentError(ValueError):
    """A function's argument that does not fit; in `text`, {argument} stands for its name."""

    def __init__(self, text: str, argument: str):
        super().__init__(text.replace("{argument}", argument))
        self.text, self.argument = text, argument


@contextmanager
def naming_flags(**flags: str) -> Iterator[None]:
    """Within this block an ArgumentError names the user's flag: naming_flags(depth="--depth")."""
    try:
        yield
    except ArgumentError as error:
        if error.argument not in flags:
            raise
        raise ValueError(error.text.replace("{argument}", flags[error.argument])) from None
