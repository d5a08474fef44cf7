# The prefix encoder: an image as the tokens that come before all scales.
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.layers.conv import split_pixels


class PrefixEncoder(nn.Module):
    """Images [B,3,H,W] in [-1,1] -> tokens [B, H/stride * W/stride, width], row-major."""

    def __init__(self, channels: Sequence[int], width: int, patch: int = 1):
        super().__init__()
        self.patch = patch
        self.conv_in = nn.Conv2d(3 * patch**2, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for c, wider in pairwise(channels):
            self.blocks += [
                nn.Conv2d(c, c, 3, padding=1),
                nn.Conv2d(c, wider, 3, padding=1, stride=2),
            ]
        self.conv_out = nn.Conv2d(channels[-1], width, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] -> tokens [B,L,C]."""
        h = F.silu(self.conv_in(split_pixels(images, self.patch)))
        for conv in self.blocks:
            h = F.silu(conv(h))
        return rearrange(self.conv_out(h), "b c h w -> b (h w) c")
