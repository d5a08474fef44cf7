# The trainer's command line, with the flags of gsplat's and Difix3D's trainers.
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from reconstruction.config import Config, EvaluationConfig, default, mcmc
from reconstruction.rounds.settings import FixConfig


@dataclass(frozen=True)
class FixerFlags:
    """The fixer that repairs novel views between stretches of optimisation."""

    fix: bool = True
    """Fix novel views and distil them back."""
    fixer: Literal["gsvar", "classical", "difix", "difix_re"] = "gsvar"
    """Which fixer; classical is a denoiser, as a control."""
    control: bool = False
    """Make the same without fixing first, in <result_dir>/vanilla, and report both."""
    schedule: Literal["ours", "original"] = "ours"
    """original: the rounds, poses and weights of Difix3D's trainer, with no gate; of the flags
    below only --fix_steps, --novel_views, --trajectory and --save_novel then have an effect."""
    use_ref: bool = True
    """Give the fixer training photos as references."""
    use_bridge: bool = False
    """Insist on the VAE bridge; weights that have one decode with it anyway."""
    without_bridge: bool = False
    """Do not decode with it."""
    tiling: bool = False
    """Fix in tiles of the trained size at full resolution. Without, views are fixed in one piece
    where the weights allow it; on the original's, they are squashed to 512 pixels, as it did."""
    var_test_path: Path | None = None
    """Weights (default: those that come with this project)."""
    vae_model_path: Path | None = None
    """Weights of the tokenizer, where they are in a file of their own."""
    depth: int | None = None
    """Blocks of the transformer, to be checked against the weights."""
    fixer_dtype: Literal["float32", "bf16", "fp16"] | None = None
    """Precision of the fixer (default: bf16 where the machine multiplies it, else float32)."""
    force_bf16: bool = False
    """With --fixer_dtype bf16: use it even where the processor only emulates it."""


@dataclass(frozen=True)
class Flags:
    """Reconstruct a capture: posed photos become Gaussian splats, measured on held-out views."""

    data_dir: Path
    """Folder of the capture: COLMAP, transforms.json, DL3DV's gaussian_splat, or only photos."""
    result_dir: Path = Path("results/garden")
    """Everything is written here. The same command resumes a stopped run."""
    data_factor: int = 4
    """Use photos at 1/N of their size; 0: so that no side has over 1600 pixels, 500 on a CPU."""
    test_every: int | None = None
    """Train on every N-th view and test on the others, as Difix3D does (1: `_train_` and `_eval_`
    in the names decide; 0: all train). With --split gsplat the opposite: test on every N-th.
    Without it and --split, every 8th view is held out."""
    split: Literal["gsplat", "difix", "filename", "json", "all"] | None = None
    """Rule that divides training from test views; detected by default."""
    split_file: Path | None = None
    """Lists of names for --split json: {"train": [...], "test": [...]}."""
    normalize_world_space: bool = True
    """Centre, align and scale the world; the transform is written to cfg.yml."""

    ckpt: Path | None = None
    """Go on from this checkpoint's splats and step, with fresh optimizers."""
    ply: Path | None = None
    """Go on from these splats, from step 0, in the capture's own world or the normalised one."""
    eval_only: bool = False
    """Only render and measure: --ckpt, --ply, or the newest splats in --result_dir. (A finished
    run's own command does so too, and fixes the renders again.)"""
    resume: bool = True
    """Go on with the run in --result_dir; --no-resume starts over and removes what it wrote."""
    device: str | None = None
    """cuda, cuda:1, cpu, ...; the first GPU by default, else the CPU."""

    optimisation: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    evaluation: Annotated[EvaluationConfig, tyro.conf.arg(name="")] = field(
        default_factory=EvaluationConfig
    )
    fixing: Annotated[FixerFlags, tyro.conf.arg(name="")] = field(default_factory=FixerFlags)
    rounds: Annotated[FixConfig, tyro.conf.arg(name="")] = field(default_factory=FixConfig)


PRESETS = {
    "default": ("Adaptive density control, as in 3D Gaussian Splatting.", default),
    "mcmc": ("Densification as Markov Chain Monte Carlo (arXiv 2404.09591).", mcmc),
}


def parse_flags() -> Flags:
    """The command line: a preset and flags, with hyphens or underscores."""
    return tyro.extras.overridable_config_cli(
        {
            name: (text, Flags(data_dir=tyro.MISSING, optimisation=preset()))
            for name, (text, preset) in PRESETS.items()
        }
    )
