# Do --pose_opt, --use_bilateral_grid and --app_opt bring back what wrong poses and differing
# exposures cost? Captures are spoilt on purpose and reconstructed with and without them.
#   python -m benchmarks.quality.corrections [CAPTURE ...]
from __future__ import annotations

import json
import logging
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro

import reconstruction
import scenes
from benchmarks.quality.captures import make_config
from evaluation.metrics import METRICS
from reconstruction.result import ResultFolder
from runtime.command import run_command
from runtime.files import atomic_path, write_json
from runtime.flags import parse_command
from scenes import Scene, procedural

log = logging.getLogger(__name__)

PROCEDURAL = "procedural tabletop"
GAMMA = 2.2  # of the photos, whose light is scaled
# What is wrong with the capture, and the flag that is to mend it
CASES = (
    ("nothing", None),
    ("poses", None),
    ("poses", "pose_opt"),
    ("exposures", None),
    ("exposures", "use_bilateral_grid"),
    ("exposures", "app_opt"),
)


@dataclass(frozen=True)
class Options:
    """Reconstruct captures with wrong poses and differing exposures, and print a table.

    The poses of the training views are turned about random axes, and each photo's light is scaled
    by a random factor. Every 8th view is held out; its pose stays right. Finished runs are not
    repeated.
    """

    captures: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of captures, beside a procedural one."""
    results: Path = Path("results/corrections")
    """Each run goes to <capture>/<what is wrong>[_<flag>]/."""
    degrees: float = 0.5
    """Angle by which poses are turned."""
    stops: float = 1.0
    """Exposures differ from the photos' own by up to this, to either side."""
    data_factor: int = 4
    """Photos at 1/N of their size; procedural ones keep theirs."""
    steps: int = 3000
    """Optimisation steps; all schedules are scaled to them."""
    cap: int = 10_000
    """Most Gaussians (MCMC)."""
    lpips_net: Literal["alex", "vgg", "both"] = "alex"
    """Network of LPIPS; both: lpips with AlexNet and lpips_vgg with VGG16."""
    backbones: Path | None = None
    """Folder with the weights of LPIPS's networks, as for the trainer."""


def turn_training_views(scene: Scene, degrees: float, seed: int = 1) -> Scene:
    """The scene with each training camera turned by this angle about a random axis through it."""
    generator = torch.Generator().manual_seed(seed)
    viewmats = scene.cameras.viewmats.clone()
    for view in scene.split.train:
        x, y, z = F.normalize(torch.randn(3, generator=generator), dim=0) * math.radians(degrees)
        turn = torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]]))
        viewmats[view, :3] = turn.to(viewmats) @ viewmats[view, :3]
    return replace(scene, cameras=replace(scene.cameras, viewmats=viewmats))


def expose(scene: Scene, stops: float, seed: int = 2) -> Scene:
    """The scene with the light of each photo scaled by a random factor, uniform in stops."""
    generator = torch.Generator().manual_seed(seed)
    factors = 2 ** (stops * (2 * torch.rand(len(scene), generator=generator) - 1))
    images = tuple(
        np.clip(image * float(factor) ** (1 / GAMMA), 0, 255).round().astype(np.uint8)
        for image, factor in zip(scene.images, factors, strict=True)
    )
    return replace(scene, images=images)


def load(capture: Path | None, options: Options) -> Scene:
    """A capture as the trainer loads it; None: the procedural one."""
    factor = options.data_factor
    if capture is None:
        capture, factor = options.results / "captures" / "tabletop", 1
        if not capture.exists():
            procedural.write(
                capture, 3, kind="tabletop", path="orbit", n_views=24, width=256, height=192
            )
    return scenes.load(capture, data_factor=factor, normalize=True)


def reconstruct(scene: Scene, name: str, wrong: str, flag: str | None, options: Options) -> dict:
    """One run's line of the table."""
    folder = ResultFolder(options.results / name / "_".join(filter(None, (wrong, flag))))
    stats = folder.val_stats(options.steps - 1)
    if not stats.exists():
        config = make_config(options.steps, options.cap)
        last, on = (config.max_steps,), {} if flag is None else {flag: True}
        config = replace(config, eval_steps=last, save_steps=last, **on)
        if wrong == "poses":
            scene = turn_training_views(scene, options.degrees)
        if wrong == "exposures":
            scene = expose(scene, options.stops)
        evaluation = reconstruction.EvaluationConfig(
            lpips_net=options.lpips_net,
            backbones=options.backbones,
            save_video=False,
            use_color_correction_metric=True,
        )
        log.info("%s", folder.path)
        reconstruction.optimise(scene, config, result_dir=folder.path, evaluation=evaluation)
    line = {"capture": name, "wrong": wrong, "flag": flag}
    line |= json.loads(stats.read_text())
    seconds = json.loads(folder.train_stats(options.steps - 1).read_text())["ellipse_time"]
    return line | {"minutes": seconds / 60}


def format_table(lines: list[dict]) -> str:
    """Markdown; the gain is that over the same wrong capture without a flag, in PSNR for poses and
    in PSNR after colour correction for exposures."""
    names = [name for name in METRICS if lines[0].get(name) is not None]
    names += [f"cc_{name}" for name in names]
    labels = [f"cc {METRICS[n[3:]].label}" if n[:3] == "cc_" else METRICS[n].label for n in names]
    text = [f"| capture | wrong | flag | {' | '.join(labels)} | gain | minutes |"]
    text.append("|---" * (5 + len(names)) + "|")
    plain = {(line["capture"], line["wrong"]): line for line in lines if line["flag"] is None}
    for line in lines:
        cells = [f"{line[n]:.{METRICS[n.removeprefix('cc_')].digits}f}" for n in names]
        key = "cc_psnr" if line["wrong"] == "exposures" else "psnr"
        gain = line[key] - plain[line["capture"], line["wrong"]][key]
        flag, gain = ("", "") if line["flag"] is None else (f"`--{line['flag']}`", f"{gain:+.2f}")
        text.append(
            f"| {line['capture']} | {line['wrong']} | {flag} | {' | '.join(cells)} | {gain} | "
            f"{line['minutes']:.1f} |"
        )
    return "\n".join(text) + "\n"


def main() -> None:
    """Do the runs one after another; the table is written after each."""
    options = parse_command(Options, "python -m benchmarks.quality.corrections")
    for name in ("degrees", "stops", "steps", "cap"):
        if not getattr(options, name) > 0:
            raise ValueError(f"--{name} {getattr(options, name)}: give a positive number")
    missing = [str(capture) for capture in options.captures if not capture.is_dir()]
    if missing:
        raise ValueError(f"{missing[0]} is not the folder of a capture")
    lines = []
    for capture in (None, *options.captures):
        name = PROCEDURAL if capture is None else capture.resolve().name
        scene = load(capture, options)
        for wrong, flag in CASES:
            lines.append(reconstruct(scene, name, wrong, flag, options))
            write_json(options.results / "table.json", lines)
    text = format_table(lines)
    with atomic_path(options.results / "table.md") as temporary:
        temporary.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    run_command(main)
