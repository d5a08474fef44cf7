# One Adam per parameter, since gsplat's strategies add and remove rows of each by name.
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from reconstruction.config import Config
from runtime.kernels import WarmUp, kernel
from splats.gaussians import Splats, random_splats


def make_optimizers(
    splats: Splats, config: Config, scene_scale: float
) -> dict[str, torch.optim.Optimizer]:
    """Adam with gsplat's learning rates, by parameter name; scene_scale in world units.

    Signals have the rate of the base colour. The settings follow the batch size as in gsplat, by
    the rule of arXiv 2402.18824. With --visible_adam or --sparse_grad (CUDA) of their kind.
    """
    rates = {name: getattr(config, f"{name}_lr", config.sh0_lr) for name in splats}
    rates["means"] *= scene_scale
    batch, cuda = config.batch_size, splats["means"].device.type == "cuda"
    times = math.sqrt(batch)
    settings = {
        "eps": 1e-15 / times,
        "betas": tuple(max(0.0, 1 - batch * (1 - beta)) for beta in (0.9, 0.999)),
    }
    if config.visible_adam and cuda:
        from gsplat.optimizers import SelectiveAdam as Adam
    elif config.visible_adam:
        Adam = VisibleAdam
    elif config.sparse_grad and cuda:
        Adam = torch.optim.SparseAdam
    else:
        Adam = torch.optim.Adam
        settings["fused"] = True
    return {
        name: Adam([{"params": [splats[name]], "lr": rate * times}], **settings)
        for name, rate in rates.items()
    }


class VisibleAdam(torch.optim.Adam):
    """gsplat's `SelectiveAdam` (Taming 3DGS, arXiv 2406.15643) in torch: Adam without corrections
    of the moments' bias, on the rows of the Gaussians that are visible."""

    @torch.no_grad()
    def step(self, visible: Tensor) -> None:
        """Update the rows of a mask [N]."""
        rows = visible.nonzero()[:, 0]
        for group in self.param_groups:
            (parameter,) = group["params"]
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            (beta1, beta2), gradient = group["betas"], parameter.grad[rows]
            first = state["exp_avg"][rows].lerp_(gradient, 1 - beta1)
            second = state["exp_avg_sq"][rows].lerp_(gradient.square(), 1 - beta2)
            state["exp_avg"][rows], state["exp_avg_sq"][rows] = first, second
            parameter[rows] -= group["lr"] * first / (second.sqrt() + group["eps"])


def means_rate(config: Config, scene_scale: float, progress: float) -> float:
    """Learning rate of the means: exponential, 1 % at the end; progress from 0 to 1."""
    return config.means_lr * scene_scale * math.sqrt(config.batch_size) * 0.01**progress


@torch.no_grad()
def find_visible(infos: Sequence[dict[str, Any]], count: int) -> Tensor:
    """Which of `count` Gaussians any of the renders shows, bool [N]; infos: as `Render.info`."""
    visible = None
    for info in infos:
        radii, ids = info["radii"], info.get("gaussian_ids")
        if ids is None:
            seen = (radii > 0).all(-1).any(0)
        else:
            seen = torch.zeros(count, dtype=torch.bool, device=radii.device)
            seen[ids] = True
        visible = seen if visible is None else visible | seen
    return visible


BLOCK = 8192  # values per parallel work item


@torch.no_grad()
def update(
    optimizers: dict[str, torch.optim.Optimizer], infos: Sequence[dict[str, Any]] | None = None
) -> None:
    """Step all optimizers and clear the gradients; on the CPU in one pass over all parameters.

    infos: of this step's renders, for the optimizers that need to know what they show.
    """
    kinds = {type(optimizer) for optimizer in optimizers.values()}
    on_cpu = all(o.param_groups[0]["params"][0].device.type == "cpu" for o in optimizers.values())
    if kinds != {torch.optim.Adam} or not on_cpu:
        _update_each(optimizers, infos, sparse=torch.optim.SparseAdam in kinds)
        return
    arrays, settings = [], []
    for optimizer in optimizers.values():
        group = optimizer.param_groups[0]
        (parameter,) = group["params"]
        if parameter.grad is None:
            continue
        state = optimizer.state[parameter]
        parameter.data = parameter.data.contiguous()  # or a copy would be updated, likewise below
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name].contiguous()
        state["step"] += 1
        step, (beta1, beta2) = state["step"].item(), group["betas"]
        rate = group["lr"] / (1 - beta1**step)
        settings.append((beta1, beta2, rate, math.sqrt(1 - beta2**step), group["eps"]))
        tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
        arrays.append([t.detach().contiguous().view(-1).numpy() for t in tensors])
        parameter.grad = None
    if arrays:
        _adam(*map(tuple, zip(*arrays, strict=True)), np.array(settings, np.float32))


def _update_each(
    optimizers: dict[str, torch.optim.Optimizer],
    infos: Sequence[dict[str, Any]] | None,
    sparse: bool,
) -> None:
    arguments = []
    if not all(type(o) is torch.optim.Adam for o in optimizers.values()):
        count = len(optimizers["means"].param_groups[0]["params"][0])
        visible = find_visible(infos, count)
        arguments = [] if sparse else [visible]
    for optimizer in optimizers.values():
        (parameter,) = optimizer.param_groups[0]["params"]
        gradient = parameter.grad
        if sparse and gradient is not None and not gradient.is_sparse:
            ids = visible.nonzero()[:, 0]
            parameter.grad = torch.sparse_coo_tensor(
                ids[None], gradient[ids], gradient.shape, is_coalesced=True
            )
        optimizer.step(*arguments)
        optimizer.zero_grad(set_to_none=True)


@kernel(parallel=True, fastmath={"nsz"})
def _adam(values, gradients, firsts, seconds, settings):
    """Adam (Kingma and Ba 2014) on several flat arrays; settings: beta 1 and 2, rate over the
    first moment's bias, root of the second moment's bias, epsilon, one row per array."""
    ends = np.zeros(len(values), np.int64)  # of each array's blocks
    total = 0
    for k in range(len(values)):
        total += (len(values[k]) + BLOCK - 1) // BLOCK
        ends[k] = total
    for block in prange(total):
        k = np.searchsorted(ends, block, side="right")
        first = (block - (ends[k - 1] if k else 0)) * BLOCK
        last = min(first + BLOCK, len(values[k]))
        x, g = values[k][first:last], gradients[k][first:last]
        m, v = firsts[k][first:last], seconds[k][first:last]
        beta1, beta2, rate, bias, eps = settings[k]
        one = np.float32(1)
        for i in range(last - first):
            m[i] = beta1 * m[i] + (one - beta1) * g[i]
            v[i] = beta2 * v[i] + (one - beta2) * g[i] * g[i]
            x[i] -= rate * m[i] / (math.sqrt(v[i]) / bias + eps)


def compile_update() -> None:
    """Have numba compile the kernel, on a few Gaussians."""
    splats = random_splats(4, 1.0)
    for parameter in splats.values():
        parameter.grad = torch.zeros_like(parameter)
    update(make_optimizers(splats, Config(), 1.0))


UPDATE = WarmUp(compile_update, (_adam,))
