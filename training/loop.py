# The training loop of any system: steps, logs, validations, checkpoints.
from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from itertools import compress

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from runtime.interrupts import (
    Interrupt,
    Stopped,
    deferred_interrupt,
    interruptible,
    leave_with_parent,
    shielded_children,
)
from runtime.memory import measure_peak_gigabytes
from runtime.progress import ProgressBar
from runtime.seeds import mix_seeds
from training import distributed, optimizer
from training.ema import EMA
from training.journal import Journal
from training.lr_schedule import LRSchedule
from training.order import MicroBatches, Order, Place
from training.run_folder import RunFolder
from training.stage import Batch, Broken, Codec, Losses, Samples, Stage
from training.validation import Validation

log = logging.getLogger(__name__)

EXPLODED = 10.0  # times the best loss
EXPLODED_WINDOWS = 5  # so many logged windows with an exploded loss end the run
MOST_SKIPPED = 50  # so many steps left out one after the other end it too
MAX_LOSS_SCALE = 2.0**15


@dataclass(frozen=True)
class Settings:
    """How a run goes; times in minutes."""

    rate: float
    """Learning rate, which the schedule's factor multiplies."""
    schedule: LRSchedule
    clip: float = 2.0
    """Norm that gradients are clipped to; 0: not."""
    skip: float = 0.0
    """Steps of a norm above this many times `clip`, or of one that is not finite, are left out; 0:
    none is."""
    betas: tuple[float, float] = (0.9, 0.95)
    kind: str = "adamw"
    fused: bool = True
    scaled: bool = False
    """Scale the loss (float16)."""
    ema: float = 0.0
    fsdp: bool = False
    """Divide the first network among the processes."""
    eval_every: int = 1000
    log_every: int = 10
    save_minutes: float = 10.0
    minutes: float | None = None
    workers: int = 0
    seed: int = 0


@dataclass
class Window:
    """The steps since the last line of the log."""

    steps: list[int] = field(default_factory=list)
    keys: list[list[str]] = field(default_factory=list)
    losses: list[dict[str, Tensor]] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    """The stage's own, from after_step."""
    since: float = field(default_factory=time.perf_counter)


class Loop:
    """A stage's run: `run` goes from where the folder's newest checkpoint ended to the schedule's
    end, `settings.schedule.total` steps of the order's size.

    The stage's first network has the checkpoint's weights already (`Codec.load_weights`). journal:
    called with the number of finished steps, on the first process only. args: flags that the
    checkpoints hold.
    """

    def __init__(
        self,
        stage: Stage,
        dataset: Samples,
        order: Order,
        settings: Settings,
        folder: RunFolder,
        *,
        codec: Codec,
        validation: Validation,
        journal: Callable[[int], Journal | None],
        args: dict,
        device: torch.device,
    ):
        self.stage, self.dataset, self.order, self.settings = stage, dataset, order, settings
        self.folder, self.codec, self.validation = folder, codec, validation
        self.open_journal, self.args, self.device = journal, args, device
        self.place, self.best, self.lowest, self.exploded = Place(), -math.inf, math.inf, 0
        self.skipped = 0  # steps left out, one after the other
        self.finite = 0  # steps whose losses are known to be finite
        self.validated = True  # but for a run that was stopped while it validated
        self.saved, self.saved_step = time.monotonic(), 0
        self.journal: Journal | None = None
        self.module: nn.Module = stage
        if settings.fsdp:
            stage.shard()
        else:
            several = len(stage.networks) > 1
            self.module = distributed.wrap_ddp(stage, device, find_unused=several)
        self.optimizers = {
            network: optimizer.build_optimizer(
                stage.parameters_of(network),
                decays=stage.decays,
                kind=settings.kind,
                fused=settings.fused,
                rate=settings.rate,
                betas=settings.betas,
            )
            for network in stage.networks
        }
        scaling = {"init_scale": 2.0**11, "growth_interval": 1000, "enabled": settings.scaled}
        self.scaler = torch.amp.GradScaler(device.type, **scaling)
        first = stage.get_submodule(stage.networks[0])
        self.ema = EMA(first, settings.ema) if settings.ema > 0 else None
        self.interrupt = Interrupt()

    @property
    def done(self) -> int:
        """Steps made."""
        return self.place.step

    @property
    def passed(self) -> float:
        """Steps made, counted in steps of the present size."""
        return self.order.progress(self.place)

    @property
    def total(self) -> int:
        """Steps made when the run ends."""
        return self.done + self.order.count_steps(self.place, self.settings.schedule.total)

    # a run -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end, or until --minutes or a signal, and save.

        On a signal a step in flight is dropped, or finished where there are several processes; a
        validation is left, and made again by the run that goes on. Raises ValueError for a loss
        that is not finite or explodes, naming step and samples; Stopped after a signal.
        """
        self.resume()
        if self.done >= self.total and self.validated:
            log.info("all %d steps are done; more with --ep or --steps", self.done)
            return
        self.journal = self.open_journal(self.done) if distributed.rank() == 0 else None
        self.saved = time.monotonic()
        self.stage.train()
        bar = ProgressBar(
            desc=f"training {self.folder.path.name}",
            total=self.total,
            initial=self.done,
            unit="step",
            disable=distributed.rank() > 0,
        )
        with bar, deferred_interrupt() as self.interrupt, closing(self.batches()) as batches:
            try:
                if not self.validated:
                    self.evaluate()
                ended = self.train(batches, bar)
            except Stopped:
                self.close_stopped()
                raise
        if ended:
            self.close()
        else:
            self.close_stopped()

    def train(self, batches: Iterator[Batch], bar: ProgressBar) -> bool:
        """Make all steps, and return whether --minutes were enough for them. Raises Stopped after a
        signal; in either case the state is saved."""
        settings, start = self.settings, time.monotonic()
        agree, window = distributed.Agreement(), Window()
        while self.done < self.total:
            number = self.done + 1
            validates = number % settings.eval_every == 0 or number == self.total
            boundary = number % settings.log_every == 0 or validates
            stepped = self.step(batches, window, detail=boundary)
            bar.update(stepped)
            minutes = (time.monotonic() - start) / 60
            late = bool(settings.minutes and minutes > settings.minutes)
            due = time.monotonic() - self.saved > 60 * settings.save_minutes
            signal, late, due = agree([self.interrupt.number or 0, late, due])
            stop = signal or late
            if boundary or stop or due:
                self.report(window, bar)
                window = Window()
            if validates and stepped:
                self.evaluate()
            elif (stop or due) and self.saved_step != self.done:
                self.save()
            if stop and self.done < self.total:
                agree.wait()
                if signal:
                    raise Stopped(int(signal))
                return False
        agree.wait()
        return True

    def close_stopped(self) -> None:
        """Close the journal of a run that will go on, and say so."""
        self.close()
        log.info("stopped after step %d of %d; the same command goes on", self.done, self.total)

    def batches(self) -> Iterator[Batch]:
        """The micro-batches from where the run is. Raises ValueError for a broken sample."""
        workers = self.settings.workers
        loader = DataLoader(
            self.dataset,
            batch_sampler=MicroBatches(self.order, self.place, self.settings.schedule.total),
            collate_fn=self.dataset.collate,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=begin_worker if workers else None,
            prefetch_factor=4 if workers else None,
        )
        with shielded_children():
            iterator = iter(loader)
        for batch in iterator:
            if isinstance(batch, Broken):
                raise ValueError(f"{batch.key}: {batch.reason}")
            seed = mix_seeds(self.settings.seed, 6, self.done)
            yield batch.to(self.device).at_step(self.done, seed)

    def step(self, source: Iterator[Batch], window: Window, detail: bool) -> bool:
        """One step of every network that learns in it; False if a signal came before the first of
        them was updated: nothing has changed then."""
        settings, number, networks = self.settings, self.done, self.stage.networks
        rate = settings.rate * settings.schedule.rate(self.passed)
        decay = settings.schedule.weight_decay(self.passed)
        losses: Losses = {}
        try:
            with self.droppable():
                batches = [next(source) for _ in range(self.order.accumulate)]
                self.backward(networks[0], batches, losses, detail)
        except Stopped:
            return False
        norm = self.update(networks[0], rate, decay)
        window.norms.append(norm)
        window.skipped.append(self.leaves_out(norm))
        for network in networks[1:]:
            if self.stage.learns(network, number):
                self.backward(network, batches, losses, detail)
                self.update(network, rate, decay)
        window.numbers |= self.stage.after_step(number)
        if self.ema is not None:
            self.ema.update()
        window.steps.append(number + 1)
        window.keys.append([key for batch in batches for key in batch.keys])
        window.losses.append(losses)
        self.place = self.order.after(self.place)
        return True

    def droppable(self) -> AbstractContextManager:
        """Signals act at once within the block, unless other processes would wait for this one."""
        return interruptible() if distributed.world_size() == 1 else nullcontext()

    def backward(
        self, network: str, batches: list[Batch], losses: dict[str, Tensor], detail: bool
    ) -> None:
        """A network's gradients, and its part of the step's losses."""
        first = network == self.stage.networks[0]
        for i, batch in enumerate(batches):
            with self.synchronized(i == len(batches) - 1):
                parts = self.module(batch, network, detail)
                self.scaler.scale(parts["loss"] / len(batches)).backward()
            for name, value in parts.items():
                if name == "loss" and not first:
                    continue
                share = value.detach() / len(batches)
                losses[name] = losses[name] + share if name in losses else share

    def update(self, network: str, rate: float, decay: float) -> Tensor:
        """Change a network by its gradients; their norm before they were clipped."""
        own, clip = self.optimizers[network], self.settings.clip or math.inf
        optimizer.set_rates(own, rate, decay)
        self.scaler.unscale_(own)
        parameters = [p for _, p in self.stage.parameters_of(network)]
        norm = nn.utils.clip_grad_norm_(parameters, clip, foreach=True)
        if not self.leaves_out(norm):
            self.scaler.step(own)
        for each in self.optimizers.values():
            each.zero_grad(set_to_none=True)
        self.scaler.update()
        return norm.detach()

    def leaves_out(self, norm: Tensor) -> bool:
        """Whether a step of this gradient norm is left out; the same on all processes."""
        settings = self.settings
        return bool(settings.skip and not gather_norm(norm) <= settings.skip * settings.clip)

    def synchronized(self, last: bool) -> AbstractContextManager:
        """Gradients are averaged over the processes with the last micro-batch only."""
        if not last and isinstance(self.module, nn.parallel.DistributedDataParallel):
            return self.module.no_sync()
        if self.settings.fsdp:
            self.module.set_requires_gradient_sync(last)
        return nullcontext()

    # log and validation ------------------------------------------------------------------------

    def report(self, window: Window, bar: ProgressBar) -> None:
        """A line of the log; raises ValueError where the run diverged."""
        if not window.steps:
            return
        steps, window = len(window.steps), self.drop_skipped(window)
        if not window.steps:
            return
        mean, norm = self.check_losses(window)
        names = sorted({name for losses in window.losses for name in losses} - {"loss"})
        values = {"loss": mean}
        for name in names:
            parts = [losses[name] for losses in window.losses if name in losses]
            values[name] = distributed.mean_of(torch.stack(parts).float().mean()).item()
        seconds = (time.perf_counter() - window.since) / steps
        values |= window.numbers | {
            "lr": self.settings.rate * self.settings.schedule.rate(self.passed - 1),
            "weight_decay": self.settings.schedule.weight_decay(self.passed - 1),
            "grad_norm": norm,
            "epoch": self.passed / self.order.steps,
            "seconds": seconds,
            "samples_per_second": self.order.samples / seconds,
            "memory_gb": measure_peak_gigabytes(self.device),
        }
        bar.set_postfix(loss=f"{mean:.4g}", memory=f"{values['memory_gb']:.1f}G", refresh=False)
        if self.journal is not None:
            self.journal.train(self.done, values)

    def drop_skipped(self, window: Window) -> Window:
        """The window's steps that were not left out, and a line of the log on those that were;
        raises ValueError where too many were, one after the other."""
        for at, skipped in enumerate(window.skipped):
            self.skipped = self.skipped + 1 if skipped else 0
            if self.skipped == MOST_SKIPPED:
                raise self.divergence_error(
                    f"has gradients that are too large ({MOST_SKIPPED} steps were left out)",
                    *(window, at),
                )
        if not any(window.skipped):
            return window
        norms = [f"{n.item():.3g}" for n in compress(window.norms, window.skipped)]
        log.warning(
            "%d of the last %d steps left out: gradients of norm %s",
            *(len(norms), len(window.steps), ", ".join(norms)),
        )
        self.finite = self.done
        good = [not skipped for skipped in window.skipped]
        lists = ("steps", "keys", "losses", "norms")
        return replace(window, **{n: list(compress(getattr(window, n), good)) for n in lists})

    def check_losses(self, window: Window) -> tuple[float, float]:
        """The window's mean loss and last gradient norm; raises ValueError where the run
        diverged."""
        totals = torch.stack([losses["loss"] for losses in window.losses]).float()
        totals = distributed.mean_of(totals).tolist()
        norms = torch.stack([gather_norm(norm) for norm in window.norms]).tolist()
        for at, (total, norm) in enumerate(zip(totals, norms, strict=True)):
            # float16's scaler passes over infinite gradients by itself
            if not math.isfinite(total) or not (math.isfinite(norm) or self.settings.scaled):
                raise self.divergence_error("is not finite", window, at)
        mean = sum(totals) / len(totals)
        most = self.lowest + (EXPLODED - 1) * abs(self.lowest) + 1
        self.exploded = self.exploded + 1 if mean > most else 0
        if self.exploded >= EXPLODED_WINDOWS:
            risen = f"has risen from {self.lowest:.3g} to {mean:.3g}"
            raise self.divergence_error(risen, window, -1)
        self.lowest = min(self.lowest, mean)
        if self.settings.scaled and self.scaler.get_scale() > MAX_LOSS_SCALE:
            self.scaler.update(MAX_LOSS_SCALE)
        self.finite = self.done
        return mean, norms[-1]

    def divergence_error(self, what: str, window: Window, at: int) -> ValueError:
        """The error of a run that diverged at the window's step `at`; closes the journal."""
        step, keys = window.steps[at], window.keys[at]
        shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
        last = self.folder.last
        back = f"{last} is the last good checkpoint" if last.exists() else "nothing was saved yet"
        self.close()
        return ValueError(
            f"the loss {what} at step {step} (entries {shown}); {back}: lower --tblr or look at "
            "these entries, and give the command again"
        )

    def evaluate(self) -> None:
        """Validate, log it, save; the state of before is saved where that is broken off."""
        self.stage.eval()
        self.validated = False
        try:
            with self.averaged():
                model = self.stage.whole_model()
                with self.droppable():
                    values, pictures = self.validation(model)
        except (ValueError, OSError, Stopped):  # on all processes alike
            self.save()
            raise
        self.stage.train()
        self.validated = True
        name, sign = self.validation.judged_by
        score = sign * values[name]
        better = score > self.best
        self.best = max(self.best, score)
        if distributed.rank() == 0:
            shown = ", ".join(f"{n} {v:.4g}" for n, v in values.items() if v is not None)
            log.info("step %d: %s%s", self.done, shown, " (best)" if better else "")
        if self.journal is not None:
            self.journal.validate(self.done, values, pictures)
        self.save(best=better, marked=True)

    def averaged(self) -> AbstractContextManager:
        """Within the block the weights are those that are validated and saved: the average, if
        there is one."""
        return nullcontext() if self.ema is None else self.ema.used()

    # checkpoints -------------------------------------------------------------------------------

    def save(self, *, best: bool = False, marked: bool = False) -> None:
        """Write the last checkpoint, also as the best or under the step's own name."""
        if self.done != self.finite:
            raise RuntimeError("a step is saved only when its loss was looked at")
        states = [
            optimizer.read_state(self.stage, own, self.settings.fsdp)
            for own in self.optimizers.values()
        ]
        stage = self.stage.resume_state()
        with self.averaged():
            model, content = self.stage.whole_model(), {}
            if distributed.rank() == 0:
                about = {"args": self.args, "epoch": self.epoch, "step": self.done}
                content = self.codec.encode(model, optimizer=states[0], **about)
        if distributed.rank() == 0:
            end = self.order.place(self.settings.schedule.total)
            content["resume"] = {
                "step": self.done,
                "epoch": self.place.epoch,
                "taken": self.place.taken,
                "end": [end.epoch, end.taken],
                "validated": self.validated,
                "best": self.best,
                "lowest": self.lowest,
                "others": dict(zip(self.stage.networks[1:], states[1:], strict=True)),
                "scaler": self.scaler.state_dict(),
                "stage": stage,
                "ema": None if self.ema is None else self.ema.state_dict(),
            }
            mark = f"{self.epoch:04d}_{self.done:07d}" if marked else None
            self.folder.save(content, best=best, mark=mark)
            if self.journal is not None:
                self.flush_journal()
        self.saved, self.saved_step = time.monotonic(), self.done

    @property
    def epoch(self) -> int:
        """Whole epochs that are done."""
        return self.place.epoch

    def resume(self) -> None:
        """Load the newest checkpoint's state, if there is one, but for the first network's weights.

        Raises ValueError for a checkpoint of other trained parameters.
        """
        newest = self.folder.newest()
        if newest is None:
            return
        file, content = newest
        state = content["resume"]
        states = [self.codec.optimizer_state(content), *state["others"].values()]
        try:
            for own, of_one in zip(self.optimizers.values(), states, strict=True):
                optimizer.load_state(self.stage, own, of_one, self.settings.fsdp)
            self.scaler.load_state_dict(state["scaler"])
            self.stage.load_resume_state(state["stage"])
            if self.ema is not None and state["ema"] is not None:
                self.ema.load_state_dict(state["ema"])
        except (ValueError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{file} is of a run with other trained parameters ({error}); take another "
                "--exp_name, or --resume=False to start over"
            ) from None
        self.place = self.order.resume(state, content.get("args", {}).get("bs"))
        self.finite = self.saved_step = self.done
        self.validated = state.get("validated", True)
        self.best, self.lowest = state["best"], state["lowest"]
        log.info("going on from %s, step %d", file, self.done)

    def flush_journal(self) -> None:
        """Write out the journal; without its curves if whoever sent a signal is waiting."""
        self.journal.flush(curves=not self.interrupt.requested)

    def close(self) -> None:
        """Write out the journal and close it."""
        if self.journal is not None:
            self.flush_journal()
            self.journal.close()


def gather_norm(norm: Tensor) -> Tensor:
    """A gradient norm as an ordinary tensor: FSDP's is spread over the processes."""
    return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).float()


def begin_worker(worker: int) -> None:
    """A DataLoader's worker ends with the process that trains (worker_init_fn)."""
    leave_with_parent()
    # It reports errors by itself; what is left is multiprocessing's thread that hands files over,
    # and which complains where a run was stopped while it took one.
    sys.excepthook = lambda *_: None
