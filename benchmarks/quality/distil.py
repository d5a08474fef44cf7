# Fix and distil many captures, each with and without fixing, into one table.
#   python -m benchmarks.quality.distil FOLDER/* --procedural 6 --every 4 8
from __future__ import annotations

import csv
import json
import logging
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Literal

import tyro

import fixers
import generators
import reconstruction
import scenes
from benchmarks.quality.captures import make_config, posed
from evaluation.metrics import METRICS, mean_of_known
from reconstruction.result import ResultFolder
from reconstruction.rounds.settings import FixConfig
from runtime.command import choose_device, run_command
from runtime.files import atomic_path, write_json
from runtime.flags import parse_command
from runtime.shards import Shard
from scenes.formats.registry import find_captures

log = logging.getLogger(__name__)

HELD_OUT = 100_000  # first seed of the scenes that no weights of this project were trained on


@dataclass(frozen=True)
class Options:
    """Fix and distil captures, and compare each with the same run without fixing.

    Finished runs are not repeated: the same command continues. With --shard several machines that
    share the results folder can each do a part; the last one to finish writes the whole table.
    """

    captures: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders of captures, or folders of such folders."""
    procedural: int = 0
    """Number of procedural captures to add (24 photos of 256x192 that the shipped weights never
    saw)."""
    results: Path = Path("results/distil")
    """Each run goes to <capture>/every_<N>[_seed_<S>]/; beside them table.csv, .json, .md, .png."""
    every: tuple[int, ...] = (8,)
    """Train on every N-th view and measure the others (Difix3D's split)."""
    seeds: tuple[int, ...] = (0,)
    """One run for each seed."""
    data_factor: int = 4
    """Photos at 1/N of their size; procedural ones keep theirs."""
    steps: int = 1500
    """Optimisation steps; all schedules are scaled to them."""
    cap: int = 20_000
    """Most Gaussians (MCMC); 0: adaptive density control without a limit."""
    weights: Path | None = None
    """The fixer's weights (default: the shipped ones)."""
    fixer: str = "gsvar"
    """gsvar, or a control: classical, identity."""
    shard: str = "1/1"
    """Which part of the runs to do: 1/4 is the first of four (a job array's index and size)."""
    gpus: tuple[int, ...] = ()
    """Run on these GPUs at the same time, one run per GPU."""
    device: str | None = None
    """cpu or cuda (default: a GPU if there is one)."""
    lpips_net: Literal["alex", "vgg", "both"] = "both"
    """Network of LPIPS; both: lpips with AlexNet and lpips_vgg with VGG16."""
    backbones: Path | None = None
    """Folder with the weights of LPIPS's networks, as for the trainer."""
    fixing: Annotated[FixConfig, tyro.conf.arg(name="")] = field(default_factory=FixConfig)


@dataclass(frozen=True)
class Run:
    """A capture, its split and its seed."""

    capture: Path
    every: int
    seed: int
    scene_seed: int | None = None
    """The seed of a procedural capture."""

    @property
    def name(self) -> str:
        """The capture's name; DL3DV keeps each scene in <hash>/gaussian_splat."""
        own = self.capture.resolve()
        return own.parent.name if own.name == "gaussian_splat" else own.name

    def folder(self, options: Options) -> Path:
        """Where the run's results go."""
        seed = f"_seed_{self.seed}" if options.seeds != (0,) else ""
        return options.results / self.name / f"every_{self.every}{seed}"


def reconstruct(run: Run, options: Options) -> None:
    """Reconstruct one capture without and with fixing, unless that is done already."""
    folder = ResultFolder(run.folder(options))
    if row(run, options) is not None:
        return
    if run.scene_seed is not None and not run.capture.exists():
        from scenes.procedural import write

        write(run.capture, run.scene_seed, n_views=24, width=256, height=192)
    config = make_config(options.steps, options.cap)
    last = (config.max_steps,)
    config = replace(config, seed=run.seed, eval_steps=last, save_steps=last)
    scene = scenes.load(
        posed(run.capture, options.results),
        data_factor=options.data_factor if run.scene_seed is None else 1,
        split="difix",
        test_every=run.every,
    )
    device = str(choose_device(options.device))
    reconstruction.optimise(
        scene,
        config,
        result_dir=folder.path,
        device=device,
        evaluation=reconstruction.EvaluationConfig(
            lpips_net=options.lpips_net, backbones=options.backbones, save_video=False
        ),
        generator=load_generator(options, device),
        fixing=options.fixing,
        control=True,
    )


def load_generator(options: Options, device: str) -> generators.RenderThenFix:
    """Renders, fixed by the fixer that the options name."""
    settings = {"fixer": options.fixer}
    if options.fixer == "gsvar":
        fixer = fixers.load("gsvar", checkpoint=options.weights, mode="auto", device=device)
        settings["weights"] = str(options.weights or "shipped")
    else:
        fixer = fixers.load(options.fixer)
    return generators.RenderThenFix(
        fixer,
        references=options.fixing.references,
        select_by=options.fixing.reference_by,
        confident=options.fixing.confident,
        settings=settings,
    )


def row(run: Run, options: Options) -> dict[str, object] | None:
    """A run's line of the table; None if the run is not finished."""
    folder, last = ResultFolder(run.folder(options)), options.steps - 1
    try:
        before = json.loads(folder.vanilla.val_stats(last).read_text())
        after = json.loads(folder.val_stats(last).read_text())
        rounds = json.loads(folder.rounds_stats(last).read_text())
        minutes = json.loads(folder.train_stats(last).read_text())["ellipse_time"] / 60
    except (OSError, ValueError):
        return None
    line = {"scene": run.name, "every": run.every, "seed": run.seed}
    for key in METRICS:
        for name, stats, prefix in (
            ("vanilla", before, ""),
            ("distilled", after, ""),
            ("post", after, "post_"),
        ):
            value = stats.get(prefix + key)
            line[f"{name}_{key}"] = None if value is None else round(value, 4)
    line["gain_psnr"] = round(after["psnr"] - before["psnr"], 4)
    post = line["post_psnr"]
    line["gain_post_psnr"] = None if post is None else round(post - before["psnr"], 4)
    line["kept"] = sum(r["verdict"] == "kept" for r in rounds)
    line["rounds"] = len(rounds)
    parts = [r["seconds"].get(part, 0) for r in rounds for part in ("round", "judging")]
    line["minutes"] = round(minutes + sum(parts) / 60, 2)
    return line


def write_table(options: Options, runs: list[Run]) -> str:
    """Write table.csv, .json, .md and .png of the finished runs; returns the Markdown."""
    lines = [line for line in (row(run, options) for run in runs) if line is not None]
    if not lines:
        return "nothing is finished yet\n"
    keys = [k for k in lines[0] if any(line[k] is not None for line in lines)]
    with atomic_path(options.results / "table.csv") as temporary, temporary.open("w") as file:
        writer = csv.DictWriter(file, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    write_json(options.results / "table.json", lines)
    text = ["| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys)]
    text += ["| " + " | ".join(format_cell(line[k]) for k in keys) + " |" for line in lines]
    means = {
        k: mean_of_known(line[k] for line in lines) for k in keys if isinstance(lines[0][k], float)
    }
    text.append(
        "| "
        + " | ".join(format_cell(means.get(k, "mean" if k == "scene" else "")) for k in keys)
        + " |"
    )
    markdown = "\n".join(text) + "\n"
    with atomic_path(options.results / "table.md") as temporary:
        temporary.write_text(markdown)
    plot(lines, options.results / "table.png")
    return markdown


def format_cell(value: object) -> str:
    """A value in at most three decimals."""
    if value is None:
        return "n/a"
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def plot(lines: list[dict], path: Path) -> None:
    """Draw the gains of each run as bars."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.3 * len(lines) + 1.2), layout="constrained")
    names = [f"{line['scene']}, every {line['every']}, seed {line['seed']}" for line in lines]
    at = range(len(lines))
    axes.barh([i + 0.2 for i in at], [line["gain_psnr"] for line in lines], 0.4, label="distilled")
    post = [line["gain_post_psnr"] or 0.0 for line in lines]
    axes.barh([i - 0.2 for i in at], post, 0.4, label="and renders fixed")
    axes.set_yticks(list(at), names, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("gain over the run without fixing (dB)")
    axes.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)


def reconstruct_all(runs: list[Run], options: Options) -> None:
    """Do the runs one after another."""
    for run in runs:
        log.info("%s", run.folder(options))
        reconstruct(run, options)


def reconstruct_on_gpus(runs: list[Run], options: Options) -> None:
    """Share the runs among processes, one per GPU."""
    count = len(options.gpus)
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(reconstruct_all, runs[i::count], replace(options, device=f"cuda:{gpu}"))
            for i, gpu in enumerate(options.gpus)
        ]
        for job in jobs:
            job.result()


def main() -> None:
    """Check the options, do this shard's runs and print the table."""
    options = parse_command(Options, "python -m benchmarks.quality.distil")
    if options.steps < 1:
        raise ValueError(f"--steps {options.steps} must be at least 1")
    missing = [str(c) for c in options.captures if not c.is_dir()]
    if missing:
        raise ValueError(f"{missing[0]} is not the folder of a capture")
    if not options.captures and options.procedural < 1:
        raise ValueError("name folders of captures, or make some with --procedural 6")
    captures = [(capture, None) for folder in options.captures for capture in find_captures(folder)]
    for seed in range(HELD_OUT, HELD_OUT + options.procedural):
        captures.append((options.results / "captures" / f"procedural_{seed}", seed))
    runs = [
        Run(capture, every, seed, scene_seed)
        for capture, scene_seed in captures
        for every in options.every
        for seed in options.seeds
    ]
    folders = [run.folder(options) for run in runs]
    twice = [str(f) for f in folders if folders.count(f) > 1]
    if twice:
        raise ValueError(f"several captures would go to {twice[0]}: give them other names")
    mine = Shard.parse(options.shard).select(runs)
    if options.gpus:
        reconstruct_on_gpus(mine, options)
    else:
        reconstruct_all(mine, options)
    sys.stdout.write(write_table(options, runs))


if __name__ == "__main__":
    run_command(main)
