# The one training loop: steps, logs, validations, checkpoints; the stages say what is learnt.
from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.gsvar import GSVAR
from runtime.interrupts import deferred_interrupt
from runtime.memory import measure_peak_gigabytes
from runtime.seeds import mix_seeds
from training import distributed, optimiser, weights
from training.ema import EMA
from training.journal import Journal
from training.order import MicroBatches, Order
from training.run_folder import RunFolder
from training.schedule import Schedule
from training.stages import Losses, Stage
from training.triplets import Batch, Broken, TripletDataset
from training.validation import Values

log = logging.getLogger(__name__)

WINDOWS_EXPLODED = 5  # logged stretches with a loss ten times the best: then a run is lost
EXPLODED = 10.0
MOST_SCALED = 2.0**15


@dataclass(frozen=True)
class Settings:
    """How a run goes; times in minutes."""

    rate: float
    schedule: Schedule
    clip: float = 2.0
    kind: str = "adamw"
    fused: bool = True
    scaled: bool = False
    """Scale the loss (float16)."""
    ema: float = 0.0
    eval_every: int = 1000
    log_every: int = 10
    save_minutes: float = 10.0
    minutes: float | None = None
    workers: int = 0
    seed: int = 0


@dataclass
class Window:
    """What happened since the last line of the log."""

    steps: list[int] = field(default_factory=list)
    keys: list[list[str]] = field(default_factory=list)
    losses: list[dict[str, Tensor]] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    told: dict[str, float] = field(default_factory=dict)
    since: float = field(default_factory=time.perf_counter)


class Loop:
    """A stage's run: `run` goes from where the folder's newest checkpoint ended to the schedule's.

    validate: called at each validation on all processes, gives means and pictures, the number
    that judges them and its sign. args: what the checkpoints tell of the run.
    """

    def __init__(
        self,
        stage: Stage,
        dataset: TripletDataset,
        order: Order,
        settings: Settings,
        folder: RunFolder,
        *,
        validate: Callable[[GSVAR], tuple[Values, dict[str, Tensor]]],
        judged_by: tuple[str, int],
        journal: Callable[[int], Journal | None],
        args: dict,
        device: torch.device,
        fsdp: bool = False,
    ):
        self.stage, self.dataset, self.order, self.settings = stage, dataset, order, settings
        self.folder, self.validate, self.judged_by = folder, validate, judged_by
        self.make_journal, self.args, self.device, self.fsdp = journal, args, device, fsdp
        self.done, self.best, self.lowest, self.exploded = 0, -math.inf, math.inf, 0
        self.checked = 0  # steps known to be finite
        self.journal: Journal | None = None
        gan = len(stage.players) > 1
        self.module = weights.sharded(stage) if fsdp else stage
        if not fsdp:
            self.module = distributed.wrapped(stage, device, find_unused=gan)
        self.optimisers = {
            player: optimiser.make(
                stage.parameters_of(player),
                kind=settings.kind,
                fused=settings.fused,
                rate=settings.rate,
            )
            for player in stage.players
        }
        scaling = {"init_scale": 2.0**11, "growth_interval": 1000, "enabled": settings.scaled}
        self.scaler = torch.amp.GradScaler(device.type, **scaling)
        self.ema = EMA(stage.model, settings.ema) if settings.ema > 0 else None

    # a run -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Raises ValueError for a loss that is not finite or explodes, naming step and entries;
        KeyboardInterrupt after Ctrl-C, saved."""
        self.resume()
        settings, total = self.settings, self.settings.schedule.total
        if self.done >= total:
            log.info("all %d steps are done; more with --ep or --steps", total)
            return
        self.journal = self.make_journal(self.done) if distributed.rank() == 0 else None
        began = self.saved = time.monotonic()
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
                alone = distributed.world() == 1
                if boundary:
                    self.report(window, bar)
                    window = Window()
                minutes = (time.monotonic() - began) / 60
                stop = interrupt.requested or bool(settings.minutes and minutes > settings.minutes)
                due = time.monotonic() - self.saved > 60 * settings.save_minutes
                if not alone:
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
        """The micro-batches from where the run is."""
        workers = self.settings.workers
        loader = DataLoader(
            self.dataset,
            batch_sampler=MicroBatches(self.order, self.done, self.settings.schedule.total),
            collate_fn=Batch.of,
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=deaf if workers else None,
            prefetch_factor=4 if workers else None,
        )
        for batch in loader:
            if isinstance(batch, Broken):
                raise ValueError(f"{batch.key}: {batch.reason} (--skip_bad leaves such out)")
            seed = mix_seeds(self.settings.seed, 6, self.done)
            yield replace(batch.to(self.device), step=self.done, step_seed=seed)

    def step(self, batches: list[Batch], window: Window, detail: bool) -> None:
        """One step of every player."""
        settings, number = self.settings, self.done
        rate = settings.rate * settings.schedule.rate(number)
        decay = settings.schedule.weight_decay(number)
        losses: Losses = {}
        for player in self.stage.players:
            if not self.stage.playing(player, number):
                continue
            own = self.optimisers[player]
            optimiser.set_rates(own, rate, decay)
            for i, batch in enumerate(batches):
                with self.synchronised(i == len(batches) - 1):
                    part = self.module(batch, player, detail)
                    self.scaler.scale(part["loss"] / len(batches)).backward()
                for name, value in part.items():
                    share = value.detach() / len(batches)
                    known = name in losses and not (name == "loss" and player != "model")
                    if name == "loss" and player != "model":
                        continue
                    losses[name] = losses[name] + share if known else share
            self.scaler.unscale_(own)
            parameters = [p for _, p in self.stage.parameters_of(player)]
            norm = nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf, foreach=True)
            if player == "model":
                window.norms.append(norm.detach())
            self.scaler.step(own)
            for each in self.optimisers.values():
                each.zero_grad(set_to_none=True)
            self.scaler.update()
        window.told |= self.stage.after_step(number)
        if self.ema is not None:
            self.ema.update()
        window.steps.append(number + 1)
        window.keys.append([key for batch in batches for key in batch.keys])
        window.losses.append(losses)
        self.done += 1

    def synchronised(self, last: bool) -> AbstractContextManager:
        """Gradients are averaged over the processes with the last micro-batch only."""
        if not last and isinstance(self.module, nn.parallel.DistributedDataParallel):
            return self.module.no_sync()
        if self.fsdp:
            self.module.set_requires_gradient_sync(last)
        return nullcontext()

    # what is told ------------------------------------------------------------------------------

    def report(self, window: Window, bar: tqdm) -> None:
        """A line of the log; raises ValueError where the run went wrong."""
        if not window.steps:
            return
        totals = torch.stack([losses["loss"] for losses in window.losses]).float()
        totals = distributed.mean_of(totals).tolist()
        norms = torch.stack([plain(norm) for norm in window.norms]).tolist()
        for at, (total, norm) in enumerate(zip(totals, norms, strict=True)):
            # float16's scaler passes over infinite gradients by itself
            if not math.isfinite(total) or not (math.isfinite(norm) or self.settings.scaled):
                raise self.lost("is not finite", window, at)
        mean = sum(totals) / len(totals)
        most = self.lowest + (EXPLODED - 1) * abs(self.lowest) + 1
        self.exploded = self.exploded + 1 if mean > most else 0
        if self.exploded >= WINDOWS_EXPLODED:
            raise self.lost(f"has risen from {self.lowest:.3g} to {mean:.3g}", window, -1)
        self.lowest = min(self.lowest, mean)
        if self.settings.scaled and self.scaler.get_scale() > MOST_SCALED:
            self.scaler.update(MOST_SCALED)
        self.checked = self.done
        names = sorted({name for losses in window.losses for name in losses} - {"loss"})
        values = {"loss": mean}
        for name in names:
            parts = [losses[name] for losses in window.losses if name in losses]
            values[name] = distributed.mean_of(torch.stack(parts).float().mean()).item()
        seconds = (time.perf_counter() - window.since) / len(window.steps)
        values |= window.told | {
            "lr": self.settings.rate * self.settings.schedule.rate(self.done - 1),
            "weight_decay": self.settings.schedule.weight_decay(self.done - 1),
            "grad_norm": norms[-1],
            "epoch": self.done / self.order.steps,
            "seconds": seconds,
            "samples_per_second": self.order.samples / seconds,
            "memory_gb": measure_peak_gigabytes(self.device),
        }
        bar.set_postfix(loss=f"{mean:.4g}", memory=f"{values['memory_gb']:.1f}G", refresh=False)
        if self.journal is not None:
            self.journal.train(self.done, values)

    def lost(self, what: str, window: Window, at: int) -> ValueError:
        """The sentence for a run that went wrong at the window's step `at`."""
        step, keys = window.steps[at], window.keys[at]
        shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
        kept = self.folder.last
        back = f"{kept} is the last good checkpoint" if kept.exists() else "nothing was saved yet"
        self.close()
        return ValueError(
            f"the loss {what} at step {step} (entries {shown}); {back}: lower --tblr or look at "
            "these pictures, and give the command again"
        )

    def evaluate(self) -> None:
        """Validate, note it, save."""
        self.stage.eval()
        try:
            with self.averaged():
                values, pictures = self.validate(weights.whole(self.stage, self.fsdp))
        except (ValueError, OSError):  # on all processes alike
            self.save()
            raise
        self.stage.train()
        name, sign = self.judged_by
        score = sign * values[name]
        better = score > self.best
        self.best = max(self.best, score)
        if distributed.rank() == 0:
            told = ", ".join(f"{n} {v:.4g}" for n, v in values.items() if v is not None)
            log.info("step %d: %s%s", self.done, told, " (best)" if better else "")
        if self.journal is not None:
            self.journal.validate(self.done, values, pictures)
        self.save(best=better, marked=True)

    def averaged(self) -> AbstractContextManager:
        """The weights that are validated and saved: the average, if there is one."""
        return nullcontext() if self.ema is None else self.ema.used()

    # checkpoints -------------------------------------------------------------------------------

    def save(self, *, best: bool = False, marked: bool = False) -> None:
        """Write the last checkpoint, and say so if it is the best."""
        if self.done != self.checked:
            raise RuntimeError("a step is saved only when its loss was looked at")
        with self.averaged():
            content = weights.content(self.stage, self.args, self.epoch, self.done, self.fsdp)
        states = {
            name: weights.optimiser_state(self.stage, own, self.fsdp)
            for name, own in self.optimisers.items()
        }
        stage = self.stage.kept()
        if distributed.rank() == 0:
            first, *others = states
            content["trainer"][self.optimiser_key] = {"optimizer": states[first]}
            content["resume"] = {
                "step": self.done,
                "best": self.best,
                "lowest": self.lowest,
                "others": {name: states[name] for name in others},
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
    def optimiser_key(self) -> str:
        """Where the original's layout has the optimiser's state, which tells the stage too."""
        return {"ar": "var_opt", "vae": "vae_opt"}.get(self.stage.prefix, "vqvae_opt")

    @property
    def epoch(self) -> int:
        return self.done // self.order.steps

    def resume(self) -> None:
        """Put the newest checkpoint's state in place, if there is one.

        The model's own weights were put there already (`training.weights.put`).
        """
        found = self.folder.newest()
        if found is None:
            return
        file, content = found
        kept = content["resume"]
        first = content["trainer"].get(self.optimiser_key, {}).get("optimizer")
        states = [first, *kept["others"].values()]
        try:
            for own, state in zip(self.optimisers.values(), states, strict=True):
                weights.put_optimiser(self.stage, own, state, self.fsdp)
            self.scaler.load_state_dict(kept["scaler"])
            self.stage.restore(kept["stage"])
            if self.ema is not None and kept["ema"] is not None:
                self.ema.load_state_dict(kept["ema"])
        except (ValueError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{file} is of a run with other trained parameters ({error}); take another "
                "--exp_name, or --resume=False to start over"
            ) from None
        self.done = self.checked = kept["step"]
        self.best, self.lowest = kept["best"], kept["lowest"]
        log.info("going on from %s, step %d", file, self.done)

    def close(self) -> None:
        if self.journal is not None:
            self.journal.flush()
            self.journal.close()


def plain(norm: Tensor) -> Tensor:
    """A gradient norm as an ordinary tensor: FSDP's is spread over the processes."""
    return (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).float()


def deaf(worker: int) -> None:
    """A reading process leaves Ctrl-C to the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
