# Two-dimensional rotary positions, aligned across scales (VARSR): a token of any scale turns by
# where it lies in
# the final grid, so that coarse and fine tokens of one place share their angles.
from collections.abc import Sequence

import torch
from torch import Tensor


def rope_table(
    grids: Sequence[tuple[int, int]], head_dim: int, extent: float, base: float = 10000.0
) -> Tensor:
    """Cosines and sines for the tokens of some grids (rows, columns), one after the other,
    row-major.

    Returns float64 [2, L, head_dim/2].
    A grid spans `extent` units along its longer side whatever its number of tokens. The first
    half of the channel pairs turns with the row, the second half with the column, at base^(-4 j /
    head_dim), j = 0, 1, ...
    """
    if head_dim % 4:
        raise ValueError(
            f"rotary positions in two dimensions need a head width divisible by 4, not {head_dim}"
        )
    frequencies = base ** (-4 * torch.arange(head_dim // 4, dtype=torch.float64) / head_dim)
    rows, columns = grids[-1]
    extents = extent * rows / max(rows, columns), extent * columns / max(rows, columns)
    parts = []
    for grid in grids:
        axes = [
            torch.arange(n, dtype=torch.float64) * size / n
            for n, size in zip(grid, extents, strict=True)
        ]
        position = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(
            0, 1
        )  # [rows*columns, 2]
        parts.append((position[:, :, None] * frequencies).flatten(1))
    angles = torch.cat(parts)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """x [..., L, H, d] with each pair of neighbouring channels turned by table [2 (cos, sin), L,
    d/2].

    Computed in the table's type (float32 or better), returned in x's.
    """
    cos, sin = table.unsqueeze(-2)
    even, odd = x.to(table.dtype).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(x.dtype)
