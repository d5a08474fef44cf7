# Convolutional blocks of the VQ-VAE and its bridge (the design of latent diffusion's autoencoder).
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import winograd
from models.layers.attention import attention


class ResBlock(nn.Module):
    """Norm, SiLU, 3x3, twice, plus the input (through a 1x1 where the channels change): [B,C,h,w]
    -> [B,C',h,w]."""

    def __init__(self, channels: int, out_channels: int, groups: int):
        super().__init__()
        self.norm1 = group_norm(channels, groups)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels, groups)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,h,w] -> [B,C',h,w]; on the CPU, without gradients, by Winograd's convolutions."""
        if winograd.usable(x, self.conv1) and winograd.usable(x, self.conv2):
            h = winograd.norm_silu_conv(x, self.norm1, self.conv1)
            return winograd.norm_silu_conv(h, self.norm2, self.conv2, self.shortcut(x))
        return self.plain(x)

    def plain(self, x: Tensor) -> Tensor:
        """The same by torch's own convolutions."""
        h = self.conv1(norm_silu(self.norm1, x))
        return self.shortcut(x) + self.conv2(norm_silu(self.norm2, h))


class SpatialAttention(nn.Module):
    """Single-head attention over all places of a feature map, with a residual: [B,C,h,w] -> the
    same."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,h,w] -> the same shape."""
        B, C, h, w = x.shape
        tokens = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(B, 1, h * w, 3 * C)
        out = attention(*tokens.split(C, -1), scale=C**-0.5)
        return x + self.proj(out.reshape(B, h, w, C).permute(0, 3, 1, 2))


class Downsample(nn.Module):
    """Half the size: 3x3 with stride 2, padded on the right and below only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,h,w] -> [B,C,h/2,w/2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the size: nearest neighbour, then 3x3."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,h,w] -> [B,C,2h,2w]; on the CPU, without gradients, in one step."""
        if not torch.is_grad_enabled() and x.device.type == "cpu":
            return winograd.upsample_conv(x, self.conv)
        return self.plain(x)

    def plain(self, x: Tensor) -> Tensor:
        """The same by torch's own operations."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class GroupNorm(nn.GroupNorm):
    """torch's, but for float32 channels-last tensors on the CPU, where torch's loses two digits."""

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,h,w] -> the same shape."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or x.is_contiguous():
            return super().forward(x)
        B, C, h, w = x.shape
        grouped = x.permute(0, 2, 3, 1).reshape(B, h * w, self.num_groups, -1)
        variance, mean = torch.var_mean(grouped, (1, 3), correction=0, keepdim=True)  # [B,1,G,1]
        scale = (variance + self.eps).rsqrt() * self.weight.view(1, 1, self.num_groups, -1)
        shift = self.bias.view(1, 1, self.num_groups, -1) - mean * scale
        return torch.addcmul(shift.view(B, C, 1, 1), x, scale.view(B, C, 1, 1))


def split_pixels(x: Tensor, patch: int) -> Tensor:
    """[B,C,H,W] -> [B,C*patch^2,H/patch,W/patch]: each square of pixels as channels."""
    return x if patch == 1 else F.pixel_unshuffle(x, patch)


def join_pixels(x: Tensor, patch: int) -> Tensor:
    """The inverse of `split_pixels`."""
    return x if patch == 1 else F.pixel_shuffle(x, patch)


def group_norm(channels: int, groups: int) -> GroupNorm:
    """The norm of latent diffusion's autoencoder: eps 1e-6."""
    return GroupNorm(groups, channels, eps=1e-6)


def final(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Norm, SiLU and convolution, as every encoder and decoder ends."""
    return conv(norm_silu(norm, x))


def norm_silu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """SiLU of the norm; fused on the CPU."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16):
        return winograd.norm_silu(x, norm)
    return F.silu(norm(x))


@torch.no_grad()
def zero(conv: nn.Conv2d) -> None:
    """Make a convolution's output zero."""
    conv.weight.zero_()
    conv.bias.zero_()


@torch.no_grad()
def zero_output(block: ResBlock, bias: float) -> None:
    """Make a block's output the constant `bias`: the start of a gate that training opens."""
    for conv in (block.conv2, block.shortcut):
        if isinstance(conv, nn.Conv2d):
            zero(conv)
    block.conv2.bias.fill_(bias)
