# Gaussian diffusion with a cosine schedule and learned variances (improved DDPM, arXiv 2102.09672).
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

TRAIN_STEPS = 1000
TARGET_SCALE = 0.6  # residuals are divided by this before they are noised

Sampler = Literal["ancestral", "ddim", "mean", "none"]


class Process:
    """Tables of a diffusion over the timesteps `t` (ascending, of the 1000 trained ones), float64
    [n] each."""

    def __init__(self, t: Tensor, alphas_bar: Tensor):
        self.t = t
        self.alphas_bar = alphas_bar
        self.previous = torch.cat((alphas_bar.new_ones(1), alphas_bar[:-1]))
        self.betas = 1 - alphas_bar / self.previous
        variance = self.betas * (1 - self.previous) / (1 - alphas_bar)
        self.log_variance = torch.cat(
            (variance[1:2], variance[1:])
        ).log()  # 0 at the first step: take the next
        self.log_betas = self.betas.log()
        self.signal, self.spread = alphas_bar.sqrt(), (1 - alphas_bar).sqrt()
        self.previous_signal = self.previous.sqrt()
        self.previous_spread = (1 - self.previous).sqrt()
        self.x0_xt, self.x0_eps = (1 / alphas_bar).sqrt(), (1 / alphas_bar - 1).sqrt()
        self.mean_x0 = self.betas * self.previous.sqrt() / (1 - alphas_bar)
        self.mean_xt = (1 - self.previous) * (1 - self.betas).sqrt() / (1 - alphas_bar)
        self._numbers = {name: table.tolist() for name, table in vars(self).items()}

    def at(self, table: str, i: Tensor | int, like: Tensor) -> Tensor | float:
        """A table's entries for steps i [N] as [N,1], in the type and place of `like`; a number
        for one step of all, which nothing need wait for."""
        if isinstance(i, int):
            return self._numbers[table][i]
        return getattr(self, table).to(like.device)[i].to(like.dtype)[:, None]

    def noised(self, x0: Tensor, i: Tensor, noise: Tensor) -> Tensor:
        """x_t for x_0 [N,C] at steps i [N]."""
        return self.at("signal", i, x0) * x0 + self.at("spread", i, x0) * noise

    def x0(self, x: Tensor, eps: Tensor, i: Tensor | int) -> Tensor:
        """x_0 that the noise estimate implies."""
        return self.at("x0_xt", i, x) * x - self.at("x0_eps", i, x) * eps

    def posterior_mean(self, x0: Tensor, x: Tensor, i: Tensor | int) -> Tensor:
        """Mean of x_{t-1} given x_0 and x_t."""
        return self.at("mean_x0", i, x) * x0 + self.at("mean_xt", i, x) * x

    def model_log_variance(self, logits: Tensor, i: Tensor | int) -> Tensor:
        """Learned variance: between the posterior's and beta, in the logarithm."""
        fraction = (logits + 1) / 2
        high, low = self.at("log_betas", i, logits), self.at("log_variance", i, logits)
        return fraction * high + (1 - fraction) * low


@lru_cache
def training_process() -> Process:
    """All 1000 steps of the cosine schedule, betas clipped at 0.999."""
    s = torch.arange(TRAIN_STEPS + 1, dtype=torch.float64) / TRAIN_STEPS
    bar = torch.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    return Process(torch.arange(TRAIN_STEPS), (1 - betas).cumprod(0))


@lru_cache
def respaced_process(steps: int) -> Process:
    """`steps` of the trained timesteps, evenly from 0 to 999 (10: 0, 111, ..., 999)."""
    if not 2 <= steps <= TRAIN_STEPS:
        raise ValueError(f"refiner_steps must lie between 2 and {TRAIN_STEPS}, not {steps}")
    t = torch.linspace(0, TRAIN_STEPS - 1, steps, dtype=torch.float64).round().long()
    return Process(t, training_process().alphas_bar[t])


def sample(
    denoise: Callable[[Tensor, int], Tensor],
    *,
    steps: int = 10,
    sampler: Sampler = "ancestral",
    draw: Callable[[int], Tensor],
) -> Tensor:
    """A sample of x_0 [N,C].

    `denoise(x, i)` gives noise estimate and variance logits [N,2C] at step i of
    `respaced_process(steps)`; `draw(k)` the k-th standard normal tensor [N,C], 0 being the start.
    "ancestral" is DDPM's chain, "ddim" (arXiv 2010.02502, eta 0) draws the start only, "mean"
    follows the chain with every draw replaced by its mean, zero, so that it is the same each
    time.
    """
    process = respaced_process(steps)
    x = draw(0)
    if sampler == "mean":
        x = torch.zeros_like(x)
    for k, i in enumerate(reversed(range(steps)), 1):
        eps, logits = denoise(x, i).to(x.dtype).chunk(2, -1)
        x0 = process.x0(x, eps, i).clamp(-1, 1)
        if sampler == "ddim":
            eps = (x - process.at("signal", i, x) * x0) / process.at("spread", i, x)
            x = process.at("previous_signal", i, x) * x0
            x = x + process.at("previous_spread", i, x) * eps
            continue
        x = process.posterior_mean(x0, x, i)
        if sampler == "ancestral" and i > 0:
            x = x + (process.model_log_variance(logits, i) / 2).exp() * draw(k)
    return x


def losses(
    output: Tensor, x0: Tensor, x: Tensor, i: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Training losses of each token, [N] each: squared error of the noise, and the variational
    bound in bits.

    `output` [N,2C] answers x [N,C], which is x0 noised by `noise` at steps i of the full process.
    The bound trains the variance only.
    """
    process = training_process()
    eps, logits = output.chunk(2, -1)
    squared = (eps - noise).square().mean(-1)
    mean = process.posterior_mean(process.x0(x, eps.detach(), i), x, i)
    log_variance = process.model_log_variance(logits, i)
    true_mean, true_log_variance = (
        process.posterior_mean(x0, x, i),
        process.at("log_variance", i, x),
    )
    kl = 0.5 * (
        log_variance
        - true_log_variance
        - 1
        + (true_log_variance - log_variance).exp()
        + (true_mean - mean).square() * (-log_variance).exp()
    )
    likelihood = discretized_log_likelihood(x0, mean, log_variance / 2)
    bound = torch.where(i == 0, -likelihood.mean(-1), kl.mean(-1)) / math.log(2)
    return squared, bound


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log probability of x's bin of width 2/255 under a Gaussian, the outer bins open-ended."""

    def cdf(z: Tensor) -> Tensor:
        return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    inverse = (-log_scale).exp()
    high = cdf(inverse * (x - mean + 1 / 255))
    low = cdf(inverse * (x - mean - 1 / 255))
    middle = (high - low).clamp(min=1e-12).log()
    edges = torch.where(x > 0.999, (1 - low).clamp(min=1e-12).log(), middle)
    return torch.where(x < -0.999, high.clamp(min=1e-12).log(), edges)
