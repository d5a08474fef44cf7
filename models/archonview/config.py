# Sizes of ArchonView, and its presets.
from dataclasses import dataclass, field
from functools import partial

from models.var.scales import ScaleSchedule
from models.vqvae.config import VQVAEConfig

PATCH_NUMS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
EMBEDDING = 768  # channels of CLIP ViT-L/14's embeddings
HEAD = 64  # channels of an attention head


def make_vqvae() -> VQVAEConfig:
    """VAR's tokenizer."""
    return VQVAEConfig(phi_on_last=True)


@dataclass(frozen=True)
class ArchonViewConfig:
    """Every size of an ArchonView. The defaults are the original's for 256x256 pictures.

    Raises ValueError where the width does not split into the heads.
    """

    depth: int = 16
    width: int = 1024
    heads: int = 16
    embedding: int = EMBEDDING
    """Channels of the pictures' embeddings."""
    scales: ScaleSchedule = field(default_factory=partial(ScaleSchedule.of, PATCH_NUMS))
    vqvae: VQVAEConfig = field(default_factory=make_vqvae)
    drop_path: float = 0.0
    """Of the last block in training."""

    def __post_init__(self) -> None:
        scales, vqvae = self.scales, self.vqvae  # as they are, or as JSON has them
        grids = scales["grids"] if isinstance(scales, dict) else scales
        object.__setattr__(self, "scales", ScaleSchedule.of(grids))
        if isinstance(vqvae, dict):
            lists = {k: tuple(v) if isinstance(v, list) else v for k, v in vqvae.items()}
            object.__setattr__(self, "vqvae", VQVAEConfig(**lists))
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not split into {self.heads} heads")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its pictures."""
        rows, columns = self.scales.latent
        return rows * self.vqvae.stride, columns * self.vqvae.stride


def original(depth: int) -> ArchonViewConfig:
    """A published size: 64 channels a layer of depth."""
    return ArchonViewConfig(depth, HEAD * depth, depth, drop_path=0.1 * depth / 24)


def tiny() -> ArchonViewConfig:
    """For tests: 32x32."""
    vqvae = VQVAEConfig(
        16, (1, 1, 2), 1, groups=8, latent_channels=8, vocabulary=64, phi_on_last=True
    )
    return ArchonViewConfig(2, 64, 2, scales=ScaleSchedule.of((1, 2, 4, 8)), vqvae=vqvae)


PRESETS = {f"d{depth}": partial(original, depth) for depth in (12, 16, 20, 24, 30)} | {"tiny": tiny}
