# One step of an optimisation: a view is rendered, compared, and the Gaussians follow.
from __future__ import annotations

import torch
import torch.nn.functional as F
from gsplat.strategy import MCMCStrategy
from torch import Tensor

from reconstruction.config import Config
from reconstruction.history import History
from reconstruction.losses import photometric, regularisation
from reconstruction.optimisers import make_optimisers, means_rate, update
from reconstruction.rendering import render_view
from reconstruction.rounds.settings import FixConfig
from reconstruction.start import Start, initial_splats
from reconstruction.state import State
from reconstruction.strategies import make_strategy
from reconstruction.views import ViewOrder
from scenes.scene import Scene


class Trainer:
    """A scene, its settings (steps_scaler worked in) and the state that `step` moves forward.

    Seeds torch's global generator, from which gsplat's strategies draw.
    """

    def __init__(
        self,
        scene: Scene,
        config: Config,
        device: torch.device,
        start: Start | None = None,
        fixing: FixConfig | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.scene, self.config, self.device = scene, config, device
        self.fixing = fixing or FixConfig()
        self.cameras = scene.cameras.to(device)
        self.scene_scale = scene.scale * config.global_scale
        self.first_step = start.step if start else 0
        self.warms_up = start is None
        if start is None:
            splats = initial_splats(scene, config)
        else:
            splats = start.splats.with_sh_degree(config.sh_degree)
        splats = splats.to(device)
        optimisers = make_optimisers(splats, config, self.scene_scale)
        self.strategy = make_strategy(config.strategy, device)
        self.strategy.check_sanity(splats, optimisers)
        if isinstance(self.strategy, MCMCStrategy):
            densification = self.strategy.initialize_state()
        else:
            densification = self.strategy.initialize_state(scene_scale=self.scene_scale)
        views = ViewOrder(scene.split.train, config.seed)
        history = start.history if start else History()
        self.state = State(
            splats, optimisers, densification, views, done=self.first_step, history=history
        )
        self.state.mix.manual_seed(config.seed)

    def step(self) -> tuple[Tensor, Tensor | None]:
        """Loss and mean squared error of the next view, both scalars, before the update; a fixed
        view, which is no truth, has no error."""
        config, state = self.config, self.state
        splats, optimisers, number = state.splats, state.optimisers, state.done
        degree = min(number // config.sh_degree_interval, config.sh_degree)
        background = torch.rand(3, device=self.device) if config.random_bkgd else None
        novel = self._novel_view()
        photo = None
        if novel is None or self.fixing.beside:
            view = state.views.next()
            camera = self.cameras[view]
            photo = self.scene.image(view).to(self.device, non_blocking=True)
        else:
            camera, background = state.novel.cameras[novel].to(self.device), None

        degree = degree if self.warms_up else config.sh_degree
        shown = {"sh_degree": degree, "depth": False}
        render = render_view(splats, camera, config, background=background, **shown)
        colors = render.colors[0]
        self.strategy.step_pre_backward(
            splats, optimisers, state.densification, number, render.info
        )
        if photo is None:
            loss = self._distilled(novel, colors)
        else:
            weight = 1.0 if state.novel is None else self.fixing.real_data_lambda
            loss = weight * photometric(colors, photo, config.ssim_lambda)
            if novel is not None:
                camera = state.novel.cameras[novel].to(self.device)
                other = render_view(splats, camera, config, **shown)
                loss = loss + self._distilled(novel, other.colors[0])
        loss = loss + regularisation(splats, config.opacity_reg, config.scale_reg)
        loss.backward()

        progress = (number - self.first_step) / (config.max_steps - self.first_step)
        rate = means_rate(config, self.scene_scale, progress)
        optimisers["means"].param_groups[0]["lr"] = rate
        update(optimisers)
        extra = {"lr": rate} if isinstance(self.strategy, MCMCStrategy) else {"packed": False}
        self.strategy.step_post_backward(
            splats, optimisers, state.densification, number, render.info, **extra
        )
        state.done += 1
        error = None if photo is None else F.mse_loss(colors.detach(), photo)
        return loss.detach(), error

    def _novel_view(self) -> int | None:
        """The fixed view that this step trains on, if it does: each in turn, and those that have
        next to nothing to say less often."""
        state, fixing = self.state, self.fixing
        if state.novel is None or fixing.novel_share == 0:
            return None
        share = fixing.novel_share
        if fixing.fade:
            last = [r for r in state.rounds if r.views and r.verdict != "rolled back"][-1]
            share *= max(0.0, (last.until - state.done) / (last.until - last.step))
        if torch.rand((), generator=state.mix).item() >= share:
            return None
        view = state.novel_order.next()
        if (
            fixing.confident
            and torch.rand((), generator=state.mix).item() >= state.novel.told[view]
        ):
            return None
        return view

    def _distilled(self, view: int, render: Tensor) -> Tensor:
        """A fixed view's loss, of its render [H,W,3]."""
        wanted = self.state.novel.wanted(view, render)
        return self.fixing.novel_data_lambda * photometric(render, wanted, self.config.ssim_lambda)

    def is_finite(self) -> bool:
        """Whether no parameter holds a NaN or infinity."""
        return all(bool(value.isfinite().all()) for value in self.state.splats.values())
