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
from reconstruction.corrections.appearance import NAME, make_features
from reconstruction.corrections.corrections import Corrections
from reconstruction.corrections.poses import add_noise
from reconstruction.densification import make_strategy
from reconstruction.losses import (
    alpha_difference,
    disparity_difference,
    photometric,
    regularisation,
)
from reconstruction.optimizer import make_optimizers, means_rate, update
from reconstruction.photos import Photo, take_photo
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
        if config.pose_noise > 0:
            scene = add_noise(scene, config.pose_noise, config.seed)
        check_batches(scene, config)
        if config.depth_loss and scene.seen is None:
            raise ValueError(
                f"--depth_loss needs the points that photos see, and {scene.path} does not say "
                "which: a COLMAP model with tracks does"
            )
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
        if config.app_opt:
            generator = torch.Generator().manual_seed(config.seed)
            splats[NAME] = torch.nn.Parameter(make_features(splats.count, generator))
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
            corrections=Corrections(config, scene.split.train, device),
        )

    def step(
        self, extra: Sequence[ExtraView] = (), photo_weight: float | None = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Train on the next photos and on `extra` views; photo_weight None: on the extra ones
        alone.

        Loss and the photos' mean squared error, both scalars, before the update; no error without
        photos.
        """
        config, state = self.config, self.state
        splats, optimizers, number = state.splats, state.optimizers, state.done
        background = training_background(self.scene, config, self.device)
        photos: list[Photo] = []
        if photo_weight is None:
            cameras, background = extra[0].camera.to(self.device), self.background
        else:
            photos = [self._take_photo(background) for _ in range(config.batch_size)]
            cameras = Cameras.concatenate([photo.camera for photo in photos])

        # its gradients steer the densification
        render = self._render(cameras, background, photos)
        self.strategy.step_pre_backward(
            splats, optimizers, state.densification, number, render.info
        )
        losses, errors, infos = [], [], [render.info]
        for i, photo in enumerate(photos):
            colors = self._develop(render, i, photo, background)
            loss = self._compare(colors, render.alphas[i], photo)
            if config.depth_loss:
                points = self.scene.points[self.scene.seen[photo.view]].to(self.device)
                loss = loss + config.depth_lambda * self.scene_scale * disparity_difference(
                    render.depths[i], photo.camera, points
                )
            losses.append(photo_weight / len(photos) * loss)
            errors.append(masked_mse(colors.detach(), photo.image, photo.mask))
        for i, view in enumerate(extra):
            if photos or i:  # else it is the view rendered above
                render = self._render(view.camera.to(self.device), self.background)
                infos.append(render.info)
            colors = render.colors[0]
            loss = photometric(colors, view.target(colors), config.ssim_lambda)
            losses.append(view.weight * loss)
        losses.append(regularisation(splats, config.opacity_reg, config.scale_reg))
        if photos:
            losses.append(state.corrections.regularisation(state.corrections.find_rows(photos)))
        loss = sum(losses[1:], start=losses[0])
        loss.backward()

        progress = (number - self.first_step) / (config.max_steps - self.first_step)
        rate = means_rate(config, self.scene_scale, progress)
        optimizers["means"].param_groups[0]["lr"] = rate
        update(optimizers, infos if config.visible_adam or config.sparse_grad else None)
        state.corrections.update(progress)
        packed = config.packed and self.device.type == "cuda"
        options = {"lr": rate} if isinstance(self.strategy, MCMCStrategy) else {"packed": packed}
        self.strategy.step_post_backward(
            splats, optimizers, state.densification, number, infos[0], **options
        )
        state.done += 1
        return loss.detach(), sum(errors) / len(errors) if errors else None

    def _take_photo(self, background: Tensor | None) -> Photo:
        """The next photo."""
        view = self.state.views.next()
        return take_photo(self.scene, self.cameras, view, background, self.config.patch_size)

    def _render(
        self, cameras: Cameras, background: Tensor | None, photos: Sequence[Photo] = ()
    ) -> Render:
        """Views with as many spherical harmonics as this step has; those of photos as the
        corrections of these say."""
        config, degree = self.config, self.config.sh_degree
        if self.warms_up:
            degree = min(self.state.done // config.sh_degree_interval, degree)
        splats, corrections, colors = self.state.splats, self.state.corrections, None
        if photos:
            rows = corrections.find_rows(photos)
            cameras = corrections.move(cameras, rows)
            if corrections.appearance is not None:
                places = cameras.positions
                colors = corrections.appearance(splats.gaussians, places, rows, degree)
        return render_view(
            splats,
            cameras,
            config,
            sh_degree=degree,
            background=background,
            depth=config.depth_loss and len(photos) > 0,
            view_colors=colors,
            training=True,
        )

    def _develop(
        self, render: Render, index: int, photo: Photo, background: Tensor | None
    ) -> Tensor:
        """Picture `index` of a render, [H, W, 3], in the colours of its photo; what lies behind the
        splats keeps its own."""
        colors = render.colors[index]
        if background is None or self.state.corrections.grids is None:
            return self.state.corrections.develop(colors, photo)
        behind = (1 - render.alphas[index])[..., None] * background.to(colors)
        return self.state.corrections.develop(colors - behind, photo) + behind

    def _compare(self, colors: Tensor, alphas: Tensor, photo: Photo) -> Tensor:
        """The loss of a photo: its colours, and its alpha if it has any, where its mask is True."""
        pair = hide_from_loss(colors, photo.image, photo.mask)
        loss = photometric(*pair, self.config.ssim_lambda)
        if photo.alpha is None:
            return loss
        mask = None if photo.mask is None else photo.mask.to(alphas.device)
        return loss + alpha_difference(alphas, photo.alpha.to(alphas), mask)

    @property
    def posed_scene(self) -> Scene:
        """The scene with the training views where their optimised poses are now."""
        return self.state.corrections.correct_poses(self.scene)

    def is_finite(self) -> bool:
        """Whether no parameter holds a NaN or infinity."""
        finite = all(bool(value.isfinite().all()) for value in self.state.splats.values())
        return finite and self.state.corrections.is_finite()


def check_batches(scene: Scene, config: Config) -> None:
    """ValueError where photos of several sizes would have to be rendered at once."""
    sizes = scene.cameras.sizes[list(scene.split.train)]
    if config.patch_size is not None:
        sizes = sizes.clamp(max=config.patch_size)
    if config.batch_size > 1 and len(sizes.unique(dim=0)) > 1:
        raise ValueError(
            f"--batch_size {config.batch_size} needs photos of one size, and those of {scene.path} "
            "have several; use --batch_size 1, or a --patch_size that all of them have"
        )
