# How Gaussians are added, moved and removed: gsplat's strategies, ready for the device at hand.
# MCMC (arXiv 2404.09591) relocates and perturbs Gaussians with CUDA kernels in gsplat; here is the
# same in torch.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from gsplat.strategy import DefaultStrategy, MCMCStrategy
from gsplat.strategy.ops import reset_opa
from gsplat.utils import normalized_quat_to_rotmat
from torch import Tensor

from splats.cpu.noise import add_noise

MAX_COPIES = 51  # gsplat's limit on how many Gaussians share one place


def make_strategy(
    config: DefaultStrategy | MCMCStrategy, device: torch.device
) -> DefaultStrategy | MCMCStrategy:
    """A strategy with the settings of `config`, whose operations exist on `device`."""
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    if isinstance(config, DefaultStrategy):
        return ResettingDefaultStrategy(**values)
    if device.type == "cuda":
        return MCMCStrategy(**values)
    return TorchMCMCStrategy(**values)


@dataclass
class ResettingDefaultStrategy(DefaultStrategy):
    """gsplat's DefaultStrategy that does lower the opacities every `reset_every` steps.

    gsplat 1.5.3 tests `step % reset_every == 0 & step > 0`, which is never true, since `&` binds
    tighter than the comparisons. Resetting twice, with a gsplat that does it, changes nothing.
    """

    def step_post_backward(self, params, optimizers, state, step, info, packed=False) -> None:
        """As gsplat's, and reset the opacities when due."""
        super().step_post_backward(params, optimizers, state, step, info, packed)
        if 0 < step < self.refine_stop_iter and step % self.reset_every == 0:
            reset_opa(params, optimizers, state, value=2 * self.prune_opa)


def relocate(opacities: Tensor, scales: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Opacities [N] and scales [N, 3] with which `copies` [N] Gaussians look like the one given.

    Equation 9: o' = 1 - (1 - o)^(1/n), and s' = s * o / sum_{i=1..n} sum_{k<i} C(i-1, k) (-1)^k
    o'^(k+1) / sqrt(k+1). Since sum_i C(i-1, k) = C(n, k+1), one sum is enough; its terms cancel,
    hence float64. Copies are limited to 1 ... 51.
    """
    n = copies.clamp(1, MAX_COPIES).double()
    old = opacities.double().clamp(max=1 - torch.finfo(torch.float32).eps)
    new = -torch.expm1(torch.log1p(-old) / n)
    j = torch.arange(1, MAX_COPIES + 1, device=n.device, dtype=torch.float64)
    log_binomial = (
        torch.lgamma(n + 1)[:, None]
        - torch.lgamma(j + 1)
        - torch.lgamma((n[:, None] - j + 1).clamp(min=1))
    )
    terms = (log_binomial + j * new.log()[:, None]).exp() / j.sqrt()
    signs = torch.where(j.long() % 2 == 1, 1.0, -1.0)
    denominator = torch.where(j <= n[:, None], terms * signs, 0.0).sum(1)
    return new.to(opacities), scales * (old / denominator).to(scales)[:, None]


@dataclass
class TorchMCMCStrategy(MCMCStrategy):
    """gsplat's MCMCStrategy on any device; random numbers come from torch's global generator."""

    def step_post_backward(self, params, optimizers, state, step, info, lr: float) -> None:
        """Relocate and add Gaussians when due, then perturb all; `lr` is that of the means."""
        due = self.refine_start_iter < step < self.refine_stop_iter
        if due and step % self.refine_every == 0:
            self._relocate_gs(params, optimizers, state["binoms"])
            self._add_new_gs(params, optimizers, state["binoms"])
        perturb(params, lr * self.noise_lr)

    @torch.no_grad()
    def _relocate_gs(self, params, optimizers, binoms) -> int:
        """Move dead Gaussians onto live ones, drawn by opacity; returns how many."""
        opacities = params["opacities"].sigmoid()
        dead = (opacities <= self.min_opacity).nonzero()[:, 0]
        alive = (opacities > self.min_opacity).nonzero()[:, 0]
        if len(dead) == 0 or len(alive) == 0:
            return 0
        sources = alive[torch.multinomial(opacities[alive], len(dead), replacement=True)]
        values = self._share(params, sources)

        def move(name: str, value: Tensor) -> Tensor:
            if name in values:
                value[sources] = values[name]
            value[dead] = value[sources]
            return value

        def forget(moment: Tensor) -> Tensor:
            moment[sources] = 0
            return moment

        _replace(params, optimizers, move, forget)
        return len(dead)

    @torch.no_grad()
    def _add_new_gs(self, params, optimizers, binoms) -> int:
        """Grow by 5 % up to cap_max with copies of Gaussians drawn by opacity; returns how many."""
        count = len(params["means"])
        added = max(0, min(self.cap_max, int(1.05 * count)) - count)
        if added == 0:
            return 0
        sources = torch.multinomial(params["opacities"].sigmoid(), added, replacement=True)
        values = self._share(params, sources)

        def append(name: str, value: Tensor) -> Tensor:
            if name in values:
                value[sources] = values[name]
            return torch.cat([value, value[sources]])

        def extend(moment: Tensor) -> Tensor:
            return torch.cat([moment, moment.new_zeros(added, *moment.shape[1:])])

        _replace(params, optimizers, append, extend)
        return added

    def _share(self, params, sources: Tensor) -> dict[str, Tensor]:
        """Raw opacities and scales after each source has been drawn once per entry in `sources`."""
        opacities, scales = relocate(
            params["opacities"][sources].sigmoid(),
            params["scales"][sources].exp(),
            torch.bincount(sources)[sources] + 1,
        )
        limit = 1 - torch.finfo(torch.float32).eps
        opacities = opacities.clamp(self.min_opacity, limit)
        return {"opacities": opacities.logit(), "scales": scales.log()}


@torch.no_grad()
def perturb(params, amount: float) -> None:
    """Move the means by noise shaped like each Gaussian; opaque ones hardly move (equation 8)."""
    noise = torch.randn_like(params["means"])
    if noise.device.type != "cpu":
        params["means"].add_(shape_noise(params, noise, amount))
        return
    names = ("means", "scales", "quats", "opacities")
    add_noise(*(params[name].detach().numpy() for name in names), noise.numpy(), amount)


def shape_noise(params, noise: Tensor, amount: float) -> Tensor:
    """What `perturb` adds to the means, of normal noise [N, 3]."""
    gate = torch.sigmoid(100 * (1 - params["opacities"].sigmoid() - 0.995))
    R = normalized_quat_to_rotmat(F.normalize(params["quats"], dim=-1))  # [N, 3, 3]
    variances = (2 * params["scales"]).exp()
    in_own_axes = torch.einsum("nji,nj->ni", R, noise * (gate * amount)[:, None]) * variances
    return torch.einsum("nij,nj->ni", R, in_own_axes)


def _replace(
    params,
    optimizers,
    new_value: Callable[[str, Tensor], Tensor],
    new_moment: Callable[[Tensor], Tensor],
) -> None:
    """Exchange every parameter, and the moments its optimizer keeps of it."""
    for name, optimizer in optimizers.items():
        old = params[name]
        new = torch.nn.Parameter(new_value(name, old.detach()), requires_grad=old.requires_grad)
        params[name] = new
        moments = optimizer.state.pop(old, {})
        optimizer.state[new] = {k: v if k == "step" else new_moment(v) for k, v in moments.items()}
        optimizer.param_groups[0]["params"] = [new]
