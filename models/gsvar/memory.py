# What is kept of reference views: the keys and values of their tokens in every mixing block.
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
        blocks = tuple(kv and (kv[0][samples], kv[1][samples]) for kv in self.blocks)
        batch = len(range(*samples.indices(self.batch)))
        return ReferenceMemory(blocks, batch, self.references, self.size)
