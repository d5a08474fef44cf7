# References encoded once: their keys and values, kept between calls.
from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from models.gsvar.memory import ReferenceMemory

Encode = Callable[[Tensor], tuple[Tensor, ...]]
"""Keys and values of references [B,1,3,h,w], block after block."""


class ReferenceMemories:
    """Memories of reference pictures, each encoded once; the `keep` last used ones are kept.

    encode: see `Encode`; mixes: which of the transformer's blocks mix render and references.
    """

    def __init__(self, encode: Encode, mixes: Sequence[bool], keep: int):
        self.encode, self.mixes, self.keep = encode, mixes, keep
        self._memories: OrderedDict[tuple, ReferenceMemory] = OrderedDict()

    def __len__(self) -> int:
        return len(self._memories)

    def __call__(self, references: Tensor) -> ReferenceMemory:
        """The memory of references [B,R,3,h,w]."""
        keys = [[fingerprint(picture) for picture in row] for row in references]
        flat_keys = [key for row in keys for key in row]
        named = zip(flat_keys, references.flatten(0, 1), strict=True)
        new = {key: picture for key, picture in named if key not in self._memories}
        if new:
            pictures = torch.stack(list(new.values()))[:, None]
            tensors = self.encode(pictures)
            for i, key in enumerate(new):
                own = [t[i : i + 1].clone() for t in tensors]
                self._memories[key] = self.unpack(own, pictures)
        grid = [[self._memories[key] for key in row] for row in keys]
        for key in flat_keys:
            self._memories.move_to_end(key)
        while len(self._memories) > max(1, self.keep):
            self._memories.popitem(last=False)
        return ReferenceMemory.stacked(grid)

    def unpack(self, tensors: Sequence[Tensor], images: Tensor) -> ReferenceMemory:
        """The memory that these keys and values are of, for images [...,H,W]."""
        return ReferenceMemory.of(tensors, self.mixes, tuple(images.shape[-2:]))

    def clear(self) -> None:
        """Forget all, after weights moved or changed."""
        self._memories.clear()


def fingerprint(picture: Tensor) -> tuple[bytes, tuple[int, ...]]:
    """A key that differs between pictures."""
    data = picture.cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(data, digest_size=16).digest(), tuple(picture.shape)
