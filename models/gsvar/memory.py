# What is kept of reference views: the keys and values of their tokens in every mixing block.
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ReferenceMemory:
    """Keys and values [B,R,heads,tokens,d] for each mixing block, None for the others."""

    blocks: tuple[tuple[Tensor, Tensor] | None, ...]
    batch: int
    references: int
    size: tuple[int, int]
    """Height and width of the reference images."""

    def __getitem__(self, samples: slice) -> "ReferenceMemory":
        """The memory of some samples of the batch."""
        blocks = tuple(kv and (kv[0][samples], kv[1][samples]) for kv in self.blocks)
        batch = len(range(*samples.indices(self.batch)))
        return ReferenceMemory(blocks, batch, self.references, self.size)
