# Fixed novel views as training uses them, and which of a step's views it takes.
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scenes.cameras import Cameras

ENOUGH = 0.05  # of a fixed view's pixels


@dataclass(frozen=True)
class NovelViews:
    """M fixed views on the CPU.

    images: float16 [H,W,3] in [0,1] each; confidence: float16 [H,W] each, 0 where the splats keep
    what they show.
    """

    cameras: Cameras
    images: list[Tensor]
    confidence: list[Tensor]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def told(self) -> list[float]:
        """How much each view has to say, in [0,1]: 1 if ENOUGH of its pixels do."""
        return [min(1.0, c.float().mean().item() / ENOUGH) for c in self.confidence]

    def wanted(self, index: int, render: Tensor) -> Tensor:
        """What a render [H,W,3] of that view should be; itself where nothing is known."""
        image, confidence = (x[index].to(render) for x in (self.images, self.confidence))
        return torch.lerp(render.detach(), image, confidence[..., None])

    def with_others(self, others: NovelViews | None) -> NovelViews:
        """These and others."""
        if others is None:
            return self
        return NovelViews(
            Cameras.concatenate([self.cameras, others.cameras]),
            [*self.images, *others.images],
            [*self.confidence, *others.confidence],
        )

    def state_dict(self) -> dict[str, Any]:
        cameras = self.cameras
        return {
            "viewmats": cameras.viewmats,
            "Ks": cameras.Ks,
            "sizes": cameras.sizes,
            "images": self.images,
            "confidence": self.confidence,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> NovelViews:
        cameras = Cameras(state["viewmats"], state["Ks"], state["sizes"])
        return cls(cameras, list(state["images"]), list(state["confidence"]))
