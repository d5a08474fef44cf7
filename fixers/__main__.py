# python -m fixers PATH: fix a picture, a folder of pictures or a video.
from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor
from tqdm import tqdm

import fixers
from evaluation.pictures import join_side_by_side, save_png, to_uint8
from evaluation.video import write_video
from fixers.sources import Pair, Video, find_pairs, is_video
from runtime.arguments import naming_flags
from runtime.command import choose_device, run_command
from runtime.files import make_writable_folder
from triplets.pictures import read_image, read_render, resize

log = logging.getLogger(__name__)

FLAG = tyro.conf.FlagCreatePairsOff
IGNORED = ("prompt", "timestep", "model_name", "test_speed", "warmup_iters")  # of Difix3D and Fixer


@dataclass(frozen=True)
class Options:
    """Fix a picture, a folder of pictures or a video, guided by reference photos.

    Examples:

      python -m fixers renders/

      python -m fixers render.png --reference photo.jpg --checkpoint vae-ckpt-last.pth

      python -m fixers renders/ --reference photos/ --checkpoint model.safetensors

      python -m fixers flight.mp4 --fixer classical

    Pictures keep their names (as .png) below --output_dir. The flags of Difix3D's and Fixer's
    commands are understood: --input_image, --input, --ref_image, --model_path, --output, --video,
    --save_video, --max_frames, --skip_frames, --height, --width.
    """

    path: Annotated[
        tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="FILE_OR_FOLDER_OR_VIDEO")
    ] = None
    """A picture, a folder of them, or a video."""
    reference: Annotated[Path | None, tyro.conf.arg(aliases=["--ref_image"])] = None
    """One photo for all, or a folder of photos, paired by name."""
    warped: Annotated[bool, FLAG] = False
    """The references lie in the pictures' own views, black where they have nothing to show, as
    gen_data's warped/: what the weights that come with this project want."""
    alpha: Path | None = None
    """Grey pictures of the renders' opacity, or a folder of them, paired by name: what is black
    because nothing is there (default: the pictures' own transparency, where they have one)."""
    checkpoint: Annotated[Path | None, tyro.conf.arg(aliases=["--model_path"])] = None
    """Weights: our .safetensors, or the original's ar-ckpt-*.pth or vae-ckpt-*.pth (default: those
    that come with this project)."""
    vqvae: Path | None = None
    """Take the VQ-VAE (and bridge) from this file."""
    output_dir: Annotated[Path, tyro.conf.arg(aliases=["--output"])] = Path("output")
    """Where the fixed pictures go."""
    fixer: Literal["gsvar", "identity", "classical"] = "gsvar"
    """identity returns the picture, classical is a denoiser: baselines."""
    mode: Literal["tile", "resize", "native"] = "tile"
    """Tiles of the trained size; squashed to it; or in one piece where the shape allows it."""
    bridge: Annotated[bool, FLAG] = False
    """Fuse the picture's own details in (default: where the weights have a bridge)."""
    no_bridge: Annotated[bool, FLAG] = False
    """Do not."""
    colour: Literal["none", "render-adain", "render-wavelet", "reference"] = "none"
    """Move colours towards the picture's own, or the reference's (as the original did)."""
    refiner: Literal["ancestral", "ddim", "mean", "none"] | None = None
    """How the last details are drawn (default: as the weights learnt)."""
    refiner_steps: int = 10
    batch_size: int = 4
    """Tiles at a time; lower it if the memory is not enough."""
    seed: int = 42
    device: str | None = None
    """cuda, cpu, ... (default: the best there is)."""
    dtype: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Precision of the networks: auto is bf16 where the machine multiplies it faster."""
    graphs: Annotated[bool, FLAG] = False
    """On a GPU: run the networks as CUDA graphs, made at the first picture of each size."""
    compiled: Annotated[bool, FLAG] = False
    """torch.compile the transformer's blocks first: pays for hundreds of pictures on a GPU."""
    height: int | None = None
    """Squash pictures to this height first and back after (default: their own size)."""
    width: int | None = None
    """The same for the width."""
    compare: Annotated[bool, FLAG] = False
    """Also write picture, reference and result side by side, to compare/."""
    resume: Annotated[bool, FLAG] = False
    """Leave out pictures whose result is there already."""
    video: Annotated[bool, FLAG, tyro.conf.arg(aliases=["--save_video"])] = False
    """Also write the results as output.mp4 (a video in always gives one)."""
    max_frames: int | None = None
    """No more pictures or frames than this."""
    skip_frames: int = 0
    """Leave out this many at the start."""


def parse(arguments: list[str]) -> Options:
    """The options; flags of Difix3D and Fixer that mean nothing here are taken out and said."""
    kept, i = [], 0
    while i < len(arguments):
        name, _, value = arguments[i].partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if name.startswith("--") and key in IGNORED:
            has_value = i + 1 < len(arguments) and not arguments[i + 1].startswith("--")
            log.info("%s has no meaning for this fixer and is ignored", name)
            i += 2 if has_value and not value and key != "test_speed" else 1
            continue
        if name.startswith("--") and key in ("input", "input_image"):
            given = value or (arguments[i + 1] if i + 1 < len(arguments) else "")
            kept.append(given)
            i += 1 if value else 2
            continue
        kept.append(arguments[i])
        i += 1
    about = inspect.cleandoc(Options.__doc__)
    return tyro.cli(
        Options, args=kept, prog="python -m fixers", description=about, use_underscores=True
    )


def check(options: Options) -> None:
    """Raises ValueError for what no work should begin with."""
    if options.path is None:
        raise ValueError("name a picture, a folder of pictures or a video; see --help")
    if options.bridge and options.no_bridge:
        raise ValueError("--bridge and --no_bridge: give one of them")
    if options.warped and options.reference is None:
        raise ValueError("--warped tells of references: give --reference")
    choose_device(options.device)
    for name in ("height", "width", "max_frames", "batch_size"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(options, name)}")
    if options.skip_frames < 0:
        raise ValueError(f"--skip_frames must not be negative, not {options.skip_frames}")


def load_fixer(options: Options) -> fixers.Fixer:
    if options.fixer != "gsvar":
        return fixers.load(options.fixer)
    names = ("vqvae", "mode", "colour", "refiner", "refiner_steps", "batch_size", "seed")
    names += ("device", "dtype", "graphs", "compiled")
    chosen = {name: getattr(options, name) for name in names}
    bridge = options.bridge or (False if options.no_bridge else None)
    with naming_flags(vqvae="--vqvae"):
        fixer = fixers.load("gsvar", checkpoint=options.checkpoint, bridge=bridge, **chosen)
    if options.reference is not None and not (options.warped or takes_photos(fixer)):
        log.warning(
            "--reference is left out: these weights take references warped into the picture's "
            "view, which a photo as it was taken is not (add --warped where it is)"
        )
    if fixer.model.config.render_alpha and options.alpha is None:
        log.info("pictures without transparency are fixed without alpha (--alpha), with less gain")
    return fixer


def takes_photos(fixer: fixers.Fixer) -> bool:
    """Whether references may be photos as they were taken."""
    model = getattr(fixer, "model", None)
    return model is None or not model.config.warped_references


def fix(
    fixer: fixers.Fixer,
    options: Options,
    image: Tensor,
    reference: Tensor | None,
    alpha: Tensor | None = None,
) -> Tensor:
    """One picture [H,W,3], through --height and --width if they are given."""
    H, W, _ = image.shape
    size = options.height or H, options.width or W
    small = resize(image, *size)
    if reference is not None and options.warped:
        reference = resize(reference, *size)
        reference = torch.where(reference.amax(-1, keepdim=True) > 0, reference, small)
    used = reference is not None and (options.warped or takes_photos(fixer))
    guide = reference[None, None] if used else None
    alphas = None if alpha is None else resize(alpha[..., None], *size)[None, ..., 0]
    return resize(fixer.fix(small[None], guide, alphas=alphas)[0].cpu(), H, W)


def chosen_range(options: Options) -> slice:
    stop = None if options.max_frames is None else options.skip_frames + options.max_frames
    return slice(options.skip_frames, stop)


def fix_pictures(options: Options, pairs: list[Pair], alphas: dict[str, Path | None]) -> None:
    """`alphas`: of each pair, by name."""
    pairs = pairs[chosen_range(options)]
    targets = {pair.name: (options.output_dir / pair.name).with_suffix(".png") for pair in pairs}
    if len(set(targets.values())) < len(pairs):  # a.jpg and a.png
        targets = {pair.name: options.output_dir / f"{pair.name}.png" for pair in pairs}
    clash = next((p for p in pairs if p.image.resolve() == targets[p.name].resolve()), None)
    if clash:
        raise ValueError(f"{clash.image} would be overwritten: choose another --output_dir")
    todo = [p for p in pairs if not (options.resume and targets[p.name].exists())]
    if len(todo) < len(pairs):
        log.info("%d of %d are there already", len(pairs) - len(todo), len(pairs))
    fixer = load_fixer(options) if todo else None
    references: dict[Path, Tensor] = {}
    broken: list[str] = []
    for pair in tqdm(todo, "fixing", unit="picture", disable=None if len(todo) > 1 else True):
        try:
            (image, alpha), guide = read_render(pair.image), None
        except (ValueError, OSError) as error:  # the others are not to wait for it
            broken.append(str(error))
            continue
        if alphas[pair.name] is not None:
            alpha = read_image(alphas[pair.name])[..., 0]
        if pair.reference is not None:
            if pair.reference not in references:
                references = {pair.reference: read_image(pair.reference)}
            guide = references[pair.reference]
        fixed = fix(fixer, options, image, guide, alpha)
        if options.compare:
            shown = [image, *([] if guide is None else [resize(guide, *image.shape[:2])]), fixed]
            save_png(
                options.output_dir / "compare" / targets[pair.name].name,
                join_side_by_side(shown, 4),
            )
        save_png(targets[pair.name], fixed)
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(todo)} could not be read, the others are fixed: {broken[0]}"
        )
    if options.video:
        pictures = [read_image(target) for target in targets.values()]
        same = [resize(picture, *pictures[0].shape[:2]) for picture in pictures]
        write_video(options.output_dir / "output.mp4", same, fps=30)
    log.info("%d fixed, in %s", len(todo), options.output_dir)


def fix_video(options: Options) -> None:
    """Frames to <name>/00000.png, ... and a video of the same rate."""
    source = Video.open(options.path)
    reference = None
    if options.reference is not None:
        if not options.reference.is_file():
            raise ValueError(f"{options.reference}: the reference of a video is one photo")
        reference = read_image(options.reference)
    fixer, folder = load_fixer(options), options.output_dir / options.path.stem
    chosen = chosen_range(options)
    done = 0

    def frames() -> Iterator[Tensor]:
        nonlocal done
        some = islice(source.frames(), chosen.start, chosen.stop)
        total = source.count and len(range(*chosen.indices(source.count)))
        for i, frame in enumerate(tqdm(some, "fixing", total, unit="frame")):
            target = folder / f"{i + chosen.start:05d}.png"
            if options.resume and target.exists():
                fixed = read_image(target)
            else:
                fixed = fix(fixer, options, frame, reference)
                save_png(target, fixed)
            done += 1
            yield torch.from_numpy(to_uint8(fixed)).float() / 255

    target = options.output_dir / f"{options.path.stem}.mp4"
    if target.resolve() == options.path.resolve():
        raise ValueError(f"{options.path} would be overwritten: choose another --output_dir")
    write_video(target, frames(), fps=source.fps)
    if not done:
        raise ValueError(f"{options.path}: no frames are left after --skip_frames")
    log.info("%d frames fixed, in %s and %s", done, target, folder)


def main() -> None:
    options = parse(sys.argv[1:])
    check(options)
    if is_video(options.path):
        if options.alpha is not None:
            raise ValueError("--alpha belongs to pictures; a video is fixed without")
        if not options.path.is_file():
            raise FileNotFoundError(f"{options.path}: no such file")
        make_writable_folder(options.output_dir)
        fix_video(options)
        return
    pairs = find_pairs(options.path, options.reference)
    alphas = {p.name: p.reference for p in find_pairs(options.path, options.alpha, "--alpha")}
    guides = {pair.reference for pair in pairs} | set(alphas.values())
    for path in guides - {None} | {pairs[0].image}:
        read_image(path)  # before the work begins
    make_writable_folder(options.output_dir)
    fix_pictures(options, pairs, alphas)


if __name__ == "__main__":
    run_command(main)
