# The next-scale transformer: a stack of blocks, and the ways to attend: masked or by scale
# (training), cached (decoding).
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers.attention import attention
from models.layers.blocks import AdaLN, AdaLNBlock, FeedForward
from models.layers.multihead import Attend, SelfAttention
from models.layers.qk_norm import ScaledDot, UnitNorm
from models.layers.slot_cache import SlotCache
from models.var.segments import RefAttends, Step, TokenSequence

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class Transformer(nn.Module):
    """`depth` blocks; those in `mixing_blocks` let the views see each other, the others keep them
    apart."""

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        *,
        mixing_blocks: Sequence[int] | None = None,
        qk_norm: bool = True,
        drop_path: float = 0.0,
        shared_adaln: bool = False,
    ):
        super().__init__()
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(
            AdaLNBlock(
                width,
                SelfAttention(width, heads, UnitNorm() if qk_norm else ScaledDot(1 / 4)),
                FeedForward(width, 4 * width, "gelu_tanh"),
                drop_path=rate,
                shared=shared_adaln,
            )
            for rate in rates
        )
        self.shared_adaln = AdaLN(width, 6) if shared_adaln else None
        self.checkpointing = False
        mixing = range(depth) if mixing_blocks is None else mixing_blocks
        self.mixes = tuple(i in mixing for i in range(depth))

    def modulations(self, condition: Tensor) -> list[Tensor]:
        """Each block's modulation [...,6,C] for conditions [...,C]."""
        shared = None if self.shared_adaln is None else self.shared_adaln(condition)
        return [block.modulation(condition, shared) for block in self.blocks]

    def forward(
        self,
        x: Tensor,
        modulations: Sequence[Tensor],
        rope: Tensor,
        attends: Sequence[Attend],
        drop_path_noise: Tensor | None = None,
    ) -> Tensor:
        """x [B,V,L,C] through all blocks, block i attending by attends[i]; with `checkpointing`
        their inner activations are computed again in the backward pass. `drop_path_noise`
        [B,depth,2]: see AdaLNBlock."""
        recompute = self.checkpointing and torch.is_grad_enabled()
        noises = [None] * len(self.blocks) if drop_path_noise is None else drop_path_noise.unbind(1)
        for block, *own in zip(self.blocks, modulations, attends, noises, strict=True):
            modulation, attend, noise = own
            if recompute:
                x = checkpoint(block, x, modulation, rope, attend, noise, use_reentrant=False)
            else:
                x = block(x, modulation, rope, attend, noise)
        return x


class Masked:
    """Attends over whole sequences under a mask: over all views jointly if `mixing`, else each
    view alone."""

    def __init__(self, mask: Tensor | BlockMask | None, mixing: bool):
        self.mask, self.mixing = mask, mixing

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        views, pattern = (
            q.shape[1],
            "b v l h d -> b h (v l) d" if self.mixing else "b v l h d -> (b v) h l d",
        )
        back = "b h (v l) d -> b v l h d" if self.mixing else "(b v) h l d -> b v l h d"
        q, k, v = (rearrange(t, pattern) for t in (q, k, v))
        return rearrange(attention(q, k, v, self.mask), back, v=views)


class ByScale:
    """The same as `Masked` with the mask of `views_by_scale`, computed without a mask: each scale's
    tokens attend to what they see, less than half of all, on kernels that cannot skip blocks."""

    def __init__(self, lengths: Sequence[int], ref_attends: RefAttends, mixing: bool):
        self.lengths, self.ref_attends, self.mixing = tuple(lengths), ref_attends, mixing

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.mixing or q.shape[1] == 1:
            return self.apart(q, k, v)
        everything = [self.interleave(t) for t in (k, v)]
        if self.ref_attends == "all":
            return self.by_view(self.causal(self.interleave(q), *everything), q.shape[1])
        render = self.causal(rearrange(q[:, :1], "b v l h d -> b h (v l) d"), *everything)
        render = rearrange(render, "b h l d -> b 1 l h d")
        return torch.cat((render, self.apart(q[:, 1:], k[:, 1:], v[:, 1:])), 1)

    def apart(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each view by itself."""
        flat = (rearrange(t, "b v l h d -> (b v) h l d") for t in (q, k, v))
        return rearrange(self.causal(*flat), "(b v) h l d -> b v l h d", v=q.shape[1])

    def causal(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k and v [B,H,*,d] with any number of views, scale by scale."""
        views = [t.shape[2] // sum(self.lengths) for t in (q, k)]
        parts, start, end = [], 0, 0
        for length in self.lengths:
            end += views[1] * length
            stop = start + views[0] * length
            parts.append(attention(q[:, :, start:stop], k[:, :, :end], v[:, :, :end]))
            start = stop
        return torch.cat(parts, 2)

    def interleave(self, x: Tensor) -> Tensor:
        """[B,V,L,H,d] -> [B,H,V*L,d], scale after scale, and within a scale view after view."""
        parts = x.split(self.lengths, 2)
        return torch.cat([rearrange(p, "b v l h d -> b h (v l) d") for p in parts], 2)

    def by_view(self, x: Tensor, views: int) -> Tensor:
        """The inverse of `interleave`."""
        parts = x.split([views * length for length in self.lengths], 2)
        return torch.cat([rearrange(p, "b h (v l) d -> b v l h d", v=views) for p in parts], 2)


class Recording(ByScale):
    """The same for single views, whose keys and values [B,H,L,d] it records."""

    keys: Tensor
    values: Tensor

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.keys, self.values = (t[:, 0].transpose(1, 2).contiguous() for t in (k, v))
        return super().__call__(q, k, v)


class Cached:
    """Attends from one step's tokens to all that a cache holds by then: what earlier steps
    computed, what this one computes and what it recalls of segments known ahead.

    sequence: of the views that share a cache; steps: its `plan_decoding`. `known` holds the keys
    and values [B or 1,H,l,d] of the segments known ahead, by number. Without `mixing` each view is
    alone: then they are batch.
    """

    def __init__(
        self,
        cache: SlotCache,
        sequence: TokenSequence,
        steps: Sequence[Step],
        mixing: bool,
        known: Mapping[int, tuple[Tensor, Tensor]] | None = None,
    ):
        self.cache, self.steps, self.mixing, self.known = cache, steps, mixing, known or {}
        self.lengths = [segment.length for segment in sequence.segments]

    def begin(self, number: int) -> None:
        """Make room for a step's tokens and recall what it is the first to see; before its call."""
        step = self.steps[number]
        length = sum(self.lengths[i] for i in step.computed)
        self.slot = self.cache.reserve(("step", number), length)
        for i in step.recalled:
            self.cache.add(i, *self.known[i])
        self.end = self.cache.length

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        views, pattern = (
            q.shape[1],
            "b v l h d -> b h (v l) d" if self.mixing else "b v l h d -> (b v) h l d",
        )
        back = "b h (v l) d -> b v l h d" if self.mixing else "(b v) h l d -> b v l h d"
        q, k, v = (rearrange(t, pattern) for t in (q, k, v))
        self.cache.write(self.slot, k, v)
        keys, values = self.cache.keys[:, :, : self.end], self.cache.values[:, :, : self.end]
        return rearrange(attention(q, keys, values), back, v=views)
