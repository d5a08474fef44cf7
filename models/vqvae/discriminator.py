# A patch discriminator (pix2pix, arXiv 1611.07004), for training the tokenizer adversarially.
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.conv import group_norm


class Discriminator(nn.Module):
    """Images [B,3,H,W] in [-1,1] -> how real each patch looks, [B,1,H/8,W/8] or so; hinge loss."""

    def __init__(self, width: int = 64, groups: int = 16, layers: int = 3):
        super().__init__()
        self.conv_in = nn.Conv2d(3, width, 4, 2, 1)
        channels = [width * min(2**i, 8) for i in range(layers)]
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, wider, 4, 2 if i < layers - 2 else 1, 1, bias=False),
                group_norm(wider, groups),
                nn.LeakyReLU(0.2),
            )
            for i, (c, wider) in enumerate(pairwise(channels))
        )
        self.conv_out = nn.Conv2d(channels[-1], 1, 4, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] -> scores [B,1,h,w]."""
        h = F.leaky_relu(self.conv_in(images), 0.2)
        for block in self.blocks:
            h = block(h)
        return self.conv_out(h)


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss for its answers to real and generated images."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
