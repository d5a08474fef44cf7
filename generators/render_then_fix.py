# The first generator: the splats are rendered, and the renders are fixed with photos as references.
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from fixers import Fixer
from generators.confidence import (
    compare_with_photo,
    find_contradictions,
    fixed_confidence,
    render_confidence,
)
from generators.generator import Generated, References, Renderer
from generators.guides import Guide, Guides, RenderedView, render_one
from runtime.progress import ProgressBar
from scenes.cameras import Cameras
from triplets.pictures import resize

BATCH = 8  # views fixed at a time


@dataclass
class FixedView:
    """A render on its way to a `Generated`."""

    view: RenderedView
    guides: list[Guide]
    image: Tensor
    confidence: Tensor
    agreement: float | None
    error: float | None
    consistency: float | None = None


@dataclass
class Stopwatch:
    """Seconds of each part; `lap` counts the time since the last lap."""

    parts: Counter[str] = field(default_factory=Counter)
    last: float = field(default_factory=time.perf_counter)

    def lap(self, part: str) -> None:
        """The time since the last lap was spent on `part`."""
        now = time.perf_counter()
        self.parts[part] += now - self.last
        self.last = now


class RenderThenFix:
    """Renders, fixed by a fixer with the references that it needs, and judged pixel by pixel.

    references: photos that guide a view; one more is looked up to check the result. select_by: how
    they are chosen, see `Guides`. use_ref: give references to the fixer at all. confident: weigh
    each pixel by what speaks for it; off: by alpha > 0.5 alone. settings: what tells the fixer from
    others, by flag name.
    """

    title = "renders fixed"
    starts_from_renders = True

    def __init__(
        self,
        fixer: Fixer,
        *,
        references: int = 1,
        select_by: Literal["covisibility", "pose"] = "covisibility",
        use_ref: bool = True,
        confident: bool = True,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.fixer, self.references, self.select_by = fixer, references, select_by
        self.uses_references, self.confident = use_ref, confident
        self.settings = dict(settings or {})

    def to(self, device: torch.device | str) -> None:
        """Move the fixer, if it can be moved."""
        if hasattr(self.fixer, "to"):
            self.fixer.to(device)

    @torch.no_grad()
    def generate(
        self, references: References, cameras: Cameras, *, render: Renderer | None = None
    ) -> list[Generated]:
        """Each camera's render, fixed. ValueError without `render`; FloatingPointError if the
        fixer's answer is not finite."""
        if render is None:
            raise ValueError("render-then-fix needs a renderer of the splats")
        guides, watch = Guides(render, references, self.select_by), Stopwatch()
        views: dict[int, FixedView] = {}
        with ProgressBar(
            total=len(cameras), desc="fixing", unit="view", leave=False, delay=3
        ) as bar:
            for group in group_by_size(cameras, BATCH):
                views |= zip(group, self._fix(cameras[group], guides, watch), strict=True)
                bar.update(len(group))
        in_order = [views[i] for i in range(len(cameras))]
        if self.confident:
            watch.last = time.perf_counter()
            in_order = exclude_contradictions(cameras, in_order)
            watch.lap("confidence")
        seconds = {part: total / max(1, len(in_order)) for part, total in watch.parts.items()}
        return [finish(fixed, seconds) for fixed in in_order]

    def _fix(self, cameras: Cameras, guides: Guides, watch: Stopwatch) -> list[FixedView]:
        """A batch of views of one size."""
        watch.last = time.perf_counter()
        views = [render_one(guides.render, cameras[i]) for i in range(len(cameras))]
        watch.lap("rendering")
        count = self.references
        rows = [guides.find(cameras[i], view, count + 1) for i, view in enumerate(views)]
        checks = [row[count] if len(row) > count else None for row in rows]
        rows = [row[:count] for row in rows]
        watch.lap("references")
        images = self.make_images(cameras, views, rows)
        watch.lap("fixing")
        if not images.isfinite().all():
            raise FloatingPointError("the fixer answered NaN or infinity")
        results = []
        for view, row, check, image in zip(views, rows, checks, images, strict=True):
            weight = (view.alpha > 0.5).float()
            if self.confident:
                weight = fixed_confidence(
                    view.color[None], image[None], view.alpha[None], *best_guide(row)
                )[0]
            comparison = compare_with_photo(view, image, check) or (None, None)
            results.append(FixedView(view, row, image, weight, *comparison))
        watch.lap("confidence")
        return results

    def make_images(
        self, cameras: Cameras, views: list[RenderedView], guides: list[list[Guide]]
    ) -> Tensor:
        """Fixed images [N,H,W,3] on the CPU for cameras and their renders; the fixer gets what it
        needs."""
        renders, trusted = torch.stack([view.color for view in views]), None
        if self.confident:
            trusted = torch.cat(
                [
                    render_confidence(view.color[None], *best_guide(row))
                    for view, row in zip(views, guides, strict=True)
                ]
            )
        guided = self.uses_references and self.fixer.needs.references
        references = self._stack_references(views, guides) if guided else None
        alphas = None
        if self.fixer.needs.alpha:
            alphas = torch.stack([view.alpha for view in views]).clamp(0, 1)
        fixed = self.fixer.fix(renders, references, confidence=trusted, alphas=alphas)
        return fixed.float().cpu()

    def _stack_references(
        self, views: list[RenderedView], guides: list[list[Guide]]
    ) -> Tensor | None:
        """[N,R,H,W,3] as the fixer takes them; where a view has too few, the render stands in."""
        most = max(len(row) for row in guides)
        if most == 0:
            return None
        height, width = views[0].color.shape[:2]
        warped = self.fixer.needs.warped
        stacks = []
        for view, row in zip(views, guides, strict=True):
            images = [
                guide.over(view.color) if warped else resize(guide.photo, height, width)
                for guide in row
            ]
            stacks.append(torch.stack([*images, *[view.color] * (most - len(images))]))
        return torch.stack(stacks)


def best_guide(guides: list[Guide]) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """The first guide's warped photo [1,H,W,3] and mask [1,H,W]; Nones without a guide."""
    return (guides[0].warped[None], guides[0].valid[None]) if guides else (None, None)


def group_by_size(cameras: Cameras, most: int) -> list[list[int]]:
    """Indices of cameras of one size together, at most so many at a time."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, size in enumerate(cameras.sizes.tolist()):
        groups.setdefault(tuple(size), []).append(i)
    return [g[i : i + most] for g in groups.values() for i in range(0, len(g), most)]


def exclude_contradictions(cameras: Cameras, fixed: list[FixedView]) -> list[FixedView]:
    """The same; no confidence where fixed views contradict each other."""
    pairs = find_contradictions(cameras, [f.view for f in fixed], [f.image for f in fixed])
    return [
        replace(
            f,
            confidence=f.confidence * ~wrong,
            consistency=None if not seen.any() else 1 - (wrong.sum() / seen.sum()).item(),
        )
        for f, (wrong, seen) in zip(fixed, pairs, strict=True)
    ]


def finish(fixed: FixedView, seconds: Mapping[str, float]) -> Generated:
    """What leaves the generator."""
    pictures = {"render": fixed.view.color, "alpha": fixed.view.alpha}
    if fixed.guides:
        pictures["reference"] = fixed.guides[0].photo
    return Generated(
        fixed.image,
        fixed.confidence,
        pictures,
        tuple(guide.name for guide in fixed.guides),
        fixed.agreement,
        fixed.error,
        fixed.consistency,
        seconds,
    )
