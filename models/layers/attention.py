# The one attention core: softmax(q k^T * scale) v, on whichever kernel is fastest for the tensors
# in hand.
from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:  # loading FlexAttention takes a third of what torch takes
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 256  # queries of `rounded_attention`

try:  # optional: needs a CUDA compiler to install
    from flash_attn import flash_attn_func
except ImportError:
    flash_attn_func = None


@lru_cache(maxsize=1)
def compiled_flex():
    """FlexAttention, compiled at its first use."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | BlockMask | None = None,
    scale: float = 1.0,
    *,
    small: bool = False,
) -> Tensor:
    """Attention of q [B,H,L,d] to k, v [B,H,M,d]: [B,H,L,d] in q's type.

    `mask` is True where a query sees a key ([L,M] or broadcastable to [B,H,L,M]), a FlexAttention
    BlockMask (CUDA), or None where every query sees every key. Softmax is in float32 or better;
    `small`: logits are of a few units, so that they may be rounded to q's type before it.
    """
    if mask is not None and not isinstance(mask, Tensor):
        return compiled_flex()(q, k, v, block_mask=mask, scale=scale)
    if mask is None and flash_is_faster(q):
        out = flash_attn_func(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), softmax_scale=scale
        )
        return out.transpose(1, 2)
    if small and mask is None and is_bf16_on_cpu(q, k):
        return rounded_attention(q, k, v, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def is_bf16_on_cpu(q: Tensor, k: Tensor) -> bool:
    """Whether both are; torch's own kernel multiplies them in float32 there."""
    return q.device.type == "cpu" and q.dtype == k.dtype == torch.bfloat16


def rounded_attention(q: Tensor, k: Tensor, v: Tensor, scale: float = 1.0) -> Tensor:
    """`attention` of every query to every key whose logits are rounded to q's type.

    Without gradients and with many keys some queries of one head at a time, whose logits the
    processor's cache holds."""
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    if learns or k.shape[2] < 2 * BLOCK:
        with torch.autocast(q.device.type, enabled=False):  # it would take the softmax for float32
            return ((q * scale) @ k.transpose(-1, -2)).softmax(-1) @ v
    q, out = q * scale, q.new_empty(q.shape)
    for b, h in itertools.product(range(q.shape[0]), range(q.shape[1])):
        keys = k[b, h].T
        for start in range(0, q.shape[2], BLOCK):
            part = slice(start, start + BLOCK)
            weights = torch.mm(q[b, h, part], keys).softmax(-1)
            torch.mm(weights, v[b, h], out=out[b, h, part])
    return out


def flash_is_faster(q: Tensor) -> bool:
    """Whether flash-attn is here and takes q: half precision on CUDA (SDPA's own flash kernel is
    its elder)."""
    return flash_attn_func is not None and q.is_cuda and q.dtype in (torch.float16, torch.bfloat16)


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    """The formula written out: the twin that the tests hold `attention` to."""
    scores = q @ k.transpose(-1, -2) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v
