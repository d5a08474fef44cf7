# What a fixer of GS-VAR's size must beat: a plain U-Net from render (and reference) to the truth,
# trained on the same triplets with the same losses.
#   python -m benchmarks.quality.unet --json_path data/data.json --out results/unet --minutes 60
from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from evaluation.metrics import Metrics
from fixers.unet import UNetFixer
from models import unet
from models.unet import UNet, UNetConfig
from runtime.command import run_command
from runtime.files import atomic_path, write_json
from runtime.interrupts import deferred_interrupt
from training import optimizer
from training.ema import EMA
from training.lists import read_lists, select_usable, spread
from training.losses import ImageObjective, PixelLoss, harm, load_perceptual
from training.lr_schedule import LRSchedule
from training.order import MicroBatches, Order
from training.stage import Broken
from training.triplets import TripletDataset, collate
from training.validation import TripletValidation, predict_by_fixing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arguments:
    """Train a plain U-Net; stopped, the same command goes on."""

    json_path: str
    """Triplets."""
    out: Path
    """The weights, and last.pth to go on from."""
    use_ref: bool = True
    """Give it the reference too."""
    use_warped: bool = True
    """The one that was warped into the render's view."""
    use_alpha: bool = True
    """Give it the render's alpha."""
    start: Path | None = None
    """A unet.safetensors to start from; alpha is added to one that has none."""
    photometric: float = 0.0
    """Share of the triplets that are relit, as in `training`."""
    harm: float = 0.0
    """Weight of what becomes worse, as in `training`."""
    pixel_loss: PixelLoss = "l1"
    """Beside SSIM, as in `training`."""
    size: tuple[int, int] = (192, 256)
    """Height and width of what it learns from."""
    channels: tuple[int, ...] = (32, 64, 128, 256, 256)
    """Of its levels."""
    steps: int = 1000
    """Steps in all."""
    minutes: float | None = None
    """Stop after this time in all, however many steps that were; the rate falls by time then."""
    batch_size: int = 8
    rate: float = 5e-4
    ema: float = 0.998
    hflip: bool = True
    bf16: bool = True
    seed: int = 0
    workers: int = 1
    num_samples_eval: int = 100


def begin(net: UNet, file: Path) -> None:
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


def asked(a: Arguments) -> str:
    """What a run that is gone on with must have in common with the command."""
    free = ("out", "steps", "minutes", "workers", "num_samples_eval")
    return str({name: value for name, value in vars(a).items() if name not in free})


def main() -> None:
    a = tyro.cli(Arguments, prog="python -m benchmarks.quality.unet", use_underscores=True)
    if min(a.steps, a.batch_size, *a.size) < 1 or (a.minutes is not None and a.minutes <= 0):
        raise ValueError("--steps, --minutes, --batch_size and --size must be positive")
    if any(c < 8 or c % 8 for c in a.channels):
        raise ValueError(f"--channels {a.channels}: multiples of 8")
    a.out.mkdir(parents=True, exist_ok=True)
    own = {"references": int(a.use_ref), "warped": a.use_warped, "alpha": a.use_alpha}
    learnt, held = (read_lists(a.json_path, s) for s in (("train",), ("val", "test")))
    learnt = select_usable(learnt, **own, skip_bad=False)
    held = select_usable(spread(held, a.num_samples_eval), **own, skip_bad=False)
    dataset = TripletDataset(learnt, a.size, **own, hflip=a.hflip, photometric=a.photometric)
    order = Order(len(dataset), a.batch_size, seed=a.seed)
    torch.manual_seed(a.seed)
    config = UNetConfig(1 + own["references"], a.channels, a.use_alpha, warped=a.use_warped)
    net = UNet(config)
    if a.start is not None:
        begin(net, a.start)
    net = net.to(memory_format=torch.channels_last)
    perceptual, reason = load_perceptual("cpu")
    objective = ImageObjective(perceptual, reason=reason, pixel_loss=a.pixel_loss)
    size = sum(p.numel() for p in net.parameters()) / 1e6
    log.info("%.2f M parameters. %s", size, objective.describe())
    adam = optimizer.build_optimizer(net.named_parameters(), kind="adamw", fused=True, rate=a.rate)
    ema, spent, start = EMA(net, a.ema), 0.0, 0
    last = a.out / "last.pth"
    if last.exists():
        kept = torch.load(last, weights_only=True)
        if kept.get("asked") != asked(a):
            raise ValueError(f"{last} is of a run with other settings: choose another --out")
        net.load_state_dict(kept["net"])
        adam.load_state_dict(kept["adam"])
        ema.load_state_dict(kept["ema"])
        spent, start = kept["spent"], kept["step"]
    total = 10**6 if a.minutes else a.steps
    loader = DataLoader(
        dataset,
        batch_sampler=MicroBatches(order, start, total),
        collate_fn=collate,
        num_workers=a.workers,
    )
    began, step = time.monotonic(), start
    finished = spent >= a.minutes if a.minutes else start >= total
    bar = tqdm(total=None if a.minutes else total, initial=start, unit="step")
    with bar, deferred_interrupt() as interrupt:
        for batch in () if finished else loader:
            if isinstance(batch, Broken):
                raise ValueError(f"{batch.key}: {batch.reason}")
            now = spent + (time.monotonic() - began) / 60
            passed = now / a.minutes if a.minutes else step / total
            rate = a.rate * LRSchedule("lin0", 1000, 0).factor(passed) * min(1, (step + 1) / 50)
            optimizer.set_rates(adam, rate, 0.05)
            batch = batch.to("cpu")
            images = batch.views.flatten(1, 2)
            if a.use_alpha:
                images = torch.cat((images, batch.alpha), 1)
            images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=a.bf16):
                made = net(images)
            loss = objective(made.float(), batch.truth)["loss"]
            if a.harm:
                loss = loss + a.harm * harm(made.float(), batch.views[:, 0], batch.truth)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 2.0)
            adam.step()
            adam.zero_grad(set_to_none=True)
            ema.update()
            step += 1
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            now = spent + (time.monotonic() - began) / 60
            finished = now >= a.minutes if a.minutes else step >= total
            if finished or interrupt.requested or step % 100 == 0:
                with ema.used():
                    weights = {k: v.contiguous().clone() for k, v in net.state_dict().items()}
                state = {"net": weights, "adam": adam.state_dict(), "ema": ema.state_dict()}
                with atomic_path(last) as temporary:
                    torch.save(state | {"spent": now, "step": step, "asked": asked(a)}, temporary)
            if finished or interrupt.requested:
                break
    if not finished:
        raise KeyboardInterrupt
    with ema.used():
        unet.save(net, a.out / "unet.safetensors")
        values, _ = TripletValidation(held, Metrics(None), **own).measure(
            predict_by_fixing(UNetFixer(net).fix)
        )
    values |= {"steps": step, "minutes": spent + (time.monotonic() - began) / 60}
    write_json(a.out / "metrics.json", values)
    log.info("%s", values)


if __name__ == "__main__":
    run_command(main)
