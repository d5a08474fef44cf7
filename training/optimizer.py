# AdamW in two groups, parameters without weight decay and the rest, and its state in checkpoints.
from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Decays = Callable[[str, Tensor], bool]
"""Whether weight decay acts on a parameter, by its name and value."""


def decays_matrices(name: str, parameter: Tensor) -> bool:
    """The usual rule: weight decay acts on all but vectors and biases."""
    return parameter.ndim > 1 and not name.endswith("bias")


def split_parameters(
    named: Iterable[tuple[str, nn.Parameter]], decays: Decays = decays_matrices
) -> list[dict]:
    """Trainable parameters as two groups of an optimizer, without (first) and with weight decay."""
    spared, decayed = [], []
    for name, parameter in named:
        if parameter.requires_grad:
            group = decayed if decays(name, parameter) else spared
            group.append(parameter)
    return [
        {"params": spared, "decays": False, "weight_decay": 0.0},
        {"params": decayed, "decays": True},
    ]


def build_optimizer(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    decays: Decays = decays_matrices,
    kind: str = "adamw",
    fused: bool = True,
    rate: float,
    betas: tuple[float, float] = (0.9, 0.95),
) -> torch.optim.Optimizer:
    """The optimizer "adamw" or "adam"; ValueError if nothing is to be trained."""
    groups = [group for group in split_parameters(named, decays) if group["params"]]
    if not groups:
        raise ValueError("no parameter is left to train")
    cls = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return cls(groups, lr=rate, betas=betas, fused=fused)


def set_rates(optimizer: torch.optim.Optimizer, rate: float, weight_decay: float) -> None:
    """Set the learning rate and weight decay of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


# checkpoints ---------------------------------------------------------------------------------


def read_state(stage: nn.Module, optimizer: torch.optim.Optimizer, sharded: bool) -> dict:
    """The whole state, as torch's own, where the stage is sharded too; called on all processes."""
    if not sharded:
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_optimizer_state_dict(stage, optimizer, options=options)
    if not state.get("state"):  # on the other processes
        return state
    names = [name for group in state["param_groups"] for name in group["params"]]
    return _rename_parameters(state, dict(zip(names, range(len(names)), strict=True)))


def load_state(
    stage: nn.Module, optimizer: torch.optim.Optimizer, state: dict | None, sharded: bool
) -> None:
    """Put a whole state back. Raises ValueError where it does not fit the parameters."""
    if state is None:
        raise ValueError("it has no optimizer's state")
    ours, theirs = (
        [(group["decays"], len(group["params"])) for group in groups]
        for groups in (optimizer.param_groups, state["param_groups"])
    )
    if ours != theirs:
        raise ValueError("its parameters are divided otherwise")
    if sharded:
        _load_sharded(stage, optimizer, state)
        return
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        if moments["exp_avg"].shape != parameter.shape:
            raise ValueError("its parameters have other sizes")
        for name, moment in moments.items():  # fused kernels walk both as they lie in memory
            if moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)


def _load_sharded(stage: nn.Module, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Divide a whole state among the processes."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    empty = get_optimizer_state_dict(stage, optimizer)
    names = [name for group in empty["param_groups"] for name in group["params"]]
    state = _rename_parameters(state, dict(enumerate(names)))
    for moments in state["state"].values():
        for name, moment in moments.items():
            moments[name] = moment.contiguous()
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(stage, optimizer, state, options=options)


def _rename_parameters(state: dict, names: dict) -> dict:
    """An optimizer's state with other names of its parameters."""
    groups = [g | {"params": [names[n] for n in g["params"]]} for g in state["param_groups"]]
    moments = {names[n]: dict(of_one) for n, of_one in state["state"].items()}
    return {"state": moments, "param_groups": groups}
