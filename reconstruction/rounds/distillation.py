# The generated views that a run trains on beside its photos, and which of them a step takes.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from generators import Generated
from reconstruction.rounds.record import Round, Verdict
from reconstruction.rounds.settings import FixConfig
from reconstruction.views import ExtraView, ViewOrder
from scenes.cameras import Cameras

ENOUGH = 0.05  # share of a view's pixels with something to teach from which on it is always taken


@dataclass(frozen=True)
class NovelViews:
    """M views on the CPU.

    images, renders: float16 [H,W,3] in [0,1] each, what a generator made and what the splats showed
    then; confidence: float16 [H,W] each, 0 where the splats keep what they show.
    """

    cameras: Cameras
    images: list[Tensor]
    renders: list[Tensor]
    confidence: list[Tensor]

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def from_generated(cls, views: Sequence[Generated], cameras: Cameras) -> NovelViews:
        """Generated views, one of each camera."""
        return cls(
            cameras,
            [view.image.half() for view in views],
            [view.pictures["render"].half() for view in views],
            [view.confidence.half() for view in views],
        )

    @cached_property
    def usefulness(self) -> list[float]:
        """How much each view has to teach, in [0,1]: 1 if ENOUGH of its pixels do."""
        return [min(1.0, c.float().mean().item() / ENOUGH) for c in self.confidence]

    def joined(self, others: NovelViews | None) -> NovelViews:
        """These and others."""
        if others is None:
            return self
        return NovelViews(
            Cameras.concatenate([self.cameras, others.cameras]),
            [*self.images, *others.images],
            [*self.renders, *others.renders],
            [*self.confidence, *others.confidence],
        )

    def state_dict(self) -> dict[str, Any]:
        """All of it, for `torch.save`."""
        cameras = self.cameras
        return {
            "viewmats": cameras.viewmats,
            "Ks": cameras.Ks,
            "sizes": cameras.sizes,
            "images": self.images,
            "renders": self.renders,
            "confidence": self.confidence,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> NovelViews:
        """The inverse."""
        cameras = Cameras(state["viewmats"], state["Ks"], state["sizes"])
        return cls(cameras, *(list(state[name]) for name in ("images", "renders", "confidence")))


class Distillation:
    """The rounds of a run so far, the views it trains on now, and the draws of who comes next."""

    def __init__(self, settings: FixConfig | None = None, *, seed: int) -> None:
        self.settings, self.seed = settings or FixConfig(), seed
        self.rounds: list[Round] = []
        self.views: NovelViews | None = None
        self.order: ViewOrder | None = None
        self.generator = torch.Generator().manual_seed(seed)

    def train_on(self, views: NovelViews | None) -> None:
        """Train on these views from now on; None: on photos alone."""
        self.views = views
        self.order = None if views is None else ViewOrder(tuple(range(len(views))), self.seed)

    def draw(self, step: int) -> tuple[list[ExtraView], float | None]:
        """Extra views for a step, and the weight of its photo: None if it is to have none."""
        if self.views is None:
            return [], 1.0
        photo_weight = self.settings.real_data_lambda
        index = self._draw_index(step)
        if index is None:
            return [], photo_weight
        views, settings = self.views, self.settings
        view = ExtraView(
            views.cameras[index],
            views.images[index],
            views.confidence[index],
            views.renders[index] if settings.distil == "correction" else None,
            settings.novel_data_lambda,
        )
        return [view], photo_weight if settings.beside else None

    def _draw_index(self, step: int) -> int | None:
        """The view that a step trains on, if it does: each in turn, and those that have next to
        nothing to teach less often."""
        settings, share = self.settings, self.settings.novel_share
        if share == 0:
            return None
        if settings.fade:
            trained = [r for r in self.rounds if r.views and r.verdict != Verdict.ROLLED_BACK]
            last = trained[-1]
            share *= max(0.0, (last.until - step) / (last.until - last.step))
        if self._uniform() >= share:
            return None
        index = self.order.next()
        if settings.confident and self._uniform() >= self.views.usefulness[index]:
            return None
        return index

    def _uniform(self) -> float:
        return torch.rand((), generator=self.generator).item()

    def state_dict(self) -> dict[str, Any]:
        """All but the rounds, which are saved as JSON beside it."""
        return {
            "views": None if self.views is None else self.views.state_dict(),
            "order": None if self.order is None else self.order.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.train_on(None)
        if state["views"] is not None:
            self.train_on(NovelViews.from_state_dict(state["views"]))
            self.order.load_state_dict(state["order"])
        self.generator.set_state(state["generator"])
