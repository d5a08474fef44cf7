# What is done to queries and keys before they meet. The softmax that follows has no scale of its
# own: it is applied to the queries here.
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# H heads, d channels a head


class QKNorm(Protocol):
    """A way to normalise queries and keys; its parameters belong to the attention that uses it, so
    that they have the attention's names in checkpoints.

    small: whether logits are of a few units only (`models.layers.attention.attention`)."""

    small: ClassVar[bool]

    def create(self, heads: int, head_dim: int) -> dict[str, Tensor]:
        """First values of its parameters, by name."""
        ...

    def queries(self, q: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Queries [...,H,d], normalised and scaled for the softmax."""
        ...

    def keys(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Keys [...,H,d], normalised."""
        ...


@dataclass(frozen=True)
class ScaledDot:
    """No normalisation: queries times factor / sqrt(d). VAR without its norm takes 1/4."""

    factor: float = 1.0
    small: ClassVar[bool] = False

    def create(self, heads: int, head_dim: int) -> dict[str, Tensor]:
        """None."""
        return {}

    def queries(self, q: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """q factor / sqrt(d)."""
        return q * (self.factor * q.shape[-1] ** -0.5)

    def keys(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """k as it is."""
        return k


@dataclass(frozen=True)
class RMSNorm:
    """Each head vector to root mean square 1, times a learned weight [d] that all heads share (one
    for queries, one for keys); then the usual 1 / sqrt(d). LVSM's, with eps 1e-5."""

    eps: float = 1e-5
    small: ClassVar[bool] = True

    def create(self, heads: int, head_dim: int) -> dict[str, Tensor]:
        """`q_weight` and `k_weight` [d], ones."""
        return {"q_weight": torch.ones(head_dim), "k_weight": torch.ones(head_dim)}

    def queries(self, q: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """q / rms(q) times its weight / sqrt(d)."""
        return self.normalize(q) * parameters["q_weight"] * q.shape[-1] ** -0.5

    def keys(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """k / rms(k) times its weight."""
        return self.normalize(k) * parameters["k_weight"]

    def normalize(self, x: Tensor) -> Tensor:
        """x / rms(x), in float32 or better, rounded to x's type before the weight comes."""
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        return (exact * (exact.square().mean(-1, keepdim=True) + self.eps).rsqrt()).to(x.dtype)


@dataclass(frozen=True)
class UnitNorm:
    """Queries and keys of length 1, and a learned temperature for each head, at most `most`: the
    logits are cosines times it. VAR's and GS-VAR's."""

    start: float = 4.0
    most: float = 100.0
    small: ClassVar[bool] = False

    def create(self, heads: int, head_dim: int) -> dict[str, Tensor]:
        """`log_temperature` [H]."""
        return {"log_temperature": torch.full((heads,), math.log(self.start))}

    def queries(self, q: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """q / |q| times the head's temperature."""
        temperature = parameters["log_temperature"].clamp(max=math.log(self.most)).exp()
        return F.normalize(q, dim=-1) * temperature[:, None]

    def keys(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """k / |k|."""
        return F.normalize(k, dim=-1)
