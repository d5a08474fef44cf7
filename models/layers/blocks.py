# Transformer blocks, put together from attention, feed-forward and norm: modulated by a condition
# (AdaLN, arXiv 2212.09748) or plain (pre-norm).
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.multihead import Attend, CrossAttention, SelfAttention

# B batch, V view, L and M tokens, C channels, H heads, d channels a head
EPS = 1e-6


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm of x [...,C] without affine, then x (1 + scale) + shift (AdaLN)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)


class GEGLU(nn.Module):
    """[...,2C] -> [...,C]: the first half times GELU (erf) of the second (arXiv 2002.05202)."""

    def forward(self, x: Tensor) -> Tensor:
        """x [...,2C] -> [...,C]."""
        value, gate = x.chunk(2, -1)
        return value * F.gelu(gate)


Activation = Literal["gelu", "gelu_tanh", "geglu"]
ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "gelu": (nn.GELU, 1),
    "gelu_tanh": (partial(nn.GELU, approximate="tanh"), 1),
    "geglu": (GEGLU, 2),
}
"""The module, and how many times the hidden width it takes."""


class FeedForward(nn.Sequential):
    """Linear, activation, Linear: [...,C] -> [...,C]."""

    def __init__(self, width: int, hidden: int, activation: Activation = "gelu", bias: bool = True):
        build, times = ACTIVATIONS[activation]
        super().__init__(
            nn.Linear(width, times * hidden, bias=bias),
            build(),
            nn.Linear(hidden, width, bias=bias),
        )


class AdaLN(nn.Sequential):
    """Condition [...,C] -> `chunks` modulation vectors [...,chunks,C]."""

    def __init__(self, width: int, chunks: int):
        super().__init__(nn.SiLU(), nn.Linear(width, chunks * width))
        self.chunks = chunks

    def forward(self, condition: Tensor) -> Tensor:
        """Condition [...,C] -> [...,chunks,C]."""
        return super().forward(condition).unflatten(-1, (self.chunks, -1))


class AdaLNBlock(nn.Module):
    """Self-attention and feed-forward, each scaled, shifted and gated by a condition (VAR's block).

    The six modulation vectors come from outside, so that inference can compute them once. shared:
    they come from one AdaLN for all blocks, and this block adds an offset. drop_path: probability
    with which training leaves a branch of a sample out.
    """

    def __init__(
        self,
        width: int,
        attention: SelfAttention,
        mlp: nn.Module,
        *,
        drop_path: float = 0.0,
        shared: bool = False,
    ):
        super().__init__()
        self.attention, self.mlp, self.drop_path = attention, mlp, drop_path
        if shared:
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
        drop_path_noise: Tensor | None = None,
    ) -> Tensor:
        """x [B,V,L,C] -> the same; `modulation` [B or 1,V,6,C] is the same for all tokens of a
        view; `drop_path_noise` [B,2] in [0,1) decides on the two branches in training, else
        torch's own draws."""
        noise1, noise2 = (None, None) if drop_path_noise is None else drop_path_noise.unbind(-1)
        gate1, gate2, scale1, scale2, shift1, shift2 = modulation.unsqueeze(-3).unbind(-2)
        h = self.attention(modulate(x, scale1, shift1), rope, attend)
        x = torch.addcmul(x, self.drop(h, noise1), gate1)
        h = self.mlp(modulate(x, scale2, shift2))
        return torch.addcmul(x, self.drop(h, noise2), gate2)

    def drop(self, h: Tensor, noise: Tensor | None) -> Tensor:
        """Stochastic depth (arXiv 1603.09382) of a branch h [B,...]: a sample's whole branch, all
        views together, now and then; noise [B] in [0,1)."""
        if not self.training or self.drop_path == 0:
            return h
        if noise is None:
            noise = torch.rand(h.shape[0], device=h.device)
        keep = 1 - self.drop_path
        factor = (noise < keep).to(h.dtype) / keep
        return h * factor.view(-1, *[1] * (h.dim() - 1))


class PreNormBlock(nn.Module):
    """x + attention(norm(x)), then, with `cross`, x + cross(norm(x), context), then
    x + mlp(norm(x)).

    norm: makes a norm of a width: nn.LayerNorm, or a partial of it with other eps, without affine
    (elementwise_affine=False) or without bias (bias=False).
    """

    def __init__(
        self,
        width: int,
        attention: SelfAttention,
        mlp: nn.Module,
        *,
        cross: CrossAttention | None = None,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
    ):
        super().__init__()
        self.norm1, self.attention = norm(width), attention
        self.norm_cross = None if cross is None else norm(width)
        self.cross = cross
        self.norm2, self.mlp = norm(width), mlp

    def forward(
        self,
        x: Tensor,
        context: tuple[Tensor, Tensor] | None = None,
        *,
        rope: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """x [B,...,L,C] -> the same; `context`: keys and values [B,H,M,d] for `cross`, as its
        `project` or a `SlotCache` gives them."""
        x = x + self.attention(self.norm1(x), rope, attend)
        if self.cross is not None:
            x = x + self.cross(self.norm_cross(x), *context)
        return x + self.mlp(self.norm2(x))
