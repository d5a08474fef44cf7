# Reference views encoded ahead: the keys and values of their tokens in every mixing block.
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReferenceMemory:
    """Keys and values [B,R,heads,tokens,d] for each mixing block, None for the others."""

    blocks: tuple[tuple[Tensor, Tensor] | None, ...]
    batch: int
    references: int
    size: tuple[int, int]
    """Height and width of the reference images."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All keys and values, block after block."""
        return tuple(t for block in self.blocks if block is not None for t in block)

    def segments(self, block: int, lengths: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """A mixing block's keys and values [B,heads,l,d] by the number of the segment in
        `views_by_scale` (of which view 0 is the render): l tokens of one scale of one reference."""
        keys, values = (t.split(tuple(lengths), 3) for t in self.blocks[block])
        return {
            (reference + 1) * len(lengths) + scale: (k[:, reference], v[:, reference])
            for scale, (k, v) in enumerate(zip(keys, values, strict=True))
            for reference in range(self.references)
        }

    @classmethod
    def of(
        cls, tensors: Sequence[Tensor], mixes: Sequence[bool], size: tuple[int, int]
    ) -> "ReferenceMemory":
        """The memory whose `tensors` these are, of a model whose blocks mix like this."""
        given = iter(tensors)
        blocks = tuple((next(given), next(given)) if mixing else None for mixing in mixes)
        return cls(blocks, *tensors[0].shape[:2], size)

    @classmethod
    def stacked(cls, grid: Sequence[Sequence["ReferenceMemory"]]) -> "ReferenceMemory":
        """Memories of one reference each, as the references (inner) of a batch (outer)."""
        blocks = []
        for i, block in enumerate(grid[0][0].blocks):
            kinds = (0, 1) if block is not None else ()
            joined = tuple(
                torch.cat([torch.cat([m.blocks[i][kind] for m in row], 1) for row in grid])
                for kind in kinds
            )
            blocks.append(joined or None)
        return cls(tuple(blocks), len(grid), len(grid[0]), grid[0][0].size)

    def __getitem__(self, samples: slice) -> "ReferenceMemory":
        """The memory of some samples of the batch."""
        mixes = [block is not None for block in self.blocks]
        return self.of([t[samples] for t in self.tensors], mixes, self.size)
