# The transformer block of VAR: AdaLN, attention with normalised queries and keys, feed-forward.
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.rope import rotate

# B batch, V view, L tokens, C channels, H heads, d channels a head
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v [B,V,L,H,d] -> [B,V,L,H,d]: who sees whom, and from which cache, is the caller's."""

EPS = 1e-6


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm of x without its own affine, then x (1 + scale) + shift (AdaLN)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)


class SelfAttention(nn.Module):
    """Multi-head attention; q and k have unit length and each head its own learned temperature
    (`qk_norm`)."""

    def __init__(self, width: int, heads: int, qk_norm: bool = True):
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)
        self.log_temperature = (
            nn.Parameter(torch.full((heads,), math.log(4.0))) if qk_norm else None
        )

    def forward(self, x: Tensor, rope: Tensor | None, attend: Attend) -> Tensor:
        """x [B,V,L,C], rope [2,L,d/2]; the views share their positions."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.unflatten(-1, (3, self.heads, self.head_dim)).unbind(-3)
        if self.log_temperature is None:
            q = q * (0.25 * self.head_dim**-0.5)
        else:
            temperature = self.log_temperature.clamp(max=math.log(100.0)).exp()
            q = F.normalize(q, dim=-1) * temperature[:, None]
            k = F.normalize(k, dim=-1)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        q, k = q.to(v.dtype), k.to(v.dtype)  # autocast leaves norms in float32
        return self.proj(attend(q, k, v).flatten(-2))


class FeedForward(nn.Sequential):
    """Linear, GELU (tanh), Linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__(
            nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
        )


class AdaLN(nn.Sequential):
    """Condition [...,C] -> `chunks` modulation vectors [..., chunks, C]."""

    def __init__(self, width: int, chunks: int):
        super().__init__(nn.SiLU(), nn.Linear(width, chunks * width))
        self.chunks = chunks

    def forward(self, condition: Tensor) -> Tensor:
        return super().forward(condition).unflatten(-1, (self.chunks, -1))


class Block(nn.Module):
    """x [B,V,L,C] -> the same. The six modulation vectors come from outside, so that inference
    can fold them."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        qk_norm: bool = True,
        drop_path: float = 0.0,
        shared_adaln: bool = False,
    ):
        super().__init__()
        self.attention = SelfAttention(width, heads, qk_norm)
        self.mlp = FeedForward(width, round(width * mlp_ratio))
        self.drop_path = drop_path
        if shared_adaln:
            self.offset = nn.Parameter(torch.randn(6, width) / width**0.5)
        else:
            self.adaln = AdaLN(width, 6)

    def modulation(self, condition: Tensor, shared: Tensor | None = None) -> Tensor:
        """[...,6,C] from the condition [...,C], or from what all blocks share: gates, scales,
        shifts (two each)."""
        return self.adaln(condition) if shared is None else shared + self.offset

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        rope: Tensor | None,
        attend: Attend,
        coins: Tensor | None = None,
    ) -> Tensor:
        """`modulation` [B or 1,V,6,C] is the same for all tokens of a view; `coins` [B,2] in [0,1)
        decide on the two branches in training, else torch's own draws."""
        coin1, coin2 = (None, None) if coins is None else coins.unbind(-1)
        gate1, gate2, scale1, scale2, shift1, shift2 = modulation.unsqueeze(-3).unbind(-2)
        h = self.attention(modulate(x, scale1, shift1), rope, attend)
        x = torch.addcmul(x, self.drop(h, coin1), gate1)
        h = self.mlp(modulate(x, scale2, shift2))
        return torch.addcmul(x, self.drop(h, coin2), gate2)

    def drop(self, h: Tensor, coins: Tensor | None) -> Tensor:
        """Stochastic depth: the whole branch of a sample, all views together, now and then."""
        if not self.training or self.drop_path == 0:
            return h
        if coins is None:
            coins = torch.rand(h.shape[0], device=h.device)
        keep = 1 - self.drop_path
        factor = (coins < keep).to(h.dtype) / keep
        return h * factor.view(-1, *[1] * (h.dim() - 1))
