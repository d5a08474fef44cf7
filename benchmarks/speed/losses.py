# What LPIPS and the Gram loss add to a training step of stage 2.
#   python -m benchmarks.speed.losses --preset tiny --threads 1
from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.speed.training import Options as StepOptions
from benchmarks.speed.training import step_of
from benchmarks.timing import measurable, seconds, use_threads, warn_if_busy
from evaluation.backbones.network import load_lpips
from runtime.command import choose_device, run_command
from runtime.flags import parse_command
from training.losses import ImageObjective, Perceptual


@dataclass(frozen=True)
class Options:
    """Print seconds per step of stage 2 by what images are trained by, and what each adds to a step
    with L1 + SSIM. The step is that of --own_tokens, without stage 1's inference."""

    preset: str = "tiny"
    """Sizes of the model; tiny trains on 128x128 pixels."""
    batch_size: int = 4
    dtype: str = "float32"
    """Precision of the model; losses are always float32."""
    backbones: Path | None = None
    """Folder with the weights of LPIPS's networks, as for the trainer."""
    repeats: int = 9
    """Steps of each kind, in turns; the fastest counts."""
    threads: int = 2
    device: str | None = None


def make_objectives(options: Options, device: torch.device) -> dict[str, ImageObjective]:
    """What images can be trained by; ValueError where weights are missing. AlexNet's LPIPS is not
    a choice in training, and is here to be compared."""
    networks = {}
    for net in ("alex", "vgg"):
        network, reason = load_lpips(net, options.backbones)
        if network is None:
            raise ValueError(reason)
        networks[net] = Perceptual(network).to(device)
    return {
        "L1 + SSIM": ImageObjective(None),
        "L2 + LPIPS (AlexNet)": ImageObjective(networks["alex"]),
        "L2 + LPIPS (VGG16)": ImageObjective(networks["vgg"]),
        "L2 + LPIPS + Gram (VGG16)": ImageObjective(networks["vgg"], gram=True),
    }


def main() -> None:
    """Print a row for each objective."""
    options = parse_command(Options, "python -m benchmarks.speed.losses")
    for name in ("batch_size", "repeats", "threads"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)}: give at least 1")
    device = choose_device(options.device)
    use_threads(options.threads)
    (dtype,) = measurable((options.dtype,), device) or [torch.float32]
    objectives = make_objectives(options, device)
    warn_if_busy(options.threads)
    settings = StepOptions(preset=options.preset, batch_size=options.batch_size)
    steps = {}
    for name, objective in objectives.items():
        step, stage, batch = step_of(2, settings, dtype, device, objective)
        stage.own_tokens = True
        steps[name] = step
        height, width = batch.truth.shape[-2:]
    times = {name: [] for name in steps}
    for _ in range(1 + options.repeats):
        for name, step in steps.items():  # in turns, so that a busy moment is nobody's alone
            times[name].append(seconds(step, device))
    fastest = {name: min(values[1:]) for name, values in times.items()}
    plain = next(iter(fastest.values()))
    sys.stdout.write(
        f"{options.preset}, {width}x{height}, {options.batch_size} pictures a step, "
        f"{str(dtype).removeprefix('torch.')}, {device.type}, {torch.get_num_threads()} threads\n"
        "| trained by | s a step | times | more ms a picture |\n|---|---|---|---|\n"
    )
    for name, took in fastest.items():
        more = 1000 * (took - plain) / options.batch_size
        sys.stdout.write(f"| {name} | {took:.2f} | {took / plain:.2f} | {more:.0f} |\n")


if __name__ == "__main__":
    run_command(main)
