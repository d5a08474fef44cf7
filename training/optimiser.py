# AdamW in two groups: what weight decay spares, and the rest.
from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.95)
# spared besides vectors and biases: embeddings of places and scales, gains, the diffusion head
SPARED = ("prefix_position", "scale_embedding", "offset", "log_temperature", "refiner.")


def groups(named: Iterable[tuple[str, nn.Parameter]]) -> list[dict]:
    """Trainable parameters without (first) and with weight decay, as the original divides them."""
    spared, decayed = [], []
    for name, parameter in named:
        if parameter.requires_grad:
            kind = spared if is_spared(name, parameter) else decayed
            kind.append(parameter)
    return [
        {"params": spared, "decays": False, "weight_decay": 0.0},
        {"params": decayed, "decays": True},
    ]


def is_spared(name: str, parameter: Tensor) -> bool:
    """Whether weight decay leaves a parameter alone."""
    return parameter.ndim <= 1 or name.endswith("bias") or any(word in name for word in SPARED)


def make(
    named: Iterable[tuple[str, nn.Parameter]], *, kind: str, fused: bool, rate: float
) -> torch.optim.Optimizer:
    """The optimiser "adamw" or "adam"; ValueError if nothing is to be trained."""
    parts = [group for group in groups(named) if group["params"]]
    if not parts:
        raise ValueError("no parameter is left to train")
    cls = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return cls(parts, lr=rate, betas=BETAS, fused=fused)


def set_rates(optimiser: torch.optim.Optimizer, rate: float, weight_decay: float) -> None:
    """Learning rate and weight decay of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate
        group["weight_decay"] = weight_decay if group["decays"] else 0.0
