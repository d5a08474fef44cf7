# One step of an optimisation: a view is rendered, compared, and the Gaussians follow.
from __future__ import annotations

from collections.abc import Sequence

import torch
from gsplat.strategy import MCMCStrategy
from torch import Tensor

from reconstruction.backgrounds import (
    fixed_background,
    hide_from_loss,
    masked_mse,
    training_background,
)
from reconstruction.config import Config
from reconstruction.densification import make_strategy
from reconstruction.losses import alpha_difference, photometric, regularisation
from reconstruction.optimizer import make_optimizers, means_rate, update
from reconstruction.rendering import render_view
from reconstruction.rounds.distillation import Distillation
from reconstruction.start import Start, initial_splats
from reconstruction.state import History, State
from reconstruction.views import ExtraView, ViewOrder
from scenes.cameras import Cameras
from scenes.scene import Scene
from splats.rasterize import Render


class Trainer:
    """A scene, its settings (steps_scaler worked in) and the state that `step` moves forward.

    Seeds torch's global generator, from which gsplat's strategies draw.
    """

    def __init__(
        self, scene: Scene, config: Config, device: torch.device, start: Start | None = None
    ) -> None:
        torch.manual_seed(config.seed)
        self.scene, self.config, self.device = scene, config, device
        self.cameras = scene.cameras.to(device)
        self.background = fixed_background(scene, config)  # of the views that are no photos
        self.scene_scale = scene.scale * config.global_scale
        self.first_step = start.step if start else 0
        self.warms_up = start is None
        if start is None:
            splats = initial_splats(scene, config)
        else:
            splats = start.splats.with_sh_degree(config.sh_degree)
        splats = splats.to(device)
        optimizers = make_optimizers(splats, config, self.scene_scale)
        self.strategy = make_strategy(config.strategy, device)
        self.strategy.check_sanity(splats, optimizers)
        if isinstance(self.strategy, MCMCStrategy):
            densification = self.strategy.initialize_state()
        else:
            densification = self.strategy.initialize_state(scene_scale=self.scene_scale)
        self.state = State(
            splats,
            optimizers,
            densification,
            ViewOrder(scene.split.train, config.seed),
            Distillation(seed=config.seed),
            done=self.first_step,
            history=start.history if start else History(),
        )

    def step(
        self, extra: Sequence[ExtraView] = (), photo_weight: float | None = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Train on the next photo and on `extra` views; photo_weight None: on the extra ones alone.

        Loss and the photo's mean squared error, both scalars, before the update; no error without
        a photo.
        """
        config, state = self.config, self.state
        splats, optimizers, number = state.splats, state.optimizers, state.done
        background = training_background(self.scene, config, self.device)
        photo = mask = None
        if photo_weight is None:
            camera, background = extra[0].camera.to(self.device), self.background
        else:
            view = state.views.next()
            camera, mask = self.cameras[view], self.scene.mask(view)
            photo = self.scene.image(view, background).to(self.device, non_blocking=True)

        render = self._render(camera, background)  # its gradients steer the densification
        colors = first = render.colors[0]
        self.strategy.step_pre_backward(
            splats, optimizers, state.densification, number, render.info
        )
        losses = []
        if photo is not None:
            losses.append(photo_weight * self._compare(render, view, photo))
        for view in extra:
            if losses:  # else it is the view rendered above
                colors = self._render(view.camera.to(self.device), self.background).colors[0]
            loss = photometric(colors, view.target(colors), config.ssim_lambda)
            losses.append(view.weight * loss)
        losses.append(regularisation(splats, config.opacity_reg, config.scale_reg))
        loss = sum(losses[1:], start=losses[0])
        loss.backward()

        progress = (number - self.first_step) / (config.max_steps - self.first_step)
        rate = means_rate(config, self.scene_scale, progress)
        optimizers["means"].param_groups[0]["lr"] = rate
        update(optimizers)
        options = {"lr": rate} if isinstance(self.strategy, MCMCStrategy) else {"packed": False}
        self.strategy.step_post_backward(
            splats, optimizers, state.densification, number, render.info, **options
        )
        state.done += 1
        error = None if photo is None else masked_mse(first.detach(), photo, mask)
        return loss.detach(), error

    def _render(self, camera: Cameras, background: Tensor | None) -> Render:
        """One camera's view, with as many spherical harmonics as this step has."""
        config, degree = self.config, self.config.sh_degree
        if self.warms_up:
            degree = min(self.state.done // config.sh_degree_interval, degree)
        return render_view(
            self.state.splats, camera, config, sh_degree=degree, background=background, depth=False
        )

    def _compare(self, render: Render, view: int, photo: Tensor) -> Tensor:
        """The loss of a photo: its colours, and its alpha if it has any, where its mask is True."""
        mask, alpha = self.scene.mask(view), self.scene.alpha(view)
        colors = hide_from_loss(render.colors[0], photo, mask)
        loss = photometric(*colors, self.config.ssim_lambda)
        if alpha is None:
            return loss
        device = render.alphas.device
        mask = None if mask is None else mask.to(device)
        return loss + alpha_difference(render.alphas[0], alpha.to(device), mask)

    def is_finite(self) -> bool:
        """Whether no parameter holds a NaN or infinity."""
        return all(bool(value.isfinite().all()) for value in self.state.splats.values())
