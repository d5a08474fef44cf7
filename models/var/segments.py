# A token sequence as segments and who sees whom; masks and the order of cached decoding follow
# from it.
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

RefAttends = Literal["all", "self"]


@dataclass(frozen=True)
class Segment:
    """Tokens that see the same tokens: one scale of one view."""

    view: int
    scale: int
    length: int


@dataclass(frozen=True)
class TokenSequence:
    """Segments in the order of the sequence, and sees[i][j]: whether segment i's tokens see
    segment j's."""

    segments: tuple[Segment, ...]
    sees: tuple[tuple[bool, ...], ...]

    @property
    def length(self) -> int:
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
        reach = torch.tensor(self.sees)
        for _ in self.segments:
            reach = reach | ((reach.float() @ reach.float()) > 0)
        order = sorted(range(len(self.segments)), key=lambda i: int(reach[i].sum()))
        steps: list[list[int]] = []
        for i in order:
            home = next((step for step in steps if reach[i, step[0]] and reach[step[0], i]), None)
            if home is None:
                steps.append([i])
            else:
                home.append(i)
        return tuple(tuple(sorted(step)) for step in steps)


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
