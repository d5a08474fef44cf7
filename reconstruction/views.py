# The views that a step trains on: photos in a random order, and extra views beside them.
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scenes.cameras import Cameras


class ViewOrder:
    """Every view once per epoch, in an order drawn anew each epoch; can be saved and restored."""

    def __init__(self, views: tuple[int, ...], seed: int) -> None:
        self.views = views
        self.remaining: list[int] = []
        self.aside: frozenset[int] = frozenset()
        """Views that are skipped."""
        self.generator = torch.Generator().manual_seed(seed)

    def next(self) -> int:
        """Index of the next view."""
        while True:
            if not self.remaining:
                order = torch.randperm(len(self.views), generator=self.generator)
                self.remaining = [self.views[i] for i in order.tolist()]
            view = self.remaining.pop()
            if view not in self.aside:
                return view

    def state_dict(self) -> dict[str, Any]:
        """All that the order of the views to come depends on."""
        return {
            "remaining": list(self.remaining),
            "generator": self.generator.get_state(),
            "aside": sorted(self.aside),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.remaining = list(state["remaining"])
        self.generator.set_state(state["generator"])
        self.aside = frozenset(state.get("aside", ()))


@dataclass(frozen=True)
class ExtraView:
    """A view to train on that is no photo.

    camera: one. image [H,W,3] in [0,1]; confidence [H,W] in [0,1], 0 where the splats keep what
    they show. weight: of its loss.
    """

    camera: Cameras
    image: Tensor
    confidence: Tensor
    weight: float = 1.0

    def target(self, render: Tensor) -> Tensor:
        """What a render [H,W,3] of this view should become; itself where nothing is known."""
        image, confidence = self.image.to(render), self.confidence.to(render)
        return torch.lerp(render.detach(), image, confidence[..., None])
