# A stage's weights, whole or sharded over processes, on their way to and from checkpoints.
from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from models.gsvar import GSVAR, adapter, loading
from training.stages import Stage


def content(stage: Stage, args: dict, epoch: int, step: int, fsdp: bool = False) -> dict:
    """What a checkpoint says of the model, in the original's layout: for stage 0 the VQ-VAE alone,
    with LoRA its factors in the transformer's place."""
    model = whole(stage, fsdp)
    factors = adapter.lora_tensors(model)
    told = adapter.to_original(model, epoch=epoch, iteration=step, args=args)
    if factors:
        told["trainer"]["var_wo_ddp"] = factors
    if stage.prefix == "vqvae":
        told["trainer"]["var_wo_ddp"] = {}
    return told


def put(model: GSVAR, told: dict, file: Path) -> None:
    """Fill a model of the same sizes with a checkpoint's weights. Raises ValueError where they do
    not fit."""
    original = loading.recognize(file, told)
    transformer = original.transformer
    if adapter.is_lora(transformer):
        adapter.put_lora(model, transformer, original.args, merge=False)
        return
    if not transformer:  # stage 0
        transformer = adapter.to_original(model)["trainer"]["var_wo_ddp"]
    state, misfits = adapter.own_state(model, transformer, original.vqvae)
    if misfits:
        raise ValueError(f"{file} does not fit: {'; '.join(misfits[:5])}")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(state[name])


# processes that share one model ------------------------------------------------------------------


def sharded(stage: nn.Module) -> nn.Module:
    """The stage with its transformer divided among the processes, block by block (FSDP2); the
    VQ-VAE, which is frozen, stays whole."""
    from torch.distributed.fsdp import fully_shard

    for parameter in stage.parameters():  # channels-last ones cannot be divided
        parameter.data = parameter.data.contiguous()
    for block in stage.model.transformer.blocks:
        if hasattr(block, "adaln"):  # its own unit: it is called before the block is
            fully_shard(block.adaln)
        fully_shard(block)
    fully_shard(stage, ignored_params=set(stage.model.vqvae.parameters()))
    return stage


def whole(stage: Stage, fsdp: bool) -> GSVAR:
    """The stage's model; where it is sharded a copy with all weights, on every process."""
    if not fsdp:
        return stage.model
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state = get_model_state_dict(stage, options=StateDictOptions(full_state_dict=True))
    model = loading.empty(stage.model.config, bridge=stage.model.has_bridge)
    own = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    model.load_state_dict(own, assign=True)
    return model.eval().requires_grad_(False)


def optimiser_state(stage: nn.Module, own: torch.optim.Optimizer, fsdp: bool) -> dict:
    """An optimiser's whole state, as torch's own without sharding."""
    if not fsdp:
        return own.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_optimizer_state_dict(stage, own, options=options)
    if not state.get("state"):  # on the other processes
        return state
    names = [name for group in state["param_groups"] for name in group["params"]]
    return renamed(state, dict(zip(names, range(len(names)), strict=True)))


def put_optimiser(
    stage: nn.Module, own: torch.optim.Optimizer, state: dict | None, fsdp: bool
) -> None:
    """Put an optimiser's whole state back. Raises ValueError where it does not fit."""
    if state is None:
        raise ValueError("it has no optimiser's state")
    ours, theirs = (
        [(group["decays"], len(group["params"])) for group in groups]
        for groups in (own.param_groups, state["param_groups"])
    )
    if ours != theirs:
        raise ValueError("its parameters are divided otherwise")
    if fsdp:
        put_sharded(stage, own, state)
        return
    own.load_state_dict(state)
    for parameter, kept in own.state.items():
        if kept["exp_avg"].shape != parameter.shape:
            raise ValueError("its parameters have other sizes")
        for name, moment in kept.items():  # fused kernels walk through both as they lie in memory
            if moment.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)


def put_sharded(stage: nn.Module, own: torch.optim.Optimizer, state: dict) -> None:
    """The same for an optimiser of shards."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    empty = get_optimizer_state_dict(stage, own)
    names = [name for group in empty["param_groups"] for name in group["params"]]
    state = renamed(state, dict(enumerate(names)))
    for kept in state["state"].values():
        for name, moment in kept.items():
            kept[name] = moment.contiguous()
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(stage, own, state, options=options)


def renamed(state: dict, names: dict) -> dict:
    """An optimiser's state with other names of its parameters."""
    groups = [g | {"params": [names[n] for n in g["params"]]} for g in state["param_groups"]]
    moments = {names[n]: dict(kept) for n, kept in state["state"].items()}
    return {"state": moments, "param_groups": groups}
