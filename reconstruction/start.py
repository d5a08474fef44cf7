# The Gaussians that an optimisation starts from, and whether they and the capture's poses belong
# together.
from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from reconstruction.config import Config
from reconstruction.rendering import measure
from reconstruction.state import History
from scenes.scene import Scene
from splats.files import find_files, find_ranks, is_checkpoint, join, load
from splats.formats import checkpoint
from splats.formats.registry import find_format
from splats.gaussians import Splats, from_points, random_splats
from splats.paths import estimate_focus

log = logging.getLogger(__name__)

FIT_VIEWS = 8  # training views at which splats are looked at
# Below both, splats and poses do not belong together. Splats that were trained only briefly are
# thin (their mean alpha may be 0.1 or less), but not out of sight.
LEAST_ALPHA, LEAST_PSNR = 0.01, 12.0


@dataclass(frozen=True)
class Start:
    """Existing splats to go on from.

    step: how many steps made them (0 if unknown). source: their file. history: of those steps.
    """

    splats: Splats
    step: int
    source: str
    history: History = field(default_factory=History)

    @classmethod
    def from_checkpoint(cls, *paths: Path | str) -> Start:
        """From a .pt as gsplat's trainers write it, or the files of one step that several ranks
        wrote. Those of other ranks beside a single file are read with it.

        Errors as `splats.formats.checkpoint.read`, and ValueError for files of several steps.
        """
        files = [Path(path) for path in paths]
        for file in files:
            if find_format(file) is not None and not is_checkpoint(file):
                raise ValueError(f"{file} is splats, but not a checkpoint; give it as --ply")
        if len(files) == 1:
            files = find_ranks(files[0])
            if re.search(r"_rank0*[1-9]\d*\.", files[0].name):
                log.warning("%s: the files of ranks before it are not there", files[0])
            if len(files) > 1:
                log.info("%s: the files of %d ranks are read together", files[0], len(files))
        saved = [checkpoint.load(file) for file in files]
        parts = [checkpoint.parse(*pair) for pair in zip(files, saved, strict=True)]
        for file, (_, step) in zip(files, parts, strict=True):
            if step != parts[0][1]:
                raise ValueError(
                    f"{file} is of step {step}, and {files[0]} of step {parts[0][1]}; give the "
                    "files of all ranks of one step"
                )
        splats, step = join([splats for splats, _ in parts]), parts[0][1]
        return cls(splats, step + 1, str(files[0].resolve()), History.from_checkpoint(saved[0]))

    @classmethod
    def from_ply(cls, path: Path | str) -> Start:
        """From a .ply or another format of splats (of a checkpoint the step is ignored)."""
        return cls(load(path), 0, str(Path(path).resolve()))

    @classmethod
    def newest(cls, folder: Path | str) -> Start:
        """From the newest splats in a result folder."""
        files = find_files(folder)
        return cls.from_checkpoint(*files) if is_checkpoint(files[0]) else cls.from_ply(files[0])


def initial_splats(scene: Scene, config: Config) -> Splats:
    """Splats at the capture's points, or random ones where the cameras look; seeded.

    ValueError if points are asked for, but a capture that needs them (COLMAP) has none. Formats
    that need not hold any (transforms.json) start at random instead, with a note.
    """
    generator = torch.Generator().manual_seed(config.seed)
    values = {
        "sh_degree": config.sh_degree,
        "opacity": config.init_opa,
        "scale": config.init_scale,
        "generator": generator,
    }
    cap = getattr(config.strategy, "cap_max", None)
    if config.init_type == "sfm" and len(scene.points) > 0:
        points, colors = scene.points, scene.point_colors
        if cap and len(points) > cap:
            log.info("starting from %d of the capture's %d points (cap_max)", cap, len(points))
            subset = torch.randperm(len(points), generator=generator)[:cap]
            points, colors = points[subset], colors[subset]
        return from_points(points, colors, **values)
    if config.init_type == "sfm":
        if scene.needs_points:
            raise ValueError(f"{scene.path} has no points to start from; use --init_type random")
        log.info("the capture has no points: starting from random ones, as --init_type random")
    extent, center = config.init_extent * scene.scale, estimate_focus(scene.cameras)
    count = min(config.init_num_pts, cap or config.init_num_pts)
    return random_splats(count, extent, center=center, **values)


def measure_fit(splats: Splats, scene: Scene, config: Config) -> tuple[float, float]:
    """`measure` at some training views."""
    train = scene.split.train
    return measure(splats, scene, train[:: max(1, -(-len(train) // FIT_VIEWS))], config)


def check_fit(alpha: float, psnr: float) -> None:
    """ValueError where `measure_fit` saw next to nothing of the splats, and that is not what the
    photos show (as of an object on black)."""
    if alpha < LEAST_ALPHA and psnr < LEAST_PSNR:
        raise ValueError(
            f"the capture's cameras see next to nothing of the splats (mean alpha {alpha:.3f}): do "
            "splats and poses belong together, in one world? Check --ply, --ckpt and --data_dir"
        )
