# Validation as users meet the model: whole pictures through the fixer, against the ground truth.
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from evaluation.metrics import Metrics
from fixers.fixer import Fixer
from models.gsvar import GSVAR
from models.vqvae.model import VQVAE
from training.distributed import any_of, mean_of, rank, world
from triplets.guides import Guides, Pictures
from triplets.manifest import Triplet
from triplets.windows import cut_window

log = logging.getLogger(__name__)

PICTURES = 8  # of a validation, kept to be looked at

Values = dict[str, float | None]


Answer = Callable[[Pictures], Tensor]
"""What is judged [H,W,3]."""


class Validation:
    """Means of psnr, ssim and lpips over triplets, of the answer and (render_) of the render.

    skip_bad: an unreadable triplet is left out, which is said.
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
    ):
        self.triplets, self.metrics = list(triplets), metrics
        self.guides, self.window = Guides(references, warped, alpha), window
        self.skip_bad = skip_bad
        self.before: dict[str, Values] = {}

    @property
    def judged_by(self) -> tuple[str, int]:
        """The number that says which model is best, and whether more (1) or less (-1) is better."""
        return ("psnr", 1) if self.metrics.lpips_reason else ("lpips", -1)

    @torch.no_grad()
    def __call__(self, answer: Answer) -> tuple[Values, dict[str, Tensor]]:
        """Means over all processes, and some pictures: render, answer and truth side by side.
        Raises ValueError for a triplet that cannot be read, or if none can."""
        mine = self.triplets[rank() :: world()]
        rows, pictures, fault = [], {}, None
        for triplet in tqdm(mine, "validating", unit="picture", leave=False, delay=3):
            try:
                shown = self.images(triplet)
            except (ValueError, OSError) as error:
                if not self.skip_bad:
                    fault = f"{triplet.key}: {error}"
                    break
                log.warning("left out %s: %s", triplet.key, error)
                continue
            got = answer(shown).cpu()
            row = self.metrics(got, shown.truth)
            if triplet.key not in self.before:
                told = self.metrics(shown.render, shown.truth)
                self.before[triplet.key] = {f"render_{k}": v for k, v in told.items()}
            rows.append(row | self.before[triplet.key])
            if len(pictures) < PICTURES:
                guides = () if shown.references is None else shown.references[:1]
                pictures[triplet.key] = torch.cat([shown.render, got, shown.truth, *guides], 1)
        if any_of(fault is not None, self.metrics.device):  # or the others would wait
            raise ValueError(fault or "another process could not read an entry to validate on")
        names = ["psnr", "ssim", *([] if self.metrics.lpips_reason else ["lpips"])]
        names = [f"{before}{n}" for before in ("", "render_") for n in names]
        sums = [sum(row[n] for row in rows) for n in names] + [len(rows)]
        sums = torch.tensor(sums, dtype=torch.float64)
        if world() > 1:
            sums = mean_of(sums.to(self.metrics.device)).cpu()
        if not sums[-1]:
            raise ValueError("no entry is left that can be read, so none to validate on")
        values = {n: float(total / sums[-1]) for n, total in zip(names, sums[:-1], strict=True)}
        return values, pictures

    def images(self, triplet: Triplet) -> Pictures:
        """A triplet's pictures, cut to the window if there is one."""
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


def by_fixer(fixer: Fixer) -> Answer:
    """The fixed render."""

    def answer(shown: Pictures) -> Tensor:
        references, alphas = (
            None if told is None else told[None] for told in (shown.references, shown.alpha)
        )
        return fixer.fix(shown.render[None], references, alphas=alphas)[0]

    return answer


def by_tokenizer(vqvae: VQVAE, model: GSVAR) -> Answer:
    """The truth through the tokens: the tokenizer's ceiling."""

    def answer(shown: Pictures) -> Tensor:
        image = shown.truth.permute(2, 0, 1)[None].to(model.device) * 2 - 1
        rows, columns = (n // vqvae.config.stride for n in image.shape[-2:])
        grids = model.fit_scales(rows, columns).grids
        return ((vqvae.reconstruct(image, grids)[0] + 1) / 2).permute(1, 2, 0).float()

    return answer
