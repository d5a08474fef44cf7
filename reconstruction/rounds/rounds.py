# The rounds of a run: begun at their steps, tried without some training views, then kept or rolled
# back. Either way the run goes on from where the round began, with all views: judging costs time
# and nothing else. Three trials of the same steps: on the fixed views, on the same views unfixed,
# since renders alone hold some memory of the views set aside, and on photos only.
from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from evaluation.metrics import mse_to_psnr
from evaluation.pictures import save_png
from fixers import Fixer
from reconstruction import fit
from reconstruction.result import ResultFolder
from reconstruction.rounds.gate import mean_psnr, set_aside
from reconstruction.rounds.guidance import Guidance
from reconstruction.rounds.novel import NovelViews
from reconstruction.rounds.record import AGREES, MATTERS, Round
from reconstruction.rounds.repair import Repair, Repaired, accepted, novel_views
from reconstruction.rounds.settings import FixConfig
from reconstruction.rounds.targets import targets, towards
from reconstruction.trainer import Trainer
from runtime import memory
from runtime.files import atomic_path
from scenes.cameras import Cameras
from splats import checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FixerInUse:
    """A fixer, the settings that tell it from others, and what it wants: references warped or as
    they were taken, or none."""

    fixer: Fixer
    settings: dict[str, object]
    warped: bool = False
    use_ref: bool = True


class Rounds:
    """The fix-and-distil rounds of one run; the run's loop asks `settle` and `begin` at halts.

    save: keeps the run's state. Raises ValueError, before anything is done, for targets that
    cannot be had.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: ResultFolder,
        fixing: FixerInUse,
        settings: FixConfig,
        steps: tuple[int, ...],
        save: Callable[[Path], None],
    ) -> None:
        self.trainer, self.folder, self.fixing, self.settings = trainer, folder, fixing, settings
        self.steps, self.save = steps, save
        stretch = max((self._until(step) - step for step in steps), default=0)
        most = settings.most_views(stretch)
        self.wanted = targets(trainer.scene, settings, trainer.config.seed, most)

    # the run's loop ----------------------------------------------------------------------------

    @property
    def told(self) -> list[Round]:
        """The rounds so far."""
        return self.trainer.state.rounds

    @property
    def is_open(self) -> bool:
        return bool(self.told) and self.told[-1].verdict == "open"

    @property
    def on_trial(self) -> bool:
        """Whether steps are made that will be made again: nothing of them is kept or measured."""
        return self.is_open and bool(self.told[-1].aside)

    def due(self) -> bool:
        """Whether a round begins here."""
        done = self.trainer.state.done
        return done in self.steps and all(r.step != done for r in self.told)

    def judged_at(self, step: int) -> int:
        """Where the trial of a round that began at `step` ends."""
        return step + max(1, round((self._until(step) - step) * self.settings.gate_stretch))

    def _until(self, step: int) -> int:
        """Where the next round begins, or the run ends."""
        return min(s for s in (*self.steps, self.trainer.config.max_steps) if s > step)

    def settle(self) -> bool:
        """The verdict on the open round, where it is due; True if the run went back."""
        last, began = self.told[-1], time.perf_counter()
        back = self._judge(last)
        last.seconds["judging"] = last.seconds.get("judging", 0) + time.perf_counter() - began
        return back

    def _judge(self, last: Round) -> bool:
        if not last.aside:
            last.verdict, last.why = "kept", self._unjudged(last)
            return False
        psnr = self._gate(last)
        if last.gate_after is None:
            last.gate_after = psnr
            last.why = f"the views set aside: {last.gate_before:.2f} -> {psnr:.3f} dB"
            if self.settings.gate == "quick" and psnr >= last.gate_before:
                last.verdict = "kept"
        elif last.gate_unfixed is None:
            last.gate_unfixed = psnr
            last.why += f", unfixed {psnr:.3f}"
            if psnr + MATTERS > last.gate_after:
                last.verdict = "rolled back"
        else:
            last.gate_without = psnr
            last.why += f", without the round {psnr:.3f}"
            last.verdict = "kept" if last.gate_after >= psnr else "rolled back"
        if last.verdict == "open":
            self._return("unfixed" if last.gate_unfixed is None else None)
            self.trainer.state.views.aside = frozenset(last.aside)
        else:
            self._finish(last)
        return True

    def _unjudged(self, last: Round) -> str:
        """Why a round is kept that no views set aside have judged."""
        if self.settings.gate == "off":
            return "the gate is off"
        few = f"fewer than {self.settings.gate_least} views train, so none was set aside"
        if last.agrees is None:
            return f"{few}, and no photo could check it"
        return f"{few}; photos that did not guide it {told_agreement(last.agrees)}"

    def diverged(self) -> bool:
        """After NaN or infinity: back to before the open round, if there is one."""
        if not self.is_open:
            return False
        last = self.told[-1]
        last.verdict, last.why = "rolled back", "training on it gave NaN or infinity"
        self._finish(last)
        return True

    def begin(self) -> None:
        """Choose views, render, fix, and add what no photo contradicts."""
        trainer, state = self.trainer, self.trainer.state
        now = Round(state.done, self._until(state.done))
        began = time.perf_counter()
        train = trainer.scene.split.train
        now.aside = list(set_aside(train, self.settings, len(self.told)))
        if now.aside:
            now.gate_before = self._gate(now)
        self.save(self._file("before"))
        if not self.told and not trainer.warms_up:
            fit.check(*fit.fit(state.splats, trainer.scene, trainer.config))
        self.told.append(now)
        repair = self.repair(now.aside)
        cameras = self._next_cameras()
        try:
            devices = [trainer.device] if trainer.device.type == "cuda" else []
            with torch.random.fork_rng(devices):  # a round that is not kept leaves nothing behind
                views = repair(cameras, label=f"round {len(self.told)}: fixing")
        except FloatingPointError as error:
            now.verdict, now.why = "refused", str(error)
            log.warning("round at step %d refused: %s", state.done, error)
            return
        good = accepted(views, self.settings.gate != "off")
        ratios = [v.agrees for v in views if v.agrees is not None]
        now.agrees = sum(ratios) / len(ratios) if ratios else None
        shares = [v.consistent for v in views if v.consistent is not None]
        now.consistent = sum(shares) / len(shares) if shares else None
        now.views, now.refused = len(good), len(views) - len(good)
        names = trainer.scene.names
        now.references = sorted({names[g.index] for v in views for g in v.guides})
        if self.fixing.use_ref and not now.references:
            raise ValueError(
                "no training photo sees what the novel views show: choose others (--targets, "
                "--trajectory), or fix without references (--no-use_ref)"
            )
        if self.settings.save_novel:
            self._write(views, repair)
        contradicted = now.agrees is not None and now.agrees < AGREES and not now.aside
        if not good:
            now.verdict, now.why = "refused", "photos, or each other, contradict all fixed views"
        elif contradicted and self.settings.gate != "off":
            now.verdict = "refused"
            now.why = f"photos that did not guide it {told_agreement(now.agrees)}"
            state.set_novel(None)
        else:
            chosen = [views[i] for i in good], cameras[good]
            novel = novel_views(*chosen, fixed=True)
            if now.aside:
                unfixed = novel_views(*chosen, fixed=False)
                both = {"fixed": novel.state_dict(), "unfixed": unfixed.state_dict()}
                with atomic_path(self._file("views")) as temporary:
                    torch.save(both, temporary)
            self._train_on(novel)
            state.views.aside = frozenset(now.aside)
        self._rest()
        now.seconds = dict(repair.seconds.parts) | {"round": time.perf_counter() - began}
        now.memory = memory.measure_peak_gigabytes(trainer.device)
        log.info(
            "round at step %d: %d views fixed, %d refused%s",
            *(state.done, now.views, now.refused),
            f" (refused: {now.why})" if now.verdict == "refused" else "",
        )

    # parts -------------------------------------------------------------------------------------

    def repair(self, without: Sequence[int] = ()) -> Repair:
        """Fixes views by the splats as they are now, guided by training photos but these."""
        trainer = self.trainer
        self._place(trainer.device)
        photos = tuple(i for i in trainer.scene.split.train if i not in without)
        guidance = Guidance(
            trainer.state.splats, trainer.scene, photos, trainer.config, self.settings
        )
        return Repair(
            guidance, self.fixing.fixer, self.settings, self.fixing.warped, self.fixing.use_ref
        )

    def _rest(self) -> None:
        """Between rounds the fixer leaves a GPU that has little memory to spare."""
        if memory.is_memory_short(self.trainer.device):
            self._place(torch.device("cpu"))
            torch.cuda.empty_cache()

    def _place(self, device: torch.device) -> None:
        move = getattr(self.fixing.fixer, "to", None)
        if move is not None:
            move(device)

    def _next_cameras(self) -> Cameras:
        settings = self.settings
        if len(self.steps) == 1:
            return self.wanted
        train = self.trainer.scene.cameras[list(self.trainer.scene.split.train)]
        way = (settings.shift, settings.shift_in_world_units)
        current = train
        for _ in range(len(self.told)):  # the same way again when a run goes on
            current = towards(self.wanted, current, train, *way)
        return current

    def _write(self, views: list[Repaired], repair: Repair) -> None:
        """The round's pictures."""
        began = time.perf_counter()
        folder = self.folder.novel_renders(max(0, self.trainer.state.done - 1))
        for i, view in enumerate(views):
            pictures = {
                "Pred": view.render.color,
                "Alpha": view.render.alpha,
                "Fixed": view.fixed,
                "Confidence": view.confidence,
            }
            if view.guides:
                pictures["Ref"] = view.guides[0].photo
            for kind, picture in pictures.items():
                save_png(folder / kind / f"{i:04d}.png", picture)
        repair.seconds.add("pictures", began)

    def _gate(self, last: Round) -> float:
        trainer = self.trainer
        return mean_psnr(trainer.state.splats, trainer.scene, tuple(last.aside), trainer.config)

    def _finish(self, last: Round) -> None:
        """After a verdict: from where the round began, with or without it; before that, at the last
        one, what the views set aside say of fixing renders."""
        judges_post = self.settings.post == "auto" and last.step == self.steps[-1]
        if judges_post and last.aside and self.trainer.is_finite():
            last.post_gain = self._post_gain(last)
        spent = self.trainer.state.history.seconds
        last.seconds["trial"] = spent - self._return("fixed" if last.verdict == "kept" else None)
        self.folder.forget(last.step)
        log.info("round at step %d %s: %s", last.step, last.verdict, last.why)

    def _post_gain(self, last: Round) -> float:
        scene = self.trainer.scene
        try:
            views = self.repair(last.aside)(scene.cameras[last.aside], label="judging")
        except FloatingPointError:
            return -math.inf
        finally:
            self._rest()
        gains = [
            psnr(v.fixed, scene.image(i)) - psnr(v.render.color, scene.image(i))
            for i, v in zip(last.aside, views, strict=True)
        ]
        return sum(gains) / len(gains)

    def _return(self, kind: str | None) -> float:
        """To where the round began: before it, or with its views "fixed" or "unfixed" to train on.
        Time spent and the rounds' story are not forgotten. Returns the seconds of optimising until
        there."""
        state, path = self.trainer.state, self._file("before")
        seconds, rounds = state.history.seconds, state.rounds
        state.load(path, checkpoint.load(path))
        until, state.history.seconds, state.rounds = state.history.seconds, seconds, rounds
        if kind is not None:
            views = torch.load(self._file("views"), weights_only=True)
            self._train_on(NovelViews.from_state(views[kind]))
        return until

    def _train_on(self, novel: NovelViews) -> None:
        state = self.trainer.state
        keep = state.novel if self.settings.keep_views == "all" else None
        state.set_novel(novel.with_others(keep))

    def _file(self, name: str) -> Path:
        return self.folder.path / "rounds" / f"{name}.pt"


def told_agreement(ratio: float) -> str:
    """In words: a mean error to photos before fixing over that after."""
    return f"agree {'better' if ratio > 1 else 'worse'} by {100 * abs(ratio - 1):.2f} %"


def psnr(image: Tensor, truth: Tensor) -> float:
    return mse_to_psnr((image - truth).square().mean().item())
