# Held-out views rendered and measured: numbers and pictures, with Difix3D's file names.
from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from evaluation.color_correction import correct_colors
from evaluation.metrics import Metrics, average, mean_of_known
from evaluation.pictures import save_png, to_uint8
from generators import Generated
from reconstruction.backgrounds import fixed_background
from reconstruction.config import Config
from reconstruction.rendering import render_view
from reconstruction.result import ResultFolder
from runtime.files import write_json
from runtime.progress import ProgressBar
from scenes.cameras import Cameras
from scenes.scene import Scene
from splats.gaussians import Splats

log = logging.getLogger(__name__)

HALF = 128  # of an alpha of 255


@dataclass(frozen=True)
class HeldOutView:
    """A held-out view: its numbers and pictures (render, photo: uint8 [H, W, 3])."""

    name: str
    metrics: dict[str, float | None]
    render: np.ndarray
    photo: np.ndarray
    alpha: np.ndarray  # [H, W] uint8, the render's opacity
    post: np.ndarray | None = None  # the render, fixed
    reference: np.ndarray | None = None  # the photo that guided that
    confidence: np.ndarray | None = None  # [H, W] float16
    agreement: float | None = None  # see `generators.Generated`


@dataclass(frozen=True)
class Evaluation:
    """All held-out views at one step (counted from zero); seconds: mean time to render one;
    fixing: seconds to render and fix them all, 0 where they were not fixed."""

    step: int
    views: list[HeldOutView]
    num_GS: int
    seconds: float
    fixing: float = 0.0

    @property
    def stats(self) -> dict[str, float | int | None]:
        """Means over the views, under the keys that Difix3D writes."""
        means = average([view.metrics for view in self.views])
        if any(view.post is not None for view in self.views):
            means["post_agreement"] = self.agreement
        return {**means, "ellipse_time": self.seconds, "num_GS": self.num_GS}

    @property
    def agreement(self) -> float | None:
        """Mean over the views that a photo could check, see `generators.Generated`."""
        return mean_of_known(view.agreement for view in self.views)


@torch.no_grad()
def evaluate(
    splats: Splats,
    scene: Scene,
    config: Config,
    metrics: Metrics,
    *,
    step: int,
    generate: Callable[[Cameras], list[Generated]] | None = None,
    color_correction: str | None = None,
) -> Evaluation:
    """Render and measure every held-out view of the scene; with `generate`, which makes a view for
    each camera, that one too. color_correction: also with colours fitted by this method of
    `evaluation.color_correction`, as cc_*."""
    device = splats["means"].device
    fixed, fixing = None, time.perf_counter()
    if generate is not None and scene.split.test:
        try:
            fixed = generate(scene.cameras[list(scene.split.test)])
        except FloatingPointError as error:
            log.warning("the held-out views are not shown fixed: %s", error)
    fixing = 0.0 if fixed is None else time.perf_counter() - fixing
    background = fixed_background(scene, config)
    views, seconds = [], 0.0
    for i, index in enumerate(ProgressBar(scene.split.test, "evaluating", leave=False, delay=3)):
        start = time.perf_counter()
        camera = scene.cameras[index].to(device)
        render = render_view(splats, camera, config, background=background)
        colors, alphas = render.colors[0].clamp(0, 1).cpu(), render.alphas[0].cpu()
        seconds += time.perf_counter() - start
        photo, mask = scene.image(index, background), scene.mask(index)
        numbers = metrics(colors, photo, mask)
        if color_correction is not None:
            corrected = correct_colors(colors, photo, mask, color_correction)
            numbers |= {f"cc_{key}": v for key, v in metrics(corrected, photo, mask).items()}
        view = HeldOutView(
            scene.names[index],
            numbers,
            to_uint8(colors),
            to_uint8(photo),
            to_uint8(alphas),
        )
        views.append(view if fixed is None else add_post(view, fixed[i], photo, mask, metrics))
    return Evaluation(step, views, splats.count, seconds / max(1, len(views)), fixing)


def add_post(
    view: HeldOutView, fixed: Generated, photo: Tensor, mask: Tensor | None, metrics: Metrics
) -> HeldOutView:
    """The same with the generated view beside it, its numbers called post_*."""
    numbers = {f"post_{key}": value for key, value in metrics(fixed.image, photo, mask).items()}
    reference = fixed.pictures.get("reference")
    return replace(
        view,
        metrics=view.metrics | numbers,
        post=to_uint8(fixed.image),
        reference=None if reference is None else to_uint8(reference),
        confidence=fixed.confidence.half().numpy(),
        agreement=fixed.agreement,
    )


def write_evaluation(evaluation: Evaluation, folder: ResultFolder) -> None:
    """stats/val_step*.json (means and per view) and renders/val/{step}/{GT,Pred,Alpha,Holes}/
    *.png, holes where less than half of the light comes from splats."""
    step = evaluation.step
    write_json(folder.val_stats(step), evaluation.stats)
    per_view = {view.name: view.metrics for view in evaluation.views}
    write_json(folder.per_view_stats(step), per_view)
    for i, view in enumerate(evaluation.views):
        holes = (view.alpha < HALF).astype(np.float32)
        pictures = {"GT": view.photo, "Pred": view.render, "Alpha": view.alpha, "Holes": holes}
        if view.post is not None:
            pictures["Post"] = view.post
        if view.reference is not None:
            pictures["Ref"] = view.reference
        for kind, picture in pictures.items():
            save_png(folder.val_renders(step) / kind / f"{i:04d}.png", picture)
