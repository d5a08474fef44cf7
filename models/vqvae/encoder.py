# The VQ-VAE's encoder: image -> continuous latent, and on request the features that the bridge
# reads.
from torch import Tensor, nn

from models.layers.conv import (
    Downsample,
    ResBlock,
    SpatialAttention,
    final,
    group_norm,
    split_pixels,
)
from models.vqvae.config import VQVAEConfig
from models.vqvae.shortcut import Fold


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention at the lowest one, and the
    step to the next."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        blocks: int,
        groups: int,
        attend: bool,
        step: nn.Module,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock(channels if i == 0 else out_channels, out_channels, groups)
            for i in range(blocks)
        )
        self.attentions = nn.ModuleList(
            SpatialAttention(out_channels, groups) if attend else nn.Identity()
            for _ in range(blocks)
        )
        self.step = step

    def refine(self, x: Tensor) -> Tensor:
        """x [B,C,h,w] -> [B,C',h,w], before the step to the next resolution."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(x))
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.block1 = ResBlock(channels, channels, groups)
        self.attention = SpatialAttention(channels, groups)
        self.block2 = ResBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,h,w] -> the same shape."""
        return self.block2(self.attention(self.block1(x)))


class Pyramid(nn.Module):
    """Images [B,channels,H,W] in [-1,1] -> features of the first convolution and of each level."""

    def __init__(self, config: VQVAEConfig, entering: int = 3):
        super().__init__()
        channels, groups = config.channels, config.groups
        lowest = len(channels) - 1
        self.patch = config.patch
        self.conv_in = nn.Conv2d(entering * self.patch**2, channels[0], 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                channels[max(i - 1, 0)],
                channels[i],
                config.res_blocks,
                groups,
                attend=i == lowest,
                step=Downsample(channels[i]) if i < lowest else nn.Identity(),
            )
            for i in range(len(channels))
        )

    def enter(self, x: Tensor) -> Tensor:
        """The first convolution."""
        return self.conv_in(split_pixels(x, self.patch))

    def features(self, x: Tensor) -> list[Tensor]:
        """The features that the bridge reads: of the first convolution, then of each level before
        its downsampling."""
        features = [self.enter(x)]
        h = features[0]
        for level in self.levels:
            features.append(level.refine(h))
            h = level.step(features[-1])
        return features


class Encoder(Pyramid):
    """x [B,3,H,W] in [-1,1] -> latent [B,Cz,H/stride,W/stride]."""

    def __init__(self, config: VQVAEConfig):
        super().__init__(config)
        channels = config.channels
        self.middle = Middle(channels[-1], config.groups)
        self.norm_out = group_norm(channels[-1], config.groups)
        self.conv_out = nn.Conv2d(channels[-1], config.latent_channels, 3, padding=1)
        self.shortcut = Fold(config.latent_channels, config.stride) if config.shortcut else None

    def latent(self, lowest: Tensor, x: Tensor) -> Tensor:
        """The latent from the lowest level's feature and the images."""
        z = final(self.norm_out, self.conv_out, self.middle(lowest))
        return z if self.shortcut is None else z + self.shortcut(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B,3,H,W] -> latent [B,Cz,h,w]."""
        h = self.enter(x)
        for level in self.levels:
            h = level.step(level.refine(h))
        return self.latent(h, x)
