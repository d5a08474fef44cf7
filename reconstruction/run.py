# From posed photos to splats: 3D Gaussian Splatting (Kerbl et al. 2023) with gsplat's settings.
from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from evaluation.metrics import Metrics, mse_to_psnr
from reconstruction.config import Config, flat
from reconstruction.evaluate import EvaluationConfig
from reconstruction.result import ResultFolder
from reconstruction.resume import FREE, restore
from reconstruction.rounds.record import retold
from reconstruction.rounds.rounds import FixerInUse, Rounds
from reconstruction.rounds.settings import FixConfig
from reconstruction.rounds.support import support
from reconstruction.start import Start
from reconstruction.summary import publish, write_settings
from reconstruction.trainer import Trainer
from runtime.files import make_writable_folder, write_json
from runtime.interrupts import deferred_interrupt
from runtime.memory import measure_peak_gigabytes
from scenes.scene import Scene
from splats import checkpoint, ply
from splats.gaussians import Splats

log = logging.getLogger(__name__)

REFRESH = 10  # steps between updates of the progress bar
CURVE_POINTS = 300  # of the training PSNR, kept over a run


def optimise(
    scene: Scene,
    config: Config | None = None,
    *,
    result_dir: Path | str | None = None,
    device: torch.device | str = "cpu",
    start: Start | None = None,
    resume: bool = True,
    evaluation: EvaluationConfig | None = None,
    fixer: FixerInUse | None = None,
    fixing: FixConfig | None = None,
    control: bool = False,
) -> Splats:
    """Splats of the scene's training views, on `device`; with a fixer also of novel views that it
    has fixed, in the rounds that `fixing` asks for (which needs a result_dir). `control` makes the
    same without fixing first, in result_dir/vanilla; up to the first round both are one.

    With a result_dir the run is saved, evaluated and reported there, a stopped one goes on where
    it was (unless `resume` is off), and a finished one is only evaluated again. `start` goes on
    from existing splats with fresh optimisers. The caller's random state is left as it was.

    ValueError: no training view, settings that differ from those of the run in result_dir, a loss
    that is not finite. KeyboardInterrupt after Ctrl-C, once the state is saved.
    """
    config = config or Config()
    evaluation = evaluation or EvaluationConfig()
    device = torch.device(device)
    schedule = config.scaled()
    first = start.step if start else 0
    if not scene.split.train:
        raise ValueError(f"no training view is left: {scene.split.text}")
    if first >= schedule.max_steps:
        raise ValueError(
            f"{start.source} has {first} steps already, and --max_steps is {schedule.max_steps}; "
            "raise it, or evaluate with --eval_only"
        )
    folder = None if result_dir is None else ResultFolder(make_writable_folder(result_dir))
    settings = settings_of(scene, config, evaluation, start)
    steps: tuple[int, ...] = ()
    if fixer is not None:
        fixing = fixing or FixConfig()
        steps = fixing.steps(first, schedule.max_steps, config.steps_scaler, start is not None)
        if not steps:
            log.warning(
                "no round of fixing falls into these %d steps: see --fix_steps, --schedule",
                schedule.max_steps - first,
            )
        if control:
            _control(scene, config, folder, device, start, resume, evaluation, steps)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainer = Trainer(scene, schedule, device, start, fixing)
        if folder is None:
            with _progress(trainer) as bar:
                _advance(trainer, schedule.max_steps, bar)
        else:
            plain = settings
            if fixer is not None:
                settings = settings | fixer.settings | flat(trainer.fixing)
            session = _Session(trainer, folder, settings, config.save_every_seconds, evaluation)
            if fixer is not None:
                session.rounds = Rounds(
                    trainer, folder, fixer, trainer.fixing, steps, session.save_to
                )
            if resume:
                restore(trainer.state, folder, settings, first, schedule.max_steps)
            else:
                folder.clear(first)
            if control and steps and trainer.state.done == first < steps[0]:
                _take_fork(trainer, folder, plain)
            write_settings(folder, settings, scene)
            session.run()
    return trainer.state.splats


def _control(
    scene: Scene,
    config: Config,
    folder: ResultFolder,
    device: torch.device,
    start: Start | None,
    resume: bool,
    evaluation: EvaluationConfig,
    steps: tuple[int, ...],
) -> None:
    """The same run without fixing, and its state where the first round begins."""
    log.info("first the same without fixing, in %s", folder.vanilla.path)
    shown = replace(evaluation, save_video=False)
    schedule = config.scaled()
    first = start.step if start else 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        trainer = Trainer(scene, schedule, device, start)
        settings = settings_of(scene, config, shown, start)
        own = ResultFolder(make_writable_folder(folder.vanilla.path))
        session = _Session(trainer, own, settings, config.save_every_seconds, shown)
        session.fork = steps[0] if steps else None
        if resume:
            restore(trainer.state, own, settings, first, schedule.max_steps)
        else:
            own.clear(first)
            folder.fork.unlink(missing_ok=True)
        write_settings(own, settings, scene)
        session.run()


def _take_fork(trainer: Trainer, folder: ResultFolder, settings: dict[str, Any]) -> None:
    """Go on from the control's state at the first round, if it was made by the same settings."""
    if not folder.fork.exists():
        return
    saved = checkpoint.load(folder.fork)
    theirs, ours = json.loads(saved["settings"]), json.loads(json.dumps(settings))
    if any(theirs.get(key) != value for key, value in ours.items() if key not in FREE):
        return
    trainer.state.load(folder.fork, saved)
    log.info("up to step %d as without fixing", trainer.state.done)


def settings_of(
    scene: Scene, config: Config, evaluation: EvaluationConfig, start: Start | None = None
) -> dict[str, Any]:
    """Everything that a run depends on, by flag name, as written to cfg.yml."""
    return {
        "data_dir": str(scene.path.resolve()),
        "data_factor": scene.data_factor,
        "split": scene.split.text,
        "normalize_world_space": not torch.equal(scene.transform, torch.eye(4).double()),
        "start": start.source if start else None,
        **flat(config),
        **flat(evaluation),
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
    folder = ResultFolder(make_writable_folder(result_dir))
    told = folder.rounds_stats(step)
    publish(
        start.splats.to(device),
        scene,
        config,
        folder,
        step=step,
        settings={**settings_of(scene, config, evaluation, start), "eval_only": True},
        history=start.history,
        metrics=Metrics(evaluation.lpips_net, device),
        video=evaluation.render_traj_path if evaluation.save_video else None,
        rounds=retold(json.loads(told.read_text())) if told.exists() else (),
    )


class _Session:
    """A run with a result folder: what happens between stretches of steps."""

    def __init__(
        self,
        trainer: Trainer,
        folder: ResultFolder,
        settings: dict[str, Any],
        save_every_seconds: float,
        evaluation: EvaluationConfig,
    ) -> None:
        self.trainer, self.folder, self.settings = trainer, folder, settings
        self.save_every_seconds, self.evaluation = save_every_seconds, evaluation
        self.metrics: Metrics | None = None
        self.last_save = time.monotonic()
        self.rounds: Rounds | None = None
        self.fork: int | None = None  # where the state is kept for a run that goes another way

    def run(self) -> None:
        """Optimise to the end, halting wherever something is to be kept or measured."""
        state, config = self.trainer.state, self.trainer.config
        halts = {*config.eval_steps, *config.save_steps, config.max_steps}
        if self.rounds is not None:
            halts |= {*self.rounds.steps, *map(self.rounds.judged_at, self.rounds.steps)}
        if self.fork is not None:
            halts |= {self.fork}
        with _progress(self.trainer) as bar:
            while True:
                if self._settled_back(bar):
                    continue
                at_end, real = state.done == config.max_steps, not self._on_trial
                if state.done == self.fork:
                    self.save_to(ResultFolder(self.folder.path.parent).fork)
                if real and (at_end or state.done in config.save_steps):
                    self._keep()
                if at_end:
                    self.folder.clean()
                if real and (at_end or state.done in config.eval_steps):
                    self._measure(at_end)
                if at_end:
                    return
                if self.rounds is not None and self.rounds.due():
                    self.rounds.begin()
                    self._save_state()
                halt = min(step for step in halts if step > state.done)
                with deferred_interrupt() as interrupt:

                    def after_step(interrupt=interrupt) -> None:
                        waited = time.monotonic() - self.last_save
                        if interrupt.requested or waited > self.save_every_seconds:
                            self._save_state()
                        if interrupt.requested:
                            log.info(
                                "stopped after step %d of %d; the same command resumes there",
                                state.done,
                                config.max_steps,
                            )
                            raise KeyboardInterrupt

                    try:
                        _advance(self.trainer, halt, bar, after_step)
                        self._check_finite()
                    except Diverged:
                        if self.rounds is None or not self.rounds.diverged():
                            raise
                        _step_back(bar, state.done)
                    self._save_state()

    @property
    def _on_trial(self) -> bool:
        return self.rounds is not None and self.rounds.on_trial

    def _settled_back(self, bar: tqdm) -> bool:
        """Judge an open round whose steps are over; True if the run is to repeat them without."""
        rounds, done = self.rounds, self.trainer.state.done
        if rounds is None or not rounds.is_open or done < rounds.judged_at(rounds.told[-1].step):
            return False
        back = rounds.settle()
        self._save_state()
        _step_back(bar, self.trainer.state.done)
        return back

    def _save_state(self) -> None:
        self._check_finite()
        self.save_to(self.folder.resume)
        self.last_save = time.monotonic()

    def save_to(self, path: Path) -> None:
        """The run's state, in a file."""
        self.trainer.state.save(path, self.settings)

    def _check_finite(self) -> None:
        if not self.trainer.is_finite():
            raise _diverged(self.trainer.state.done)

    def _keep(self) -> None:
        """A checkpoint, a .ply and the training's statistics, unless they are there already."""
        state, step = self.trainer.state, self.trainer.state.done - 1
        if self.folder.checkpoint(step).exists():
            return
        self._check_finite()
        numbers = {
            "mem": measure_peak_gigabytes(self.trainer.device),
            "ellipse_time": state.history.seconds,
            "num_GS": state.splats.count,
        }
        write_json(self.folder.train_stats(step), numbers)
        ply.write(self.folder.ply(step), state.splats)
        extra = state.record(self.settings)
        if self.rounds is not None:
            extra["confidence"] = support(state.splats, self.trainer.scene, self.trainer.config)
        checkpoint.write(self.folder.checkpoint(step), state.splats, step, **extra)

    def _measure(self, at_end: bool) -> None:
        """Evaluate and report, unless a run that stopped here has done so; film at the end."""
        trainer, state = self.trainer, self.trainer.state
        step = state.done - 1
        if not at_end and any(known["step"] == step for known in state.history.evaluations):
            return
        self.metrics = self.metrics or Metrics(self.evaluation.lpips_net, trainer.device)
        films = at_end and self.evaluation.save_video
        post = None
        if self.rounds is not None and state.rounds:
            asked = self.rounds.settings.post
            if asked == "always" or (asked == "auto" and at_end):
                post = self.rounds.repair()
        publish(
            state.splats,
            trainer.scene,
            trainer.config,
            self.folder,
            step=step,
            settings=self.settings,
            history=state.history,
            metrics=self.metrics,
            video=self.evaluation.render_traj_path if films else None,
            post=post,
            rounds=state.rounds,
        )


def _progress(trainer: Trainer) -> tqdm:
    total, done = trainer.config.max_steps, trainer.state.done
    return tqdm(desc="optimising", total=total, initial=done, unit="step", dynamic_ncols=True)


def _advance(
    trainer: Trainer, halt: int, bar: tqdm, after_step: Callable[[], None] = lambda: None
) -> None:
    """Steps until `halt` are done, with loss, PSNR and number of Gaussians on the progress bar."""
    state, history = trainer.state, trainer.state.history
    stretch = max(1, trainer.config.max_steps // CURVE_POINTS)
    losses, errors, smooth = [], [], None
    while state.done < halt:
        start = time.perf_counter()
        loss, error = trainer.step()
        losses.append(loss)
        if error is not None:
            errors.append(error)
        refresh = state.done % REFRESH == 0 or state.done == halt
        # Reading a number waits for CUDA, so there it is not done every step.
        if (refresh or trainer.device.type == "cpu") and not math.isfinite(loss.item()):
            raise _diverged(state.done)
        history.seconds += time.perf_counter() - start
        if state.done % stretch == 0 and errors:
            history.curve.append((state.done, mse_to_psnr(torch.stack(errors).mean().item())))
            errors.clear()
        if refresh:
            if error is not None:
                smooth = error.item() if smooth is None else 0.9 * smooth + 0.1 * error.item()
            bar.set_postfix(
                loss=f"{torch.stack(losses).mean().item():.4f}",
                **({} if smooth is None else {"PSNR": f"{mse_to_psnr(smooth):.2f}"}),
                Gaussians=f"{state.splats.count:,}",
                refresh=False,
            )
            bar.update(state.done - bar.n)
            losses.clear()
        after_step()


def _step_back(bar: tqdm, done: int) -> None:
    """Show fewer steps done than before."""
    if done < bar.n:
        bar.reset(bar.total)
        bar.update(done)


class Diverged(ValueError):
    """NaN or infinity in a loss or a parameter."""


def _diverged(step: int) -> Diverged:
    return Diverged(
        f"the optimisation diverged at step {step} (NaN or infinite values); what was saved before "
        "is kept: lower the learning rates or change --seed, and add --no-resume"
    )
