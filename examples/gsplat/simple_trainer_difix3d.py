# The command line of reconstruction/, with the flags of gsplat's and Difix3D's trainers:
#   python -m examples.gsplat.simple_trainer_difix3d default --data_dir CAPTURE --no-fix
from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

import fixers
import reconstruction
import scenes
from reconstruction import Config, EvaluationConfig, FixConfig, FixerInUse, Start, fit, original
from runtime.arguments import naming_flags
from runtime.command import choose_device, run_command
from runtime.files import make_writable_folder
from runtime.precision import multiplies_bf16

log = logging.getLogger(__name__)


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
    """Precision of the fixer (default: bf16 where the machine multiplies it faster)."""


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
    device = choose_device(flags.device)
    if flags.fixing.control and not flags.fixing.fix:
        log.warning("--control is the run without fixing, which --no-fix makes anyway: left out")
    fixer = load_fixer(flags, device) if flags.fixing.fix and not flags.eval_only else None
    rounds = original(flags.rounds) if flags.fixing.schedule == "original" else flags.rounds
    start = choose_start(flags)
    scene = load_scene(flags, device)
    if start is not None and (flags.ply is not None or flags.ckpt is not None):
        scene = in_world_of(start, scene, flags, device)
    make_writable_folder(flags.result_dir)
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
            fixer=fixer,
            fixing=rounds,
            control=flags.fixing.control,
        )
    log.info("report: %s", flags.result_dir / "report" / "index.html")


def load_fixer(flags: Flags, device: torch.device) -> FixerInUse:
    """The fixer that the flags name. ValueError or FileNotFoundError, in one sentence, where it
    cannot be had."""
    own = flags.fixing
    if own.fixer in ("difix", "difix_re"):
        raise ValueError(f"--fixer {own.fixer} comes in a later version; use gsvar, or --no-fix")
    told = {"fixer": own.fixer, "use_ref": own.use_ref}
    if own.fixer != "gsvar":
        return FixerInUse(fixers.load(own.fixer), told, use_ref=own.use_ref)
    dtype = own.fixer_dtype or ("bf16" if multiplies_bf16(device) else "float32")
    with naming_flags(vqvae="--vae_model_path", depth="--depth"):
        fixer = fixers.load(
            "gsvar",
            checkpoint=own.var_test_path,
            vqvae=own.vae_model_path,
            depth=own.depth,
            bridge=own.use_bridge or (False if own.without_bridge else None),
            mode="tile" if own.tiling else "auto",
            device=device,
            dtype=dtype,
        )
    warped = fixer.model.config.warped_references
    if not (own.tiling or warped):
        fixer.mode = "resize"
    weights = str(own.var_test_path or "shipped")
    told |= {"var_test_path": weights, "use_bridge": fixer.bridge, "tiling": own.tiling}
    told |= {"fixer_dtype": dtype}
    return FixerInUse(fixer, told, warped=warped, use_ref=own.use_ref)


def choose_start(flags: Flags) -> Start | None:
    """The splats that --ckpt, --ply or --eval_only ask for."""
    if flags.ckpt is not None and flags.ply is not None:
        raise ValueError("--ckpt and --ply both name splats to start from; give one")
    if flags.ckpt is not None:
        return Start.from_checkpoint(flags.ckpt)
    if flags.ply is not None:
        return Start.from_ply(flags.ply)
    return Start.newest(flags.result_dir) if flags.eval_only else None


def in_world_of(
    start: Start, scene: scenes.Scene, flags: Flags, device: torch.device
) -> scenes.Scene:
    """The scene in the world of given splats, the capture's own or the normalised one, whatever
    the flag says. ValueError where they fit in neither."""
    splats, config = start.splats.to(device), flags.optimisation
    found = fit.fit(splats, scene, config)
    if found[1] < fit.GOOD and scene.split.train:
        normalised = not flags.normalize_world_space
        other = load_scene(replace(flags, normalize_world_space=normalised), device)
        if (better := fit.fit(splats, other, config))[1] > found[1] + 1:
            world = "normalised" if normalised else "capture's own"
            log.warning("%s lies in the %s world: taking that", start.source, world)
            return other
        fit.check(*max(found, better))
        if found[1] < fit.LEAST_PSNR:
            log.warning(
                "%s shows little of what the photos do (%.1f dB at the capture's cameras): do "
                "splats and poses belong together?",
                start.source,
                found[1],
            )
    return scene


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
