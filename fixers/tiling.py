# Large pictures through a network of one size: cover them with tiles, cut, run, blend.
#
# Tiles lie on a grid of cells. Every picture, in and out, has a whole number of pixels a cell along
# each side, its scale: 16 or 8 for pixels around a latent, 1 for the latent itself, or all 1.
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

VARIANCE = 0.01  # of the blending weights, in squared tile sides: the original's


@dataclass(frozen=True)
class Tile:
    """Where a tile lies, in cells from the top left."""

    top: int
    left: int


@dataclass(frozen=True)
class Input:
    """What a network reads of each tile: pictures [N,C,H,W] and their pixels a cell.

    place: where in picture n a tile's part is, if not at the tile itself.
    """

    pictures: Tensor
    scale: int = 1
    place: Callable[[int, Tile], Tile] | None = None

    def cut(self, n: int, tile: Tile, size: tuple[int, int]) -> Tensor:
        """A tile's part [C,h,w] of picture n."""
        place = tile if self.place is None else self.place(n, tile)
        return cut(self.pictures[n], place, size, self.scale)


def spread(length: int, tile: int) -> list[int]:
    """First cells of the tiles along one side, as few as cover it, evenly spread; neighbours share
    an eighth of a tile or more."""
    if length <= tile:
        return [0]
    least = max(1, tile // 8)
    count = max(2, -(-(length - least) // (tile - least)))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def cover(rows: int, columns: int, tile: tuple[int, int]) -> list[Tile]:
    """Tiles that cover a grid which is at least as large as one tile."""
    return [Tile(t, left) for t in spread(rows, tile[0]) for left in spread(columns, tile[1])]


def grid_of(height: int, width: int, tile: tuple[int, int], scale: int = 1) -> tuple[int, int]:
    """Rows and columns of the smallest grid that holds a picture and one tile."""
    return max(-(-height // scale), tile[0]), max(-(-width // scale), tile[1])


def pad(images: Tensor, height: int, width: int) -> Tensor:
    """[...,C,H,W] with the last row and column repeated to the right and below."""
    H, W = images.shape[-2:]
    flat = images.flatten(0, -4) if images.ndim > 4 else images
    padded = F.pad(flat, (0, width - W, 0, height - H), mode="replicate")
    return padded.reshape(*images.shape[:-2], height, width)


def cut(image: Tensor, tile: Tile, size: tuple[int, int], scale: int = 1) -> Tensor:
    """A tile's pixels [...,h,w] of an image [...,H,W]; `size` of the tile in cells."""
    top, left = tile.top * scale, tile.left * scale
    return image[..., top : top + size[0] * scale, left : left + size[1] * scale]


def weigh(tile: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """Gaussian of a tile around its middle, symmetric: [rows, columns], all positive."""
    sides = []
    for n in tile:
        distance = (torch.arange(n, dtype=dtype) - (n - 1) / 2) / n
        sides.append(torch.exp(-(distance**2) / (2 * VARIANCE)))
    return sides[0][:, None] * sides[1]


def blend(parts: Tensor, tiles: list[Tile], rows: int, columns: int) -> Tensor:
    """Tiles' parts [T,N,C,h,w] as one [N,C,rows,columns]: weighted means where they overlap."""
    _, N, C, h, w = parts.shape
    weight = weigh((h, w)).to(parts.device)
    total = parts.new_zeros(N, C, rows, columns, dtype=torch.float64)
    norm = weight.new_zeros(rows, columns)
    for part, tile in zip(parts, tiles, strict=True):
        place = (..., slice(tile.top, tile.top + h), slice(tile.left, tile.left + w))
        total[place] += part * weight
        norm[place] += weight
    return (total / norm).to(parts.dtype)


def run(
    network: Callable[..., Tensor],
    inputs: Sequence[Input | None],
    grid: tuple[int, int],
    tile: tuple[int, int],
    batch_size: int = 4,
) -> Tensor:
    """A network's answer [N,C,rows*s,columns*s] for pictures on a grid, from tiles of `tile` cells.

    network: from a tile of each input [B,C,h,w] (None for None) to [B,C,h*s,w*s], for any s; it is
    called with up to `batch_size` tiles of any pictures at a time. The first input must be there.
    """
    tiles, count = cover(*grid, tile), len(inputs[0].pictures)
    jobs = [(t, n) for t in tiles for n in range(count)]
    parts = []
    for at in batches(len(jobs), batch_size):
        given = [
            None if x is None else torch.stack([x.cut(n, t, tile) for t, n in jobs[at]])
            for x in inputs
        ]
        parts.append(network(*given))
    answers = torch.cat(parts).unflatten(0, (len(tiles), count))
    scale = answers.shape[-1] // tile[1]
    places = [Tile(t.top * scale, t.left * scale) for t in tiles]
    return blend(answers, places, grid[0] * scale, grid[1] * scale)


def largest_part(rows: int, columns: int, cells: int) -> tuple[int, int]:
    """Rows and columns of the largest part that has about `cells` cells at most, near a square."""
    if rows * columns <= cells:
        return rows, columns
    side = max(1, math.isqrt(cells))
    if min(rows, columns) <= side:
        side = max(1, cells // min(rows, columns))
    return min(rows, side), min(columns, side)


def batches(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` of so many."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
