# Processes that train together, as torchrun starts them; one process alone needs none of it.
from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from runtime.command import choose_device


@contextmanager
def group(device: str | None) -> Iterator[torch.device]:
    """This process's device; within, the processes of torchrun know each other.

    NCCL between GPUs, gloo between CPUs. Raises ValueError for a device that is not there.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    chosen = choose_device(device)
    if world == 1:
        yield chosen
        return
    if chosen.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"{world} processes were started and this machine has "
                f"{torch.cuda.device_count()} GPUs; lower --nproc-per-node, or --device=cpu"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        dist.destroy_process_group()
        if chosen.type == "cpu":
            # where a model was sharded gloo's threads outlive the group; one that still lets go
            # of a tensor when Python ends takes the process down
            time.sleep(0.5)


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def wrapped(stage: nn.Module, device: torch.device, *, find_unused: bool = False) -> nn.Module:
    """The stage with its gradients averaged over the processes; itself where there is one."""
    if world() == 1:
        return stage
    return nn.parallel.DistributedDataParallel(
        stage,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=find_unused,
        gradient_as_bucket_view=True,
    )


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any process."""
    if world() == 1:
        return flag
    told = torch.tensor(float(flag), device=device)
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return bool(told.item())


def mean_of(values: torch.Tensor) -> torch.Tensor:
    """Values averaged over the processes."""
    if world() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= world()
    return values
