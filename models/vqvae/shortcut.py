# A linear path beside the encoder and the decoder: blocks of pixels to latents and back.
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 1 / 4  # of the cosine coefficients of 16x16 pixels in [-1,1], so that a latent is about 1


class Fold(nn.Conv2d):
    """Images [B,3,H,W] -> [B,Cz,H/stride,W/stride], each cell from its own block of pixels."""

    def __init__(self, channels: int, stride: int):
        super().__init__(3, channels, stride, stride, bias=False)

    def start(self, basis: Tensor) -> None:
        """As the block transform with this basis [Cz,3,stride,stride]."""
        self.weight.data.copy_(basis * self.factor)

    @property
    def factor(self) -> float:
        """By how much the basis is scaled, so that a latent is about 1."""
        return SCALE * 16 / self.stride[0]


class Unfold(nn.Module):
    """[B,Cz,h,w] -> images [B,3,h*stride,w*stride], each block of pixels from its own cell."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(channels, 3 * stride**2, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """z [B,Cz,h,w] -> [B,3,H,W]."""
        return F.pixel_shuffle(self.conv(z), self.stride)

    def start(self, basis: Tensor) -> None:
        """As the inverse of `Fold`'s start."""
        factor = SCALE * 16 / self.stride
        self.conv.weight.data.copy_(basis.flatten(1).T[..., None, None] / factor)


def cosine_basis(channels: int, size: int) -> Tensor:
    """The first cosine patterns of a coloured block, orthonormal: [channels,3,size,size].

    Ordered by how much of a photo they carry: first the means of brightness and colour, then
    brightness before colour and long waves before short.
    """
    n = (torch.arange(size, dtype=torch.float64) + 0.5) * math.pi / size
    waves = torch.stack([(k * n).cos() * math.sqrt((2 if k else 1) / size) for k in range(size)])
    colours = torch.tensor([[1, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    colours /= colours.norm(dim=1, keepdim=True)
    # a photo's power falls with the square of the frequency; colour has a tenth of it
    order = sorted(
        (i + j > 0, (i * i + j * j) * (10 if c else 1), c, i, j)
        for c in range(3)
        for i in range(size)
        for j in range(size)
    )
    patterns = [
        colours[c][:, None, None] * waves[i][:, None] * waves[j][None, :]
        for _, _, c, i, j in order[:channels]
    ]
    return torch.stack(patterns).float()
