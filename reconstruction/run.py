# From posed photos to splats: 3D Gaussian Splatting (Kerbl et al. 2023) with gsplat's settings.
from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from evaluation.metrics import Metrics
from generators import Generator
from reconstruction.compression import check_compression
from reconstruction.config import Config, EvaluationConfig, flatten
from reconstruction.report import publish, write_settings
from reconstruction.result import ResultFolder
from reconstruction.resume import resume_run, take_fork
from reconstruction.rounds.distillation import Distillation
from reconstruction.rounds.record import rounds_from_json
from reconstruction.rounds.rounds import Rounds
from reconstruction.rounds.settings import FixConfig, find_end
from reconstruction.rounds.targets import choose_targets
from reconstruction.session import Progress, Session, advance
from reconstruction.start import Start
from reconstruction.trainer import Trainer
from reconstruction.warm_up import OPTIMISATION
from runtime.files import make_writable_folder
from runtime.kernels import compile_ahead, wait_for_kernels
from runtime.lock import locked_folder
from scenes.cameras import Cameras
from scenes.scene import Scene
from splats.gaussians import Splats

log = logging.getLogger(__name__)


def optimise(
    scene: Scene,
    config: Config | None = None,
    *,
    result_dir: Path | str | None = None,
    device: torch.device | str = "cpu",
    start: Start | None = None,
    resume: bool = True,
    evaluation: EvaluationConfig | None = None,
    generator: Generator | None = None,
    fixing: FixConfig | None = None,
    control: bool = False,
) -> Splats:
    """Splats of the scene's training views, on `device`; with a generator also of novel views that
    it makes, in the rounds that `fixing` asks for (which needs a result_dir). `control` makes the
    same without fixing first, in result_dir/vanilla; up to the first round both are one.

    With a result_dir the run is saved, evaluated and reported there, a stopped one goes on where
    it was (unless `resume` is off), and a finished one is only evaluated again. `start` goes on
    from existing splats with fresh optimizers. The caller's random state is left as it was.

    ValueError: no training view, settings that differ from those of the run in result_dir, a loss
    that is not finite, another run in result_dir. Stopped after a signal, once the state is saved.
    """
    config, evaluation = config or Config(), evaluation or EvaluationConfig()
    device, first = torch.device(device), start.step if start else 0
    scaled = config.scaled()
    if not scene.split.train:
        raise ValueError(f"no training view is left: {scene.split.text}")
    if first >= scaled.max_steps:
        raise ValueError(
            f"{start.source} has {first} steps already, and --max_steps is {scaled.max_steps}; "
            "raise it, or evaluate with --eval_only"
        )
    if device.type == "cpu":
        compile_ahead(*OPTIMISATION)
    wait_for_kernels()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if result_dir is None:
            trainer = Trainer(scene, scaled, device, start)
            with Progress(trainer) as progress:
                advance(trainer, scaled.max_steps, progress)
            return trainer.state.splats
        if generator is not None:
            check_fixable(config)
        if config.compression is not None:
            check_compression(device)
        with locked_folder(result_dir, "choose another --result_dir"):
            folder = ResultFolder(Path(result_dir))
            run = Run(scene, config, device, start, resume, evaluation, folder)
            if generator is None:
                return run.without_fixing()
            return run.with_fixing(generator, fixing or FixConfig(), control)


def check_fixable(config: Config) -> None:
    """ValueError for settings with which rounds of fixing make no sense."""
    if config.app_opt or config.use_bilateral_grid:
        flag = "--app_opt" if config.app_opt else "--use_bilateral_grid"
        raise ValueError(
            f"{flag} is for photos that differ in their colours, by which rounds of fixing would "
            "compare views with them; add --no-fix"
        )


class Run:
    """One reconstruction in a result folder, with and without fixing."""

    def __init__(
        self,
        scene: Scene,
        config: Config,
        device: torch.device,
        start: Start | None,
        resume: bool,
        evaluation: EvaluationConfig,
        folder: ResultFolder,
    ) -> None:
        self.scene, self.config, self.device, self.start = scene, config, device, start
        self.resume, self.evaluation, self.folder = resume, evaluation, folder
        self.scaled, self.first = config.scaled(), start.step if start else 0
        self.settings = describe_settings(scene, config, evaluation, start)

    def without_fixing(self) -> Splats:
        """Optimise to the last step."""
        session = self._open(self.folder, self.settings, self.evaluation)
        with session:
            session.train_until(self.scaled.max_steps)
            session.publish_due()
        return session.trainer.state.splats

    def with_fixing(self, generator: Generator, fixing: FixConfig, control: bool) -> Splats:
        """Optimise with the rounds that `fixing` asks for."""
        first, last = self.first, self.scaled.max_steps
        steps = fixing.steps(first, last, self.config.steps_scaler, self.start is not None)
        if not steps:
            log.warning(
                "no round of fixing falls into these %d steps: see --fix_steps, --schedule",
                last - first,
            )
        targets = self._choose_targets(fixing, steps)
        if control:
            self._make_control(steps[0] if steps else None)
        settings = self.settings | dict(generator.settings) | flatten(fixing)
        session = self._open(self.folder, settings, self.evaluation, generator, fixing)
        state = session.trainer.state
        if control and steps and state.done == first < steps[0]:
            take_fork(state, self.folder, self.settings)
        with session:
            Rounds(session, steps, targets).run()
            session.publish_due()
        return state.splats

    def _choose_targets(self, fixing: FixConfig, steps: tuple[int, ...]) -> Cameras:
        """Where the rounds want views."""
        last = self.scaled.max_steps
        longest = max((find_end(step, steps, last) - step for step in steps), default=0)
        return choose_targets(self.scene, fixing, self.config.seed, fixing.most_views(longest))

    def _make_control(self, fork: int | None) -> None:
        """The same run without fixing; its state at step `fork`, the first round's, is saved."""
        log.info("first the same without fixing, in %s", self.folder.vanilla.path)
        evaluation = replace(self.evaluation, save_video=False)
        settings = describe_settings(self.scene, self.config, evaluation, self.start)
        folder = ResultFolder(make_writable_folder(self.folder.vanilla.path))
        if not self.resume:
            self.folder.fork.unlink(missing_ok=True)
        session = self._open(folder, settings, evaluation)
        with session:
            if fork is not None:
                session.train_until(fork)
                if session.trainer.state.done == fork:
                    session.save_to(self.folder.fork)
            session.train_until(self.scaled.max_steps)
            session.publish_due()

    def _open(
        self,
        folder: ResultFolder,
        settings: dict[str, Any],
        evaluation: EvaluationConfig,
        generator: Generator | None = None,
        fixing: FixConfig | None = None,
    ) -> Session:
        """A session where the run in `folder` stopped, or at its beginning."""
        trainer = Trainer(self.scene, self.scaled, self.device, self.start)
        if fixing is not None:
            trainer.state.distillation = Distillation(fixing, seed=self.config.seed)
        session = Session(
            trainer,
            folder,
            settings,
            evaluation,
            save_every_seconds=self.config.save_every_seconds,
            generator=generator,
        )
        if self.resume:
            resume_run(trainer.state, folder, settings, self.first, self.scaled.max_steps)
        else:
            folder.clear(self.first)
        write_settings(folder, settings, self.scene)
        return session


def describe_settings(
    scene: Scene, config: Config, evaluation: EvaluationConfig, start: Start | None = None
) -> dict[str, Any]:
    """Everything that a run depends on, by flag name, as written to cfg.yml."""
    return {
        "data_dir": str(scene.path.resolve()),
        "data_factor": scene.data_factor,
        "split": scene.split.text,
        "normalize_world_space": scene.is_normalized,
        "start": start.source if start else None,
        **flatten(config),
        **flatten(evaluation),
        "transform": scene.transform.tolist(),
    }


def evaluate_only(
    scene: Scene,
    start: Start,
    config: Config,
    evaluation: EvaluationConfig,
    result_dir: Path | str,
    device: torch.device | str = "cpu",
) -> None:
    """Measure existing splats on the held-out views; write what a run writes at its end."""
    device, step = torch.device(device), max(0, start.step - 1)
    with locked_folder(result_dir, "choose another --result_dir"):
        folder = ResultFolder(Path(result_dir))
        rounds = folder.rounds_stats(step)
        publish(
            start.splats.to(device),
            scene,
            config,
            folder,
            step=step,
            settings={**describe_settings(scene, config, evaluation, start), "eval_only": True},
            history=start.history,
            metrics=Metrics(evaluation.lpips_net, device, evaluation.backbones),
            video=evaluation.render_traj_path if evaluation.save_video else None,
            rounds=rounds_from_json(json.loads(rounds.read_text())) if rounds.exists() else (),
            color_correction=evaluation.choose_correction(config),
        )
