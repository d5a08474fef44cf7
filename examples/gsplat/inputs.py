# What the trainer's flags name, loaded: the scene, the splats to start from, the generator.
from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import torch

import scenes
from examples.gsplat.flags import CHOICES, LATER, OPTIONS, FixerFlags, Flags
from fixers.fixer import Fixer, FixerOptions
from fixers.registry import FIXERS
from generators import Generator, RenderThenFix
from reconstruction import FixConfig, Start
from reconstruction.start import GOOD_PSNR, LEAST_PSNR, check_fit, measure_fit
from runtime.precision import multiplies_bf16

log = logging.getLogger(__name__)


def load_render_then_fix(flags: Flags, rounds: FixConfig, device: torch.device) -> RenderThenFix:
    """Renders, fixed by the fixer that the flags name. ValueError or FileNotFoundError, in one
    sentence, where it cannot be had."""
    own = flags.fixing
    if own.fixer in LATER:
        names = ", ".join(CHOICES)
        raise ValueError(
            f"--fixer {own.fixer} comes in a later version; use one of {names}, or --no-fix"
        )
    options = choose_options(own)
    with OPTIONS.naming():
        fixer = FIXERS[own.fixer][1](options, device)
    return RenderThenFix(
        fixer,
        references=rounds.references,
        select_by=rounds.reference_by,
        use_ref=own.use_ref,
        confident=rounds.confident,
        settings={"fixer": own.fixer, "use_ref": own.use_ref}
        | describe_options(own, options, fixer, device),
    )


# Generators by name: each from the flags, the settings of rounds and a device. A new generator has
# its flags in flags.py and a line here.
GENERATORS: dict[str, Callable[[Flags, FixConfig, torch.device], Generator]] = {
    "render_then_fix": load_render_then_fix,
}


def load_generator(
    flags: Flags, rounds: FixConfig, device: torch.device, name: str = "render_then_fix"
) -> Generator:
    """The generator of that name in GENERATORS, with the flags' options. ValueError for another
    name, and what building it raises."""
    if name not in GENERATORS:
        raise ValueError(f"there is no generator {name!r}: use {', '.join(GENERATORS)}")
    return GENERATORS[name](flags, rounds, device)


def choose_options(own: FixerFlags) -> FixerOptions:
    """The options of the fixer that the flags name. ValueError for those of other fixers."""
    options = OPTIONS.choose_options(own.fixer, own.options)
    if not hasattr(options, "mode"):
        return options
    whole = "auto" if options.needs().warped else "resize"
    return replace(options, mode="tile" if own.tiling else whole)


def describe_options(
    own: FixerFlags, options: FixerOptions, fixer: Fixer, device: torch.device
) -> dict[str, object]:
    """The options that results depend on, by flag name, as cfg.yml has them."""
    settings: dict[str, object] = {}
    defaults = {f.name: f.default for f in fields(options)}
    for name, value in options.decisive().items():
        if name == "checkpoint":
            value = str(value or "shipped")
        elif name == "mode":
            settings["tiling"] = own.tiling
            continue
        elif name == "bridge":
            value = getattr(fixer, "options", options).bridge
        elif name == "dtype":
            auto = "bf16" if multiplies_bf16(device) else "float32"
            value = auto if value == "auto" else value
        elif value == defaults[name]:
            continue
        settings[OPTIONS.flag(name)] = str(value) if isinstance(value, Path) else value
    return settings


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
