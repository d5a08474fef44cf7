# Captures -> degraded renders and their ground truth; see --help and docs/curation.md.
from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if not __package__:  # run as a script: the folder's own name is the package's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from gen_data.scene_list import list_scenes, select_scenes
from gen_data.strategies import Name, Strategy
from runtime.command import choose_device, run_command
from runtime.files import make_writable_folder
from runtime.flags import parse_command
from runtime.shards import Shard

if TYPE_CHECKING:
    from gen_data.recipe import Recipe

log = logging.getLogger("gen_data")

ABOUT = """
Reconstruct captures with one of five degradation strategies, and render them with their photos.

The commands of GS-VAR, for DL3DV-Benchmark:

  python gen_data/gen_data.py --base_path ../dataset/DL3DV-10K-Benchmark --idx_start 0 --idx_end 10
    --save_iter 1000 7000 --render_iter 1000 7000 --image_folder images_4 --strategy underfitting

  python gen_data/gen_data.py --base_path ../dataset/DL3DV-10K-Benchmark --idx_start 105
    --save_iter 30000 --render_iter 30000 --image_folder images_4 --strategy sparse --train_every 10

Procedural scenes, without any data set, at sizes for a CPU:

  python gen_data/gen_data.py --base_path ../dataset/procedural --procedural 100 --seed 0
    --strategy sparse --render_iter 600 --max_steps 600 --densify mcmc --cap_max 10000 --workers 2

Repeating a command skips finished scenes. gen_data/gen_data_json.py then lists the triplets.
Exit code 1: some scenes failed; 2: nothing was started.
"""


@dataclass(frozen=True)
class Options:
    """Flags of gen_data.py."""

    base_path: Path
    """Folder of the scenes: <base_path>/<scene>/gaussian_splat or <base_path>/<scene>."""
    idx_start: int = 0
    """Index of the first scene in the sorted list: column `hash` of benchmark-meta.csv, or the
    folders."""
    idx_end: int | None = None
    """Index after the last scene (default: all scenes)."""
    save_iter: tuple[int, ...] = ()
    """Save the splats (point_cloud.ply) after these steps."""
    render_iter: tuple[int, ...] | None = None
    """Render after these steps (default: 1000 to 7000 and 30000 for underfitting, else 30000)."""
    image_folder: str = "images"
    """Folder of the photos; images_4: photos at a quarter of the size, resized if it is missing."""
    strategy: Name = "underfitting"
    """underfitting: all frames train and are rendered early. sparse: every N-th frame trains, the
    others are rendered. random: 5 to 20 % of the frames train. noise: sparse, from other initial
    points. cross: one half of the path trains, the other is rendered."""
    train_every: int = 10
    """N for sparse and noise."""
    noise_start: Literal["random", "dense"] = "random"
    """Initial points of noise: random, or dense and inexact."""
    half: Literal[1, 2] = 1
    """Half of the path on which cross trains."""

    max_steps: int | None = None
    """Length of the whole optimisation, to which all its phases are scaled (default: the 30000
    steps of 3DGS)."""
    densify: Literal["default", "mcmc"] = "default"
    """How Gaussians are added: as in 3DGS, or by MCMC up to cap_max."""
    cap_max: int = 1_000_000
    """Maximum number of Gaussians with mcmc."""
    init_type: Literal["sfm", "random"] = "sfm"
    """Start from the capture's points (sfm) or from random ones."""
    init_num_pts: int = 100_000
    """Number of random or dense points."""
    sh_degree: int = 3
    """Degree of the spherical harmonics."""
    depth: bool = True
    """Save the depth of every render, which gen_data_json.py --warp needs."""
    seed: int = 0
    """Seed of the optimisation, of the strategy random, and of the first procedural scene."""

    procedural: int = 0
    """Number of procedural scenes to generate in output_path and curate, instead of base_path's."""
    width: int = 512
    """Width of procedural photos in pixels."""
    height: int = 384
    """Height of procedural photos in pixels."""
    views: int = 60
    """Number of photos of a procedural scene."""

    output_path: Path | None = None
    """Results go to <output_path>/<scene>/gs_recon... (default: base_path)."""
    workers: int = 1
    """Scenes curated at the same time; they share the cores and the GPUs."""
    shard: str | None = None
    """i/n: only the i-th of n parts of the list, i from 1, for job arrays on a cluster."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Redo finished scenes."""
    device: str | None = None
    """cuda, cuda:1 or cpu (default: cuda if available)."""


def make_recipe(o: Options) -> Recipe:
    """The recipe that the flags describe; ValueError, naming the flag, for invalid ones."""
    from gen_data.recipe import Recipe

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
    """Curate the scenes.

    Raises ValueError or OSError, naming the flag, before any work, and SystemExit(1) if a scene
    failed.
    """
    from gen_data.results import is_finished
    from gen_data.tasks import Task, make_procedural_tasks, run_task
    from gen_data.workers import run_in_workers

    recipe = make_recipe(o)
    if o.workers < 1:
        raise ValueError(f"--workers {o.workers} must be at least 1")
    device = str(choose_device(o.device))
    shard = Shard.parse(o.shard) if o.shard is not None else None
    output = o.output_path or o.base_path
    if o.procedural:
        size = (o.views, o.width, o.height)
        tasks = make_procedural_tasks(output, recipe, device, o.procedural, size)
    else:
        names = list_scenes(o.base_path, o.output_path)
        tasks = {name: Task(o.base_path, output / name, recipe, device) for name in names}
    try:
        make_writable_folder(output)
    except PermissionError as error:
        raise PermissionError(f"{error} (--output_path)") from None
    names = select_scenes(list(tasks), o.idx_start, o.idx_end, shard)
    if not names:
        log.info("--shard %s contains no scene", o.shard)
    todo = [n for n in names if o.overwrite or not is_finished(tasks[n].output, tasks[n].recipe)]
    if len(todo) < len(names):
        log.info("%d of %d scenes are finished already", len(names) - len(todo), len(names))
    if todo and device == "cpu":
        from reconstruction.warm_up import OPTIMISATION
        from runtime.kernels import compile_ahead, wait_for_kernels

        compile_ahead(*OPTIMISATION)
        wait_for_kernels()  # or each worker would compile them
    failures = run_in_workers(run_task, {name: tasks[name] for name in todo}, o.workers)
    if failures:
        log.error("%d of %d scenes failed:", len(failures), len(todo))
        for name, why in sorted(failures.items()):
            log.error("  %s: %s", name, why.removeprefix("failed: "))
        sys.exit(1)


if __name__ == "__main__":
    run_command(
        lambda: main(parse_command(Options, "python gen_data/gen_data.py", description=ABOUT))
    )
