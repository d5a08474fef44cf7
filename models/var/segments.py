# A token sequence as segments and who sees whom; masks and the order of cached decoding follow
# from it.
from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

RefAttends = Literal["all", "self"]


@dataclass(frozen=True)
class Segment:
    """Tokens that see the same tokens: one scale of one view."""

    view: int
    scale: int
    length: int


@dataclass(frozen=True)
class Step:
    """One step of decoding with a cache of keys and values; its numbers are segments'."""

    computed: tuple[int, ...]
    """What goes through the network together."""
    recalled: tuple[int, ...]
    """What it is the first to see of that which is known ahead."""


@dataclass(frozen=True)
class TokenSequence:
    """Segments in the order of the sequence, and sees[i][j]: whether segment i's tokens see
    segment j's."""

    segments: tuple[Segment, ...]
    sees: tuple[tuple[bool, ...], ...]

    @property
    def length(self) -> int:
        """Tokens of all segments."""
        return sum(segment.length for segment in self.segments)

    def segment_ids(self, device: torch.device | str = "cpu") -> Tensor:
        """The segment of each token, int64 [L]."""
        lengths = torch.tensor([segment.length for segment in self.segments], device=device)
        return torch.arange(len(self.segments), device=device).repeat_interleave(lengths)

    def dense_mask(self, device: torch.device | str = "cpu") -> Tensor:
        """[L,L] bool, True where the row's token sees the column's."""
        ids = self.segment_ids(device)
        return torch.tensor(self.sees, device=device)[ids][:, ids]

    def block_mask(self, device: torch.device | str) -> BlockMask:
        """The same for FlexAttention, which skips the blocks that nobody sees."""
        from torch.nn.attention.flex_attention import create_block_mask

        ids, sees = self.segment_ids(device), torch.tensor(self.sees, device=device)

        def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return sees[ids[q], ids[k]]

        return create_block_mask(visible, None, None, self.length, self.length, device=device)

    @cached_property
    def steps(self) -> tuple[tuple[int, ...], ...]:
        """Segments that must be computed together, in an order in which each step sees itself and
        the past only.

        A step is a set of segments that see each other, directly or through others.
        """
        count = len(self.segments)
        reach = [sum(1 << j for j, seen in enumerate(row) if seen) for row in self.sees]
        for k in range(count):  # Warshall's closure, rows as bits
            reach = [row | reach[k] if row >> k & 1 else row for row in reach]
        order = sorted(range(count), key=lambda i: reach[i].bit_count())
        steps: list[list[int]] = []
        for i in order:
            home = next(
                (step for step in steps if reach[i] >> step[0] & reach[step[0]] >> i & 1), None
            )
            if home is None:
                steps.append([i])
            else:
                home.append(i)
        return tuple(tuple(sorted(step)) for step in steps)

    def plan_decoding(self, known: Collection[int] = ()) -> tuple[Step, ...]:
        """The steps that compute all segments but the `known` ones, whose keys and values are
        there already.

        A cache that takes in, step after step, what is computed and recalled holds just what the
        step sees, so that no mask is needed. Raises ValueError for a sequence where that is not
        so: where a step would have to overlook a part of the past.
        """
        cached: set[int] = set()
        plan = []
        for step in self.steps:
            computed = tuple(i for i in step if i not in known)
            if not computed:
                continue
            seen = {j for j, visible in enumerate(self.sees[computed[0]]) if visible}
            recalled = tuple(sorted(seen - cached - set(computed)))
            cached |= {*computed, *recalled}
            views = [{j for j, visible in enumerate(self.sees[i]) if visible} for i in computed]
            if any(view != cached for view in views) or not set(recalled) <= set(known):
                raise ValueError(f"segments {computed} do not see all that was decoded before")
            plan.append(Step(computed, recalled))
        return tuple(plan)


def views_by_scale(
    lengths: Sequence[int], views: int = 1, ref_attends: RefAttends = "all", mixing: bool = True
) -> TokenSequence:
    """The views one after the other, each with its scales, coarse to fine; view 0 is the render.

    A token sees the scales up to its own (both ways within a scale): of every view
    (`ref_attends="all"`, as GS-VAR), or, if it is a reference's, of its own view only ("self").
    Without `mixing` each view is alone.
    """
    segments = tuple(Segment(v, s, n) for v in range(views) for s, n in enumerate(lengths))

    def visible(q: Segment, k: Segment) -> bool:
        crosses = mixing and (q.view == 0 or ref_attends == "all")
        return q.scale >= k.scale and (q.view == k.view or crosses)

    return TokenSequence(segments, tuple(tuple(visible(q, k) for k in segments) for q in segments))
