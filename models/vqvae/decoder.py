# The VQ-VAE's decoder: latent -> image, with the bridge between its levels where one is given.
from collections.abc import Sequence

from torch import Tensor, nn

from models.layers.conv import Upsample, group_norm, join_pixels, norm_silu
from models.vqvae.bridge import Bridge
from models.vqvae.config import VQVAEConfig
from models.vqvae.encoder import Level, Middle
from models.vqvae.shortcut import Unfold


class Decoder(nn.Module):
    """Latent [B,Cz,h,w] -> image [B,3,h*stride,w*stride], not clamped."""

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        channels, groups = config.channels, config.groups
        lowest = len(channels) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, channels[-1], 3, padding=1)
        self.middle = Middle(channels[-1], groups)
        self.levels = nn.ModuleList(
            Level(
                channels[min(i + 1, lowest)],
                channels[i],
                config.res_blocks + 1,
                groups,
                attend=i == lowest,
                step=Upsample(channels[i]) if i > 0 else nn.Identity(),
            )
            for i in range(len(channels))
        )
        self.norm_out = group_norm(channels[0], groups)
        self.patch = config.patch
        self.conv_out = nn.Conv2d(channels[0], 3 * self.patch**2, 3, padding=1)
        self.shortcut = Unfold(config.latent_channels, config.stride) if config.shortcut else None

    def forward(
        self,
        z: Tensor,
        bridge: Bridge | None = None,
        image: Tensor | None = None,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """With a bridge: `image` [B,3,H,W] is what it blends with, `features` what it reads
        (`VQVAE.features`)."""
        h = self.middle(self.conv_in(z))
        for i in reversed(range(len(self.levels))):
            if bridge is not None:
                h = bridge.levels[i](h, features[i + 1])
            h = self.levels[i].step(self.levels[i].refine(h))
        if bridge is not None:
            h = bridge.pixels(h, features[0])
        h = norm_silu(self.norm_out, h)
        out = join_pixels(self.conv_out(h), self.patch)
        if self.shortcut is not None:
            out = out + self.shortcut(z)
        return out if bridge is None else bridge.finish(out, image, h, features)
