# The command line of reconstruction/, with the flags of gsplat's and Difix3D's trainers:
#   python -m examples.gsplat.simple_trainer_difix3d default --data_dir CAPTURE --no-fix
from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

import reconstruction
import scenes
from reconstruction import Config, EvaluationConfig, Start
from scenes.command import choose_device, run_command
from scenes.files import writable_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FixerFlags:
    """The fixer that repairs novel views between rounds of optimisation."""

    fix: bool = True
    """Fix novel views and distil them back. Not available yet: give --no-fix."""
    fixer: Literal["gsvar", "difix", "difix_re"] = "gsvar"
    """Which fixer."""
    fix_steps: tuple[int, ...] = (3_000, 6_000, *range(8_000, 60_001, 2_000))
    """Steps after which novel views are fixed."""
    novel_data_lambda: float = 0.3
    """Weight of fixed views in the loss."""
    use_ref: bool = True
    """Give the fixer the nearest training photo as a reference."""
    use_bridge: bool = False
    """Decode with the VAE bridge."""
    tiling: bool = False
    """Fix in tiles of 512 pixels at full resolution."""
    var_test_path: Path = Path("checkpoints/VARSR.pth")
    """Weights of the autoregressive model."""
    vae_model_path: Path = Path("checkpoints/VQVAE.pth")
    """Weights of the tokenizer."""
    depth: int = 24
    """Blocks of the autoregressive model."""


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
    """Centre, align and scale the world; the transform is kept in cfg.yml."""

    ckpt: Path | None = None
    """Go on from this checkpoint's splats and step, with fresh optimisers."""
    ply: Path | None = None
    """Go on from these splats, from step 0."""
    eval_only: bool = False
    """Only render and measure: --ckpt, --ply, or the newest splats in --result_dir."""
    resume: bool = True
    """Go on with the run in --result_dir; --no-resume starts over and removes what it wrote."""
    device: str | None = None
    """cuda, cuda:1, cpu, ...; the first GPU by default, else the CPU."""

    optimisation: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    evaluation: Annotated[EvaluationConfig, tyro.conf.arg(name="")] = field(
        default_factory=EvaluationConfig
    )
    fixing: Annotated[FixerFlags, tyro.conf.arg(name="")] = field(default_factory=FixerFlags)


PRESETS = {
    "default": ("Adaptive density control, as in 3D Gaussian Splatting.", reconstruction.default),
    "mcmc": ("Densification as Markov Chain Monte Carlo (arXiv 2404.09591).", reconstruction.mcmc),
}


def main() -> None:
    flags = tyro.extras.overridable_config_cli(
        {
            name: (text, Flags(data_dir=tyro.MISSING, optimisation=preset()))
            for name, (text, preset) in PRESETS.items()
        }
    )
    if flags.fixing.fix and not flags.eval_only:
        raise ValueError("the fixer is not part of this version yet; add --no-fix")
    device = choose_device(flags.device)
    start = choose_start(flags)
    scene = load_scene(flags, device)
    writable_folder(flags.result_dir)
    if flags.eval_only:
        reconstruction.evaluate_only(
            scene, start, flags.optimisation, flags.evaluation, flags.result_dir, device
        )
    else:
        reconstruction.optimise(
            scene,
            flags.optimisation,
            result_dir=flags.result_dir,
            device=device,
            start=start,
            resume=flags.resume,
            evaluation=flags.evaluation,
        )
    log.info("report: %s", flags.result_dir / "report" / "index.html")


def choose_start(flags: Flags) -> Start | None:
    """The splats that --ckpt, --ply or --eval_only ask for."""
    if flags.ckpt is not None and flags.ply is not None:
        raise ValueError("--ckpt and --ply both name splats to start from; give one")
    if flags.ckpt is not None:
        return Start.from_checkpoint(flags.ckpt)
    if flags.ply is not None:
        return Start.from_ply(flags.ply)
    return Start.newest(flags.result_dir) if flags.eval_only else None


def load_scene(flags: Flags, device: torch.device) -> scenes.Scene:
    """The capture; --data_factor 0 fits its photos to the device."""
    return scenes.load(
        flags.data_dir,
        data_factor=flags.data_factor,
        longest_side=500 if device.type == "cpu" else 1600,
        split=flags.split,
        test_every=flags.test_every,
        split_file=flags.split_file,
        normalize=flags.normalize_world_space,
    )


if __name__ == "__main__":
    run_command(main)
