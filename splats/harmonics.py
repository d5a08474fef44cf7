# Spherical harmonics in torch, for any device, with the basis of the CPU kernels.
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def evaluate_bases(directions: Tensor, degree: int) -> Tensor:
    """The (degree + 1)^2 basis values [..., K] at unit directions [..., 3]."""
    from splats.cpu.functions import bases

    constant, *others = bases.py_func(*directions.unbind(-1))
    values = [torch.full_like(directions[..., 0], constant), *others]
    return torch.stack(values[: (degree + 1) ** 2], dim=-1)


def evaluate_colors(coefficients: Tensor, directions: Tensor, degree: int) -> Tensor:
    """Colours [..., N, 3] of coefficients [N, K, 3] in directions [..., N, 3] of any length."""
    values = evaluate_bases(F.normalize(directions, dim=-1), degree)
    used = coefficients[:, : values.shape[-1]]
    return (torch.einsum("...nk,nkc->...nc", values, used) + 0.5).clamp(min=0)
