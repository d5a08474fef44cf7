# The corrections of a run that its config asks for, with their optimizers and schedules.
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reconstruction.config import Config
from reconstruction.corrections.appearance import Appearance
from reconstruction.corrections.bilateral import BilateralGrids, list_places
from reconstruction.corrections.poses import PoseDeltas, move_training_views
from reconstruction.photos import Photo
from scenes.cameras import Cameras
from scenes.scene import Scene

GRID_RATES = {"whole": 5e-3, "cells": 2e-4}
GRID_SMOOTHNESS = 10.0  # weight of the grids' total variation in the loss
# Share of the steps in which learning rates rise from 1 %. Poses wait for splats that show where
# they are, and for Adam's second moments, which make the first steps of a rare view too long.
WARM_UP = {"whole": 1 / 30, "cells": 1 / 30, "poses": 1 / 10}
POSE_STEPS = 30_000  # at which gsplat's learning rate of poses, 1e-5, is right


class Corrections:
    """Poses, appearance embeddings and bilateral grids of the training views; each may be None."""

    def __init__(self, config: Config, views: Sequence[int], device: torch.device) -> None:
        count = len(views)
        self.row_of = {view: row for row, view in enumerate(views)}
        self.poses = PoseDeltas(count).to(device) if config.pose_opt else None
        self.appearance = self.grids = None
        if config.app_opt:
            dim, degree = config.app_embed_dim, config.sh_degree
            self.appearance = Appearance(count, dim, degree).to(device)
        if config.use_bilateral_grid:
            self.grids = BilateralGrids(count, config.bilateral_grid_shape).to(device)
        self.device = device
        self.optimizers = self._make_optimizers(config)
        self.rates = {name: o.param_groups[0]["lr"] for name, o in self.optimizers.items()}

    def _make_optimizers(self, config: Config) -> dict[str, torch.optim.Adam]:
        times, optimizers = math.sqrt(config.batch_size), {}
        if self.poses is not None:
            rate = config.pose_opt_lr
            if rate is None:
                rate = 1e-5 * POSE_STEPS / config.max_steps
            optimizers["poses"] = torch.optim.Adam(
                self.poses.parameters(), rate * times, weight_decay=config.pose_opt_reg
            )
        if self.appearance is not None:
            rate = config.app_opt_lr * times
            optimizers["embeds"] = torch.optim.Adam(
                self.appearance.embeds.parameters(), 10 * rate, weight_decay=config.app_opt_reg
            )
            optimizers["color_head"] = torch.optim.Adam(
                self.appearance.color_head.parameters(), rate
            )
        if self.grids is not None:
            for name, rate in GRID_RATES.items():
                parameters = [getattr(self.grids, name)]
                optimizers[name] = torch.optim.Adam(parameters, rate * times, eps=1e-15)
        return optimizers

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Those that there are, under gsplat's names in checkpoints."""
        named = {
            "pose_adjust": self.poses,
            "app_module": self.appearance,
            "post_processing": self.grids,
        }
        return {name: module for name, module in named.items() if module is not None}

    def find_rows(self, photos: Sequence[Photo]) -> Tensor:
        """The rows [B] that belong to the photos."""
        return torch.tensor([self.row_of[photo.view] for photo in photos], device=self.device)

    def move(self, cameras: Cameras, rows: Tensor) -> Cameras:
        """The cameras where the poses of these rows say; in the graph."""
        return cameras if self.poses is None else self.poses(cameras, rows)

    def develop(self, render: Tensor, photo: Photo) -> Tensor:
        """A render [H, W, 3], without what lies behind it, in the colours of the photo."""
        if self.grids is None:
            return render
        size = (render.shape[1], render.shape[0])
        places = list_places(size, photo.corner, photo.whole).to(render.device)
        return self.grids(render, places, self.row_of[photo.view])

    def regularisation(self, rows: Tensor) -> Tensor | float:
        """What the loss adds for these rows."""
        return 0.0 if self.grids is None else GRID_SMOOTHNESS * self.grids.total_variation(rows)

    def update(self, progress: float) -> None:
        """Step the optimizers and clear the gradients; progress of the run from 0 to 1."""
        for name, optimizer in self.optimizers.items():
            factor = 1.0
            if name in WARM_UP:
                factor = 0.01**progress * (0.01 + 0.99 * min(1.0, progress / WARM_UP[name]))
            optimizer.param_groups[0]["lr"] = self.rates[name] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def correct_poses(self, scene: Scene) -> Scene:
        """The scene with the training views where the optimised poses are."""
        return scene if self.poses is None else move_training_views(scene, self.poses)

    def is_finite(self) -> bool:
        """Whether no parameter holds a NaN or infinity."""
        parameters = (p for module in self.modules.values() for p in module.parameters())
        return all(bool(parameter.isfinite().all()) for parameter in parameters)

    def state_dict(self) -> dict[str, Any]:
        """All that a bit-exact continuation needs."""
        return {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        modules, optimizers = state.get("modules", {}), state.get("optimizers", {})
        for name, module in self.modules.items():
            module.load_state_dict(modules[name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(optimizers[name])
