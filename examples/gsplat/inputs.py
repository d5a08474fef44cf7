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
from reconstruction.result import ResultFolder
from reconstruction.start import LEAST_PSNR, check_fit, measure_fit
from runtime.arguments import naming_flags
from runtime.precision import multiplies_bf16
from scenes.frame import list_worlds

log = logging.getLogger(__name__)

EXAMPLES = {"--ckpt": "ckpts/ckpt_29999_rank0.pt", "--ply": "ply/point_cloud_29999.ply"}
BETTER = 0.5  # dB by which another world must show splats better than the first one


def load_render_then_fix(flags: Flags, rounds: FixConfig, device: torch.device) -> RenderThenFix:
    """Renders, fixed by the fixer that the flags name. ValueError or FileNotFoundError, in one
    sentence, where it cannot be had."""
    own = flags.fixing
    for name in ("generator_checkpoint", "generator_views"):
        if getattr(own, name) is not None:
            raise ValueError(f"--{name} belongs to --generator efficient_lvsm")
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
        settings={"generator": "render_then_fix", "fixer": own.fixer, "use_ref": own.use_ref}
        | describe_options(own, options, fixer, device),
    )


def load_efficient_lvsm(flags: Flags, rounds: FixConfig, device: torch.device) -> Generator:
    """Efficient-LVSM's views. ValueError or FileNotFoundError, in one sentence, where it cannot be
    had, or for a fixer's flags."""
    from generators.efficient_lvsm import SHIPPED, EfficientLVSMViews, load_model

    own = flags.fixing
    defaults = type(own)()
    given = [n for n, v in vars(own.options).items() if v != getattr(defaults.options, n)]
    given += [n for n in ("fixer", "tiling", "use_ref") if getattr(own, n) != getattr(defaults, n)]
    if given:
        raise ValueError(
            f"--{given[0]} belongs to fixers: leave it out with --generator efficient_lvsm"
        )
    path = own.generator_checkpoint
    views = 8 if own.generator_views is None else own.generator_views
    if views < 1:
        raise ValueError(f"--generator_views {views} must be at least 1")
    with naming_flags(checkpoint="--generator_checkpoint", views="--generator_views"):
        model = load_model(path, device=device)
    return EfficientLVSMViews(
        model,
        views=views,
        references=rounds.references,
        select_by=rounds.reference_by,
        confident=rounds.confident,
        settings={
            "generator": own.generator,
            "generator_checkpoint": "shipped" if path in (None, SHIPPED) else str(path),
            "generator_views": views,
        },
    )


# Generators by name: each from the flags, the settings of rounds and a device. A new generator has
# its flags in flags.py and a line here.
GENERATORS: dict[str, Callable[[Flags, FixConfig, torch.device], Generator]] = {
    "render_then_fix": load_render_then_fix,
    "efficient_lvsm": load_efficient_lvsm,
}


def load_generator(
    flags: Flags, rounds: FixConfig, device: torch.device, name: str | None = None
) -> Generator:
    """The generator of that name in GENERATORS (default: --generator's), with the flags' options.
    ValueError for another name, and what building it raises."""
    name = name or flags.fixing.generator
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
    for flag, paths in (("--ckpt", flags.ckpt or ()), ("--ply", filter(None, [flags.ply]))):
        for path in paths:
            if not path.exists():
                raise FileNotFoundError(
                    f"{flag} {path} does not exist; give splats, such as a result's "
                    f"{EXAMPLES[flag]}"
                )
    if flags.ckpt is not None:
        return Start.from_checkpoint(*flags.ckpt)
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
        image_folder=flags.image_folder,
        video_frames=flags.video_frames,
        normalize=flags.normalize_world_space,
    )


def load_scene_of(start: Start | None, flags: Flags, device: torch.device) -> scenes.Scene:
    """The capture in the world of the splats that the flags name, or of the run in the result
    folder; else as the flags say. ValueError where given splats and the capture's poses do not
    belong together."""
    scene = load_scene(flags, device)
    if flags.ckpt is not None or flags.ply is not None:
        return choose_world(scene, start, flags, device) if scene.split.train else scene
    other = ResultFolder(flags.result_dir).find_world(scene)
    if other is None or not (flags.eval_only or flags.resume):
        return scene
    # A run with the other flag is refused when it is resumed.
    return other if flags.eval_only or other.is_normalized == scene.is_normalized else scene


def choose_world(
    scene: scenes.Scene, start: Start, flags: Flags, device: torch.device
) -> scenes.Scene:
    """The scene in the world of given splats: that which their result folder states, else the
    flags', or another one (own, normalised, gsplat's) where they show more of the photos.

    ValueError where they are out of sight in all of them.
    """
    splats, config = start.splats.to(device), flags.optimisation
    stored = ResultFolder(Path(start.source).parent.parent).find_world(scene)
    scene = scene if stored is None else stored
    fit = measure_fit(splats, scene, config)
    if stored is None:
        worlds = {name: scene.in_world(move) for name, move in list_worlds(scene).items()}
        fits = {name: measure_fit(splats, world, config) for name, world in worlds.items()}
        best = max(fits, key=lambda name: fits[name][1])
        if fits[best][1] > fit[1] + BETTER:
            log.warning("%s lies in %s: taking that", start.source, best)
            scene, fit = worlds[best], fits[best]
        check_fit(*fit)
    if fit[1] < LEAST_PSNR:
        log.warning(
            "%s shows little of what the photos do (%.1f dB at the capture's cameras): were the "
            "splats trained only briefly, or do splats and poses not belong together?",
            start.source,
            fit[1],
        )
    return scene
