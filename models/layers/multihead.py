# Multi-head attention: of tokens to themselves, whoever sees whom, and to a context.
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.attention import attention
from models.layers.qk_norm import QKNorm, ScaledDot
from models.layers.rope import rotate

# B batch, L and M tokens, C channels, H heads, d channels a head
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v [...,L,H,d] -> [...,L,H,d]: who sees whom, and from which cache, is the caller's."""


def attend_all(q: Tensor, k: Tensor, v: Tensor, *, small: bool = False) -> Tensor:
    """Every token of q [...,L,H,d] sees every one of k and v [...,M,H,d], samples apart: q's
    shape. small: as in `attention`."""
    flat = (t.flatten(0, -4).transpose(1, 2) for t in (q, k, v))
    return attention(*flat, small=small).transpose(1, 2).reshape(q.shape)


class MultiHead(nn.Module):
    """What self and cross attention share: heads, the norm of queries and keys with its
    parameters."""

    def __init__(self, width: int, heads: int, qk_norm: QKNorm):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} does not split into {heads} heads")
        self.heads, self.head_dim, self.qk_norm = heads, width // heads, qk_norm

    def add_norm_parameters(self) -> None:
        """Register the norm's parameters as this module's own."""
        created = self.qk_norm.create(self.heads, self.head_dim)
        self.norm_names = tuple(created)
        for name, value in created.items():
            self.register_parameter(name, nn.Parameter(value))

    @property
    def norm_parameters(self) -> dict[str, Tensor]:
        """The norm's parameters, by name."""
        return {name: getattr(self, name) for name in self.norm_names}


class SelfAttention(MultiHead):
    """Attention of tokens to tokens of their own sequence.

    qv_bias: learned biases of queries and values, none of keys (which the softmax would cancel).
    proj_bias: one of the output.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        qk_norm: QKNorm = ScaledDot(),  # noqa: B008 (frozen)
        *,
        qv_bias: bool = True,
        proj_bias: bool = True,
    ):
        super().__init__(width, heads, qk_norm)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if qv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if qv_bias else None
        self.proj = nn.Linear(width, width, bias=proj_bias)
        self.add_norm_parameters()

    def forward(
        self, x: Tensor, rope: Tensor | None = None, attend: Attend | None = None
    ) -> Tensor:
        """x [...,L,C] -> the same; rope [2,L,d/2] (see `rope_table`), None: no positions. attend:
        who sees whom (default: every token every one)."""
        bias = None
        if self.q_bias is not None:
            bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, self.head_dim)).unbind(-3)
        q = self.qk_norm.queries(q, self.norm_parameters)
        k = self.qk_norm.keys(k, self.norm_parameters)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        q, k = q.to(v.dtype), k.to(v.dtype)  # autocast leaves norms in float32
        if attend is None:
            attend = partial(attend_all, small=self.qk_norm.small)
        return self.proj(attend(q, k, v).flatten(-2))


class CrossAttention(MultiHead):
    """Attention of tokens to all of a context, whose keys and values can be computed ahead, kept
    and joined (`SlotCache`)."""

    def __init__(
        self,
        width: int,
        heads: int,
        qk_norm: QKNorm = ScaledDot(),  # noqa: B008 (frozen)
        *,
        context_width: int | None = None,
        qkv_bias: bool = False,
        proj_bias: bool = True,
    ):
        super().__init__(width, heads, qk_norm)
        self.q = nn.Linear(width, width, bias=qkv_bias)
        self.kv = nn.Linear(context_width or width, 2 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width, bias=proj_bias)
        self.add_norm_parameters()

    def project(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys, normalised, and values [B,H,M,d] of a context [B,M,C']."""
        k, v = self.kv(context).unflatten(-1, (2, self.heads, self.head_dim)).unbind(-3)
        k = self.qk_norm.keys(k, self.norm_parameters)
        return k.to(v.dtype).transpose(1, 2), v.transpose(1, 2)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """x [B,...,C] -> the same: each sample's tokens see all of its keys and values
        [B,H,M,d]."""
        q = self.q(x.flatten(1, -2)).unflatten(-1, (self.heads, self.head_dim))
        q = self.qk_norm.queries(q, self.norm_parameters)
        q = q.to(keys.dtype).transpose(1, 2)
        out = attention(q, keys, values, small=self.qk_norm.small)
        return self.proj(out.transpose(1, 2).flatten(-2)).view(x.shape)
