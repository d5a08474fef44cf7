# A run with a result folder: steps, and what is saved, measured and published between them.
from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from evaluation.metrics import Metrics, mse_to_psnr
from generators import Generated, Generator, References
from reconstruction.board import Board
from reconstruction.compression import compress
from reconstruction.config import NEVER, EvaluationConfig
from reconstruction.rendering import compute_support, render_view
from reconstruction.report import publish
from reconstruction.result import ResultFolder
from reconstruction.trainer import Trainer
from runtime import memory
from runtime.files import write_json
from runtime.interrupts import Interrupt, deferred_interrupt
from runtime.progress import ProgressBar
from scenes.cameras import Cameras
from splats.formats import checkpoint, ply
from splats.rasterize import Render

log = logging.getLogger(__name__)

REFRESH = 10  # steps between updates of the progress bar
CURVE_POINTS = 300  # of the training PSNR, saved over a run


class Diverged(ValueError):
    """NaN or infinity in a loss or a parameter."""

    def __init__(self, step: int) -> None:
        super().__init__(
            f"the optimisation diverged at step {step} (NaN or infinite values); what was saved "
            "before is kept: lower the learning rates or change --seed, and add --no-resume"
        )


class Session:
    """Moves a trainer to given steps, saves its state, and publishes its results.

    settings: all that the run depends on, by flag name. generator: makes novel views from the
    current splats; the held-out renders are fixed by it too, as `post` of the rounds' settings
    says. Use it in a `with` block, which shows the progress.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: ResultFolder,
        settings: dict[str, Any],
        evaluation: EvaluationConfig,
        *,
        save_every_seconds: float,
        generator: Generator | None = None,
    ) -> None:
        self.trainer, self.folder, self.settings = trainer, folder, settings
        self.evaluation, self.generator = evaluation, generator
        self.save_every_seconds, self.last_save = save_every_seconds, time.monotonic()
        self.metrics: Metrics | None = None
        self.progress = Progress(trainer)
        self.board = Board(folder.path / "tb", trainer.config)

    def __enter__(self) -> Session:
        self.last_save = time.monotonic()
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__()
        self.board.close()
        if isinstance(error, KeyboardInterrupt):
            done, last = self.trainer.state.done, self.trainer.config.max_steps
            log.info("stopped after step %d of %d; the same command resumes there", done, last)

    # steps -------------------------------------------------------------------------------------

    def train_until(self, stop: int, *, trial: bool = False) -> None:
        """Make steps until `stop` are done, and publish what is due before it.

        trial: the steps will be made again, nothing of them is published. A signal ends a step
        before the state is saved and Stopped raised; between the steps, where all is saved, it acts
        as outside. Diverged where a loss or a parameter is not finite.
        """
        state, config = self.trainer.state, self.trainer.config
        due = () if trial else (*config.eval_steps, *config.save_steps, *(config.ply_steps or ()))
        while state.done < stop:
            if not trial:
                self.publish_due()
            halt = min(step for step in (*due, stop) if step > state.done)
            with deferred_interrupt() as interrupt:

                def after_step(
                    loss: Tensor, error: Tensor | None, interrupt: Interrupt = interrupt
                ) -> None:
                    if not trial:
                        self.board.add_step(state.done, loss, error, state.splats.count)
                    if time.monotonic() - self.last_save > self.save_every_seconds:
                        self.save_state()
                    if interrupt.requested:
                        self.save_state()
                        interrupt.check()

                advance(self.trainer, halt, self.progress, after_step)
                self.save_state()
                interrupt.check()  # a signal while it was saved

    def go_back(self, path: Path, saved: dict[str, Any]) -> None:
        """Load an earlier state of this run, read by `splats.formats.checkpoint.load`."""
        self.trainer.state.load(path, saved)
        self.progress.step_back(self.trainer.state.done)

    def save_state(self) -> None:
        """Write what a stopped run goes on from; Diverged where a parameter is not finite."""
        self._check_finite()
        self.save_to(self.folder.resume)
        self.last_save = time.monotonic()

    def save_to(self, path: Path) -> None:
        """Write the run's state to a file."""
        self.trainer.state.save(path, self.settings)

    def _check_finite(self) -> None:
        if not self.trainer.is_finite():
            raise Diverged(self.trainer.state.done)

    # novel views -------------------------------------------------------------------------------

    def generate(self, cameras: Cameras, without: Sequence[int] = ()) -> list[Generated]:
        """The generator's views at these cameras, by the current splats and the training photos but
        `without` (indices into the scene); each has a picture "render", the splats' own view.

        The random state is left as it was. FloatingPointError if a view is not finite.
        """
        trainer, scene = self.trainer, self.trainer.posed_scene
        background = trainer.background
        photos = [i for i in scene.split.train if i not in without]
        self._place(trainer.device)
        devices = [trainer.device] if trainer.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices), torch.no_grad():
                references = References.from_scene(scene, photos, background)
                views = self.generator.generate(references, cameras, render=self._render)
                return [self._with_render(view, cameras[i]) for i, view in enumerate(views)]
        finally:
            if memory.is_memory_short(trainer.device):  # leave the GPU to the splats
                self._place(torch.device("cpu"))
                torch.cuda.empty_cache()

    def _render(self, cameras: Cameras) -> Render:
        trainer, cameras = self.trainer, cameras.to(self.trainer.device)
        return render_view(
            trainer.state.splats, cameras, trainer.config, background=trainer.background
        )

    def _with_render(self, view: Generated, camera: Cameras) -> Generated:
        if "render" in view.pictures:
            return view
        render = self._render(camera)
        own = {"render": render.colors[0].clamp(0, 1).cpu(), "alpha": render.alphas[0].cpu()}
        return replace(view, pictures=own | dict(view.pictures))

    def _place(self, device: torch.device) -> None:
        if hasattr(self.generator, "to"):
            self.generator.to(device)

    # results -----------------------------------------------------------------------------------

    def publish_due(self) -> None:
        """Save, measure and report what is due at the current step; nothing twice."""
        done, config = self.trainer.state.done, self.trainer.config
        at_end = done == config.max_steps
        if at_end or done in config.save_steps:
            self._save_result()
        ply_steps = config.save_steps if config.ply_steps is None else config.ply_steps
        if config.save_ply and (at_end or done in ply_steps):
            self._save_ply()
        if at_end and config.compression is not None:
            compress(self.trainer.state.splats, self.folder.compression)
        if at_end:
            self.folder.clean()
        if config.eval_steps != NEVER and (at_end or done in config.eval_steps):
            self._measure(at_end)

    def _save_result(self) -> None:
        """A checkpoint and the training's statistics, unless they are there already."""
        state, step = self.trainer.state, self.trainer.state.done - 1
        if self.folder.checkpoint(step).exists():
            return
        self._check_finite()
        numbers = {
            "mem": memory.measure_peak_gigabytes(self.trainer.device),
            "ellipse_time": state.history.seconds,
            "num_GS": state.splats.count,
        }
        write_json(self.folder.train_stats(step), numbers)
        extra: dict[str, Any] = state.record(self.settings)
        extra |= {name: m.state_dict() for name, m in state.corrections.modules.items()}
        if self.generator is not None:
            trainer = self.trainer
            extra["confidence"] = compute_support(state.splats, trainer.posed_scene, trainer.config)
        checkpoint.write(self.folder.checkpoint(step), state.splats, step, **extra)

    def _save_ply(self) -> None:
        """A .ply, unless it is there already."""
        file = self.folder.ply(self.trainer.state.done - 1)
        if not file.exists():
            self._check_finite()
            ply.write(file, self.trainer.state.splats)

    def _measure(self, at_end: bool) -> None:
        """Evaluate and report, unless a run that stopped here has done so; film at the end."""
        trainer, state = self.trainer, self.trainer.state
        step = state.done - 1
        if not at_end and any(known["step"] == step for known in state.history.evaluations):
            return
        if self.metrics is None:
            wanted = self.evaluation
            self.metrics = Metrics(wanted.lpips_net, trainer.device, wanted.backbones)
        rounds, post = state.distillation.rounds, state.distillation.settings.post
        fixes = rounds and (post == "always" or (post == "auto" and at_end))
        films = at_end and self.evaluation.save_video
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
            generate=self.generate if fixes else None,
            made_by=None if self.generator is None else self.generator.title,
            rounds=rounds,
            color_correction=self.evaluation.choose_correction(trainer.config),
        )
        if state.history.evaluations:
            self.board.add_evaluation(state.done, state.history.evaluations[-1])


class Progress:
    """A progress bar with loss, PSNR and number of Gaussians, shown within a `with` block."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.bar: ProgressBar | None = None

    def __enter__(self) -> Progress:
        total, done = self.trainer.config.max_steps, self.trainer.state.done
        self.bar = ProgressBar(desc="optimising", total=total, initial=done, unit="step")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, losses: list[torch.Tensor], error: float | None) -> None:
        """Mean of the losses, and a mean squared error as PSNR."""
        state = self.trainer.state
        self.bar.set_postfix(
            loss=f"{torch.stack(losses).mean().item():.4f}",
            **({} if error is None else {"PSNR": f"{mse_to_psnr(error):.2f}"}),
            Gaussians=f"{state.splats.count:,}",
            refresh=False,
        )
        self.bar.update(state.done - self.bar.n)

    def step_back(self, done: int) -> None:
        """Show fewer steps done than before."""
        if done < self.bar.n:
            self.bar.reset(self.bar.total)
            self.bar.update(done)


def advance(
    trainer: Trainer,
    stop: int,
    progress: Progress,
    after_step: Callable[[Tensor, Tensor | None], None] = lambda *_: None,
) -> None:
    """Make steps until `stop` are done; Diverged where a loss is not finite."""
    state, history = trainer.state, trainer.state.history
    stretch = max(1, trainer.config.max_steps // CURVE_POINTS)
    losses, errors, smooth = [], [], None
    while state.done < stop:
        start = time.perf_counter()
        loss, error = trainer.step(*state.distillation.draw(state.done))
        losses.append(loss)
        if error is not None:
            errors.append(error)
        refresh = state.done % REFRESH == 0 or state.done == stop
        # Reading a number waits for CUDA, so there it is not done every step.
        if (refresh or trainer.device.type == "cpu") and not math.isfinite(loss.item()):
            raise Diverged(state.done)
        history.seconds += time.perf_counter() - start
        if state.done % stretch == 0 and errors:
            history.curve.append((state.done, mse_to_psnr(torch.stack(errors).mean().item())))
            errors.clear()
        if refresh:
            if error is not None:
                smooth = error.item() if smooth is None else 0.9 * smooth + 0.1 * error.item()
            progress.show(losses, smooth)
            losses.clear()
        after_step(loss, error)
