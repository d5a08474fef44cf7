# Efficient-LVSM (arXiv 2602.06478): every photo goes through an encoder of its own; targets, rays
# without a picture, look at all photos' streams, layer by layer (co-refinement).
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.efficient_lvsm.config import EfficientLVSMConfig
from models.layers.blocks import FeedForward, PreNormBlock
from models.layers.multihead import CrossAttention, SelfAttention
from models.layers.patches import patchify, unpatchify
from models.layers.qk_norm import RMSNorm
from models.layers.rays import CHANNELS

# B scene, N photo, M target, P tokens of a view, C channels, H heads, d channels a head
COLORS = 3
Context = tuple[Tensor, Tensor]
"""Keys and values of one layer: [B,N,H,P,d] of photos apart, or [B,H,L,d] of what targets see."""

norm = partial(nn.LayerNorm, elementwise_affine=False)


class EfficientLVSM(nn.Module):
    """Photos with their rays -> keys and values for each layer; rays of targets -> pictures.

    A photo's keys and values depend on nothing else, so that they can be kept (`SlotCache`), and a
    photo taken away as if it had never been there; targets do not see each other.
    """

    def __init__(self, config: EfficientLVSMConfig):
        super().__init__()
        self.config = config
        width, rays = config.width, CHANNELS[config.plucker]
        pixels = config.patch**2
        self.photo_tokens = nn.Linear(pixels * (COLORS + rays), width, bias=False)
        self.target_tokens = nn.Linear(pixels * rays, width, bias=False)
        self.encoder = nn.ModuleList(make_block(config) for _ in range(config.depth))
        self.decoder = nn.ModuleList(make_block(config, cross=True) for _ in range(config.depth))
        self.norm = norm(width)
        self.colors = nn.Linear(width, pixels * COLORS, bias=False)
        self.recomputed = False
        """Layers are computed again in the backward pass instead of keeping what it needs."""

    def forward(self, photos: Tensor, photo_rays: Tensor, target_rays: Tensor) -> Tensor:
        """Pictures [B,M,3,H,W] in [0,1] of photos [B,N,3,H,W] in [-1,1] with rays [B,N,C,H,W] and
        targets' rays [B,M,C,H,W]."""
        return self.decode(target_rays, join(self.encode(photos, photo_rays)))

    def encode(
        self, photos: Tensor, rays: Tensor, streams: list[Tensor] | None = None
    ) -> list[Context]:
        """Keys and values [B,N,H,P,d] of each layer, of photos [B,N,3,H,W] in [-1,1] with rays
        [B,N,C,H,W]. The stream [B,N,P,C] after each layer is appended to `streams`."""
        x = self.photo_tokens(patchify(torch.cat((photos, rays), 2), self.config.patch))
        contexts = []
        for encoder, decoder in zip(self.encoder, self.decoder, strict=True):
            x = self.apply_block(encoder, x)
            if streams is not None:
                streams.append(x)
            context = decoder.cross.project(decoder.norm_cross(x).flatten(0, 1))
            contexts.append(tuple(t.unflatten(0, x.shape[:2]) for t in context))
        return contexts

    def decode(
        self, rays: Tensor, contexts: Sequence[Context], streams: list[Tensor] | None = None
    ) -> Tensor:
        """Pictures [B,M,3,H,W] in [0,1] for rays [B,M,C,H,W]; `contexts` are each layer's keys and
        values [B,H,L,d]. The stream [B,M,P,C] after each layer is appended to `streams`."""
        x = self.target_tokens(patchify(rays, self.config.patch))
        for block, context in zip(self.decoder, contexts, strict=True):
            x = self.apply_block(block, x, context)
            if streams is not None:
                streams.append(x)
        size = rays.shape[-1], rays.shape[-2]
        return unpatchify(self.colors(self.norm(x)).sigmoid(), size, self.config.patch)

    def apply_block(self, block: PreNormBlock, *inputs: Tensor | Context) -> Tensor:
        """A layer's output."""
        if self.recomputed and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


def make_block(config: EfficientLVSMConfig, cross: bool = False) -> PreNormBlock:
    """A layer of the encoder, or (`cross`) of the decoder; no linear layer has a bias."""
    sizes, plain = (config.width, config.heads, RMSNorm()), {"proj_bias": False}
    return PreNormBlock(
        config.width,
        SelfAttention(*sizes, qv_bias=False, **plain),
        FeedForward(config.width, 4 * config.width, bias=False),
        cross=CrossAttention(*sizes, **plain) if cross else None,
        norm=norm,
    )


def join(contexts: Sequence[Context]) -> list[Context]:
    """Keys and values [B,N,H,P,d] of photos apart as those of all together, [B,H,N P,d]."""
    return [tuple(t.transpose(1, 2).flatten(2, 3) for t in context) for context in contexts]


@torch.no_grad()
def initialize(model: EfficientLVSM, *, deepens: bool = True, encoder: bool = False) -> None:
    """First weights of a training, as the original's: normal, of deviation 0.02 for tokens and
    colours, and 0.02 / sqrt(2 layer) in the decoder (of the last layer everywhere unless it
    `deepens`). The encoder's are torch's own unless asked for."""
    for layer in (model.photo_tokens, model.target_tokens, model.colors):
        nn.init.normal_(layer.weight, std=0.02)
    for blocks in (model.decoder, model.encoder) if encoder else (model.decoder,):
        for number, block in enumerate(blocks, 1):
            std = 0.02 / (2 * (number if deepens else len(blocks))) ** 0.5
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=std)
