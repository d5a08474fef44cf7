# Sizes of Efficient-LVSM, and its presets.
from dataclasses import dataclass

from models.layers.rays import Plucker


@dataclass(frozen=True)
class EfficientLVSMConfig:
    """Every size of an Efficient-LVSM (arXiv 2602.06478). The defaults are the original's, of 256
    and of 512 pixels alike.

    Raises ValueError for a size below 1, and where the width does not split into heads.
    """

    depth: int = 12
    """Layers of the encoder, and as many of the decoder."""
    width: int = 768
    head_dim: int = 64
    """Channels of an attention head."""
    patch: int = 8
    """Pixels along each side of a token."""
    plucker: Plucker = "default"
    """Coordinates of rays (`models.layers.rays.plucker`)."""
    image_size: int = 256
    """Side of the square pictures that it was trained on; others of as many pixels do."""

    def __post_init__(self) -> None:
        for name in ("depth", "width", "head_dim", "patch", "image_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.width % self.head_dim:
            raise ValueError(f"width {self.width} does not split into heads of {self.head_dim}")

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // self.head_dim


def original() -> EfficientLVSMConfig:
    """The published sizes: 199 M parameters."""
    return EfficientLVSMConfig()


def mini() -> EfficientLVSMConfig:
    """For 128x128 on a CPU: 11 M parameters."""
    return EfficientLVSMConfig(depth=6, width=256, image_size=128)


def tiny() -> EfficientLVSMConfig:
    """For tests."""
    return EfficientLVSMConfig(depth=2, width=64, head_dim=32, image_size=32)


PRESETS = {"original": original, "mini": mini, "tiny": tiny}
