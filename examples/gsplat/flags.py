# The trainer's command line, with the flags of gsplat's and Difix3D's trainers.
from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from examples.gsplat.published import PUBLISHED, IdleFlags, RefusedFlags, check_published
from fixers.flags import OptionFlags, describe_fixers, list_options
from fixers.registry import NAMES
from reconstruction.config import Config, EvaluationConfig, default, mcmc
from reconstruction.rounds.settings import FixConfig
from runtime.flags import describe_fields, shorten_errors

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

CHOICES = tuple(name for name in NAMES if name != "identity")
# published names whose fixers are still to come
LATER = tuple(name for name in ("difix", "difix_re") if name not in NAMES)
FixerName = Literal[(*CHOICES, *LATER)]
OPTIONS = OptionFlags(
    names={
        "checkpoint": "var_test_path",
        "vqvae": "vae_model_path",
        "depth": "depth",
        "bridge": "use_bridge",
        "force_bf16": "force_bf16",
    },
    opposites={"bridge": "without_bridge"},
    defaults={"dtype": "auto"},
    prefix="fixer_",
    switches=True,
)
FixerOptionFlags = OPTIONS.make_group(
    "FixerOptionFlags",
    "Options of the fixers, each with those that have it.",
    [name for name in list_options() if name != "mode"],  # --tiling says which
)


@dataclass(frozen=True)
class FixerFlags:
    """The fixer of novel views."""

    fix: bool = True
    """Fix novel views and distil them back into the splats."""
    fixer: Annotated[FixerName, tyro.conf.arg(help=describe_fixers(CHOICES))] = "gsvar"
    generator: Literal["render_then_fix", "efficient_lvsm"] = "render_then_fix"
    """What makes the novel views: renders, fixed by --fixer; or Efficient-LVSM, straight from the
    photos."""
    generator_checkpoint: Path | None = None
    """efficient_lvsm: weights, ours or the original's (default: the included ones)."""
    generator_views: int | None = None
    """efficient_lvsm: most photos that it looks at, chosen evenly (default: 8)."""
    control: bool = False
    """First run without fixing, in <result_dir>/vanilla, and report both."""
    schedule: Literal["ours", "original"] = "ours"
    """original: rounds, poses and loss weights of Difix3D's trainer, without a gate; of the flags
    below only --fix_steps, --novel_views, --trajectory and --save_novel then have an effect."""
    use_ref: bool = True
    """Give the fixer training photos as references."""
    tiling: bool = False
    """gsvar: fix in tiles of the trained size at full resolution. Off: fix views in one piece if
    the weights allow it; the original's weights get views squashed to 512 pixels, as it did."""
    options: Annotated[FixerOptionFlags, tyro.conf.arg(name="")] = field(
        default_factory=FixerOptionFlags
    )


@dataclass(frozen=True)
class Flags:
    """Reconstruct a capture: posed photos become Gaussian splats, measured on held-out views."""

    data_dir: Path
    """Folder of the capture: photos alone, or with poses of COLMAP, transforms.json (nerfstudio,
    instant-ngp), DL3DV-Benchmark, Metashape, RealityCapture, OpenSfM, OpenMVG, AliceVision,
    VisualSFM, Bundler, Polycam, Record3D or LLFF; or a video."""
    result_dir: Path = Path("results/garden")
    """Where all results go. The same command resumes a stopped run."""
    data_factor: int = 4
    """Use photos at 1/N of their size; 0: at most 1600 pixels a side, 500 on a CPU."""
    image_folder: Path | None = None
    """Folder of the photos, if not the usual one; relative to --data_dir."""
    video_frames: int | None = None
    """Number of frames taken of a video (default: 3 a second, 60 to 150)."""
    test_every: int | None = None
    """Train on every N-th view and test on the others, as Difix3D does (1: split by `_train_` and
    `_eval_` in the names; 0: train on all). With --split gsplat: test on every N-th view. Without
    --test_every and --split, the capture's own split, else every 8th view is held out."""
    split: Literal["gsplat", "difix", "filename", "json", "capture", "all"] | None = None
    """Rule that splits training from test views (default: detected)."""
    split_file: Path | None = None
    """Lists of names for --split json: {"train": [...], "test": [...]}."""
    normalize_world_space: bool = True
    """Centre, align and scale the world; cfg.yml records the transform."""

    ckpt: tuple[Path, ...] | None = None
    """Start from this checkpoint's splats and step, with new optimizers. Of a run on several GPUs
    the files of all ranks (those beside a single one are read with it)."""
    ply: Path | None = None
    """Start from these splats (.ply, .spz, .sog, .glb, ...) at step 0, in the capture's own world
    or the normalised one."""
    eval_only: bool = False
    """Only evaluate --ckpt, --ply, or the newest splats in --result_dir. (Repeating the command of
    a finished run also evaluates it again.)"""
    resume: bool = True
    """Resume the run in --result_dir; --no-resume deletes its results and starts over."""
    device: str | None = None
    """cuda, cuda:1, cpu, ... (default: the first GPU, or the CPU without one)."""
    data_type: Literal["colmap", "ncore"] = "colmap"
    """The capture's format is detected; ncore is refused."""
    camera_model: Literal["pinhole", "ortho", "fisheye", "ftheta"] = "pinhole"
    """Only pinhole: photos are undistorted when they are loaded."""
    disable_viewer: bool = True
    """--no-disable_viewer: show the splats in the browser when training is over."""
    port: int = 8080
    """Port of the viewer."""
    disable_video: bool = False
    """As --no-save_video."""
    post_processing: Literal["bilateral_grid", "ppisp"] | None = None
    """bilateral_grid: as --use_bilateral_grid. ppisp is refused."""

    optimisation: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    evaluation: Annotated[EvaluationConfig, tyro.conf.arg(name="")] = field(
        default_factory=EvaluationConfig
    )
    fixing: Annotated[FixerFlags, tyro.conf.arg(name="")] = field(default_factory=FixerFlags)
    rounds: Annotated[FixConfig, tyro.conf.arg(name="")] = field(default_factory=FixConfig)
    idle: Annotated[IdleFlags, tyro.conf.arg(name="")] = field(default_factory=IdleFlags)
    refused: Annotated[RefusedFlags, tyro.conf.arg(name="")] = field(default_factory=RefusedFlags)


OPTIONS.check_names("the trainer", Flags, Config, EvaluationConfig, FixerFlags, FixConfig)

PRESETS = {
    "default": ("Adaptive density control, as in 3D Gaussian Splatting.", default),
    "mcmc": ("Densification as Markov Chain Monte Carlo (arXiv 2404.09591).", mcmc),
}


def parse_flags() -> Flags:
    """The command line: a preset and flags, with hyphens or underscores.

    ValueError, in one sentence, for a published flag, or a value of it, that is refused.
    """
    presets = {
        name: (text, Flags(data_dir=tyro.MISSING, optimisation=preset()))
        for name, (text, preset) in PRESETS.items()
    }
    describe_fields(Flags)
    with shorten_errors():
        flags = tyro.extras.overridable_config_cli(
            presets,
            prog="python -m examples.gsplat.simple_trainer_difix3d",
            use_underscores=True,
        )
    return resolve_published(flags)


def resolve_published(flags: Flags) -> Flags:
    """The flags with those that are other names worked in; ValueError for refused ones."""
    check_published(flags.idle, flags.refused)
    if flags.camera_model != "pinhole":
        raise ValueError(
            f"--camera_model {flags.camera_model} is refused: photos are undistorted when they are "
            "loaded, also those of fisheye lenses; leave it out"
        )
    if flags.data_type == "ncore":
        raise ValueError(f"--data_type ncore is refused: {PUBLISHED['ncore_camera_ids'].note}")
    if flags.post_processing == "ppisp":
        raise ValueError(
            "--post_processing ppisp is refused: PPISP is not part of this trainer; use "
            "bilateral_grid or --app_opt"
        )
    if flags.evaluation.render_traj_path == "spiral":
        raise ValueError("--render_traj_path spiral is refused; use interp, ellipse or raw")
    config, evaluation = flags.optimisation, flags.evaluation
    if flags.post_processing == "bilateral_grid":
        config = replace(config, use_bilateral_grid=True)
    if flags.disable_video:
        evaluation = replace(evaluation, save_video=False)
    return replace(flags, optimisation=config, evaluation=evaluation)


def say_what_is_idle(flags: Flags, device: torch.device) -> None:
    """A line about each flag that means nothing on this device."""
    for name in ("packed", "sparse_grad"):
        if device.type != "cuda" and getattr(flags.optimisation, name):
            log.warning("--%s has no effect on a CPU: it is a memory layout of CUDA kernels", name)
