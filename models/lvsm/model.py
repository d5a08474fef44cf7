# LVSM, decoder-only (arXiv 2410.17242): the tokens of all photos and of one target see each other
# in every block.
from functools import partial

import torch
from torch import Tensor, nn

from models.layers.blocks import FeedForward, PreNormBlock
from models.layers.multihead import SelfAttention
from models.layers.patches import patchify, unpatchify
from models.layers.qk_norm import RMSNorm
from models.layers.rays import CHANNELS
from models.lvsm.config import LVSMConfig

# B scene, N photo, M target, P tokens of a view, C channels
COLORS = 3

norm = partial(nn.LayerNorm, bias=False)


class LVSM(nn.Module):
    """Photos with their rays, and rays of targets -> pictures; nothing can be kept between
    targets."""

    def __init__(self, config: LVSMConfig):
        super().__init__()
        self.config = config
        width, rays, pixels = config.width, CHANNELS["default"], config.patch**2
        self.photo_tokens = nn.Linear(pixels * (COLORS + rays), width, bias=False)
        self.target_tokens = nn.Linear(pixels * rays, width, bias=False)
        self.norm_tokens = norm(width)
        self.blocks = nn.ModuleList(
            PreNormBlock(
                width,
                SelfAttention(width, config.heads, RMSNorm(), qv_bias=False, proj_bias=False),
                FeedForward(width, 4 * width, bias=False),
                norm=norm,
            )
            for _ in range(config.depth)
        )
        self.norm = norm(width)
        self.colors = nn.Linear(width, pixels * COLORS, bias=False)

    def forward(
        self,
        photos: Tensor,
        photo_rays: Tensor,
        target_rays: Tensor,
        streams: list[Tensor] | None = None,
    ) -> Tensor:
        """Pictures [B,M,3,H,W] in [0,1] of photos [B,N,3,H,W] in [-1,1] with rays [B,N,6,H,W] and
        targets' rays [B,M,6,H,W]. The tokens [B,M,(N+1) P,C], normalised, and the stream after
        each block are appended to `streams`."""
        patch, M = self.config.patch, target_rays.shape[1]
        given = self.photo_tokens(patchify(torch.cat((photos, photo_rays), 2), patch)).flatten(1, 2)
        wanted = self.target_tokens(patchify(target_rays, patch))
        given = given[:, None].expand(-1, M, -1, -1)
        x = self.norm_tokens(torch.cat((given, wanted), 2))
        for block in self.blocks:
            if streams is not None:
                streams.append(x)
            x = block(x)
        if streams is not None:
            streams.append(x)
        tokens = self.colors(self.norm(x[:, :, -wanted.shape[2] :])).sigmoid()
        size = target_rays.shape[-1], target_rays.shape[-2]
        return unpatchify(tokens, size, patch)
