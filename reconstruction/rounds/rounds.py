# The fix-and-distil rounds of a run. Each is a straight line: snapshot, generate, try the same
# steps with the fixed views and on photos only, measure, decide. Then the run goes on from the
# snapshot, with all its photos and with or without the round's views: judging costs time and
# nothing else.
from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from evaluation.metrics import mean_of_known
from evaluation.pictures import save_png
from generators import Generated
from reconstruction.rendering import mean_psnr
from reconstruction.rounds.distillation import NovelViews
from reconstruction.rounds.gate import (
    choose_aside,
    decide,
    explain,
    is_hopeless,
    is_trustworthy,
    refuse,
)
from reconstruction.rounds.record import FIXED, PHOTOS, TRIALS, Round, Trial, Verdict
from reconstruction.rounds.settings import find_end
from reconstruction.rounds.targets import towards
from reconstruction.session import Diverged, Session
from reconstruction.start import check_fit, measure_fit
from runtime import memory
from runtime.files import atomic_path
from scenes.cameras import Cameras
from splats.formats import checkpoint

log = logging.getLogger(__name__)

FOLDERS = {"render": "Pred", "alpha": "Alpha", "reference": "Ref"}  # of a view's pictures


class Rounds:
    """The rounds of one session, which begin at `steps`; `targets` are the cameras to come to."""

    def __init__(self, session: Session, steps: tuple[int, ...], targets: Cameras) -> None:
        self.session, self.trainer = session, session.trainer
        self.steps, self.targets = steps, targets
        self.settings = session.trainer.state.distillation.settings
        self.before = session.folder.rounds / "before.pt"
        self.views = session.folder.rounds / "views.pt"

    def run(self) -> None:
        """Train to the last step, with a round at each of `steps`; a run that was stopped goes on
        where it was."""
        session, state = self.session, self.trainer.state
        for step in self.steps:
            record = next((r for r in state.distillation.rounds if r.step == step), None)
            if record is None and state.done <= step:
                session.train_until(step)
                session.publish_due()
                record = self._begin()
                session.save_state()
            if record is not None and record.verdict is Verdict.OPEN:
                self._conclude(record)
                session.save_state()
            if record is not None and is_hopeless(record):
                if step != self.steps[-1]:
                    log.info("nothing to gain here: going on with photos alone")
                break
        session.train_until(self.trainer.config.max_steps)

    # the parts of a round ----------------------------------------------------------------------

    def _begin(self) -> Round:
        """Snapshot, generate, and either refuse the views or get ready to train on them."""
        trainer, state = self.trainer, self.trainer.state
        began, earlier = time.perf_counter(), state.distillation.rounds
        record = Round(state.done, find_end(state.done, self.steps, trainer.config.max_steps))
        record.aside = choose_aside(trainer.scene.split.train, self.settings, len(earlier))
        if record.aside:
            record.gate_before = self._measure(record)
        self.session.save_to(self.before)
        if not earlier and not trainer.warms_up:
            check_fit(*measure_fit(state.splats, trainer.posed_scene, trainer.config))
        earlier.append(record)
        cameras = self._next_cameras(len(earlier))
        try:
            views = self.session.generate(cameras, without=record.aside)
        except FloatingPointError as error:
            record.verdict, record.why = Verdict.REFUSED, str(error)
            log.warning("round at step %d refused: %s", state.done, error)
            return record
        self._describe(record, views)
        if self.settings.save_novel:
            with count_seconds(record, "pictures"):
                self._write_pictures(views)
        good = self._choose_good(views, record)
        record.views, record.refused = len(good), len(views) - len(good)
        record.why = refuse(record, self.settings)
        if record.why:
            record.verdict = Verdict.REFUSED
            if good:
                state.distillation.train_on(None)
        else:
            self._take([views[i] for i in good], cameras[good], record)
        record.seconds["round"] = time.perf_counter() - began
        record.memory = memory.measure_peak_gigabytes(trainer.device)
        log.info(
            "round at step %d: %d views to train on, %d refused%s",
            *(state.done, record.views, record.refused),
            f" (refused: {record.why})" if record.why else "",
        )
        return record

    def _conclude(self, record: Round) -> None:
        """Train on the round's views, judge them, and go on with or without them."""
        length = round((record.until - record.step) * self.settings.gate_stretch)
        stop = record.step + max(1, length)
        try:
            if record.aside:
                self._try(record, stop)
            else:
                self.session.train_until(stop)
                with count_seconds(record, "judging"):
                    record.verdict, record.why = Verdict.KEPT, explain(record, self.settings)
                return
        except Diverged:
            record.verdict = Verdict.ROLLED_BACK
            record.why = "training on it gave NaN or infinity"
        with count_seconds(record, "judging"):
            spent = self.trainer.state.history.seconds
            before = self._return_to_start(FIXED if record.verdict is Verdict.KEPT else PHOTOS)
        record.seconds["trial"] = spent - before
        if not record.aside:
            self.session.folder.forget(record.step)
        log.info("round at step %d %s: %s", record.step, record.verdict.value, record.why)

    def _try(self, record: Round, stop: int) -> None:
        """The trials, each from the snapshot to `stop`, until they tell; a stopped run goes on with
        the trial that it was in."""
        state = self.trainer.state
        for views in TRIALS:
            if record.psnr_after(views) is not None:
                continue
            if state.done in (record.step, stop):
                self._return_to_start(views)
                state.views.aside = frozenset(record.aside)
                self.session.save_state()
            self.session.train_until(stop, trial=True)
            with count_seconds(record, "judging"):
                record.trials.append(Trial(views, self._measure(record)))
                record.verdict = decide(record, self.settings)
                record.why = explain(record, self.settings)
            if record.verdict is not Verdict.OPEN:
                return

    # parts of these ----------------------------------------------------------------------------

    def _next_cameras(self, number: int) -> Cameras:
        """Where round `number` (from 1) wants views: on the way to the targets, or there."""
        if len(self.steps) == 1:
            return self.targets
        scene, settings = self.trainer.posed_scene, self.settings
        current = train = scene.cameras[list(scene.split.train)]
        for _ in range(number):  # the same way again when a run goes on
            current = towards(
                self.targets, current, train, settings.shift, settings.shift_in_world_units
            )
        return current

    def _describe(self, record: Round, views: list[Generated]) -> None:
        """Note what the views are like, whose photos guided them, and how long they took."""
        record.agreement = mean_of_known(view.agreement for view in views)
        record.consistency = mean_of_known(view.consistency for view in views)
        record.potential = measure_potential(views)
        record.references = sorted({name for view in views for name in view.references})
        record.seconds = dict(sum((Counter(view.seconds) for view in views), Counter()))
        if self.session.generator.uses_references and not record.references:
            fixes = self.session.generator.starts_from_renders
            raise ValueError(
                "no training photo sees what the novel views show: choose others (--targets, "
                "--trajectory)" + (", or fix without references (--no-use_ref)" if fixes else "")
            )

    def _choose_good(self, views: list[Generated], record: Round) -> list[int]:
        """Indices of the views to train on; with the gate, those that nothing contradicts.
        Views set aside judge the others too; without these a view made up needs a photo's word."""
        if self.settings.gate == "off":
            return list(range(len(views)))
        unproven = self.session.generator.starts_from_renders or bool(record.aside)
        return [i for i, view in enumerate(views) if is_trustworthy(view, unproven=unproven)]

    def _take(self, views: list[Generated], cameras: Cameras, record: Round) -> None:
        """Get ready to train on these views: in trials, where photos are set aside."""
        novel = NovelViews.from_generated(views, cameras)
        if not record.aside:
            self._train_on(novel)
            return
        with atomic_path(self.views) as temporary:
            torch.save(novel.state_dict(), temporary)

    def _train_on(self, novel: NovelViews) -> None:
        distillation = self.trainer.state.distillation
        earlier = distillation.views if self.settings.keep_views == "all" else None
        distillation.train_on(novel.joined(earlier))

    def _return_to_start(self, views: str) -> float:
        """To the snapshot, and from there on with the round's fixed views, or with photos only.

        Time spent and the rounds' records are not forgotten. Returns the seconds of optimising
        until there.
        """
        state = self.trainer.state
        seconds, rounds = state.history.seconds, state.distillation.rounds
        self.session.go_back(self.before, checkpoint.load(self.before))
        until = state.history.seconds
        state.history.seconds, state.distillation.rounds = seconds, rounds
        if views != PHOTOS:
            saved = torch.load(self.views, weights_only=True)
            self._train_on(NovelViews.from_state_dict(saved))
        return until

    def _measure(self, record: Round) -> float:
        """PSNR (dB) of the views set aside."""
        trainer = self.trainer
        scene = trainer.posed_scene
        return mean_psnr(trainer.state.splats, scene, record.aside, trainer.config)

    def _write_pictures(self, views: list[Generated]) -> None:
        """The round's pictures: renders/novel/<step>/{Pred,Alpha,Fixed,Confidence,Ref}."""
        folder = self.session.folder.novel_renders(max(0, self.trainer.state.done - 1))
        for i, view in enumerate(views):
            pictures = {"Fixed": view.image, "Confidence": view.confidence}
            for name, picture in view.pictures.items():
                pictures[FOLDERS.get(name, name.capitalize())] = picture
            for kind, picture in pictures.items():
                save_png(folder / kind / f"{i:04d}.png", picture)


def measure_potential(views: Sequence[Generated]) -> float | None:
    """Mean square of what is trained on of the views' corrections, over the renders' mean squared
    error to photos; None where no photo could tell that."""
    error = mean_of_known(view.error for view in views)
    if not error:
        return None
    squares = [
        (view.confidence * (view.image - view.pictures["render"]).square().mean(-1)).mean().item()
        for view in views
    ]
    return mean_of_known(squares) / error


@contextmanager
def count_seconds(record: Round, part: str) -> Iterator[None]:
    """Add the time within the block to a round's seconds."""
    began = time.perf_counter()
    yield
    record.seconds[part] = record.seconds.get(part, 0.0) + time.perf_counter() - began
