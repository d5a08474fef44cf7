# Captures to degraded renders with their ground truth; see --help and docs/curation.md.
from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

if not __package__:  # run as a script: the folder's own name is the package's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from gen_data import jobs
from gen_data.curate import Recipe, is_finished
from gen_data.scene_list import choose, scene_names
from gen_data.strategies import Name, Strategy
from gen_data.tasks import Task, procedural_tasks, work
from runtime.command import choose_device, run_command
from runtime.files import make_writable_folder
from runtime.shards import Shard

log = logging.getLogger("gen_data")

ABOUT = """
Reconstruct captures badly on purpose, and render them beside their photos.

The commands of GS-VAR, on DL3DV-Benchmark:

  python gen_data/gen_data.py --base_path ../dataset/DL3DV-10K-Benchmark --idx_start 0 --idx_end 10
    --save_iter 1000 7000 --render_iter 1000 7000 --image_folder images_4 --strategy underfitting

  python gen_data/gen_data.py --base_path ../dataset/DL3DV-10K-Benchmark --idx_start 105
    --save_iter 30000 --render_iter 30000 --image_folder images_4 --strategy sparse --train_every 10

An endless source, without any data set, at a CPU's pace:

  python gen_data/gen_data.py --base_path ../dataset/procedural --procedural 100 --seed 0
    --strategy sparse --render_iter 600 --max_steps 600 --densify mcmc --cap_max 10000 --workers 2

The same command again skips what is finished. Then gen_data/gen_data_json.py lists the triplets.
Exit code 1: some scenes failed; 2: nothing was begun.
"""


@dataclass(frozen=True)
class Options:
    base_path: Path
    """Folder of the scenes: <base_path>/<scene>/gaussian_splat or <base_path>/<scene>."""
    idx_start: int = 0
    """First scene of the list: column `hash` of benchmark-meta.csv, else the folders, sorted."""
    idx_end: int | None = None
    """Scene before which to stop (default: all)."""
    save_iter: tuple[int, ...] = ()
    """Keep the splats (point_cloud.ply) after these steps."""
    render_iter: tuple[int, ...] | None = None
    """Render after these steps (default: 1000 to 7000 and 30000 for underfitting, else 30000)."""
    image_folder: str = "images"
    """Folder of the photos; images_4 also means a quarter of the size, where only `images` is."""
    strategy: Name = "underfitting"
    """underfitting: all frames train and are rendered early. sparse: every N-th frame trains, the
    others are rendered. random: 5 to 20 % of the frames train. noise: as sparse, from other points.
    cross: one half of the path trains, the other is rendered."""
    train_every: int = 10
    """N of sparse and noise."""
    noise_start: Literal["random", "dense"] = "random"
    """What noise starts from: random points, or dense and inexact ones."""
    half: Literal[1, 2] = 1
    """Of the path, on which cross trains."""

    max_steps: int | None = None
    """Length of the whole schedule, which is shrunk to it (default: 3DGS's 30000 steps)."""
    densify: Literal["default", "mcmc"] = "default"
    """How Gaussians are added: as in 3DGS, or MCMC, at most cap_max."""
    cap_max: int = 1_000_000
    """Most Gaussians of mcmc."""
    init_type: Literal["sfm", "random"] = "sfm"
    """Start from the capture's points, or from random ones."""
    init_num_pts: int = 100_000
    """Number of random or dense points."""
    sh_degree: int = 3
    """Of the spherical harmonics."""
    depth: bool = True
    """Keep the depth of every render, as gen_data_json.py --warp needs it."""
    seed: int = 0
    """Of the optimisation, of random's choice, and of the first procedural scene."""

    procedural: int = 0
    """Make so many procedural scenes below output_path, and use them."""
    width: int = 512
    """Of procedural photos."""
    height: int = 384
    """Of procedural photos."""
    views: int = 60
    """Photos of a procedural scene."""

    output_path: Path | None = None
    """Results go to <output_path>/<scene>/gs_recon... (default: base_path)."""
    workers: int = 1
    """Scenes at the same time; they share the cores (and the GPUs)."""
    shard: str | None = None
    """i/n: only the i-th of n parts of the list, i from 1, for the jobs of a cluster."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Redo finished scenes."""
    device: str | None = None
    """cuda, cuda:1 or cpu (default: what is there)."""


def recipe_of(o: Options) -> Recipe:
    """The flags that a scene's result depends on; ValueError for absurd ones."""
    early = (*range(1000, 8000, 1000), 30_000) if o.strategy == "underfitting" else (30_000,)
    return Recipe(
        Strategy(o.strategy, o.train_every, o.noise_start, o.half, o.seed),
        render_iter=early if o.render_iter is None else o.render_iter,
        save_iter=o.save_iter,
        image_folder=o.image_folder,
        max_steps=o.max_steps,
        densify=o.densify,
        cap_max=o.cap_max,
        init_type=o.init_type,
        init_num_pts=o.init_num_pts,
        sh_degree=o.sh_degree,
        depth=o.depth,
        seed=o.seed,
    )


def main(o: Options) -> None:
    """Curate the scenes; ValueError before any work, SystemExit(1) if some scene failed."""
    recipe = recipe_of(o)
    if o.workers < 1:
        raise ValueError(f"--workers {o.workers} must be at least 1")
    device = str(choose_device(o.device))
    shard = Shard.parse(o.shard) if o.shard is not None else None
    output = o.output_path or o.base_path
    if o.procedural:
        tasks = procedural_tasks(output, recipe, device, o.procedural, (o.views, o.width, o.height))
    else:
        names = scene_names(o.base_path, o.output_path)
        tasks = {name: Task(o.base_path, output / name, recipe, device) for name in names}
    try:
        make_writable_folder(output)
    except PermissionError as error:
        raise PermissionError(f"{error} (--output_path)") from None
    chosen = choose(list(tasks), o.idx_start, o.idx_end, shard)
    if not chosen:
        log.info("no scene falls on --shard %s", o.shard)
    left = [n for n in chosen if o.overwrite or not is_finished(tasks[n].output, tasks[n].recipe)]
    if len(left) < len(chosen):
        log.info("%d of %d scenes are finished already", len(chosen) - len(left), len(chosen))
    failures = jobs.run(work, {name: tasks[name] for name in left}, o.workers)
    if failures:
        log.error("%d of %d scenes failed:", len(failures), len(left))
        for name, why in sorted(failures.items()):
            log.error("  %s: %s", name, why.removeprefix("failed: "))
        sys.exit(1)


if __name__ == "__main__":
    run_command(
        lambda: main(
            tyro.cli(
                Options,
                prog="python gen_data/gen_data.py",
                description=ABOUT,
                use_underscores=True,
            )
        )
    )
