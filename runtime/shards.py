# Parts of a list, for job arrays that share a folder.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count` parts of a list: every count-th entry."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`; ValueError for anything else."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"--shard {text} must be i/n with i from 1 to n, as 3/8")
        return cls(int(index), int(count))

    def select(self, entries: Sequence[T]) -> Sequence[T]:
        """This part of the entries."""
        return entries[self.index - 1 :: self.count]
