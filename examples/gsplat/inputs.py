# What the trainer's flags name, loaded: the scene, the splats to start from, the generator.
from __future__ import annotations

import logging
from dataclasses import replace

import torch

import fixers
import scenes
from examples.gsplat.flags import Flags
from fixers.gsvar import GSVAROptions
from generators import RenderThenFix
from reconstruction import FixConfig, Start
from reconstruction.start import GOOD_PSNR, LEAST_PSNR, check_fit, measure_fit
from runtime.arguments import naming_flags
from runtime.precision import choose_dtype, multiplies_bf16

log = logging.getLogger(__name__)


def load_generator(flags: Flags, rounds: FixConfig, device: torch.device) -> RenderThenFix:
    """Renders, fixed by the fixer that the flags name. ValueError or FileNotFoundError, in one
    sentence, where it cannot be had."""
    own = flags.fixing
    if own.fixer in ("difix", "difix_re"):
        raise ValueError(f"--fixer {own.fixer} comes in a later version; use gsvar, or --no-fix")
    settings: dict[str, object] = {"fixer": own.fixer, "use_ref": own.use_ref}
    if own.fixer == "gsvar":
        dtype = own.fixer_dtype or ("bf16" if multiplies_bf16(device) else "float32")
        warped = GSVAROptions(checkpoint=own.var_test_path).needs().warped
        with naming_flags(vqvae="--vae_model_path", depth="--depth"):
            fixer = fixers.load(
                "gsvar",
                checkpoint=own.var_test_path,
                vqvae=own.vae_model_path,
                depth=own.depth,
                bridge=own.use_bridge or (False if own.without_bridge else None),
                mode="tile" if own.tiling else "auto" if warped else "resize",
                device=device,
                dtype=choose_dtype(dtype, device, force_bf16=own.force_bf16),
            )
        settings |= {
            "var_test_path": str(own.var_test_path or "shipped"),
            "use_bridge": fixer.options.bridge,
            "tiling": own.tiling,
            "fixer_dtype": dtype,
        }
    else:
        fixer = fixers.load(own.fixer)
    return RenderThenFix(
        fixer,
        references=rounds.references,
        select_by=rounds.reference_by,
        use_ref=own.use_ref,
        confident=rounds.confident,
        settings=settings,
    )


def load_start(flags: Flags) -> Start | None:
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


def load_scene_of(start: Start, flags: Flags, device: torch.device) -> scenes.Scene:
    """The capture in the world of given splats, its own or the normalised one, whatever the flag
    says. ValueError where they fit in neither."""
    scene = load_scene(flags, device)
    if not scene.split.train:
        return scene
    splats, config = start.splats.to(device), flags.optimisation
    fit = measure_fit(splats, scene, config)
    if fit[1] >= GOOD_PSNR:
        return scene
    normalised = not flags.normalize_world_space
    other = load_scene(replace(flags, normalize_world_space=normalised), device)
    other_fit = measure_fit(splats, other, config)
    if other_fit[1] > fit[1] + 1:
        world = "normalised" if normalised else "capture's own"
        log.warning("%s lies in the %s world: taking that", start.source, world)
        return other
    check_fit(*max(fit, other_fit))
    if fit[1] < LEAST_PSNR:
        log.warning(
            "%s shows little of what the photos do (%.1f dB at the capture's cameras): do splats "
            "and poses belong together?",
            start.source,
            fit[1],
        )
    return scene
