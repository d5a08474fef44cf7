# Sizes of GS-VAR, and its presets.
from dataclasses import dataclass, fields
from functools import cached_property

from models.gsvar.diffusion import Sampler
from models.var.scales import ScaleSchedule
from models.var.segments import RefAttends
from models.vqvae.config import VQVAEConfig


@dataclass(frozen=True)
class GSVARConfig:
    """Every size of a GS-VAR model. The defaults are the original's at depth 24."""

    depth: int = 24
    """Transformer blocks."""
    width: int = 1536
    heads: int = 24
    patch_nums: str = "1_2_3_4_6_9_13_18_24_32"
    """Tokens along each side of every scale; rows x columns where they differ: 1_2x3_..._18x32."""
    prefix_channels: tuple[int, ...] = (32, 128, 256, 512, 1536)
    """Channels of the prefix encoder; each step halves the size, so there is one more than
    halvings."""
    refiner_width: int = 1024
    refiner_blocks: int = 6
    sampler: Sampler = "ancestral"
    """How the refiner samples, in stage 2 and at inference unless asked otherwise; none: it is
    neither trained nor used."""
    labels: int = 2
    """Label embeddings: 0 is the render's, 1 the reference's."""
    mixing_blocks: tuple[int, ...] | None = None
    """Blocks in which render and references see each other; None is all."""
    ref_attends: RefAttends = "all"
    """What reference tokens see: "all" as the original, or "self", so that a reference's keys can
    be reused."""
    shared_adaln: bool = False
    qk_norm: bool = True
    drop_path: float = 0.1
    """Stochastic depth of the last block in training, growing from 0 at the first."""
    rope_extent: float = 32.0
    """Length of the latent's longer side in rotary positions."""
    vqvae_width: int = 160
    vqvae_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    vqvae_blocks: int = 2
    vqvae_groups: int = 32
    vqvae_patch: int = 1
    """Side of the squares of pixels that are folded into channels, in the prefix encoder too."""
    vqvae_shortcut: bool = False
    """A linear path beside the tokenizer's networks (`models.vqvae.shortcut`)."""
    latent_channels: int = 32
    vocabulary: int = 4096
    phi_on_last: bool = False
    """phi on the last scale too: plain VAR tokenizers."""
    render_prior: bool = False
    """The transformer starts from the render's own tokens (`models.gsvar.prior`). Not in the
    original."""
    warped_references: bool = False
    """References are warped into the render's view, and the bridge reads the first one together
    with the render. Not in the original, which takes unwarped photos."""
    render_alpha: bool = False
    """The bridge reads the render's opacity too; wants warped_references. Not in the original."""
    fine_width: int = 0
    """Channels of the bridge's last level, at full resolution; wants warped_references. 0: none,
    as the original, whose decoder ends at full resolution."""

    def __post_init__(self):
        object.__setattr__(self, "patch_nums", ScaleSchedule.of(self.patch_nums).text)
        for field in fields(self):  # lists arrive from JSON
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise ValueError(
                f"width {self.width} must split into {self.heads} heads of a width divisible by 4"
            )
        if len(self.prefix_channels) != len(self.vqvae_multipliers):
            raise ValueError(
                "prefix_channels and vqvae_multipliers must have the same number of steps"
            )
        if self.vqvae_patch < 1:
            raise ValueError(f"vqvae_patch must be at least 1, not {self.vqvae_patch}")
        if any(c % self.vqvae_groups for c in self.vqvae.channels):
            raise ValueError(f"vqvae_groups {self.vqvae_groups} must divide {self.vqvae.channels}")
        if self.mixing_blocks is not None and not set(self.mixing_blocks) <= set(range(self.depth)):
            raise ValueError(
                f"mixing_blocks {self.mixing_blocks} names blocks outside 0..{self.depth - 1}"
            )
        if self.render_alpha and not self.warped_references:
            raise ValueError("render_alpha wants warped_references: their bridge reads it")
        if self.fine_width and not self.warped_references:
            raise ValueError("fine_width wants warped_references: their bridge has that level")
        if self.fine_width < 0 or self.fine_width % self.vqvae_groups:
            raise ValueError(
                f"vqvae_groups {self.vqvae_groups} must divide fine_width {self.fine_width}"
            )
        if self.ref_attends not in ("all", "self"):
            raise ValueError(f"ref_attends is 'all' or 'self', not {self.ref_attends!r}")

    @cached_property
    def scales(self) -> ScaleSchedule:
        """The grids of `patch_nums`."""
        return ScaleSchedule.of(self.patch_nums)

    @cached_property
    def vqvae(self) -> VQVAEConfig:
        """The tokenizer's sizes."""
        return VQVAEConfig(
            width=self.vqvae_width,
            multipliers=self.vqvae_multipliers,
            res_blocks=self.vqvae_blocks,
            groups=self.vqvae_groups,
            patch=self.vqvae_patch,
            shortcut=self.vqvae_shortcut,
            latent_channels=self.latent_channels,
            vocabulary=self.vocabulary,
            phi_on_last=self.phi_on_last,
            guided_bridge=self.warped_references,
            render_alpha=self.render_alpha,
            fine_width=self.fine_width,
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that it is trained on."""
        rows, columns = self.scales.latent
        return rows * self.vqvae.stride, columns * self.vqvae.stride


def original_d24() -> GSVARConfig:
    """GS-VAR and VARSR as published: 1.1 B parameters and a VQ-VAE of 109 M, at 512x512."""
    return GSVARConfig()


def original_d16() -> GSVARConfig:
    """The same at depth 16: 371 M parameters."""
    return GSVARConfig(depth=16, width=1024, heads=16, drop_path=0.1 * 16 / 24)


def small() -> GSVARConfig:
    """About 20 M parameters in all, at 256x256: trains on one GPU in hours, runs on a CPU in
    seconds."""
    return GSVARConfig(
        depth=8,
        width=256,
        heads=8,
        patch_nums="1_2_3_4_6_9_13_18_24_32",
        prefix_channels=(32, 64, 128, 256),
        refiner_width=256,
        refiner_blocks=3,
        vqvae_width=48,
        vqvae_multipliers=(1, 2, 2, 4),
        vqvae_blocks=1,
        vqvae_groups=16,
        ref_attends="self",
    )


def tiny() -> GSVARConfig:
    """About 5 M parameters in all, at 128x128: for tests, and for seeing the whole chain work."""
    return GSVARConfig(
        depth=4,
        width=128,
        heads=4,
        patch_nums="1_2_3_4_6_8_12_16",
        prefix_channels=(16, 32, 64, 128),
        refiner_width=128,
        refiner_blocks=2,
        vqvae_width=32,
        vqvae_multipliers=(1, 1, 2, 4),
        vqvae_blocks=1,
        vqvae_groups=16,
        latent_channels=16,
        vocabulary=1024,
        ref_attends="self",
    )


def mini() -> GSVARConfig:
    """About 10 M parameters and 4 M of the bridge, at 256x192 with warped references: trains on
    a CPU in hours, fixes a render there in a quarter of a second."""
    return GSVARConfig(
        depth=6,
        width=192,
        heads=6,
        patch_nums="1_2_3x4_5x6_6x8_9x12_12x16",
        prefix_channels=(32, 64, 128, 192),
        refiner_width=192,
        refiner_blocks=3,
        vqvae_width=32,
        vqvae_multipliers=(1, 2, 4, 4),
        vqvae_blocks=1,
        vqvae_groups=4,
        vqvae_patch=2,
        vqvae_shortcut=True,
        latent_channels=16,
        vocabulary=1024,
        rope_extent=16.0,
        ref_attends="self",
        sampler="none",
        render_prior=True,
        warped_references=True,
        render_alpha=True,
        fine_width=32,
    )


PRESETS = {
    "original-d24": original_d24,
    "original-d16": original_d16,
    "small": small,
    "mini": mini,
    "tiny": tiny,
}
