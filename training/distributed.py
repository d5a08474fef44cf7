# Processes that train together, as torchrun starts them; one process alone needs none of it.
from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
import torch.distributed as dist
from torch import nn

from runtime.command import choose_device

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


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
    stop_with_launcher()
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo")
    try:
        yield own
    finally:
        dist.destroy_process_group()
        if own.type == "cpu":
            # where a model was sharded gloo's threads outlive the group; one that still lets go
            # of a tensor when Python ends takes the process down
            time.sleep(0.5)


def stop_with_launcher() -> None:
    """Receive SIGTERM when torchrun ends: its processes are in sessions of their own, where signals
    that it dies of (SIGUSR1, unless it handles it) do not reach them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


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
    return bool(greatest_of(flag, device))


def greatest_of(number: float, device: torch.device) -> float:
    """The greatest of the processes' numbers."""
    if world_size() == 1:
        return number
    value = torch.tensor(float(number), device=device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return value.item()


def mean_of(values: torch.Tensor) -> torch.Tensor:
    """Values averaged over the processes."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= world_size()
    return values


class Agreement:
    """Numbers of which all processes learn the greatest, with the next call, so that nobody waits
    for them: they travel beside the training, by gloo. One process alone learns them at once."""

    def __init__(self) -> None:
        self.group = dist.new_group(backend="gloo") if world_size() > 1 else None
        self.pending: tuple[dist.Work, torch.Tensor] | None = None

    def __call__(self, values: Sequence[float]) -> list[float]:
        """The greatest of the values of the call before, 0 in the first."""
        if self.group is None:
            return list(values)
        known = self.wait() or [0.0] * len(values)
        sent = torch.tensor(values, dtype=torch.float64)
        work = dist.all_reduce(sent, dist.ReduceOp.MAX, self.group, async_op=True)
        self.pending = work, sent
        return known

    def wait(self) -> list[float] | None:
        """What is under way, if anything is; to be called before the processes part."""
        if self.pending is None:
            return None
        (work, values), self.pending = self.pending, None
        work.wait()
        return values.tolist()


@contextmanager
def on_first(manager: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """A context that only the first process enters; its ValueError or OSError is all processes'."""
    with ExitStack() as stack:
        error = None
        if rank() == 0:
            try:
                stack.enter_context(manager())
            except (ValueError, OSError) as raised:
                error = raised
        if world_size() > 1:
            shared = [None if error is None else str(error)]
            dist.broadcast_object_list(shared)
            if shared[0] is not None and error is None:
                raise ValueError(shared[0])
        if error is not None:
            raise error
        yield
