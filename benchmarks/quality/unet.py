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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from evaluation.metrics import Metrics
from fixers.fixer import blend_by_confidence, validate_inputs
from fixers.gsvar import outside, pad
from models.layers.conv import Downsample, ResBlock, Upsample, final, group_norm
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
from training.triplets import UNKNOWN, TripletDataset, collate
from training.validation import TripletValidation, predict_by_fixing

log = logging.getLogger(__name__)


class UNet(nn.Module):
    """images [B,3 v,H,W] in [-1,1], the render first, and with `alpha` its opacity last -> the
    render with a learnt change."""

    def __init__(
        self,
        views: int,
        channels: tuple[int, ...],
        alpha: bool = False,
        blocks: int = 2,
        groups: int = 8,
    ):
        super().__init__()
        self.views, self.channels, self.alpha = views, channels, alpha
        self.stride = 2 ** (len(channels) - 1)
        self.conv_in = nn.Conv2d(3 * views + alpha, channels[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, c in enumerate(channels):
            before = channels[max(0, i - 1)]
            ins = [before] + [c] * (blocks - 1)
            self.down.append(nn.Sequential(*(ResBlock(n, c, groups) for n in ins)))
            if i + 1 < len(channels):
                self.shrink.append(Downsample(c))
                self.grow.append(Upsample(channels[i + 1]))
                ins = [channels[i + 1] + c] + [c] * (blocks - 1)
                self.up.append(nn.Sequential(*(ResBlock(n, c, groups) for n in ins)))
        self.norm_out = group_norm(channels[0], groups)
        self.conv_out = nn.Conv2d(channels[0], 3, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(self, images: Tensor) -> Tensor:
        h, kept = self.conv_in(images), []
        for i, level in enumerate(self.down):
            h = level(h)
            if i < len(self.shrink):
                kept.append(h)
                h = self.shrink[i](h)
        for i in reversed(range(len(self.up))):
            h = self.up[i](torch.cat((self.grow[i](h), kept[i]), 1))
        return images[:, :3] + final(self.norm_out, self.conv_out, h)


class UNetFixer:
    """A trained U-Net as a fixer; without a reference the render takes its place."""

    def __init__(self, net: UNet, dtype: torch.dtype = torch.float32):
        self.net, self.dtype = net.eval(), dtype

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype = torch.float32) -> UNetFixer:
        with safe_open(path, "pt") as file:
            told = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        channels = tuple(map(int, told["channels"].split("_")))
        net = UNet(int(told["views"]), channels, told.get("alpha") == "True")
        net.load_state_dict(state)
        return cls(net.to(memory_format=torch.channels_last), dtype)

    @torch.no_grad()
    def fix(
        self,
        renders: Tensor,
        references: Tensor | None = None,
        *,
        confidence: Tensor | None = None,
        alphas: Tensor | None = None,
    ) -> Tensor:
        renders, references = validate_inputs(renders, references, confidence, alphas)
        H, W = renders.shape[1:3]
        views = [renders]
        if self.net.views > 1:
            views.append(renders if references is None else references[:, 0])
        if self.net.alpha:
            unknown = torch.full_like(renders[..., 0], UNKNOWN)
            views.append((unknown if alphas is None else alphas)[..., None])
        images = torch.cat(views, -1).permute(0, 3, 1, 2) * 2 - 1
        images = pad(images, *(-(-n // self.net.stride) * self.net.stride for n in (H, W)))
        images = images.contiguous(memory_format=torch.channels_last)
        half = self.dtype != torch.float32
        with torch.autocast(renders.device.type, self.dtype, enabled=half):
            fixed = torch.cat([self.net(image[None]) for image in images])
        return blend_by_confidence(renders, outside(fixed[..., :H, :W]), confidence)


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
    if more not in (0, int(net.alpha)):
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
    net = UNet(1 + own["references"], a.channels, a.use_alpha)
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
    told = {"views": str(net.views), "channels": "_".join(map(str, a.channels))}
    told["alpha"] = str(a.use_alpha)
    with ema.used():
        state = {k: v.contiguous() for k, v in net.state_dict().items()}
        with atomic_path(a.out / "unet.safetensors") as temporary:
            save_file(state, temporary, told)
        values, _ = TripletValidation(held, Metrics(None), **own).measure(
            predict_by_fixing(UNetFixer(net).fix)
        )
    values |= {"steps": step, "minutes": spent + (time.monotonic() - began) / 60}
    write_json(a.out / "metrics.json", values)
    log.info("%s", values)


if __name__ == "__main__":
    run_command(main)
