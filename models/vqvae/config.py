# Sizes of the VQ-VAE.
from dataclasses import dataclass


@dataclass(frozen=True)
class VQVAEConfig:
    """Sizes of a multi-scale residual VQ-VAE. The defaults are VAR's and VARSR's (109 M
    parameters, 16 pixels a latent)."""

    width: int = 160
    """Channels of the first level."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Channels at each level, in widths; each level but the last halves the size."""
    res_blocks: int = 2
    """Residual blocks a level in the encoder; the decoder has one more."""
    groups: int = 32
    """Groups of the group norms; must divide every level's channels."""
    latent_channels: int = 32
    vocabulary: int = 4096
    phis: int = 4
    """Convolutions that follow the upsampled code vectors, shared between neighbouring scales."""
    phi_on_last: bool = False
    """Apply phi to the last scale too, as VAR's own tokenizer does; VARSR and GS-VAR do not."""
    patch: int = 1
    """Side of the squares of pixels that are folded into channels at input and output. With 2 the
    first level, the most expensive one, works at half the resolution and a quarter of the cost."""
    shortcut: bool = False
    """A linear path beside encoder and decoder, initialised as a block cosine transform while the
    networks' last convolutions start at zero: what the norms remove, above all colour, is there
    from the first step."""
    guided_bridge: bool = False
    """The bridge reads a second image, a photo warped into the render's view, with its own
    encoder."""
    render_alpha: bool = False
    """That encoder reads the render's opacity too, which tells black surfaces from empty space."""
    fine_width: int = 0
    """Channels of a last level of the guided bridge at full resolution; 0: none."""

    @property
    def stride(self) -> int:
        """Pixels a latent cell, along each side."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, from the finest down."""
        return tuple(self.width * m for m in self.multipliers)
