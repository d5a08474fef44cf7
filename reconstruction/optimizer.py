# One Adam per parameter, since gsplat's strategies add and remove rows of each by name.
from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit, prange

from reconstruction.config import Config
from splats.gaussians import NAMES, Splats


def make_optimizers(
    splats: Splats, config: Config, scene_scale: float
) -> dict[str, torch.optim.Adam]:
    """Adam with gsplat's learning rates, by parameter name; scene_scale in world units."""
    rates = {name: getattr(config, f"{name}_lr") for name in NAMES}
    rates["means"] *= scene_scale
    return {
        name: torch.optim.Adam([splats[name]], lr=rate, eps=1e-15, fused=True)
        for name, rate in rates.items()
    }


def means_rate(config: Config, scene_scale: float, progress: float) -> float:
    """Learning rate of the means: exponential, 1 % at the end; progress from 0 to 1."""
    return config.means_lr * scene_scale * 0.01**progress


BLOCK = 8192  # values per parallel work item


@torch.no_grad()
def update(optimizers: dict[str, torch.optim.Adam]) -> None:
    """Step all optimizers and clear the gradients; on the CPU in one pass over all parameters."""
    if any(o.param_groups[0]["params"][0].device.type != "cpu" for o in optimizers.values()):
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
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


@njit(parallel=True, fastmath={"nsz"}, cache=True, error_model="numpy", nogil=True)
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
