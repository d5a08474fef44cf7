# Novel views rendered, fixed with photos as guides, and judged pixel by pixel.
from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from tqdm import tqdm

from fixers import Fixer
from reconstruction.rounds.confidence import fixed_confidence, render_confidence
from reconstruction.rounds.guidance import Guidance, Guide, Rendered, rendered
from reconstruction.rounds.mutual import contradicted
from reconstruction.rounds.novel import NovelViews
from reconstruction.rounds.settings import FixConfig
from scenes.cameras import Cameras

BATCH = 8  # views fixed at a time
CONSISTENT = 0.5  # share of a fixed view that another one must not contradict
WORSE = 1.02  # how much farther from a photo it was not given a fixed view may be than its render


@dataclass(frozen=True)
class Repaired:
    """A novel view before and after; images [H,W,3], confidence [H,W]."""

    render: Rendered
    guides: list[Guide]
    fixed: Tensor
    confidence: Tensor
    agrees: float | None
    """Mean error to the checking photo, before over after: above 1 the fixed view agrees better.
    None where no photo could check."""
    consistent: float | None = None
    """Share of the pixels that the nearest other fixed view can judge and does not contradict; None
    where none can."""


@dataclass
class Seconds:
    """Time spent in each part."""

    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, name: str, began: float) -> float:
        """Count the time since `began` as `name`; now."""
        now = time.perf_counter()
        self.parts[name] += now - began
        return now


class Repair:
    """Fixes views of the splats as they are now.

    warped: the fixer takes photos warped into the view, else as they were taken.
    """

    def __init__(
        self, guidance: Guidance, fixer: Fixer, settings: FixConfig, warped: bool, use_ref: bool
    ) -> None:
        self.guidance, self.fixer, self.settings = guidance, fixer, settings
        self.warped, self.use_ref = warped, use_ref
        self.seconds = Seconds()

    @torch.no_grad()
    def __call__(
        self, cameras: Cameras, leave: list[int] | None = None, label: str = "fixing"
    ) -> list[Repaired]:
        """Each camera's view fixed; `leave` names for each a photo that must not guide it.

        FloatingPointError if the fixer's answer is not finite.
        """
        found: list[Repaired] = []
        with tqdm(total=len(cameras), desc=label, unit="view", leave=False, delay=3) as bar:
            for group in by_size(cameras, BATCH):
                found.extend(self._batch(cameras, group, leave))
                bar.update(len(group))
        order = [i for group in by_size(cameras, BATCH) for i in group]
        views = [
            view for _, view in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])
        ]
        return self._agreeing(cameras, views) if self.settings.confident else views

    def _agreeing(self, cameras: Cameras, views: list[Repaired]) -> list[Repaired]:
        """The same; no confidence where fixed views contradict each other."""
        now = time.perf_counter()
        told = contradicted(cameras, [v.render for v in views], [v.fixed for v in views])
        self.seconds.add("confidence", now)
        return [
            replace(
                view,
                confidence=view.confidence * ~wrong,
                consistent=None if not seen.any() else 1 - (wrong.sum() / seen.sum()).item(),
            )
            for view, (wrong, seen) in zip(views, told, strict=True)
        ]

    def _batch(self, cameras: Cameras, group: list[int], leave: list[int] | None) -> list[Repaired]:
        settings, now = self.settings, time.perf_counter()
        views = [rendered(self.guidance.splats, cameras[i], self.guidance.config) for i in group]
        now = self.seconds.add("rendering", now)
        count = settings.references + 1  # the last one checks
        guides = [
            self.guidance.of(cameras[i], view, count, None if leave is None else leave[i])
            for i, view in zip(group, views, strict=True)
        ]
        checks = [g[settings.references] if len(g) > settings.references else None for g in guides]
        guides = [g[: settings.references] for g in guides]
        now = self.seconds.add("references", now)
        renders = torch.stack([view.color for view in views])
        references = self._references(views, guides) if self.use_ref else None
        trusted = None
        if settings.confident:
            seen = [best(g) for g in guides]
            trusted = torch.cat(
                [
                    render_confidence(
                        view.color[None], *(None if x is None else x[None] for x in s)
                    )
                    for view, s in zip(views, seen, strict=True)
                ]
            )
        alphas = torch.stack([view.alpha for view in views]).clamp(0, 1)
        fixed = self.fixer.fix(renders, references, confidence=trusted, alphas=alphas)
        fixed = fixed.float().cpu()
        now = self.seconds.add("fixing", now)
        if not fixed.isfinite().all():
            raise FloatingPointError("the fixer answered NaN or infinity")
        answers = []
        for view, given, check, image in zip(views, guides, checks, fixed, strict=True):
            weight = (view.alpha > 0.5).float()
            if settings.confident:
                warped, valid = best(given)
                pair = (None, None) if warped is None else (warped[None], valid[None])
                weight = fixed_confidence(view.color[None], image[None], view.alpha[None], *pair)[0]
            answers.append(Repaired(view, given, image, weight, checked(view, image, check)))
        self.seconds.add("confidence", now)
        return answers

    def _references(self, views: list[Rendered], guides: list[list[Guide]]) -> Tensor | None:
        """[N,R,H,W,3] as the fixer takes them; where a view has too few, the render stands in."""
        most = max(len(g) for g in guides)
        if most == 0:
            return None
        height, width = views[0].color.shape[:2]
        rows = []
        for view, given in zip(views, guides, strict=True):
            row = [
                g.over(view.color) if self.warped else resized(g.photo, height, width)
                for g in given
            ]
            rows.append(torch.stack([*row, *[view.color] * (most - len(row))]))
        return torch.stack(rows)


def best(guides: list[Guide]) -> tuple[Tensor | None, Tensor | None]:
    """The first guide's warped photo and mask."""
    return (guides[0].warped, guides[0].valid) if guides else (None, None)


def checked(view: Rendered, fixed: Tensor, check: Guide | None) -> float | None:
    """How much nearer than the render the fixed view is to a photo that did not guide it."""
    if check is None or check.valid.float().mean() < 0.05:
        return None
    before, after = (
        (image - check.warped).abs().mean(-1)[check.valid].mean().item()
        for image in (view.color, fixed)
    )
    return before / max(after, 1e-6)


def resized(photo: Tensor, height: int, width: int) -> Tensor:
    if photo.shape[:2] == (height, width):
        return photo
    planes = photo.permute(2, 0, 1)[None]
    planes = torch.nn.functional.interpolate(
        planes, (height, width), mode="bicubic", antialias=True
    )
    return planes[0].permute(1, 2, 0).clamp(0, 1)


def by_size(cameras: Cameras, most: int) -> list[list[int]]:
    """Indices of cameras of one size together, at most so many at a time."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, size in enumerate(cameras.sizes.tolist()):
        groups.setdefault(tuple(size), []).append(i)
    return [g[i : i + most] for g in groups.values() for i in range(0, len(g), most)]


def trustworthy(view: Repaired) -> bool:
    """Whether neither the photo that checks a view nor its neighbour contradicts it."""
    if view.agrees is not None and view.agrees * WORSE < 1:
        return False
    return view.consistent is None or view.consistent >= CONSISTENT


def accepted(views: list[Repaired], gate: bool) -> list[int]:
    """Indices of the views to train on; with the gate, those that nothing contradicts."""
    return [i for i, view in enumerate(views) if not gate or trustworthy(view)]


def novel_views(views: list[Repaired], cameras: Cameras, fixed: bool) -> NovelViews:
    """To train on; not `fixed`, with the renders as they were, for comparison."""
    return NovelViews(
        cameras,
        [(view.fixed if fixed else view.render.color).half() for view in views],
        [view.confidence.half() for view in views],
    )
