# A preallocated key/value cache for decoding scale by scale: written in place, read as a prefix.
from dataclasses import dataclass

import torch
from torch import Tensor

from models.layers.attention import attention


@dataclass
class KVCache:
    """Keys and values of one block, [B, heads, capacity, d] each.

    Attending at `start` writes the new tokens' keys and values there and lets them see all up to
    their own end: whatever else lies before `start` (a reference's keys, put there by `write`) is
    seen too.
    """

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(
        cls,
        batch: int,
        heads: int,
        capacity: int,
        head_dim: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> "KVCache":
        """Room for `capacity` tokens."""
        shape = batch, heads, capacity, head_dim
        return cls(
            torch.empty(shape, device=device, dtype=dtype),
            torch.empty(shape, device=device, dtype=dtype),
        )

    def write(self, keys: Tensor, values: Tensor, start: int) -> None:
        """Put keys and values [B or 1, heads, L, d] at `start`."""
        end = start + keys.shape[2]
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values

    def attend(self, q: Tensor, k: Tensor, v: Tensor, start: int, end: int) -> Tensor:
        """Write k, v at `start`; attention of q to everything before `end`: [B, heads, L, d]."""
        self.write(k, v, start)
        return attention(q, self.keys[:, :, :end], self.values[:, :, :end])
