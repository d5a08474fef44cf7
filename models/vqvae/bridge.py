# The VAE-bridge of GS-VAR: encoder features of the render enter the decoder through gates, and a
# mask blends the decoded image with the render.
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.conv import (
    ResBlock,
    final,
    group_norm,
    join_pixels,
    split_pixels,
    zero,
    zero_output,
)
from models.vqvae.config import VQVAEConfig
from models.vqvae.encoder import Encoder, Pyramid

CLOSED = -4.0  # a gate's logit at an identity start: 2 % open, so that gradients flow


class Gate(nn.Module):
    """h, feature -> h mixed with content made from both, by a gate made from both."""

    def __init__(self, channels: int, out_channels: int, groups: int):
        super().__init__()
        self.content = ResBlock(channels, out_channels, groups)
        self.weight = ResBlock(channels, out_channels, groups)

    def forward(self, h: Tensor, feature: Tensor) -> Tensor:
        """h [B,C,h,w] and a feature of its size -> [B,C,h,w]."""
        both = torch.cat((h, feature), 1)
        return torch.lerp(h, self.content(both), self.weight(both).sigmoid())


class Blend(nn.Module):
    """A mask per pixel and channel: 1 keeps the decoded image, 0 the render."""

    def __init__(self, width: int, groups: int, patch: int):
        super().__init__()
        self.patch = patch
        self.conv_in = nn.Conv2d(9 * patch**2, width, 7, padding=3)
        self.block = ResBlock(width, width, groups)
        self.conv_mid = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, 3 * patch**2, 1)

    def forward(self, decoded: Tensor, image: Tensor) -> Tensor:
        """Decoded image and render [B,3,H,W] -> their blend [B,3,H,W], in the render's type."""
        both = torch.cat((decoded, image, (decoded - image).abs()), 1)
        both = split_pixels(both, self.patch).to(self.conv_in.weight.dtype)
        h = self.block(self.conv_in(both))
        mask = join_pixels(self.conv_out(F.relu(self.conv_mid(h))), self.patch).sigmoid()
        return torch.lerp(image, decoded.to(image.dtype), mask.to(image.dtype))


class Fine(nn.Module):
    """The bridge's last level, at full resolution, which the decoder of a tokenizer with `patch` >
    1 does not reach: images read [B,n,H,W], the blended image and the decoder's last features -> a
    change [B,3,H,W]."""

    def __init__(self, config: VQVAEConfig, entering: int):
        super().__init__()
        width, groups = config.fine_width, config.groups
        self.patch = config.patch
        self.conv_in = nn.Conv2d(entering + 3, width, 3, padding=1)
        self.lift = nn.Conv2d(config.channels[0], width * self.patch**2, 1)
        self.blocks = nn.Sequential(*(ResBlock(width, width, groups) for _ in range(2)))
        self.norm_out = group_norm(width, groups)
        self.conv_out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, pictures: Tensor, fixed: Tensor, h: Tensor) -> Tensor:
        """Images read [B,n,H,W], the blended image [B,3,H,W] and decoder features [B,C,h,w] -> the
        change [B,3,H,W]."""
        entering = torch.cat((pictures, fixed.to(pictures)), 1)
        x = self.conv_in(entering) + join_pixels(self.lift(h), self.patch)
        return final(self.norm_out, self.conv_out, self.blocks(x))


class Bridge(nn.Module):
    """Gates at every level of the decoder and at pixel level, and the final blend (58 M
    parameters at width 160).

    A guided bridge (`config.guided_bridge`) has its own encoder, `reader`, for render, guide and
    alpha together, and adds a `change`, computed from the decoder's last features, to the blended
    image: fine details of the render need not be redrawn.
    """

    def __init__(self, config: VQVAEConfig):
        super().__init__()
        channels, groups = config.channels, config.groups
        entering = channels[1:] + channels[-1:]  # the decoder's channels as it enters each level
        self.levels = nn.ModuleList(
            Gate(h + feature, h, groups) for h, feature in zip(entering, channels, strict=True)
        )
        self.pixels = Gate(2 * channels[0], channels[0], groups)
        self.blend = Blend(channels[0], groups, config.patch)
        self.reader, self.change, self.fine = None, None, None
        if config.guided_bridge:
            entering = 7 if config.render_alpha else 6
            self.reader = Pyramid(config, entering)
            self.change = nn.Conv2d(channels[0], 3 * config.patch**2, 3, padding=1)
            if config.fine_width:
                self.fine = Fine(config, entering)

    def read(self, pictures: Tensor) -> list[Tensor]:
        """A guided bridge's features of render, guide and alpha [B,n,H,W], and behind them these
        images themselves if it has a level at full resolution."""
        features = self.reader.features(pictures)
        return features if self.fine is None else [*features, pictures]

    def finish(
        self, decoded: Tensor, image: Tensor, h: Tensor, features: Sequence[Tensor]
    ) -> Tensor:
        """The image [B,3,H,W] from the decoded one, the render, the decoder's last features and
        those of `read`."""
        out = self.blend(decoded, image)
        if self.change is not None:
            out = out + join_pixels(self.change(h), self.blend.patch)
        return out if self.fine is None else out + self.fine(features[-1], out, h)

    @torch.no_grad()
    def read_like(self, encoder: Encoder) -> None:
        """Initialise a guided bridge's reader from the encoder, applied to the mean of its two
        images."""
        state = encoder.state_dict()
        pictures = state["conv_in.weight"].repeat(1, 2, 1, 1) / 2
        more = self.reader.conv_in.in_channels - pictures.shape[1]
        state["conv_in.weight"] = F.pad(pictures, (0, 0, 0, 0, 0, more))  # alpha says nothing yet
        self.reader.load_state_dict({k: state[k] for k in self.reader.state_dict()})

    @torch.no_grad()
    def add_alpha(self) -> None:
        """Let a guided bridge's reader read alpha, with weights of zero at first."""
        conv, more = self.reader.conv_in, self.reader.patch**2
        conv.weight = nn.Parameter(F.pad(conv.weight, (0, 0, 0, 0, 0, more)))
        conv.in_channels += more
        if self.fine is not None:
            conv = self.fine.conv_in
            fixed = conv.weight[:, -3:]  # the fixed picture comes last
            rest = F.pad(conv.weight[:, :-3], (0, 0, 0, 0, 0, 1))
            conv.weight = nn.Parameter(torch.cat((rest, fixed), 1))
            conv.in_channels += 1

    @torch.no_grad()
    def add_fine(self, config: VQVAEConfig) -> None:
        """Add the level at full resolution that `config` asks for; its output is zero at first."""
        like = self.change.weight
        self.fine = Fine(config, self.reader.conv_in.in_channels // self.reader.patch**2)
        self.fine.to(like.device, like.dtype)
        zero(self.fine.conv_out)

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Close every gate and keep the render in the blend, so that a fresh bridge returns the
        render (to 2 %). A guided one's gates start half open, since its change, on which they act,
        starts at zero."""
        for gate in (*self.levels, self.pixels):
            zero_output(gate.weight, CLOSED if self.change is None else 0.0)
        for conv in (self.change, self.fine and self.fine.conv_out):
            if conv is not None:
                zero(conv)
        self.blend.conv_out.weight.zero_()
        self.blend.conv_out.bias.fill_(CLOSED)
