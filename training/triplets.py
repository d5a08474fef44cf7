# Triplets as training samples: windows of the trained size, cut the same way from all pictures.
from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from runtime.seeds import mix_seeds
from training.stage import Broken
from triplets.guides import UNKNOWN_ALPHA, Guides, Pictures
from triplets.manifest import Reference, Triplet
from triplets.pictures import resize, size_text
from triplets.windows import cut_window, draw_corner, find_window, to_cameras

log = logging.getLogger(__name__)

Fit = Literal["crop", "squash"]

GAMMA = 0.7, 2.0  # of pictures that are relit, most of them darker
GAIN = 0.6, 1.1
ALPHA_DROP = 0.15  # share of the triplets whose alpha is left out: it is not always known


@dataclass(frozen=True)
class Sample:
    """A window of a triplet: pictures [h,w,3] in [0,1], views [V,h,w,3] with the render first.

    sources (of the truth, the references and the render: file and window in it) and place (what
    was done to the window) name what was cut, for caches on disk.
    """

    key: str
    sources: tuple[str, ...]
    place: str
    seed: int
    views: Tensor
    truth: Tensor
    alpha: Tensor
    """[h,w,1] in [0,1], 0.5 where it is not known."""


class TripletDataset(Dataset):
    """Random windows of triplets; item (index, seed) is a Sample, or Broken.

    window: height and width in pixels. references: how many, 0 for none; warped: those in the
    render's view; alpha: read the renders' alpha too. fit: "crop" cuts windows, "squash" resizes
    the whole picture. photometric: the share whose pictures are all made darker or brighter alike.
    crops: how many different windows a triplet has, 0 for as many as there are seeds. skip_bad: an
    unreadable triplet is replaced by the one after it. Pictures smaller than the window are
    continued by their last row and column, as the fixer does in tiles.
    """

    def __init__(
        self,
        triplets: Sequence[Triplet],
        window: tuple[int, int],
        *,
        references: int = 1,
        warped: bool = False,
        alpha: bool = False,
        fit: Fit = "crop",
        hflip: bool = False,
        photometric: float = 0.0,
        crops: int = 0,
        skip_bad: bool = False,
    ):
        self.skip_bad = skip_bad
        self.triplets, self.window = list(triplets), window
        self.guides = Guides(references, warped, alpha)
        self.fit, self.hflip, self.crops = fit, hflip, crops
        self.photometric = photometric

    def __len__(self) -> int:
        return len(self.triplets)

    def __getitem__(self, item: tuple[int, int]) -> Sample | Broken:
        index, seed = item
        for further in range(len(self)):
            triplet = self.triplets[(index + further) % len(self)]
            try:
                return self.sample(triplet, seed)
            except (ValueError, OSError) as error:
                if not self.skip_bad:
                    return Broken(triplet.key, f"{error} (--skip_bad leaves such out)")
                log.warning("left out %s: %s", triplet.key, error)
        return Broken(self.triplets[index].key, "no entry is left that can be read")

    @staticmethod
    def collate(samples: Sequence[Sample | Broken]) -> Batch | Broken:
        """A batch of the samples, on the CPU and in [0,1] as they are, or the first broken one."""
        return collate(samples)

    def sample(self, triplet: Triplet, seed: int) -> Sample:
        """A window of a triplet. Raises ValueError and OSError for what cannot be read."""
        number = seed % self.crops if self.crops else seed
        name = int.from_bytes(triplet.key.encode(), "little") if self.crops else 0
        generator = torch.Generator().manual_seed(mix_seeds(3, number, name))
        whole = Pictures.read(triplet, self.guides)
        render, truth, alpha = whole.render, whole.truth, whole.alpha
        if render.shape != truth.shape:
            raise ValueError(describe_mismatch(triplet, render, truth))
        size = size_text(render)
        guides = [] if whole.references is None else list(whole.references)
        known = alpha is not None
        alpha = alpha[..., None] if known else render[..., :1]
        flip = self.hflip and torch.rand((), generator=generator).item() < 0.5
        if self.fit == "squash":
            pictures = [resize(image, *self.window) for image in (render, truth, *guides)]
            windows, place = [(0, 0)] * len(pictures), "squashed"
            alpha = resize(alpha, *self.window)
        else:
            top, left = draw_corner(render, self.window, generator)
            windows = [(top, left), (top, left)]
            for reference, guide in zip(triplet.references, guides, strict=False):
                windows.append(self._matching(triplet, reference, guide, (top, left)))
            images = (render, truth, *guides)
            pictures = [
                cut_window(image, at, self.window)
                for image, at in zip(images, windows, strict=True)
            ]
            alpha = cut_window(alpha, windows[0], self.window)
            place = "cut"
        if flip:
            pictures, place = [image.flip(1) for image in pictures], f"{place}-flipped"
            alpha = alpha.flip(1)
        if self.photometric and torch.rand((), generator=generator).item() < self.photometric:
            pictures, light = relight(pictures, generator)
            place = f"{place}-{light}"
        if not known or torch.rand((), generator=generator).item() < ALPHA_DROP:
            alpha = torch.full_like(alpha, UNKNOWN_ALPHA)
        render, truth, *guides = pictures
        files = [triplet.render, triplet.truth]
        files += self.guides.files(triplet)
        # a photo has a window of its own in each triplet that looks at it
        ours, *others = (
            f"{describe_file(file)}/{size}/{top}-{left}"
            for file, (top, left) in zip(files, windows, strict=True)
        )
        sources = (*others, ours)
        views = torch.stack([render, *guides])
        return Sample(triplet.key, sources, place, seed, views, truth, alpha)

    def _matching(
        self, triplet: Triplet, reference: Reference, guide: Tensor, at: tuple[int, int]
    ) -> tuple[int, int]:
        """Where in a reference the window's content is, as far as the cameras tell."""
        if self.guides.warped or triplet.camera is None or reference.camera is None:
            return at
        H, W = guide.shape[:2]
        cameras = (to_cameras([view], (W, H)) for view in (triplet.camera, reference.camera))
        return find_window(at, self.window, *cameras, within=(H, W))


@dataclass
class Batch:
    """Samples on a device: images [B,3,h,w] and views [B,V,3,h,w] in [-1,1], the render first;
    alpha [B,1,h,w] from -1 where nothing is to 1, 0 where it is not known."""

    keys: list[str]
    sources: list[tuple[str, ...]]
    places: list[str]
    seeds: list[int]
    views: Tensor
    truth: Tensor
    alpha: Tensor
    step_seed: int = 0
    """The same for all samples of a step, on all processes."""
    step: int = 0

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which a GPU copies faster."""
        views, truth, alpha = (t.pin_memory() for t in (self.views, self.truth, self.alpha))
        return replace(self, views=views, truth=truth, alpha=alpha)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on the device in [-1,1] and channels first, as the networks take it."""
        views, truth, alpha = (
            t.to(device, non_blocking=True).movedim(-1, -3).contiguous() * 2 - 1
            for t in (self.views, self.truth, self.alpha)
        )
        return replace(self, views=views, truth=truth, alpha=alpha)

    def at_step(self, step: int, seed: int) -> Batch:
        """The batch with the step's number and seed."""
        return replace(self, step=step, step_seed=seed)


def collate(samples: Sequence[Sample | Broken]) -> Batch | Broken:
    """A batch of the samples, on the CPU and in [0,1] as they are, or the first broken one."""
    for sample in samples:
        if isinstance(sample, Broken):
            return sample
    return Batch(
        [s.key for s in samples],
        [s.sources for s in samples],
        [s.place for s in samples],
        [s.seed for s in samples],
        torch.stack([s.views for s in samples]),
        torch.stack([s.truth for s in samples]),
        torch.stack([s.alpha for s in samples]),
    )


def describe_file(file: Path) -> str:
    """A file's path, size and time: other contents have another text."""
    status = file.stat()
    return f"{file.resolve()}:{status.st_size}:{status.st_mtime_ns}"


def describe_mismatch(triplet: Triplet, render: Tensor, truth: Tensor) -> str:
    """The sentence for a render and a truth of different sizes."""
    sizes = [size_text(image) for image in (render, truth)]
    return f"the render {triplet.render} is {sizes[0]}, the ground truth {triplet.truth} {sizes[1]}"


def relight(pictures: list[Tensor], generator: torch.Generator) -> tuple[list[Tensor], str]:
    """Pictures [h,w,3] in [0,1] with one gamma and a gain for each colour; and how, in a word."""
    draws = torch.rand(4, generator=generator)
    gamma = GAMMA[0] * (GAMMA[1] / GAMMA[0]) ** draws[0]
    gain = GAIN[0] + (GAIN[1] - GAIN[0]) * (0.7 * draws[1] + 0.3 * draws[1:])
    changed = [(x.clamp(0, 1) ** gamma * gain).clamp(0, 1) for x in pictures]
    return changed, f"relit-{gamma:.4f}-{'-'.join(f'{g:.4f}' for g in gain.tolist())}"
