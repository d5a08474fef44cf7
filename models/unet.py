# A plain U-Net from a render, and what guides it, to the truth: what a fixer of GS-VAR's size must
# beat. Its files are safetensors with the sizes in the metadata.
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.checkpoints.io import read, write_tensors
from models.layers.conv import Downsample, ResBlock, Upsample, final, group_norm

SWITCHES = ("alpha", "warped")


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a U-Net. Raises ValueError for channels that cannot be normalised in groups."""

    views: int = 2
    """Pictures that it reads: the render, and a reference."""
    channels: tuple[int, ...] = (32, 64, 128, 256, 256)
    """Of its levels; each has half the resolution of the one before."""
    alpha: bool = False
    """It reads the render's opacity too."""
    warped: bool = True
    """It was trained with references warped into the render's view, not with unwarped photos."""
    blocks: int = 2
    """Residual blocks of each level, on the way down and up."""
    groups: int = 8
    """Of the group normalisation."""

    def __post_init__(self) -> None:
        if any(c < self.groups or c % self.groups for c in self.channels):
            raise ValueError(f"channels {self.channels} must be multiples of {self.groups}")

    @property
    def stride(self) -> int:
        """Pixels along each side of a cell at the lowest resolution."""
        return 2 ** (len(self.channels) - 1)


def tiny() -> UNetConfig:
    """Some thousand parameters, for tests."""
    return UNetConfig(channels=(8, 16), blocks=1)


class UNet(nn.Module):
    """images [B,3 v,H,W] in [-1,1], the render first, and with `alpha` its opacity last -> the
    render [B,3,H,W] with a learnt change, which is none at first. H and W in whole strides."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        channels, blocks, groups = config.channels, config.blocks, config.groups
        self.conv_in = nn.Conv2d(3 * config.views + config.alpha, channels[0], 3, padding=1)
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
        h, skips = self.conv_in(images), []
        for i, level in enumerate(self.down):
            h = level(h)
            if i < len(self.shrink):
                skips.append(h)
                h = self.shrink[i](h)
        for i in reversed(range(len(self.up))):
            h = self.up[i](torch.cat((self.grow[i](h), skips[i]), 1))
        return images[:, :3] + final(self.norm_out, self.conv_out, h)


def read_config(path: Path) -> UNetConfig:
    """The sizes of a file's U-Net. Raises FileNotFoundError and ValueError, naming the file."""
    return _parse_config(path, read(path)[1])


def load(path: Path) -> UNet:
    """The U-Net of a file, float32, in eval mode and the layout that is fastest on a CPU.

    Raises FileNotFoundError and ValueError, naming the file.
    """
    tensors, metadata = read(path)
    net = UNet(_parse_config(path, metadata))
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its sizes ({str(error)[:120]})") from None
    return net.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def save(net: UNet, path: Path) -> None:
    """Write a U-Net, whole or not at all."""
    sizes = {name: str(value) for name, value in vars(net.config).items()}
    sizes["channels"] = "_".join(map(str, net.config.channels))
    write_tensors(path, net.state_dict(), sizes)


def _parse_config(path: Path, metadata: dict[str, str]) -> UNetConfig:
    """The sizes in a file's metadata; the older files have views, channels and alpha only."""
    try:
        channels = tuple(map(int, metadata["channels"].split("_")))
        numbers = {name: int(metadata[name]) for name in ("blocks", "groups") if name in metadata}
        switches = {name: metadata[name] == "True" for name in SWITCHES if name in metadata}
        return UNetConfig(int(metadata["views"]), channels, **numbers, **switches)
    except (KeyError, ValueError):
        raise ValueError(f"{path} is no unet.safetensors: its sizes are not in it") from None
