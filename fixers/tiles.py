# Tiles over a latent: as few as cover it, evenly spread, blended by Gaussian weights.
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

VARIANCE = 0.01  # of the blending weights, in squared tile sides: the original's


@dataclass(frozen=True)
class Tile:
    """Where a tile lies, in latent cells from the top left."""

    top: int
    left: int


def starts(length: int, tile: int) -> list[int]:
    """First cells of the tiles along one side; neighbours share an eighth of a tile or more."""
    if length <= tile:
        return [0]
    least = max(1, tile // 8)
    count = max(2, -(-(length - least) // (tile - least)))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def cover(rows: int, columns: int, tile: tuple[int, int]) -> list[Tile]:
    """Tiles that cover a latent which is at least as large as one tile."""
    return [Tile(t, left) for t in starts(rows, tile[0]) for left in starts(columns, tile[1])]


def weights(tile: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """Gaussian of a tile around its middle, symmetric: [rows, columns], all positive."""
    sides = []
    for n in tile:
        distance = (torch.arange(n, dtype=dtype) - (n - 1) / 2) / n
        sides.append(torch.exp(-(distance**2) / (2 * VARIANCE)))
    return sides[0][:, None] * sides[1]


def blend(parts: Tensor, tiles: list[Tile], rows: int, columns: int) -> Tensor:
    """Tiles' latents [T,B,C,h,w] as one [B,C,rows,columns]: weighted means where they overlap."""
    _, B, C, h, w = parts.shape
    weight = weights((h, w)).to(parts.device)
    total = parts.new_zeros(B, C, rows, columns, dtype=torch.float64)
    norm = weight.new_zeros(rows, columns)
    for part, tile in zip(parts, tiles, strict=True):
        place = (..., slice(tile.top, tile.top + h), slice(tile.left, tile.left + w))
        total[place] += part * weight
        norm[place] += weight
    return (total / norm).to(parts.dtype)
