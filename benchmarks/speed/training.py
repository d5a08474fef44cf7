# Time of a training step of each stage, beside the arithmetic that it needs.
#   python -m benchmarks.speed.training --preset tiny --batch_size 8
#   python -m benchmarks.speed.training --preset original-d24 --batch_size 16 --device cuda
from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import SIDE, Work, best, measurable, product
from models.gsvar import GSVAR, GSVARConfig
from models.gsvar.config import PRESETS
from runtime.command import choose_device, run_command
from runtime.files import atomic_path
from runtime.flags import parse_command
from training.gsvar.bridge import BridgeStage
from training.gsvar.latent import LatentStage
from training.gsvar.tokenizer import TokenizerStage
from training.losses import ImageObjective
from training.optimizer import build_optimizer
from training.triplets import Batch


@dataclass(frozen=True)
class Options:
    """Print seconds per step (forward, backward, clipping, AdamW), samples per second, and the
    needed FLOP/s as a share of the machine's: masked-out attention and recomputation do not
    count."""

    preset: str = "tiny"
    """Sizes of the model."""
    batch_size: int = 8
    references: int = 1
    """Reference views per sample."""
    stages: tuple[int, ...] = (0, 1, 2)
    dtypes: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    checkpointing: bool | None = None
    """Recompute activations (default: from depth 16 on)."""
    peak: float | None = None
    """TFLOP/s of the machine, such as 790 for an H200 in bf16 (default: measured with a product of
    two 2048x2048 matrices in the same precision)."""
    compile: bool = False
    """torch.compile the transformer's blocks."""
    device: str | None = None
    repeats: int = 5
    json: Path | None = None
    """Also write the figures to this file."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"--preset {self.preset}: choose {', '.join(PRESETS)}")


def transformer_flops(config: GSVARConfig, references: int) -> float:
    """FLOPs of one sample's forward pass: linear layers and the unmasked attention."""
    C, V = config.width, 1 + references
    lengths = GSVAR.segment_lengths(config.scales)
    seen, pairs = 0, 0
    for length in lengths:
        seen += length
        render = length * seen * V
        own = length * seen * (V if config.ref_attends == "all" else 1)
        pairs += render + references * own
    linear = 2 * 12 * C * C * V * sum(lengths)
    return config.depth * (linear + 4 * C * pairs)


def convolution_flops(module: nn.Module, *inputs: tuple[int, ...]) -> float:
    """FLOPs of a module's forward pass on inputs of these shapes."""
    module = module.to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(torch.empty(shape, device="meta") for shape in inputs))
    return counter.get_total_flops()


def needed_flops(config: GSVARConfig, stage: int, references: int, repeats: int = 4) -> float:
    """FLOPs of one sample's step: three forward passes of trained parts, one of frozen parts. Stage
    2 is counted without stage 1's inference, which is not training."""
    V, size = 1 + references, (1, 3, *config.image_size)
    latent = (1, config.latent_channels, *config.scales.latent)
    with torch.device("meta"):
        model = GSVAR(config)
        model.vqvae.add_bridge(identity=False)
    vqvae = model.vqvae
    encoder = convolution_flops(vqvae.encoder, size)
    decoder = convolution_flops(vqvae.decoder, latent)
    if stage == 0:
        return 3 * (encoder + decoder)
    if stage == 1:
        prefix = convolution_flops(model.prefix, size) * V
        head = 2 * config.width * config.vocabulary * config.scales.length
        with FlopCounterMode(display=False) as counter:
            n = config.scales.lengths[-1]
            x = torch.empty(n * repeats, config.latent_channels, device="meta")
            z = torch.empty(n * repeats, model.refiner.input.out_features, device="meta")
            model.refiner.denoise(x, z, z)
        trained = transformer_flops(config, references) + prefix + head
        return 3 * (trained + counter.get_total_flops()) + V * encoder
    with FlopCounterMode(display=False) as counter:
        image = torch.empty(size, device="meta")
        features = vqvae.encoder.features(image)
        vqvae.decoder(torch.empty(latent, device="meta"), vqvae.bridge, image, features)
    return encoder + 3 * (counter.get_total_flops() - encoder)


def stage_of(
    number: int,
    options: Options,
    dtype: torch.dtype,
    device: torch.device,
    objective: ImageObjective,
):
    """A new stage of the preset's sizes, ready to train."""
    torch.manual_seed(0)
    model = GSVAR(PRESETS[options.preset]()).to(device, memory_format=torch.channels_last)
    if number == 0:
        return TokenizerStage(model, objective, total=1000, dtype=dtype)
    if number == 1:
        on = model.config.depth >= 16 if options.checkpointing is None else options.checkpointing
        model.transformer.checkpointing = on
        if options.compile:
            for block in model.transformer.blocks:
                block.compile()
        return LatentStage(model, dtype=dtype)
    model.vqvae.add_bridge()
    model.vqvae.bridge.to(memory_format=torch.channels_last)
    return BridgeStage(model.eval(), objective, dtype=dtype)


def rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the machine, by a matrix product."""
    return 2 * SIDE**3 / warm(product(device, dtype), device, 10)


def warm(run: Work, device: torch.device, repeats: int) -> float:
    """Seconds of the best of several runs after a warm-up."""
    run()
    return best(run, repeats, device)


def step_of(
    number: int,
    options: Options,
    dtype: torch.dtype,
    device: torch.device,
    objective: ImageObjective | None = None,
):
    """A function that does a whole step, its stage and its batch; images are trained by L1 + SSIM
    unless there is another objective."""
    B = options.batch_size
    stage = stage_of(number, options, dtype, device, objective or ImageObjective(None))
    size = stage.model.config.image_size
    views = torch.rand(B, 1 + options.references, 3, *size, device=device) * 2 - 1
    truth, alpha = views[:, 0].clone(), torch.ones_like(views[:, 0, :1])
    batch = Batch([""] * B, [()] * B, [""] * B, list(range(B)), views, truth, alpha, step=100)
    named = stage.parameters_of("model")
    optimizer = build_optimizer(named, decays=stage.decays, rate=1e-5)
    parameters = [p for _, p in named]

    def step() -> None:
        stage(batch, "model", False)["loss"].backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        optimizer.zero_grad()

    return step, stage, batch


def measure(number: int, dtype: torch.dtype, options: Options, device: torch.device) -> dict:
    """A stage's row of the table: seconds, samples a second, FLOP/s and memory of its step."""
    B = options.batch_size
    step, stage, batch = step_of(number, options, dtype, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    took = warm(step, device, options.repeats)
    if number == 2:  # inference is another matter: benchmarks.speed.fixer
        with torch.no_grad():
            took -= warm(lambda: stage.restored(batch, batch.views), device, options.repeats)
    needed = B * needed_flops(stage.model.config, number, options.references)
    peak = options.peak * 1e12 if options.peak else rate(dtype, device)
    return {
        "stage": number,
        "precision": str(dtype).removeprefix("torch."),
        "seconds": took,
        "samples_per_second": B / took,
        "needed_tflop": needed / 1e12,
        "tflops": needed / took / 1e12,
        "machine_tflops": peak / 1e12,
        "share": needed / took / peak,
        "memory_gb": torch.cuda.max_memory_allocated(device) / 1024**3
        if device.type == "cuda"
        else None,
    }


def main() -> None:
    """Print a row for each stage and precision, and write --json."""
    options = parse_command(Options, "python -m benchmarks.speed.training")
    device = choose_device(options.device)
    dtypes = measurable(options.dtypes, device)
    rows = []
    head = (
        "| stage | precision | s a step | samples/s | needed TFLOP | TFLOP/s | of the machine's |"
    )
    sys.stdout.write(f"{head}\n|---|---|---|---|---|---|---|\n")
    for number in options.stages:
        for dtype in dtypes:
            row = measure(number, dtype, options, device)
            rows.append(row)
            sys.stdout.write(
                f"| {number} | {row['precision']} | {row['seconds']:.2f} | "
                f"{row['samples_per_second']:.1f} | "
                f"{row['needed_tflop']:.3f} | {row['tflops']:.3f} | {row['share']:.0%} of "
                f"{row['machine_tflops']:.2f} |\n"
            )
            sys.stdout.flush()
    if options.json:
        settings = {k: str(v) for k, v in asdict(options).items()}
        with atomic_path(options.json) as temporary:
            temporary.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1))


if __name__ == "__main__":
    run_command(main)
