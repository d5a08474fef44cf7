# Held-out views rendered and measured: numbers and pictures, with Difix3D's file names.
from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from evaluation.metrics import Metrics, mean, write_json
from evaluation.pictures import save_png, to_uint8
from reconstruction.config import Config
from reconstruction.rendering import render_view
from reconstruction.result import ResultFolder
from scenes.scene import Scene
from splats.gaussians import Splats


@dataclass(frozen=True)
class EvaluationConfig:
    """How results are measured and shown."""

    lpips_net: Literal["alex", "vgg"] = "alex"
    """Network of the perceptual metric."""
    save_video: bool = True
    """Write a video along a camera path at the end."""
    render_traj_path: Literal["interp", "ellipse"] = "interp"
    """The video's path: through the training cameras, or an ellipse around the scene."""


@dataclass(frozen=True)
class View:
    """A held-out view: its numbers and pictures (render, photo: uint8 [H, W, 3])."""

    name: str
    metrics: dict[str, float | None]
    render: np.ndarray
    photo: np.ndarray
    holes: np.ndarray  # [H, W] bool, where less than half of the light comes from splats


@dataclass(frozen=True)
class Evaluation:
    """All held-out views at one step (counted from zero); seconds: mean time to render one."""

    step: int
    views: list[View]
    num_GS: int
    seconds: float

    @property
    def stats(self) -> dict[str, float | int | None]:
        """Means over the views, under the keys that Difix3D writes."""
        means = mean([view.metrics for view in self.views])
        return {**means, "ellipse_time": self.seconds, "num_GS": self.num_GS}


@torch.no_grad()
def evaluate(
    splats: Splats, scene: Scene, config: Config, metrics: Metrics, *, step: int
) -> Evaluation:
    """Render and measure every held-out view of the scene."""
    device = splats["means"].device
    views, seconds = [], 0.0
    for index in tqdm(scene.split.test, desc="evaluating", leave=False):
        start = time.perf_counter()
        render = render_view(splats, scene.cameras[index].to(device), config)
        colors, alphas = render.colors[0].clamp(0, 1).cpu(), render.alphas[0].cpu()
        seconds += time.perf_counter() - start
        photo = scene.image(index)
        views.append(
            View(
                scene.names[index],
                metrics(colors, photo),
                to_uint8(colors),
                scene.images[index],
                (alphas < 0.5).numpy(),
            )
        )
    return Evaluation(step, views, splats.count, seconds / max(1, len(views)))


def write_evaluation(evaluation: Evaluation, folder: ResultFolder) -> None:
    """stats/val_step*.json (means and per view) and renders/val/{step}/{GT,Pred,Alpha}/*.png."""
    step = evaluation.step
    write_json(folder.val_stats(step), evaluation.stats)
    per_view = {view.name: view.metrics for view in evaluation.views}
    write_json(folder.per_view_stats(step), per_view)
    for i, view in enumerate(evaluation.views):
        pictures = {"GT": view.photo, "Pred": view.render, "Alpha": view.holes.astype(np.float32)}
        for kind, picture in pictures.items():
            save_png(folder.val_renders(step) / kind / f"{i:04d}.png", picture)
