# Trains the control that a fixer must beat: a plain U-Net from render (and reference) to ground
# truth, on the same triplets with the same losses.
#   python -m benchmarks.quality.unet --json_path data/data.json --out results/unet --minutes 60
from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from evaluation.metrics import Metrics
from fixers.unet import UNetFixer
from models import unet
from models.unet import UNet, UNetConfig
from runtime.command import run_command
from runtime.files import atomic_path, write_json
from runtime.flags import parse_command
from runtime.interrupts import deferred_interrupt
from runtime.precision import choose_dtype
from runtime.progress import ProgressBar
from training import optimizer
from training.ema import EMA
from training.lists import read_held_out, read_lists, select_usable, spread
from training.losses import ImageObjective, PixelLoss, harm, load_perceptual
from training.lr_schedule import LRSchedule
from training.order import MicroBatches, Order
from training.stage import Broken
from training.triplets import Batch, TripletDataset, collate
from training.validation import TripletValidation, predict_by_fixing
from triplets.manifest import Triplet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arguments:
    """Train a plain U-Net on the CPU; the same command resumes a stopped run."""

    json_path: str
    """Lists of triplets."""
    out: Path
    """Folder of the weights, and of last.pth for resuming."""
    use_ref: bool = True
    """Give it the reference too."""
    use_warped: bool = True
    """Give it the reference that was warped into the render's view."""
    use_alpha: bool = True
    """Give it the render's alpha."""
    start: Path | None = None
    """A unet.safetensors to start from; alpha is added to one without."""
    photometric: float = 0.0
    """Share of the triplets that are relit, as in `training`."""
    harm: float = 0.0
    """Weight of the loss on what became worse, as in `training`."""
    pixel_loss: PixelLoss = "l1"
    """The loss beside SSIM, as in `training`."""
    size: tuple[int, int] = (192, 256)
    """Height and width of the training pictures."""
    channels: tuple[int, ...] = (32, 64, 128, 256, 256)
    """Channels of its levels."""
    steps: int = 1000
    """Steps in all."""
    minutes: float | None = None
    """Stop after this time in all, not after `steps`; the learning rate then falls by time."""
    batch_size: int = 8
    rate: float = 5e-4
    ema: float = 0.998
    hflip: bool = True
    bf16: bool = True
    """Multiply in bfloat16, where the processor can."""
    force_bf16: bool = False
    """With --bf16: even where the processor only emulates it."""
    seed: int = 0
    workers: int = 1
    num_samples_eval: int = 100

    @property
    def guides(self) -> dict[str, object]:
        """What the network is given, as datasets take it."""
        return {"references": int(self.use_ref), "warped": self.use_warped, "alpha": self.use_alpha}

    @property
    def identity(self) -> str:
        """What a resumed run must have in common with the command."""
        free = ("out", "steps", "minutes", "workers", "num_samples_eval", "force_bf16")
        return str({name: value for name, value in vars(self).items() if name not in free})


class Run:
    """A network in training: its optimizer, its averaged weights, its steps and minutes so far."""

    def __init__(self, a: Arguments):
        torch.manual_seed(a.seed)
        config = UNetConfig(1 + int(a.use_ref), a.channels, a.use_alpha, warped=a.use_warped)
        net = UNet(config)
        if a.start is not None:
            read_start(net, a.start)
        self.net = net.to(memory_format=torch.channels_last)
        parameters = self.net.named_parameters()
        self.adam = optimizer.build_optimizer(parameters, kind="adamw", fused=True, rate=a.rate)
        self.ema, self.minutes, self.step = EMA(self.net, a.ema), 0.0, 0
        self.file, self.identity = a.out / "last.pth", a.identity

    def save(self) -> None:
        """Write last.pth; its network is the averaged one."""
        with self.ema.used():
            weights = {k: v.contiguous().clone() for k, v in self.net.state_dict().items()}
        state = {"net": weights, "adam": self.adam.state_dict(), "ema": self.ema.state_dict()}
        state |= {"spent": self.minutes, "step": self.step, "asked": self.identity}
        with atomic_path(self.file) as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Continue from last.pth, if there is one; ValueError for one with other settings."""
        if not self.file.exists():
            return
        saved = torch.load(self.file, weights_only=True)
        if saved.get("asked") != self.identity:
            raise ValueError(f"{self.file} is of a run with other settings: choose another --out")
        self.net.load_state_dict(saved["net"])
        self.adam.load_state_dict(saved["adam"])
        self.ema.load_state_dict(saved["ema"])
        self.minutes, self.step = saved["spent"], saved["step"]

    def is_finished(self, a: Arguments) -> bool:
        """Whether all steps are done, or all minutes spent."""
        return self.minutes >= a.minutes if a.minutes else self.step >= a.steps


def read_start(net: UNet, file: Path) -> None:
    """Fill a network with the weights of a file, which may lack alpha; ValueError for others."""
    state = load_file(file)
    if "conv_in.weight" not in state:
        raise ValueError(f"--start {file} is no unet.safetensors")
    more = net.conv_in.in_channels - state["conv_in.weight"].shape[1]
    if more not in (0, int(net.config.alpha)):
        raise ValueError(f"--start {file} reads other pictures: see --use_ref and --use_alpha")
    state["conv_in.weight"] = F.pad(state["conv_in.weight"], (0, 0, 0, 0, 0, more))
    try:
        net.load_state_dict(state)
    except RuntimeError:
        raise ValueError(f"--start {file} is of other --channels") from None


def stack_inputs(batch: Batch, alpha: bool) -> Tensor:
    """The network's input [B,C,H,W]: the views' colours, and the render's alpha if wanted."""
    images = batch.views.flatten(1, 2)
    if alpha:
        images = torch.cat((images, batch.alpha), 1)
    return images.contiguous(memory_format=torch.channels_last)


def train(a: Arguments, run: Run, dataset: TripletDataset, objective: ImageObjective) -> None:
    """Train until the run is finished; Stopped, its state saved, after a signal."""
    dtype = choose_dtype("bf16" if a.bf16 else "float32", "cpu", force_bf16=a.force_bf16)
    total = 10**6 if a.minutes else a.steps
    order = Order(len(dataset), a.batch_size, seed=a.seed)
    loader = DataLoader(
        dataset,
        batch_sampler=MicroBatches(order, order.place(run.step), total),
        collate_fn=collate,
        num_workers=a.workers,
    )
    began = time.monotonic() - 60 * run.minutes
    finished = run.is_finished(a)
    bar = ProgressBar(total=None if a.minutes else total, initial=run.step, unit="step")
    with bar, deferred_interrupt() as interrupt:
        for batch in () if finished else loader:
            if isinstance(batch, Broken):
                raise ValueError(f"{batch.key}: {batch.reason}")
            run.minutes = (time.monotonic() - began) / 60
            passed = run.minutes / a.minutes if a.minutes else run.step / total
            warmup = min(1, (run.step + 1) / 50)
            rate = a.rate * LRSchedule("lin0", 1000, 0).factor(passed) * warmup
            optimizer.set_rates(run.adam, rate, 0.05)
            batch = batch.to("cpu")
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                fixed = run.net(stack_inputs(batch, a.use_alpha))
            loss = objective(fixed.float(), batch.truth)["loss"]
            if a.harm:
                loss = loss + a.harm * harm(fixed.float(), batch.views[:, 0], batch.truth)
            loss.backward()
            nn.utils.clip_grad_norm_(run.net.parameters(), 2.0)
            run.adam.step()
            run.adam.zero_grad(set_to_none=True)
            run.ema.update()
            run.step += 1
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            run.minutes = (time.monotonic() - began) / 60
            finished = run.is_finished(a)
            if finished or interrupt.requested or run.step % 100 == 0:
                run.save()
            if finished or interrupt.requested:
                break
    if not finished:
        interrupt.check()


def check_arguments(a: Arguments) -> None:
    """ValueError for sizes, channels or times that make no sense."""
    if min(a.steps, a.batch_size, *a.size) < 1 or (a.minutes is not None and a.minutes <= 0):
        raise ValueError("--steps, --minutes, --batch_size and --size must be positive")
    if any(c < 8 or c % 8 for c in a.channels):
        raise ValueError(f"--channels {a.channels}: multiples of 8")


def read_triplets(a: Arguments) -> tuple[list[Triplet], list[Triplet]]:
    """The usable triplets to train and to validate on; of the latter the flags' number, spread
    evenly."""
    learnt = read_lists(a.json_path, ("train",))
    held, note = read_held_out(a.json_path)
    if note:
        log.warning("%s", note)
    held = spread(held or learnt, a.num_samples_eval)
    return tuple(select_usable(part, **a.guides, skip_bad=False) for part in (learnt, held))


def main() -> None:
    """Train, then write unet.safetensors (averaged weights) and metrics.json."""
    a = parse_command(Arguments, "python -m benchmarks.quality.unet")
    check_arguments(a)
    a.out.mkdir(parents=True, exist_ok=True)
    learnt, held = read_triplets(a)
    flips = {"hflip": a.hflip, "photometric": a.photometric}
    dataset = TripletDataset(learnt, a.size, **a.guides, **flips)
    run = Run(a)
    perceptual, reason = load_perceptual("cpu")
    objective = ImageObjective(perceptual, reason=reason, pixel_loss=a.pixel_loss)
    size = sum(p.numel() for p in run.net.parameters()) / 1e6
    log.info("%.2f M parameters. %s", size, objective.describe())
    run.resume()
    train(a, run, dataset, objective)
    with run.ema.used():
        unet.save(run.net, a.out / "unet.safetensors")
        values, _ = TripletValidation(held, Metrics(None), **a.guides).measure(
            predict_by_fixing(UNetFixer(run.net).fix)
        )
    values |= {"steps": run.step, "minutes": run.minutes}
    write_json(a.out / "metrics.json", values)
    log.info("%s", values)


if __name__ == "__main__":
    run_command(main)
