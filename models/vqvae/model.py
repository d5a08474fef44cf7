# The VQ-VAE as a whole: images to tokens, latents to images.
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.vqvae.bridge import Bridge
from models.vqvae.config import VQVAEConfig
from models.vqvae.decoder import Decoder
from models.vqvae.encoder import Encoder
from models.vqvae.quantizer import Grids, Quantizer, Tokens
from models.vqvae.shortcut import cosine_basis


def exact(x: Tensor) -> Tensor:
    """x in float32 or better, whatever the networks compute in: sums of codes must not drift."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class VQVAE(nn.Module):
    """Multi-scale residual VQ-VAE. Images are [B,3,H,W] in [-1,1], H and W multiples of
    `config.stride`.

    `bridge` is None until `add_bridge` is called or bridge weights are loaded.
    """

    def __init__(self, config: VQVAEConfig, bridge: bool = False):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantizer = Quantizer(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(
            config.latent_channels, config.latent_channels, 3, padding=1
        )
        if config.shortcut:
            self.start_as_transform()
        self.bridge = Bridge(config) if bridge else None

    @torch.no_grad()
    def start_as_transform(self) -> None:
        """The shortcuts' start: latents are the lowest coefficients of each block, and decode to
        what those say."""
        basis = cosine_basis(self.config.latent_channels, self.config.stride)
        self.encoder.shortcut.start(basis)
        self.decoder.shortcut.start(basis)
        for conv in (self.encoder.conv_out, self.decoder.conv_out):
            conv.weight.zero_()
            conv.bias.zero_()
        for conv in (self.quant_conv, self.post_quant_conv, *self.quantizer.phis):
            nn.init.dirac_(conv.weight)
            conv.bias.zero_()

    def add_bridge(self, identity: bool = True) -> None:
        """A fresh bridge; `identity` makes it return the render at the start, else PyTorch's own
        random start."""
        weight = self.post_quant_conv.weight
        self.bridge = Bridge(self.config).to(weight.device, weight.dtype)
        if self.config.guided_bridge:
            self.bridge.read_like(self.encoder)
        if identity:
            self.bridge.start_as_identity()

    def latent(self, images: Tensor) -> Tensor:
        """Continuous latent [B,Cz,h,w]."""
        return self.quant_conv(exact(self.encoder(images.to(self.encoder.conv_in.weight.dtype))))

    def tokens(self, images: Tensor, grids: Grids) -> Tokens:
        """Token maps of images at the scales `grids`."""
        return self.quantizer.encode(self.latent(images), grids)

    def quantized(self, images: Tensor, grids: Grids) -> Tensor:
        """f_hat [B,Cz,h,w] of the images' own tokens."""
        return self.quantizer.partial_sums(self.tokens(images, grids).indices, grids)[-1]

    def read_alpha(self) -> None:
        """Let the bridge read alpha (`render_alpha`). ValueError if it is not a guided one."""
        if not self.config.guided_bridge:
            raise ValueError("only a bridge that reads warped references can read alpha")
        if not self.config.render_alpha:
            self.config = replace(self.config, render_alpha=True)
            if self.bridge is not None:
                self.bridge.add_alpha()

    def add_fine(self, width: int) -> None:
        """Add a level at full resolution, `width` channels wide, to the bridge. Raises ValueError
        if it is not a guided one or has such a level of another width."""
        config = replace(self.config, fine_width=width)
        if not self.config.guided_bridge:
            raise ValueError("only a bridge that reads warped references has a level of its own")
        if self.config.fine_width not in (0, width):
            raise ValueError(f"the bridge's last level is {self.config.fine_width} wide already")
        if self.config != config:
            self.config = config
            if self.bridge is not None:
                self.bridge.add_fine(config)

    def features(
        self, render: Tensor, guide: Tensor | None = None, alpha: Tensor | None = None
    ) -> list[Tensor]:
        """What the bridge reads of a render [B,3,H,W]: the encoder's features; a guided one's own
        of render, guide [B,3,H,W] (without one, the render again) and, with `render_alpha`, alpha
        [B,1,H,W] from -1 where nothing is to 1 (0: not known)."""
        if not self.config.guided_bridge:
            return self.encoder.features(render)
        pictures = [render, render if guide is None else guide.to(render)]
        if self.config.render_alpha:
            unknown = torch.zeros_like(render[:, :1])
            pictures.append(unknown if alpha is None else alpha.to(render))
        return self.bridge.read(torch.cat(pictures, 1))

    def decode(
        self,
        f_hat: Tensor,
        render: Tensor | None = None,
        *,
        bridge: bool = False,
        guide: Tensor | None = None,
        alpha: Tensor | None = None,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """f_hat [B,Cz,h,w] -> images [B,3,h*stride,w*stride], not clamped.

        With `bridge`, the render [B,3,H,W] is fused in, and a guided bridge's `guide` and `alpha`
        (see `features`, which are computed unless given). Raises ValueError if a bridge is asked
        for and there is none.
        """
        dtype = self.decoder.conv_in.weight.dtype
        z = self.post_quant_conv(f_hat).to(dtype)
        if not bridge:
            return self.decoder(z)
        if self.bridge is None:
            raise ValueError(
                "these weights have no VAE-bridge: load a stage-2 file, or leave the bridge off"
            )
        if features is None:
            features = self.features(render.to(dtype), guide, alpha)
        # blended as exactly as it came: rounding it would change pixels that nothing else does
        render = render.to(torch.promote_types(render.dtype, dtype))
        return self.decoder(z, self.bridge, render, features)

    def compile_parts(self, **options) -> None:
        """torch.compile encoder, decoder with bridge, and what the bridge reads; `options` are
        torch.compile's."""
        self.encoder.compile(**options)
        self.decoder.compile(**options)
        guided = self.bridge is not None and self.bridge.reader is not None
        for pyramid in (self.encoder, *([self.bridge.reader] if guided else [])):
            pyramid.features = torch.compile(pyramid.features, **options)

    def forward(self, images: Tensor, grids: Grids) -> tuple[Tensor, Tokens]:
        """Images through the tokens and back: reconstruction (not clamped) and tokens."""
        tokens = self.tokens(images, grids)
        return self.decode(self.quantizer.partial_sums(tokens.indices, grids)[-1]), tokens

    @torch.no_grad()
    def reconstruct(self, images: Tensor, grids: Grids) -> Tensor:
        """Images [B,3,H,W] through the tokens and back, clamped to [-1,1]: the best that any
        prediction of tokens can reach."""
        return self(images, grids)[0].clamp(-1, 1)
