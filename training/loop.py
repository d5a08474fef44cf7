# The training loop of any system: steps, logs, validations, checkpoints.
from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from runtime.interrupts import deferred_interrupt
from runtime.memory import measure_peak_gigabytes
from runtime.seeds import mix_seeds
from training import distributed, optimizer
from training.ema import EMA
from training.journal import Journal
from training.lr_schedule import LRSchedule
from training.order import MicroBatches, Order
from training.run_folder import RunFolder
from training.stage import Batch, Broken, Codec, Losses, Samples, Stage
from training.validation import Validation

log = logging.getLogger(__name__)

EXPLODED = 10.0  # times the best loss
EXPLODED_WINDOWS = 5  # so many logged windows with an exploded loss end the run
MAX_LOSS_SCALE = 2.0**15


@dataclass(frozen=True)
class Settings:
    """How a run goes; times in minutes."""

    rate: float
    """Learning rate, which the schedule's factor multiplies."""
    schedule: LRSchedule
    clip: float = 2.0
    """Norm that gradients are clipped to; 0: not."""
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
    numbers: dict[str, float] = field(default_factory=dict)
    """The stage's own, from after_step."""
    since: float = field(default_factory=time.perf_counter)


class Loop:
    """A stage's run: `run` goes from where the folder's newest checkpoint ended to the schedule's
    end.

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
        self.done, self.best, self.lowest, self.exploded = 0, -math.inf, math.inf, 0
        self.finite = 0  # steps whose losses are known to be finite
        self.saved = time.monotonic()
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
            )
            for network in stage.networks
        }
        scaling = {"init_scale": 2.0**11, "growth_interval": 1000, "enabled": settings.scaled}
        self.scaler = torch.amp.GradScaler(device.type, **scaling)
        first = stage.get_submodule(stage.networks[0])
        self.ema = EMA(first, settings.ema) if settings.ema > 0 else None

    # a run -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the end, or until --minutes or Ctrl-C, and save.

        Raises ValueError for a loss that is not finite or explodes, naming step and samples;
        KeyboardInterrupt after Ctrl-C.
        """
        self.resume()
        settings, total = self.settings, self.settings.schedule.total
        if self.done >= total:
            log.info("all %d steps are done; more with --ep or --steps", total)
            return
        self.journal = self.open_journal(self.done) if distributed.rank() == 0 else None
        start = self.saved = time.monotonic()
        batches = self.batches()
        self.stage.train()
        window = Window()
        accumulate = self.order.accumulate
        bar = tqdm(
            desc=f"training {self.folder.path.name}",
            total=total,
            initial=self.done,
            unit="step",
            dynamic_ncols=True,
            disable=distributed.rank() > 0,
        )
        with bar, deferred_interrupt() as interrupt:
            while self.done < total:
                number = self.done
                validates = (number + 1) % settings.eval_every == 0 or number + 1 == total
                boundary = (number + 1) % settings.log_every == 0 or validates
                self.step([next(batches) for _ in range(accumulate)], window, detail=boundary)
                bar.update(1)
                if boundary:
                    self.report(window, bar)
                    window = Window()
                minutes = (time.monotonic() - start) / 60
                stop = interrupt.requested or bool(settings.minutes and minutes > settings.minutes)
                due = time.monotonic() - self.saved > 60 * settings.save_minutes
                if distributed.world_size() > 1:
                    if not boundary:
                        continue  # processes agree now and then, not at each step
                    stop = distributed.any_of(stop, self.device)
                    due = distributed.any_of(due, self.device)
                if (stop or due) and not boundary:
                    self.report(window, bar)
                    window = Window()
                if validates:
                    self.evaluate()
                elif stop or due:
                    self.save()
                if stop and self.done < total:
                    self.close()
                    log.info(
                        "stopped after step %d of %d; the same command goes on", self.done, total
                    )
                    if interrupt.requested:
                        raise KeyboardInterrupt
                    return
        self.close()

    def batches(self) -> Iterator[Batch]:
        """The micro-batches from where the run is. Raises ValueError for a broken sample."""
        workers = self.settings.workers
        loader = DataLoader(
            self.dataset,
            batch_sampler=MicroBatches(self.order, self.done, self.settings.schedule.total),
            collate_fn=self.dataset.collate,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_interrupts if workers else None,
            prefetch_factor=4 if workers else None,
        )
        for batch in loader:
            if isinstance(batch, Broken):
                raise ValueError(f"{batch.key}: {batch.reason}")
            seed = mix_seeds(self.settings.seed, 6, self.done)
            yield batch.to(self.device).at_step(self.done, seed)

    def step(self, batches: list[Batch], window: Window, detail: bool) -> None:
        """One step of every network that learns in it."""
        settings, number = self.settings, self.done
        rate = settings.rate * settings.schedule.rate(number)
        decay = settings.schedule.weight_decay(number)
        losses: Losses = {}
        for network in self.stage.networks:
            if not self.stage.learns(network, number):
                continue
            first = network == self.stage.networks[0]
            own = self.optimizers[network]
            optimizer.set_rates(own, rate, decay)
            for i, batch in enumerate(batches):
                with self.synchronized(i == len(batches) - 1):
                    parts = self.module(batch, network, detail)
                    self.scaler.scale(parts["loss"] / len(batches)).backward()
                for name, value in parts.items():
                    if name == "loss" and not first:
                        continue
                    share = value.detach() / len(batches)
                    losses[name] = losses[name] + share if name in losses else share
            self.scaler.unscale_(own)
            parameters = [p for _, p in self.stage.parameters_of(network)]
            norm = nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf, foreach=True)
            if first:
                window.norms.append(norm.detach())
            self.scaler.step(own)
            for each in self.optimizers.values():
                each.zero_grad(set_to_none=True)
            self.scaler.update()
        window.numbers |= self.stage.after_step(number)
        if self.ema is not None:
            self.ema.update()
        window.steps.append(number + 1)
        window.keys.append([key for batch in batches for key in batch.keys])
        window.losses.append(losses)
        self.done += 1

    def synchronized(self, last: bool) -> AbstractContextManager:
        """Gradients are averaged over the processes with the last micro-batch only."""
        if not last and isinstance(self.module, nn.parallel.DistributedDataParallel):
            return self.module.no_sync()
        if self.settings.fsdp:
            self.module.set_requires_gradient_sync(last)
        return nullcontext()

    # log and validation ------------------------------------------------------------------------

    def report(self, window: Window, bar: tqdm) -> None:
        """A line of the log; raises ValueError where the run diverged."""
        if not window.steps:
            return
        mean, norm = self.check_losses(window)
        names = sorted({name for losses in window.losses for name in losses} - {"loss"})
        values = {"loss": mean}
        for name in names:
            parts = [losses[name] for losses in window.losses if name in losses]
            values[name] = distributed.mean_of(torch.stack(parts).float().mean()).item()
        seconds = (time.perf_counter() - window.since) / len(window.steps)
        values |= window.numbers | {
            "lr": self.settings.rate * self.settings.schedule.rate(self.done - 1),
            "weight_decay": self.settings.schedule.weight_decay(self.done - 1),
            "grad_norm": norm,
            "epoch": self.done / self.order.steps,
            "seconds": seconds,
            "samples_per_second": self.order.samples / seconds,
            "memory_gb": measure_peak_gigabytes(self.device),
        }
        bar.set_postfix(loss=f"{mean:.4g}", memory=f"{values['memory_gb']:.1f}G", refresh=False)
        if self.journal is not None:
            self.journal.train(self.done, values)

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
        """Validate, log it, save."""
        self.stage.eval()
        try:
            with self.averaged():
                values, pictures = self.validation(self.stage.whole_model())
        except (ValueError, OSError):  # on all processes alike
            self.save()
            raise
        self.stage.train()
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
            content["resume"] = {
                "step": self.done,
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
                self.journal.flush()
        self.saved = time.monotonic()

    @property
    def epoch(self) -> int:
        """Whole epochs that are done."""
        return self.done // self.order.steps

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
        self.done = self.finite = state["step"]
        self.best, self.lowest = state["best"], state["lowest"]
        log.info("going on from %s, step %d", file, self.done)

    def close(self) -> None:
        """Write out the journal and close it."""
        if self.journal is not None:
            self.journal.flush()
            self.journal.close()


def gather_norm(norm: Tensor) -> Tensor:
    """A gradient norm as an ordinary tensor: FSDP's is spread over the processes."""
    return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).float()


def ignore_interrupts(worker: int) -> None:
    """A DataLoader's worker leaves Ctrl-C to the process that trains (worker_init_fn)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
