# Time of one optimisation step of splats (render, loss, backward, update) and of its parts, from a
# capture's points or after MCMC has grown them.
#   python -m benchmarks.speed.training_step --data_dir CAPTURE
#   python -m benchmarks.speed.training_step --data_dir CAPTURE --gaussians 20000
from __future__ import annotations

import statistics
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import reconstruction.trainer as trainer_module
import scenes
import splats.cpu.rasterize as kernel
from reconstruction.config import Config, mcmc
from reconstruction.trainer import Trainer
from runtime.command import run_command
from runtime.flags import parse_command

# OpenSplat's CPU mode on bonsai at factor 4: 15,265 Gaussians, 199x132, 2 cores
OPENSPLAT_MS = 124.0
KERNEL = ("blending, forward", "blending, backward")


@dataclass(frozen=True)
class Options:
    """Time optimisation steps of splats."""

    data_dir: Path
    """The capture."""
    data_factor: int = 4
    """Photos at 1/N of their size."""
    gaussians: int | None = None
    """Let MCMC grow the capture's points to this number first (default: time the steps before the
    first densification)."""
    steps: int = 300
    """Steps to time, after growing and warming up."""
    device: str = "cpu"
    """cpu or cuda."""


class Stopwatch:
    """Seconds spent in functions, by part of a step; nested calls count once."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.running = False

    def watch(self, part: str, owner: Any, name: str) -> None:
        """Time the function `name` of a module or object as a part of the step."""
        function = getattr(owner, name)

        def watched(*args, **kwargs):
            if self.running:
                return function(*args, **kwargs)
            self.running, start = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[part] += time.perf_counter() - start
                self.running = False

        setattr(owner, name, watched)


def watch_parts(trainer: Trainer) -> Stopwatch:
    """A stopwatch on the parts of the trainer's steps."""
    watch = Stopwatch()
    watch.watch("projection and harmonics, forward", kernel, "project_forward")
    watch.watch("projection and harmonics, backward", kernel, "project_backward")
    watch.watch("sorting", kernel, "sort_by_depth")
    watch.watch("binning", kernel, "bin_tiles")
    watch.watch(KERNEL[0], kernel, "blend_forward")
    watch.watch(KERNEL[1], kernel, "blend_backward")
    watch.watch("gradients of pairs to Gaussians", kernel, "sum_pairs")
    watch.watch("loss", trainer_module, "photometric")
    watch.watch("regularisation", trainer_module, "regularisation")
    watch.watch("optimiser", trainer_module, "update")
    watch.watch("strategy", trainer.strategy, "step_pre_backward")
    watch.watch("strategy", trainer.strategy, "step_post_backward")
    return watch


def grow(options: Options, scene: scenes.Scene, device: torch.device) -> Trainer:
    """A trainer, warmed up, with as many Gaussians as the options say."""
    if options.gaussians is None:
        trainer, warm = Trainer(scene, Config(), device), 20
    else:
        config = mcmc()
        strategy = replace(
            config.strategy, cap_max=options.gaussians, refine_start_iter=0, refine_every=10
        )
        config = replace(config, strategy=strategy, sh_degree_interval=50)
        trainer, warm = Trainer(scene, config, device), 400
        while trainer.state.splats.count < options.gaussians:
            trainer.step()
        trainer.strategy.refine_every = 100
    for _ in range(warm):
        trainer.step()
    return trainer


def main() -> None:
    """Print milliseconds per step and, on the CPU, of its parts."""
    options = parse_command(Options, "python -m benchmarks.speed.training_step")
    scene = scenes.load(options.data_dir, data_factor=options.data_factor)
    trainer = grow(options, scene, torch.device(options.device))
    watch = watch_parts(trainer)
    times = []
    for _ in range(options.steps):
        start = time.perf_counter()
        loss, _ = trainer.step()
        loss.item()  # waits for the device
        times.append(1000 * (time.perf_counter() - start))
    height, width = scene.images[0].shape[:2]
    step = statistics.median(times)
    print(f"{trainer.state.splats.count} Gaussians, {width}x{height}, {options.device}, ", end="")
    print(f"{torch.get_num_threads()} threads: {step:.1f} ms a step")
    if options.device == "cpu":
        mean = statistics.mean(times)
        print(f"{'on average':36s}{mean:7.2f} ms")
        parts = {part: 1000 * s / options.steps for part, s in watch.spent.items()}
        parts["rest"] = mean - sum(parts.values())
        for part, ms in parts.items():
            print(f"{part:36s}{ms:7.2f} ms {100 * ms / mean:5.1f} %")
        other = mean - sum(parts[part] for part in KERNEL)
        print(f"{'not the kernel':36s}{other:7.2f} ms {100 * other / mean:5.1f} %")


if __name__ == "__main__":
    run_command(main)
