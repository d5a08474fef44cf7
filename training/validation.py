# Validation as users meet the model: whole pictures of triplets against the ground truth.
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from evaluation.metrics import METRICS, Metrics
from runtime.interrupts import Stopped, interruptible
from runtime.progress import ProgressBar
from training.distributed import any_of, greatest_of, mean_of, rank, world_size
from triplets.guides import Guides, Pictures
from triplets.manifest import Triplet
from triplets.windows import cut_window

log = logging.getLogger(__name__)

MAX_PICTURES = 8  # of a validation, written to be looked at

Values = dict[str, float | None]


class Validation(Protocol):
    """What the loop needs of a validation."""

    @property
    def judged_by(self) -> tuple[str, int]:
        """The value that says which model is best, and whether more (1) or less (-1) is better."""
        ...

    @property
    def note(self) -> str:
        """What else must be known of its values, said when the run ends; empty for nothing."""
        ...

    def __call__(self, model: nn.Module) -> tuple[Values, dict[str, Tensor]]:
        """Values of the model, and pictures [H,W,3] in [0,1] by name; called on all processes.

        Raises ValueError, OSError or Stopped on all processes alike; it changes nothing.
        """
        ...


Predict = Callable[[Pictures], Tensor]
"""A prediction [H,W,3] in [0,1] of a triplet's truth."""


class TripletValidation:
    """Means of the metrics over triplets, of a prediction and (render_) of the render.

    A system's own subclass says how a model predicts (`__call__`). references, warped, alpha: which
    of a triplet's pictures the prediction sees; window: height and width of the middle that is cut
    out, None for whole pictures. skip_bad: an unreadable triplet is ignored with a warning. note:
    see Validation.
    """

    def __init__(
        self,
        triplets: Sequence[Triplet],
        metrics: Metrics,
        *,
        references: int = 1,
        warped: bool = False,
        alpha: bool = False,
        window: tuple[int, int] | None = None,
        skip_bad: bool = False,
        note: str = "",
    ):
        self.note = note
        self.triplets, self.metrics = list(triplets), metrics
        self.guides, self.window = Guides(references, warped, alpha), window
        self.skip_bad = skip_bad
        self.renders: dict[str, Values] = {}  # metrics of the renders by key, measured once

    @property
    def judged_by(self) -> tuple[str, int]:
        """LPIPS where it is available, else PSNR; less or more (-1, 1) is better."""
        name = "psnr" if self.metrics.lpips_reason else "lpips"
        return name, METRICS[name].sign

    @torch.no_grad()
    def measure(self, predict: Predict) -> tuple[Values, dict[str, Tensor]]:
        """Means over all processes, and some pictures: render, prediction and truth side by side.
        Raises ValueError for a triplet that cannot be read, or if none can; Stopped on a signal to
        any process."""
        mine = self.triplets[rank() :: world_size()]
        rows, sheets, fault, stopped = [], {}, None, 0
        for triplet in ProgressBar(mine, "validating", unit="picture", leave=False, delay=3):
            try:
                with interruptible():
                    row, sheet = self.judge(triplet, predict)
            except (ValueError, OSError) as error:
                if not self.skip_bad:
                    fault = f"{triplet.key}: {error}"
                    break
                log.warning("left out %s: %s", triplet.key, error)
                continue
            except Stopped as stop:
                stopped = stop.number
                break
            rows.append(row)
            if len(sheets) < MAX_PICTURES:
                sheets[triplet.key] = sheet
        # or the others would wait
        if stopped := int(greatest_of(stopped, self.metrics.device)):
            raise Stopped(stopped)
        if any_of(fault is not None, self.metrics.device):
            raise ValueError(fault or "another process could not read an entry to validate on")
        names = [f"{prefix}{n}" for prefix in ("", "render_") for n in self.metrics.names]
        sums = [sum(row[n] for row in rows) for n in names] + [len(rows)]
        sums = torch.tensor(sums, dtype=torch.float64)
        if world_size() > 1:
            sums = mean_of(sums.to(self.metrics.device)).cpu()
        if not sums[-1]:
            raise ValueError("no entry is left that can be read, so none to validate on")
        values = {n: float(total / sums[-1]) for n, total in zip(names, sums[:-1], strict=True)}
        return values, sheets

    def judge(self, triplet: Triplet, predict: Predict) -> tuple[Values, Tensor]:
        """A triplet's metrics, and its pictures side by side. Raises ValueError and OSError for
        pictures that cannot be read."""
        pictures = self.read(triplet)
        prediction = predict(pictures).cpu()
        row = self.metrics(prediction, pictures.truth)
        if triplet.key not in self.renders:
            render = self.metrics(pictures.render, pictures.truth)
            self.renders[triplet.key] = {f"render_{k}": v for k, v in render.items()}
        guides = () if pictures.references is None else pictures.references[:1]
        views = [pictures.render, prediction, pictures.truth, *guides]
        return row | self.renders[triplet.key], torch.cat(views, 1)

    def read(self, triplet: Triplet) -> Pictures:
        """A triplet's pictures, cut to the window if there is one. Raises ValueError and
        OSError."""
        pictures = Pictures.read(triplet, self.guides)
        if self.window is None:
            return pictures
        window = self.window
        size = zip(pictures.render.shape[:2], window, strict=True)
        top, left = (max(0, (n - w) // 2) for n, w in size)

        def cut(image: Tensor) -> Tensor:
            return cut_window(image, (top, left), window)

        references, alpha = pictures.references, pictures.alpha
        return Pictures(
            cut(pictures.render),
            cut(pictures.truth),
            None if references is None else torch.stack([cut(image) for image in references]),
            None if alpha is None else cut(alpha[..., None])[..., 0],
        )


def predict_by_fixing(fix: Callable[..., Tensor]) -> Predict:
    """The fixed render, by a fixer's method `fix` (fixers/)."""

    def predict(pictures: Pictures) -> Tensor:
        references, alphas = (
            None if one is None else one[None] for one in (pictures.references, pictures.alpha)
        )
        return fix(pictures.render[None], references, alphas=alphas)[0]

    return predict
