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
def process_group(device: str | None) -> Iterator[torch.device]:
    """This process's device; within the block the processes of torchrun know each other.

    NCCL between GPUs, gloo between CPUs. Raises ValueError for a device that is not there.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    own = choose_device(device)
    if count == 1:
        yield own
        return
    if own.type == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"{count} processes were started and this machine has "
                f"{torch.cuda.device_count()} GPUs; lower --nproc-per-node, or --device=cpu"
            )
        own = torch.device("cuda", local)
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield own
    finally:
        dist.destroy_process_group()
        if own.type == "cpu":
            # where a model was sharded gloo's threads outlive the group; one that still lets go
            # of a tensor when Python ends takes the process down
            time.sleep(0.5)


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wrap_ddp(stage: nn.Module, device: torch.device, *, find_unused: bool = False) -> nn.Module:
    """The stage with its gradients averaged over the processes; itself where there is one."""
    if world_size() == 1:
        return stage
    return nn.parallel.DistributedDataParallel(
        stage,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=find_unused,
        gradient_as_bucket_view=True,
    )


def any_of(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any process."""
    if world_size() == 1:
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def mean_of(values: torch.Tensor) -> torch.Tensor:
    """Values averaged over the processes."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= world_size()
    return values
