# Reconstruct every capture in a folder and print a table of held-out quality.
#   python -m benchmarks.quality.captures FOLDER
from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

import reconstruction
import scenes
from evaluation.metrics import METRICS
from reconstruction.result import ResultFolder
from runtime.command import run_command
from runtime.files import write_json
from runtime.flags import parse_command
from scenes.photos import list_photos


@dataclass(frozen=True)
class Options:
    """Held-out quality of every capture in a folder: 7/8 of the views train, 1/8 are measured."""

    data: tyro.conf.Positional[Path]
    """Folder of captures."""
    results: Path = Path("results/captures")
    """Each capture's run goes here; a finished run is only measured again."""
    only: tuple[str, ...] = ()
    """Names of captures; all by default."""
    data_factor: int = 4
    """Photos at 1/N of their size."""
    steps: int = 7000
    """Optimisation steps; all schedules are scaled to them."""
    cap: int = 40_000
    """Most Gaussians (MCMC); 0: adaptive density control without a limit."""
    lpips_net: Literal["alex", "vgg", "both"] = "both"
    """Network of LPIPS; both: lpips with AlexNet and lpips_vgg with VGG16."""
    backbones: Path | None = None
    """Folder with the weights of LPIPS's networks, as for the trainer."""
    device: str = "cpu"
    """cpu or cuda."""


def run(capture: Path, options: Options) -> dict[str, object]:
    """Reconstruct one capture and collect its row."""
    result = options.results / capture.name
    config = make_config(options.steps, options.cap)
    scene = scenes.load(posed(capture, options.results), data_factor=options.data_factor)
    evaluation = reconstruction.EvaluationConfig(options.lpips_net, options.backbones)
    reconstruction.optimise(
        scene, config, result_dir=result, device=options.device, evaluation=evaluation
    )
    last = options.steps - 1
    files = ResultFolder(result)
    val = json.loads(files.val_stats(last).read_text())
    train = json.loads(files.train_stats(last).read_text())
    sizes = sorted({f"{width}x{height}" for width, height in scene.cameras.sizes.tolist()})
    return {
        "scene": capture.name,
        "views": f"{len(scene.split.train)} + {len(scene.split.test)}",
        "resolution": ", ".join(sizes),
        "Gaussians": val["num_GS"],
        "steps": options.steps,
        "minutes": round(train["ellipse_time"] / 60, 1),
        **{
            metric.label: round(val[name], metric.digits)
            for name, metric in METRICS.items()
            if val.get(name) is not None
        },
    }


def make_config(steps: int, cap: int) -> reconstruction.Config:
    """A run of so many steps, with all schedules scaled to them, and at most `cap` Gaussians (MCMC;
    0: adaptive density control without a limit)."""
    config = reconstruction.mcmc() if cap else reconstruction.default()
    if cap:
        config = replace(config, strategy=replace(config.strategy, cap_max=cap))
    return replace(config, steps_scaler=steps / config.max_steps)


def posed(capture: Path, results: Path) -> Path:
    """The capture; a writable copy of it if it has no poses yet and is read-only."""
    photos_only = not (capture / "sparse").exists() and not (capture / "transforms.json").exists()
    if not photos_only or capture.stat().st_mode & 0o222:
        return capture
    copy = results / "copies" / capture.name
    for photo in list_photos(capture, deep=True):
        (copy / photo).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(capture / photo, copy / photo)
    return copy


def main() -> None:
    """Reconstruct the captures one by one; the table is written after each."""
    options = parse_command(Options, "python -m benchmarks.quality.captures")
    captures = sorted(p for p in options.data.iterdir() if p.is_dir())
    captures = [p for p in captures if not options.only or p.name in options.only]
    if not captures:
        raise ValueError(f"{options.data} has no capture of that name; see --only")
    rows = []
    for capture in captures:
        rows.append(run(capture, options))
        write_json(options.results / "table.json", rows)
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    run_command(main)
