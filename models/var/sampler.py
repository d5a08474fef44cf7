# Next-scale decoding (VAR, arXiv 2404.02905): a latent as a sum of scales, coarse to fine, each
# drawn from the logits that a network gives for what is there so far.
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.var.scales import ScaleSchedule
from models.vqvae.quantizer import Quantizer

# B batch, L tokens of one scale, N codes of the vocabulary, Cz latent channels

Uniforms = Callable[[int, tuple[int, int]], Tensor]
"""Scale and shape [B,L] -> numbers in [0,1), one for each token."""


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn from logits. The default takes the likeliest ones."""

    top_k: int = 1
    """Only the k likeliest codes (and all that are as likely as the last of them); 1: the likeliest
    one, without a draw; 0: all."""
    top_p: float = 0.0
    """Of those, the least number whose probabilities sum to p at least; 0: all."""
    guidance: float = 0.0
    """Classifier-free guidance at the last scale; it grows from 0 at the first, linearly."""

    def __post_init__(self):
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, not {self.top_k}")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p must lie between 0 and 1, not {self.top_p}")

    def guidance_at(self, scale: int, scales: int) -> float:
        """The guidance of one scale of so many."""
        return self.guidance * scale / max(scales - 1, 1)


GREEDY = Sampling()


@dataclass(frozen=True)
class State:
    """What is there before a scale is predicted."""

    scale: int
    f_hat: Tensor | None
    """Sum of the scales so far [B,Cz,h,w]; None before the first."""
    map: Tensor | None
    """f_hat at this scale's size, as tokens [B,L,Cz]; None before the first. With guidance the
    batch comes twice, in this order: with and without the condition."""


def decode(
    scales: ScaleSchedule,
    quantizer: Quantizer,
    predict: Callable[[State], Tensor],
    *,
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    uniforms: Uniforms | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """f_hat [B,Cz,h,w] and each scale's codes [B,L].

    `predict` gives the logits [B,L,N] of the next scale; with guidance [2B,L,N], first with the
    condition, then without. Draws come from `uniforms`, else from `generator`.
    """
    f_hat, indices, maps = None, [], None
    for scale in range(len(scales)):
        logits = predict(State(scale, f_hat, maps))
        if sampling.guidance:
            logits = guide(*logits.chunk(2), sampling.guidance_at(scale, len(scales)))
        given = None if uniforms is None else uniforms(scale, tuple(logits.shape[:-1]))
        indices.append(draw(logits, sampling, generator=generator, uniforms=given))
        part = quantizer.spread(quantizer.codebook(indices[-1]), scale, scales.grids)
        f_hat = part if f_hat is None else f_hat + part
        if scale + 1 < len(scales):
            maps = quantizer.shrink(f_hat, scales.grids[scale + 1])
            if sampling.guidance:
                maps = maps.repeat(2, 1, 1)
    return f_hat, indices


def guide(conditional: Tensor, unconditional: Tensor, weight: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598) of logits: (1 + w) with the condition, less w
    without it."""
    return (1 + weight) * conditional - weight * unconditional


def draw(
    logits: Tensor,
    sampling: Sampling = GREEDY,
    *,
    generator: torch.Generator | None = None,
    uniforms: Tensor | None = None,
) -> Tensor:
    """Codes [B,L], int64, drawn from logits [B,L,N]: each token's by its number of `uniforms` [B,L]
    in [0,1), else from `generator`."""
    if sampling.top_k == 1:
        return logits.argmax(-1)
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    probabilities = restrict(exact, sampling.top_k, sampling.top_p).softmax(-1)
    if uniforms is None:
        flat = torch.multinomial(probabilities.flatten(0, -2), 1, generator=generator)
        return flat.view(logits.shape[:-1])
    sums = probabilities.cumsum(-1)
    # below the last sum, so that rounding never leads to a code of probability 0
    target = (uniforms.to(sums) * sums[..., -1]).minimum(
        sums[..., -1].nextafter(sums.new_zeros(()))
    )
    return torch.searchsorted(sums, target[..., None], right=True)[..., 0]


def restrict(logits: Tensor, top_k: int = 0, top_p: float = 0.0) -> Tensor:
    """Logits [...,N] with minus infinity for the codes that are not to be drawn.

    top_k: those below the k-th largest; top_p: of what is left, the unlikeliest ones whose
    probabilities sum to 1 - p at most, but never the likeliest. 0: all may be drawn.
    """
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p > 0:
        ascending, order = logits.sort(-1)
        unlikely = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        unlikely[..., -1] = False
        logits = logits.masked_fill(unlikely.scatter(-1, order, unlikely), -torch.inf)
    return logits
