# The refiner: a per-token diffusion head (MAR, arXiv 2406.11838) that predicts what the last
# scale's codes leave out.
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.blocks import EPS, modulate

FREQUENCIES = 256


def sinusoid(t: Tensor, channels: int = FREQUENCIES) -> Tensor:
    """Timesteps [N] as cosines and sines [N, channels], periods up to 10,000; float32 or better."""
    half = channels // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=t.device) / half)
    angles = t[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), -1)


class RefinerBlock(nn.Module):
    """A modulated residual MLP; `condition` is already through SiLU."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x, condition [N,C] -> [N,C]."""
        shift, scale, gate = self.modulation(condition).chunk(3, -1)
        h = self.mlp(torch.addcmul(shift, self.norm(x), 1 + scale))
        return torch.addcmul(x, gate, h)


class Refiner(nn.Module):
    """Noise and variance logits for noisy tokens: x_t [N,Cz], timesteps [N], condition [N,C] ->
    [N, 2 Cz]."""

    def __init__(self, channels: int, condition_width: int, width: int, blocks: int):
        super().__init__()
        self.input = nn.Linear(channels, width)
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.Linear(condition_width, width)
        self.blocks = nn.ModuleList(RefinerBlock(width) for _ in range(blocks))
        self.modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, 2 * channels)

    def embed_time(self, t: Tensor) -> Tensor:
        """Timesteps [N] -> [N, width]."""
        return self.time(sinusoid(t).to(self.input.weight.dtype))

    def denoise(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """As `forward`, with time [N or 1, width] and condition [N, width] embedded already."""
        y = F.silu(time + condition)
        h = self.input(x)
        for block in self.blocks:
            h = block(h, y)
        shift, scale = self.modulation(y).chunk(2, -1)
        return self.output(modulate(h, scale, shift))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """x [N,Cz], timesteps [N], condition [N,C] -> noise and variance logits [N,2Cz]."""
        return self.denoise(x, self.embed_time(t), self.condition(condition))
