# Pictures as tokens of square patches, and back.
from einops import rearrange
from torch import Tensor


def patchify(x: Tensor, patch: int) -> Tensor:
    """[...,C,H,W] -> [...,P,patch patch C]: patches in raster order; in a token rows, columns,
    channels. H and W are multiples of `patch`."""
    return rearrange(x, "... c (h p) (w q) -> ... (h w) (p q c)", p=patch, q=patch)


def unpatchify(tokens: Tensor, size: tuple[int, int], patch: int) -> Tensor:
    """[...,P,patch patch C] -> [...,C,H,W]; size is (width, height)."""
    return rearrange(
        tokens,
        "... (h w) (p q c) -> ... c (h p) (w q)",
        h=size[1] // patch,
        p=patch,
        q=patch,
    )
