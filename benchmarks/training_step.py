# Time of one optimisation step (render, loss, backward, update) from a capture's own points.
#   python -m benchmarks.training_step --data_dir ../shared/scenes/bonsai
from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import scenes
from reconstruction.config import Config
from reconstruction.trainer import Trainer
from scenes.command import run_command

# OpenSplat's CPU mode on bonsai at factor 4: 15,265 Gaussians, 199x132, 2 cores
OPENSPLAT_MS = 124.0


@dataclass(frozen=True)
class Options:
    """Median milliseconds of a step before the first densification."""

    data_dir: Path
    """The capture."""
    data_factor: int = 4
    """Photos at 1/N of their size."""
    steps: int = 300
    """Steps to time, after 20 that are not."""
    device: str = "cpu"
    """cpu or cuda."""


def main() -> None:
    options = tyro.cli(Options)
    scene = scenes.load(options.data_dir, data_factor=options.data_factor)
    device = torch.device(options.device)
    trainer = Trainer(scene, Config(), device)
    times = []
    for _ in range(20 + options.steps):
        start = time.perf_counter()
        loss, _ = trainer.step()
        loss.item()  # waits for the device
        times.append(1000 * (time.perf_counter() - start))
    height, width = scene.images[0].shape[:2]
    step = statistics.median(times[20:])
    print(f"{trainer.state.splats.count} Gaussians, {width}x{height}, {options.device}, ", end="")
    print(f"{torch.get_num_threads()} threads: {step:.1f} ms a step")
    print(f"OpenSplat's CPU mode, bonsai at factor 4: {OPENSPLAT_MS:.0f} ms, ", end="")
    print(f"{OPENSPLAT_MS / step:.1f} times as long")


if __name__ == "__main__":
    run_command(main)
