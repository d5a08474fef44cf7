# Time of the GS-VAR fixer on one pair, part by part, beside the least that its FLOPs take.
#   python -m benchmarks.speed.fixer                as a table
#   python -m benchmarks.speed.fixer --json F       the same as JSON
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import SIDE, best, measurable, product
from models.gsvar import GSVAR, GSVARConfig
from models.gsvar.restorer import Restorer
from runtime.command import run_command
from runtime.files import atomic_path
from runtime.flags import parse_command


@dataclass(frozen=True)
class Options:
    """Print milliseconds of each part of restoring and decoding one pair, best of several runs.

    The unit is a 2048x2048x2048 float32 product, timed between the parts, so that ratios to it can
    be compared between machines.
    """

    json: Path | None = None
    """Also write the figures to this file."""
    depth: int = 4
    """Transformer blocks; width is 64 a block for depth 16 and more, else 256."""
    references: int = 1
    """Reference views."""
    bridge: bool = False
    """Decode with the VAE-bridge."""
    refiner_steps: int = 10
    repeats: int = 3
    """Runs of each part."""
    device: str = "cpu"


def random_model(options: Options, dtype: torch.dtype, **changes: object) -> GSVAR:
    """A model of the original's form with random weights, none of its layers zero."""
    wide = options.depth >= 16
    config = GSVARConfig(
        depth=options.depth,
        width=64 * options.depth if wide else 256,
        heads=options.depth if wide else 4,
        **changes,
    )
    torch.manual_seed(0)
    model = GSVAR(config)
    if options.bridge:
        model.vqvae.add_bridge(identity=False)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear) and not layer.weight.any():
            torch.nn.init.normal_(layer.weight, std=0.02)
    model = model.to(options.device).set_precision(dtype).eval().requires_grad_(False)
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def measure(options: Options, dtype: torch.dtype) -> dict:
    """Seconds and GFLOP of each part, seconds of the whole and of the unit."""
    model = random_model(options, dtype)
    height, width = model.config.image_size
    generator = torch.Generator().manual_seed(1)
    shape = (1, 1 + options.references, 3, height, width)
    views = (torch.rand(shape, generator=generator) * 2 - 1).to(options.device)
    render, references = views[:, 0], views[:, 1:]
    labels = model.default_labels(1 + options.references)
    scales, restorer = model.config.scales, Restorer(model)
    f_hat = restorer.restore(render, references, refiner="none")
    tokens = scales.lengths[-1]
    condition = torch.randn(tokens, model.config.width, device=options.device).to(dtype)
    unit = product(options.device)

    def restore() -> torch.Tensor:
        return restorer.restore(render, references, refiner_steps=options.refiner_steps)

    parts: dict[str, Callable[[], object]] = {
        "prefix encoder, all views": lambda: model.prefix_tokens(views, labels),
        "reference tokens": lambda: restorer.reference_inputs(references, scales),
        "restore without refiner": lambda: restorer.restore(render, references, refiner="none"),
        f"refiner, {options.refiner_steps} steps": lambda: restorer.refine(
            condition, refiner="ancestral", steps=options.refiner_steps
        ),
        "decode" + (" with bridge" if options.bridge else ""): lambda: model.decode(
            f_hat, render, bridge=options.bridge
        ),
        "whole": lambda: model.decode(restore(), render, bridge=options.bridge),
    }
    if not options.references:
        del parts["reference tokens"]
    result, units = {}, []
    for name, work in parts.items():
        with FlopCounterMode(display=False) as counter:
            work()
        units.append(best(unit, 5, options.device))
        seconds = best(work, options.repeats, options.device)
        result[name] = {"seconds": seconds, "gflop": counter.get_total_flops() / 1e9}
    return {"parts": result, "unit": min(units)}


def main() -> None:
    """Print a table for each precision and write --json."""
    options = parse_command(Options, "python -m benchmarks.speed.fixer")
    figures: dict = {"options": {k: v for k, v in vars(options).items() if k != "json"}}
    for dtype in measurable(("float32", "bf16"), options.device):
        name = "bf16" if dtype == torch.bfloat16 else "float32"
        measured = measure(options, dtype)
        unit = measured["unit"]
        rate = 2 * SIDE**3 / unit / 1e9
        cost = f"{unit * 1e3:.1f} ms ({rate:.0f} GFLOP/s)"
        print(f"{name}: the unit, a {SIDE}^3 float32 product, takes {cost}")
        print(f"{'part':<28}{'ms':>10}{'units':>9}{'GFLOP':>9}{'floor, units':>14}")
        for part, row in measured["parts"].items():
            units, floor = row["seconds"] / unit, row["gflop"] / (2 * SIDE**3 / 1e9)
            milliseconds = row["seconds"] * 1e3
            print(f"{part:<28}{milliseconds:10.0f}{units:9.1f}{row['gflop']:9.0f}{floor:14.1f}")
        figures[name] = measured
        figures[f"unit_{name}"] = measured["parts"]["whole"]["seconds"] / unit
    if options.json:
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    run_command(main)
