# How reliable are the checks that need no ground truth? They judge fixed held-out views of runs
# by `benchmarks.quality.distil`, and their verdicts are compared with the ground truth's.
#   python -m benchmarks.quality.gate results/distil
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torchvision.transforms.v2.functional as TF
import tyro
import yaml
from torch import Tensor

import fixers
import reconstruction
import scenes
from fixers.fixer import Needs, blend_by_confidence, validate_inputs
from generators import References, RenderThenFix
from reconstruction.rendering import psnr, render_view
from reconstruction.rounds.gate import is_trustworthy
from reconstruction.start import Start
from runtime.command import run_command
from runtime.files import atomic_path, write_json
from runtime.flags import parse_command
from runtime.progress import ProgressBar

SURE = 0.05  # dB: smaller gains count as neither good nor bad


class Harm:
    """A fixer that does harm, which the checks should refuse."""

    needs = Needs(warped=True)

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
    """Images [N,3,H,W] with coloured squares that appear in one view and not in the next."""
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
    """Let the checks judge the fixed held-out views of runs, and compare with the ground truth."""

    results: tyro.conf.Positional[Path]
    """The results folder of `benchmarks.quality.distil`: <capture>/every_<N>/vanilla."""
    weights: Path | None = None
    """The fixer's weights (default: the shipped ones)."""
    views: int = 12
    """Most held-out views of a run."""


def judge_views(folder: Path, fixer: fixers.Fixer, count: int) -> list[dict]:
    """For each held-out view of a run: the true gain (dB) and the checks' verdicts."""
    recorded = yaml.safe_load((folder / "cfg.yml").read_text())
    scene = scenes.load(
        recorded["data_dir"],
        data_factor=recorded["data_factor"],
        split="difix",
        test_every=int(folder.parent.name.split("_")[1]),  # every_<N>
        progress=False,
    )
    splats = Start.newest(folder).splats
    held = list(scene.split.test)
    held = held[:: -(-len(held) // count)]
    views = RenderThenFix(fixer).generate(
        References.from_scene(scene, scene.split.train),
        scene.cameras[held],
        render=partial(render_view, splats, config=reconstruction.Config()),
    )
    rows = []
    for index, view in zip(held, views, strict=True):
        truth = scene.image(index)
        gain = psnr(view.image, truth) - psnr(view.pictures["render"], truth)
        line = {"gain": gain, "agrees": view.agreement, "consistent": view.consistency}
        rows.append(line | {"trusted": is_trustworthy(view)})
    return rows


def summarize(name: str, rows: list[dict]) -> dict[str, object]:
    """A fixer's mean gain, its better and worse views, and how many the checks judged right."""
    good = [r for r in rows if r["gain"] > SURE]
    bad = [r for r in rows if r["gain"] < -SURE]
    return {
        "fixer": name,
        "views": len(rows),
        "gain": sum(r["gain"] for r in rows) / len(rows),
        "better": len(good),
        "of them trusted": sum(r["trusted"] for r in good),
        "worse": len(bad),
        "of them refused": sum(not r["trusted"] for r in bad),
    }


def main() -> None:
    """Judge the runs with the shipped fixer and with three harmful ones, and print a table."""
    options = parse_command(Options, "python -m benchmarks.quality.gate")
    runs = sorted(f.parent for f in options.results.glob("*/*/vanilla/cfg.yml"))
    if not runs:
        raise ValueError(f"{options.results} has no runs; run benchmarks.quality.distil first")
    ours = fixers.load("gsvar", checkpoint=options.weights, mode="auto")
    tried = {"gsvar": ours} | {name: Harm(change) for name, change in HARMS.items()}
    lines, judged = [], {}
    for name, fixer in tried.items():
        rows = []
        for folder in ProgressBar(runs, name, unit="run"):
            rows += judge_views(folder, fixer, options.views)
        lines.append(summarize(name, rows))
        judged[name] = rows
    keys = list(lines[0])
    text = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    for line in lines:
        cells = (f"{v:+.2f} dB" if isinstance(v, float) else str(v) for v in line.values())
        text.append("| " + " | ".join(cells) + " |")
    table = "\n".join(text) + "\n"
    sys.stdout.write(table)
    write_json(options.results / "gate.json", {"summary": lines, "views": judged})
    with atomic_path(options.results / "gate.md") as temporary:
        temporary.write_text(table)


if __name__ == "__main__":
    run_command(main)
