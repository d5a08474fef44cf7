# How far the checks that cost no view can be trusted: what they say of fixed held-out views,
# beside what the truth says. Runs on what `benchmarks.quality.distil` made.
#   python -m benchmarks.quality.gate results/distil
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision.transforms.v2.functional as TF
import tyro
import yaml
from torch import Tensor
from tqdm import tqdm

import fixers
import reconstruction
import scenes
from fixers.fixer import blend_by_confidence, validate_inputs
from reconstruction import FixConfig
from reconstruction.rounds.guidance import Guidance
from reconstruction.rounds.repair import Repair, trustworthy
from reconstruction.start import Start
from runtime.command import run_command
from runtime.files import atomic_path, write_json

SURE = 0.05  # dB: gains smaller than that are neither good nor bad


class Harm:
    """A fixer that does harm: to be found out."""

    def __init__(self, change: Callable[[Tensor], Tensor]):
        self.change = change

    def fix(
        self,
        renders: Tensor,
        references: Tensor | None = None,
        *,
        confidence: Tensor | None = None,
        alphas: Tensor | None = None,
    ) -> Tensor:
        """See `fixers.Fixer`."""
        renders, _ = validate_inputs(renders, references, confidence, alphas)
        changed = self.change(renders.movedim(-1, 1)).movedim(1, -1).clamp(0, 1)
        return blend_by_confidence(renders, changed, confidence)


def patches(images: Tensor) -> Tensor:
    """What is there in one view and not in the next: coloured squares."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(len(images), 4, 9, 12, generator=generator)
    noise = torch.nn.functional.interpolate(noise, images.shape[2:], mode="nearest")
    return torch.where(noise[:, 3:] > 0.8, noise[:, :3], images)


HARMS = {
    "blur": lambda images: TF.gaussian_blur(images, [9, 9], [2.0, 2.0]),
    "darker": lambda images: images * 0.8,
    "patches": patches,
}


@dataclass(frozen=True)
class Options:
    """Ask the checks about the fixed held-out views of runs, and compare with the truth."""

    results: tyro.conf.Positional[Path]
    """What `benchmarks.quality.distil` made: <capture>/every_<N>/vanilla."""
    weights: Path | None = None
    """Of the fixer (default: those that come with this project)."""
    views: int = 12
    """At most so many held-out views of a run."""


def rows(folder: Path, fixer: fixers.Fixer, warped: bool, views: int) -> list[dict]:
    """What the checks and the truth say of one run's held-out views."""
    told = yaml.safe_load((folder / "cfg.yml").read_text())
    scene = scenes.load(
        told["data_dir"],
        data_factor=told["data_factor"],
        split="difix",
        test_every=int(folder.parent.name.split("_")[1]),  # every_<N>
        progress=False,
    )
    splats = Start.newest(folder).splats
    settings, config = FixConfig(), reconstruction.Config()
    guidance = Guidance(splats, scene, tuple(scene.split.train), config, settings)
    held = list(scene.split.test)
    held = held[:: -(-len(held) // views)]
    repaired = Repair(guidance, fixer, settings, warped, True)(scene.cameras[held])
    found = []
    for index, view in zip(held, repaired, strict=True):
        truth = scene.image(index)
        before, after = ((x - truth).square().mean() for x in (view.render.color, view.fixed))
        gain = 10 * (before / after.clamp(min=1e-10)).log10().item()
        line = {"gain": gain, "agrees": view.agrees, "consistent": view.consistent}
        found.append(line | {"trusted": trustworthy(view)})
    return found


def summary(name: str, found: list[dict]) -> dict[str, object]:
    """Of one fixer: the truth's mean, how many views each verdict took, how many were right."""
    good = [r for r in found if r["gain"] > SURE]
    bad = [r for r in found if r["gain"] < -SURE]
    return {
        "fixer": name,
        "views": len(found),
        "gain": sum(r["gain"] for r in found) / len(found),
        "better": len(good),
        "of them trusted": sum(r["trusted"] for r in good),
        "worse": len(bad),
        "of them refused": sum(not r["trusted"] for r in bad),
    }


def main() -> None:
    options = tyro.cli(Options, prog="python -m benchmarks.quality.gate", use_underscores=True)
    runs = sorted(f.parent for f in options.results.glob("*/*/vanilla/cfg.yml"))
    if not runs:
        raise ValueError(f"{options.results} has no runs: make them with benchmarks.quality.distil")
    ours = fixers.load("gsvar", checkpoint=options.weights, mode="auto")
    tried = {"gsvar": (ours, ours.model.config.warped_references)}
    tried |= {name: (Harm(change), True) for name, change in HARMS.items()}
    lines, kept = [], {}
    for name, (fixer, warped) in tried.items():
        found = []
        for folder in tqdm(runs, name, unit="run"):
            found += rows(folder, fixer, warped, options.views)
        lines.append(summary(name, found))
        kept[name] = found
    keys = list(lines[0])
    text = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    for line in lines:
        cells = (f"{v:+.2f} dB" if isinstance(v, float) else str(v) for v in line.values())
        text.append("| " + " | ".join(cells) + " |")
    table = "\n".join(text) + "\n"
    sys.stdout.write(table)
    write_json(options.results / "gate.json", {"summary": lines, "views": kept})
    with atomic_path(options.results / "gate.md") as temporary:
        temporary.write_text(table)


if __name__ == "__main__":
    run_command(main)
