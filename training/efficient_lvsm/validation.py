# Validation: held-out photos of the scenes, from the nearest photos that are not.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.metrics import METRICS, Metrics, average
from models.efficient_lvsm import EfficientLVSM
from runtime.interrupts import interruptible
from runtime.progress import ProgressBar
from training.efficient_lvsm.samples import PosedPhotos, ProcessedPhotos, Views
from training.efficient_lvsm.selection import spread_inputs
from training.validation import MAX_PICTURES, Values


@dataclass(frozen=True)
class HeldOut:
    """A scene's photos, and which of them are never trained on."""

    scene: PosedPhotos | ProcessedPhotos
    views: tuple[int, ...]
    asked: tuple[int, ...] | None = None
    """Those that a validation looks at; None: all of them."""

    @property
    def listed(self) -> tuple[int, ...]:
        """The views that a validation looks at."""
        return self.views if self.asked is None else self.asked

    def surround(self, view: int, count: int, span: int) -> list[int]:
        """Photos that are not held out, evenly over `span` frames around a view, as in training."""
        others = [i for i in range(len(self.scene)) if i not in self.views]
        first = max(0, min(view - span // 2, len(self.scene) - 1 - span))
        wanted = spread_inputs(first, min(first + span, len(self.scene) - 1), count)
        return [min(others, key=lambda i, at=at: abs(i - at)) for at in wanted]


class ViewValidation:
    """Means over held-out photos, each drawn from `inputs` photos over `span` frames around it;
    nearest_: those of the nearest of these as it is. All processes compute all of them."""

    judged_by = ("psnr", METRICS["psnr"].sign)
    note = ""

    def __init__(
        self, scenes: Sequence[HeldOut], metrics: Metrics, *, inputs: int = 2, span: int = 25
    ) -> None:
        self.scenes, self.metrics = list(scenes), metrics
        self.inputs, self.span = inputs, span

    @torch.no_grad()
    def __call__(self, model: EfficientLVSM) -> tuple[Values, dict[str, Tensor]]:
        """Values of the model, and pictures: the nearest photo, the view and the truth."""
        rows, pictures = [], {}
        todo = [(held, view) for held in self.scenes for view in held.listed]
        for held, view in ProgressBar(todo, "validating", unit="view", leave=False, delay=3):
            with interruptible():
                inputs = held.surround(view, self.inputs, self.span)
                photos, poses, Ks = held.scene.choose([*inputs, view])
                count = len(inputs)
                batch = Views([], photos[None], poses[None], Ks[None], torch.tensor([[count]]))
                batch = batch.to(next(model.parameters()).device)
                rays = batch.rays(model.config.plucker)
                given = 2 * batch.photos[:, :count] - 1
                drawn = model(given, rays[:, :count], rays[:, count:])[0, 0].float().cpu()
                places = held.scene.camtoworlds[[*inputs, view], :3, 3]
                near = np.linalg.norm(places[:-1] - places[-1], axis=1).argmin()
                images = [i.permute(1, 2, 0) for i in (photos[near], drawn, photos[-1])]
                own = self.metrics(images[1], images[2])
                copied = self.metrics(images[0], images[2])
            rows.append(own | {f"nearest_{name}": value for name, value in copied.items()})
            if len(pictures) < MAX_PICTURES:
                pictures[f"{held.scene.name}_{view:05d}"] = torch.cat(images, 1)
        return average(rows), pictures
