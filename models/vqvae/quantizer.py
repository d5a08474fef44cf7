# The multi-scale residual quantizer (VAR, arXiv 2404.02905, section 3.2): a latent as code
# indices at growing scales.
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.vqvae.config import VQVAEConfig

PHI_OF_SCALE = {  # exact ties decided as the published weights were trained
    10: (0, 0, 1, 1, 1, 2, 2, 3, 3, 3),
    12: (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3),
}

Grids = Sequence[tuple[int, int]]
Replace = Callable[[int, Tensor], Tensor]
"""Scale and its indices [B,L] -> the indices that are used in their place."""


@dataclass(frozen=True)
class Tokens:
    """A quantized latent."""

    indices: list[Tensor]
    """Code indices of each scale, [B, rows*columns] int64."""
    residual: Tensor
    """The last scale's vectors before they were rounded to codes, [B, rows*columns, Cz]."""
    context: list[Tensor]
    """The indices whose residual the later scales encode: `indices`, unless some were replaced."""


@dataclass(frozen=True)
class Quantized:
    """A latent after quantization, in training."""

    f_hat: Tensor
    """[B,Cz,h,w], whose gradient goes to the latent as it is (straight through)."""
    codebook_loss: Tensor
    """Squared error of the codes, mean over scales: trains codebook and phis."""
    commitment_loss: Tensor
    """The same with its gradient to the latent."""
    indices: list[Tensor]
    vectors: Tensor
    """The vectors of all scales before they were rounded to codes, [N,Cz]."""


@lru_cache
def phi_of_scales(scales: int, phis: int) -> tuple[int, ...]:
    """Which phi follows which scale: the one whose tick lies nearest to s/(S-1)."""
    if phis == 4 and scales in PHI_OF_SCALE:
        return PHI_OF_SCALE[scales]
    first = 1 / 3 / phis if phis == 4 else 1 / 2 / phis
    ticks = torch.linspace(first, 1 - first, phis, dtype=torch.float64)
    at = torch.arange(scales, dtype=torch.float64) / max(scales - 1, 1)
    return tuple((at[:, None] - ticks).abs().argmin(1).tolist())


class Quantizer(nn.Module):
    """Codebook and phi convolutions. `grids` are the scales' (rows, columns); the last is the
    latent's own size."""

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        self.phi_on_last = config.phi_on_last
        self.codebook = nn.Embedding(config.vocabulary, config.latent_channels)
        self.phis = nn.ModuleList(
            nn.Conv2d(config.latent_channels, config.latent_channels, 3, padding=1)
            for _ in range(config.phis)
        )

    def used_phis(self, scales: int) -> list[nn.Module]:
        """The phis that a schedule of so many scales uses."""
        numbers = phi_of_scales(scales, len(self.phis))
        return [self.phis[i] for i in set(numbers if self.phi_on_last else numbers[:-1])]

    def nearest(self, z: Tensor) -> Tensor:
        """Index of the code nearest to each vector of z [..., Cz]; distances in float32 or
        better."""
        codes = self.codebook.weight
        codes = codes.to(torch.promote_types(codes.dtype, torch.float32))
        flat = z.reshape(-1, z.shape[-1]).to(codes.dtype)
        distance = flat.square().sum(1, keepdim=True) + codes.square().sum(1)
        return distance.addmm_(flat, codes.T, alpha=-2).argmin(1).view(z.shape[:-1])

    def spread(self, vectors: Tensor, scale: int, grids: Grids) -> Tensor:
        """Code vectors of one scale [B,L,Cz] as their part of the latent [B,Cz,h,w]: upsampled,
        then phi."""
        rows, columns = grids[scale]
        h = rearrange(vectors, "b (r c) z -> b z r c", r=rows, c=columns)
        if (rows, columns) != grids[-1]:
            h = F.interpolate(h, size=grids[-1], mode="bicubic")
        if scale == len(grids) - 1 and not self.phi_on_last:
            return h
        phi = self.phis[phi_of_scales(len(grids), len(self.phis))[scale]]
        return torch.lerp(h, phi(h), 0.5)

    def encode(self, latent: Tensor, grids: Grids, replace: Replace | None = None) -> Tokens:
        """latent [B,Cz,h,w] -> its tokens.

        `replace` may put other codes in place of those of all scales but the last; the later
        scales then encode what is left, and so correct for it (as Infinity does against
        exposure bias, arXiv 2412.04431).
        """
        rest, indices, context, residual = latent, [], [], latent
        for scale, grid in enumerate(grids):
            residual = self.shrink(rest, grid)
            indices.append(self.nearest(residual))
            used = indices[-1]
            if replace is not None and scale < len(grids) - 1:
                used = replace(scale, used)
            context.append(used)
            rest = rest - self.spread(self.codebook(used), scale, grids)
        return Tokens(indices, residual, context)

    def quantize(self, latent: Tensor, grids: Grids) -> Quantized:
        """The latent [B,Cz,h,w] through its codes, with the losses of VAR's tokenizer."""
        fixed = latent.detach()
        rest, f_hat, codebook, commitment, indices, vectors = fixed, 0, 0, 0, [], []
        for scale, grid in enumerate(grids):
            vectors.append(self.shrink(rest, grid))
            indices.append(self.nearest(vectors[-1]))
            part = self.spread(self.codebook(indices[-1]), scale, grids)
            f_hat, rest = f_hat + part, rest - part.detach()
            codebook = codebook + F.mse_loss(f_hat, fixed)
            commitment = commitment + F.mse_loss(latent, f_hat.detach())
        scales = len(grids)
        straight = latent + (f_hat - latent).detach()
        seen = torch.cat(vectors, 1).flatten(0, 1)
        return Quantized(straight, codebook / scales, commitment / scales, indices, seen)

    def neighbours(self, count: int) -> Tensor:
        """The `count` codes nearest to each code, itself excepted: [vocabulary, count]."""
        codes = self.codebook.weight.detach().float()
        distance = torch.cdist(codes, codes).fill_diagonal_(torch.inf)
        return distance.topk(count, largest=False).indices

    def partial_sums(self, indices: Sequence[Tensor], grids: Grids) -> list[Tensor]:
        """The latent after each of the given scales, [B,Cz,h,w] each; the last one is f_hat."""
        sums = []
        for scale, index in enumerate(indices):
            part = self.spread(self.codebook(index), scale, grids)
            sums.append(part if not sums else sums[-1] + part)
        return sums

    def inputs(self, indices: Sequence[Tensor], grids: Grids) -> Tensor:
        """The transformer's inputs at scales 1, 2, ..., given the codes of scales 0, 1, ...: [B,
        L-1, Cz]."""
        sums = self.partial_sums(indices[: len(grids) - 1], grids)
        return torch.cat([self.shrink(f, grid) for f, grid in zip(sums, grids[1:], strict=True)], 1)

    @staticmethod
    def shrink(f_hat: Tensor, grid: tuple[int, int]) -> Tensor:
        """f_hat [B,Cz,h,w] averaged down to a grid: [B, rows*columns, Cz]."""
        small = f_hat if f_hat.shape[-2:] == grid else F.interpolate(f_hat, size=grid, mode="area")
        return rearrange(small, "b z r c -> b (r c) z")
