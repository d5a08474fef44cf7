# Files fixed by a fixer: pictures, folders of them, videos (`python -m fixers`).
from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from evaluation.metrics import mse_to_psnr
from evaluation.pictures import join_side_by_side, save_png, to_uint8
from evaluation.video import write_video
from fixers.arguments import Arguments
from fixers.fixer import Fixer
from fixers.holes import contradicts, guess_alpha
from fixers.sources import Pair, Video, find_pairs, is_video
from runtime.files import make_writable_folder
from runtime.progress import ProgressBar
from triplets.pictures import read_image, read_render, resize

log = logging.getLogger(__name__)

VISIBLE = 4 / 255


def fix_path(arguments: Arguments) -> None:
    """Fix what the arguments name. Raises ValueError and OSError, in one sentence, for what the
    user can mend."""
    if is_video(arguments.path):
        if arguments.alpha is not None:
            raise ValueError("--alpha belongs to pictures; a video is fixed without")
        if not arguments.path.is_file():
            raise FileNotFoundError(f"{arguments.path}: no such file")
        make_writable_folder(arguments.output_dir)
        fix_video(arguments)
        return
    pairs = find_pairs(arguments.path, arguments.reference)
    alphas = {p.name: p.reference for p in find_pairs(arguments.path, arguments.alpha, "--alpha")}
    guides = {pair.reference for pair in pairs} | set(alphas.values())
    for path in guides - {None} | {pairs[0].image}:
        read_image(path)  # before the work begins
    make_writable_folder(arguments.output_dir)
    fix_pictures(arguments, pairs, alphas)


def load_fixer(arguments: Arguments) -> Fixer:
    """The chosen fixer; what it will not make use of is logged."""
    fixer = arguments.build_fixer()
    if arguments.reference is not None and fixer.needs.warped and not arguments.warped:
        log.warning(
            "unwarped references are ignored: these weights need references warped into the "
            "picture's view (add --warped if yours are)"
        )
    if fixer.needs.alpha and arguments.alpha is None:
        log.info(
            "pictures without transparency are taken as %s (--alpha names their opacity)",
            "opaque but for black regions"
            if arguments.holes == "auto"
            else "opaque: their holes are left alone; --holes auto looks for black ones",
        )
    return fixer


def fix(
    fixer: Fixer,
    arguments: Arguments,
    image: Tensor,
    reference: Tensor | None,
    alpha: Tensor | None = None,
) -> Tensor:
    """One picture [H,W,3], through --height and --width if they are given."""
    H, W, _ = image.shape
    size = arguments.height or H, arguments.width or W
    small = resize(image, *size)
    if reference is not None and arguments.warped:
        reference = resize(reference, *size)
        reference = torch.where(reference.amax(-1, keepdim=True) > 0, reference, small)
    used = reference is not None and (arguments.warped or not fixer.needs.warped)
    guide = reference[None, None] if used else None
    if alpha is None:
        alpha = guess_alpha(image, arguments.holes)
    alphas = resize(alpha[..., None], *size)[None, ..., 0]
    return resize(fixer.fix(small[None], guide, alphas=alphas)[0].cpu(), H, W)


class Changes:
    """How much pictures are changed: in words by str()."""

    def __init__(self) -> None:
        self.squared, self.visible, self.count = 0.0, 0, 0

    def add(self, image: Tensor, fixed: Tensor) -> None:
        """Count a picture [H,W,3] and its answer."""
        difference = (fixed - image).abs()
        self.squared += difference.square().sum().item()
        self.visible += int((difference.amax(-1) > VISIBLE).sum())
        self.count += difference[..., 0].numel()

    def __str__(self) -> str:
        psnr = mse_to_psnr(self.squared / max(1, 3 * self.count))
        share = 100 * self.visible / max(1, self.count)
        return f"changed {share:.1f} % of the pixels visibly ({psnr:.1f} dB from what they were)"


def fix_pictures(arguments: Arguments, pairs: list[Pair], alphas: dict[str, Path | None]) -> None:
    """`alphas`: of each pair, by name."""
    pairs = pairs[arguments.frames]
    targets = {pair.name: (arguments.output_dir / pair.name).with_suffix(".png") for pair in pairs}
    if len(set(targets.values())) < len(pairs):  # a.jpg and a.png
        targets = {pair.name: arguments.output_dir / f"{pair.name}.png" for pair in pairs}
    clash = next((p for p in pairs if p.image.resolve() == targets[p.name].resolve()), None)
    if clash:
        raise ValueError(f"{clash.image} would be overwritten: choose another --output_dir")
    todo = [p for p in pairs if not (arguments.resume and targets[p.name].exists())]
    if len(todo) < len(pairs):
        log.info("%d of %d are there already", len(pairs) - len(todo), len(pairs))
    fixer = load_fixer(arguments) if todo else None
    references: dict[Path, Tensor] = {}
    broken: list[str] = []
    doubtful: list[Path] = []
    changes = Changes()
    for pair in ProgressBar(
        todo, "fixing", unit="picture", disable=None if len(todo) > 1 else True
    ):
        try:
            (image, alpha), guide = read_render(pair.image), None
        except (ValueError, OSError) as error:  # the others are not to wait for it
            broken.append(str(error))
            continue
        if alphas[pair.name] is not None:
            alpha = resize(read_image(alphas[pair.name]), *image.shape[:2])[..., 0]
            if contradicts(image, alpha):
                doubtful.append(alphas[pair.name])
        if pair.reference is not None:
            if pair.reference not in references:
                references = {pair.reference: read_image(pair.reference)}
            guide = references[pair.reference]
        fixed = fix(fixer, arguments, image, guide, alpha)
        changes.add(image, fixed)
        if arguments.compare:
            shown = [image, *([] if guide is None else [resize(guide, *image.shape[:2])]), fixed]
            save_png(
                arguments.output_dir / "compare" / targets[pair.name].name,
                join_side_by_side(shown, 4),
            )
        save_png(targets[pair.name], fixed)
    if doubtful:
        log.warning(
            "%s and %d more are white where the pictures are black, and black elsewhere: --alpha "
            "wants opacity, and these look like pictures of holes",
            *(doubtful[0], len(doubtful) - 1),
        )
    if todo:
        log.info("%s", changes)
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(todo)} could not be read, the others are fixed: {broken[0]}"
        )
    if arguments.video:
        pictures = [read_image(target) for target in targets.values()]
        same = [resize(picture, *pictures[0].shape[:2]) for picture in pictures]
        write_video(arguments.output_dir / "output.mp4", same, fps=30)
    log.info("%d fixed, in %s", len(todo), arguments.output_dir)


def fix_video(arguments: Arguments) -> None:
    """Frames to <name>/00000.png, ... and a video of the same rate."""
    source = Video.open(arguments.path)
    reference = None
    if arguments.reference is not None:
        if not arguments.reference.is_file():
            raise ValueError(f"{arguments.reference}: the reference of a video is one photo")
        reference = read_image(arguments.reference)
    fixer, folder = load_fixer(arguments), arguments.output_dir / arguments.path.stem
    wanted = arguments.frames
    done = 0

    def frames() -> Iterator[Tensor]:
        nonlocal done
        some = islice(source.frames(), wanted.start, wanted.stop)
        total = source.count and len(range(*wanted.indices(source.count)))
        for i, frame in enumerate(ProgressBar(some, "fixing", total, unit="frame")):
            target = folder / f"{i + wanted.start:05d}.png"
            if arguments.resume and target.exists():
                fixed = read_image(target)
            else:
                fixed = fix(fixer, arguments, frame, reference)
                save_png(target, fixed)
            done += 1
            yield torch.from_numpy(to_uint8(fixed)).float() / 255

    target = arguments.output_dir / f"{arguments.path.stem}.mp4"
    if target.resolve() == arguments.path.resolve():
        raise ValueError(f"{arguments.path} would be overwritten: choose another --output_dir")
    write_video(target, frames(), fps=source.fps)
    if not done:
        raise ValueError(f"{arguments.path}: no frames are left after --skip_frames")
    log.info("%d frames fixed, in %s and %s", done, target, folder)
