# Sizes of LVSM, and its presets.
from dataclasses import dataclass


@dataclass(frozen=True)
class LVSMConfig:
    """Every size of a decoder-only LVSM (arXiv 2410.17242). The defaults are the original's.

    Raises ValueError where the width does not split into heads.
    """

    depth: int = 24
    """Transformer blocks."""
    width: int = 768
    head_dim: int = 64
    """Channels of an attention head."""
    patch: int = 8
    """Pixels along each side of a token."""

    def __post_init__(self) -> None:
        if self.width % self.head_dim:
            raise ValueError(f"width {self.width} does not split into heads of {self.head_dim}")

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // self.head_dim


def original() -> LVSMConfig:
    """The published sizes: 171 M parameters."""
    return LVSMConfig()


def tiny() -> LVSMConfig:
    """For tests."""
    return LVSMConfig(depth=4, width=64, head_dim=32)


PRESETS = {"original": original, "tiny": tiny}
