# A preallocated cache of keys and values in slots: a slot is a view, a reference, a scale of
# tokens. What is in use is always one contiguous prefix, so attention reads it without a copy.
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.layers.attention import attention


@dataclass
class SlotCache:
    """Keys and values of one attention layer, [B,H,capacity,d] each; slots follow one another in
    the order in which they were added.

    Removing a slot moves those behind it forward: the cache is then, bit for bit, as if it had
    never been added.
    """

    keys: Tensor
    values: Tensor
    slots: dict[Hashable, slice] = field(default_factory=dict)
    """Where each slot's tokens lie, by name."""

    @classmethod
    def empty(
        cls,
        batch: int,
        heads: int,
        capacity: int,
        head_dim: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "SlotCache":
        """Room for `capacity` tokens."""
        shape = batch, heads, capacity, head_dim
        keys, values = (torch.empty(shape, device=device, dtype=dtype) for _ in range(2))
        return cls(keys, values)

    @property
    def capacity(self) -> int:
        """Tokens that there is room for."""
        return self.keys.shape[2]

    @property
    def length(self) -> int:
        """Tokens in use."""
        return next(reversed(self.slots.values())).stop if self.slots else 0

    def reserve(self, name: Hashable, length: int) -> slice:
        """A new slot behind the others, to be filled by `write`. Raises ValueError if there is one
        of that name, or no room."""
        if name in self.slots:
            raise ValueError(f"the cache has a slot {name!r} already: remove it first")
        start = self.length
        if start + length > self.capacity:
            raise ValueError(
                f"the cache has room for {self.capacity} tokens, {start} of them in use: "
                f"no place for {length} more"
            )
        self.slots[name] = slice(start, start + length)
        return self.slots[name]

    def write(self, slot: slice, keys: Tensor, values: Tensor) -> None:
        """Fill a slot with keys and values [B or 1,H,L,d]."""
        self.keys[:, :, slot] = keys
        self.values[:, :, slot] = values

    def add(self, name: Hashable, keys: Tensor, values: Tensor) -> None:
        """A new slot of keys and values [B or 1,H,L,d] behind the others. Raises as `reserve`."""
        self.write(self.reserve(name, keys.shape[2]), keys, values)

    def remove(self, name: Hashable) -> None:
        """Take a slot out; ValueError if there is none of that name."""
        if name not in self.slots:
            raise ValueError(f"the cache has no slot {name!r}, but {list(self.slots)}")
        names = list(self.slots)
        behind = names[names.index(name) + 1 :]
        start = self.slots.pop(name).start
        for other in behind:  # one after the other: no copy is larger than a slot
            old = self.slots[other]
            new = slice(start, start + old.stop - old.start)
            self.write(new, self.keys[:, :, old].clone(), self.values[:, :, old].clone())
            self.slots[other], start = new, new.stop

    def clear(self) -> None:
        """Take all slots out."""
        self.slots.clear()

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values [B,H,length,d] of all slots: views of the cache, no copies."""
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def attend(self, q: Tensor) -> Tensor:
        """Attention of q [B,H,L,d], scaled already, to all slots: [B,H,L,d]."""
        return attention(q, *self.read())
