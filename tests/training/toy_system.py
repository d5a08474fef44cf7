# The smallest system that the engine trains: a network that removes noise from short signals, and a
# second one that learns to tell its answers from clean signals. It shows what a system brings: a
# batch, samples, a stage, a codec, a validation and flags.
from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.command import run_command
from runtime.flags import parse_flags
from training.distributed import world_size
from training.flags import Optimization
from training.flags import Run as RunFlags
from training.run import Recipe, Run, plain_args, train
from training.stage import Broken, Losses, Stage

LENGTH = 16
JUDGE_FROM = 2  # steps


@dataclass(frozen=True)
class Flags:
    optimization: Optimization = field(default_factory=Optimization)
    run: RunFlags = field(default_factory=RunFlags)


@dataclass
class Signals:
    """A batch: clean and noisy signals [B,LENGTH]."""

    keys: list[str]
    clean: Tensor
    noisy: Tensor
    step: int = 0
    step_seed: int = 0

    def to(self, device: torch.device) -> Signals:
        return replace(self, clean=self.clean.to(device), noisy=self.noisy.to(device))

    def at_step(self, step: int, seed: int) -> Signals:
        return replace(self, step=step, step_seed=seed)


class SineWaves:
    """Samples: sine waves of a phase of their own; the seed draws the noise."""

    def __init__(self, count: int, broken: int | None = None):
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: tuple[int, int]) -> tuple[str, Tensor, Tensor] | Broken:
        index, seed = item
        if index == self.broken:
            return Broken(f"wave {index}", "its file is torn")
        clean = torch.sin(torch.arange(LENGTH) * 2 * math.pi / LENGTH + index)
        noise = torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed))
        return f"wave {index}", clean, clean + noise / 2

    def collate(self, samples: Sequence) -> Signals | Broken:
        for sample in samples:
            if isinstance(sample, Broken):
                return sample
        keys, clean, noisy = zip(*samples, strict=True)
        return Signals(list(keys), torch.stack(clean), torch.stack(noisy))


class DenoisingStage(Stage):
    networks = ("denoiser", "judge")

    def __init__(self, denoiser: nn.Module, dtype: torch.dtype):
        super().__init__(dtype)
        self.denoiser = denoiser
        self.judge = nn.Sequential(nn.Linear(LENGTH, 8), nn.GELU(), nn.Linear(8, 1))
        self.seen, self.taken = 0, 0

    def forward(self, batch: Signals, network: str, detail: bool) -> Losses:
        with self.autocast(batch.noisy.device):
            answer = self.denoiser(batch.noisy).float()
        if network == "judge":
            real, fake = self.judge(batch.clean), self.judge(answer.detach())
            loss = F.softplus(-real).mean() + F.softplus(fake).mean()
            return {"loss": loss, "judge": loss.detach()}
        error = (answer - batch.clean).square().mean()
        losses = {"loss": error, "error": error.detach()}
        if self.learns("judge", batch.step):
            self.judge.requires_grad_(False)
            losses["loss"] = error + 0.01 * F.softplus(-self.judge(answer)).mean()
            self.judge.requires_grad_(True)
        if detail:
            losses["worst"] = (answer - batch.clean).abs().max().detach()
        self.taken += len(batch.keys)
        return losses

    def learns(self, network: str, step: int) -> bool:
        return network == "denoiser" or step >= JUDGE_FROM

    def after_step(self, step: int) -> dict[str, float]:
        self.seen, self.taken = self.seen + self.taken, 0
        return {"seen": float(self.seen)}

    def resume_state(self) -> dict[str, object]:
        return {"judge": self.judge.state_dict(), "seen": self.seen}

    def load_resume_state(self, state: Mapping) -> None:
        self.judge.load_state_dict(state["judge"])
        self.seen = state["seen"]


class PlainCodec:
    """A state dict under "weights"."""

    def load_weights(self, model: nn.Module, content: dict, file: Path) -> None:
        model.load_state_dict(content["weights"])

    def encode(
        self, model: nn.Module, *, optimizer: dict, args: dict, epoch: int, step: int
    ) -> dict:
        weights = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
        return {"weights": weights, "adam": optimizer, "args": args, "at": [epoch, step]}

    def optimizer_state(self, content: dict) -> dict | None:
        return content.get("adam")


class DenoisingValidation:
    judged_by = ("error", -1)
    note = ""

    def __init__(self, samples: SineWaves):
        batch = samples.collate([samples[i, -i - 1] for i in range(len(samples))])
        self.batch = batch

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> tuple[dict[str, float], dict[str, Tensor]]:
        answer = model(self.batch.noisy)
        picture = ((answer + 1) / 2).clamp(0, 1)[..., None].expand(-1, -1, 3)
        return {"error": (answer - self.batch.clean).square().mean().item()}, {"all": picture}


def train_toy(*arguments: object, samples: SineWaves | None = None, workers: int = 0) -> None:
    """A run from flags, as an entry script would start it."""
    flags = parse_flags(Flags, list(map(str, arguments)), "toy", "about")
    samples = samples or SineWaves(12)

    def build(run: Run) -> Stage:
        torch.manual_seed(run.seed)
        denoiser = nn.Sequential(nn.Linear(LENGTH, 32), nn.GELU(), nn.Linear(32, LENGTH))
        return DenoisingStage(run.load_weights(denoiser), run.dtype).to(run.device)

    assert world_size() == 1
    recipe = Recipe(
        prefix="toy",
        codec=PlainCodec(),
        data=lambda device: (samples, DenoisingValidation(SineWaves(12))),
        build=build,
        args=plain_args(flags.optimization, flags.run),
        workers=workers,
    )
    train(recipe, flags.optimization, flags.run)


if __name__ == "__main__":
    run_command(lambda: train_toy(*sys.argv[1:], workers=2))
