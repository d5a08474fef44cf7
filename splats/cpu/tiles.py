# Which Gaussians touch which tile, in depth order: one sort of the Gaussians by depth, then a
# counting sort by tile.
import math

import numpy as np
from numba import njit, prange

from splats.cpu.blend import TILE

CHUNKS = 8  # independent parts of the counting sort; the result does not depend on their number


def depth_order(depths: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Indices of the visible Gaussians from near to far, equal depths by index. depths [N] > 0."""
    visible = np.flatnonzero(radii[:, 0] > 0)
    # positive floats sort like their bits; with the index below them the sort needs no stability
    keys = depths[visible].view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= visible.astype(np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)


@njit(inline="always")
def _tile_range(center, extent, tiles):
    first = max(0, math.floor((center - extent - 0.5) / TILE))
    return first, min(tiles - 1, math.floor((center + extent - 0.5) / TILE))


@njit(inline="always")
def _nearest(x0, x1, y0, y1, x, y, a, b, c):
    """Smallest exponent sigma of the Gaussian on the rectangle [x0, x1] x [y0, y1]."""
    inside_x, inside_y = x0 <= x <= x1, y0 <= y <= y1
    if inside_x and inside_y:
        return 0.0
    best = np.inf
    if not inside_x:  # on the nearer vertical side, the best y given x
        dx = (x0 if x < x0 else x1) - x
        dy = min(max(-b * dx / c, y0 - y), y1 - y)
        best = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    if not inside_y:
        dy = (y0 if y < y0 else y1) - y
        dx = min(max(-b * dy / a, x0 - x), x1 - x)
        best = min(best, 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy)
    return best


@njit(inline="always")
def _touches(tx, ty, x, y, a, b, c, limit):
    """Whether a pixel centre of the tile can have alpha >= 1/255 (limit: the exponent there)."""
    x0, y0 = tx * TILE + 0.5, ty * TILE + 0.5
    return _nearest(x0, x0 + TILE - 1, y0, y0 + TILE - 1, x, y, a, b, c) <= limit


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def bin_tiles(order, means2d, conics, opacities, extents, width, height):
    """Lists of Gaussians per tile.

    Returns offsets [tiles + 1] int64, ids [M] int32 (the Gaussians of tile t, near to far, are
    ids[offsets[t]:offsets[t + 1]]), starts [N + 1] int64 and places [M] int64 (the pairs of
    Gaussian n stand at places[starts[n]:starts[n + 1]] of the list).
    """
    across, down = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    n_tiles, V = across * down, len(order)
    counts = np.zeros((CHUNKS, n_tiles), np.int64)
    starts = np.zeros(len(means2d) + 1, np.int64)
    for chunk in prange(CHUNKS):
        for i in range(V * chunk // CHUNKS, V * (chunk + 1) // CHUNKS):
            n = order[i]
            x, y = float(means2d[n, 0]), float(means2d[n, 1])
            a, b, c = float(conics[n, 0]), float(conics[n, 1]), float(conics[n, 2])
            limit = math.log(255.0 * opacities[n]) + 1e-3
            left, right = _tile_range(x, extents[n, 0], across)
            top, bottom = _tile_range(y, extents[n, 1], down)
            hits = 0
            for ty in range(top, bottom + 1):
                for tx in range(left, right + 1):
                    if _touches(tx, ty, x, y, a, b, c, limit):
                        counts[chunk, ty * across + tx] += 1
                        hits += 1
            starts[n + 1] = hits

    offsets = np.zeros(n_tiles + 1, np.int64)
    total = 0
    for tile in range(n_tiles):
        for chunk in range(CHUNKS):
            count = counts[chunk, tile]
            counts[chunk, tile] = total
            total += count
        offsets[tile + 1] = total
    for n in range(len(means2d)):
        starts[n + 1] += starts[n]

    ids = np.empty(total, np.int32)
    places = np.empty(total, np.int64)
    for chunk in prange(CHUNKS):
        for i in range(V * chunk // CHUNKS, V * (chunk + 1) // CHUNKS):
            n = order[i]
            x, y = float(means2d[n, 0]), float(means2d[n, 1])
            a, b, c = float(conics[n, 0]), float(conics[n, 1]), float(conics[n, 2])
            limit = math.log(255.0 * opacities[n]) + 1e-3
            left, right = _tile_range(x, extents[n, 0], across)
            top, bottom = _tile_range(y, extents[n, 1], down)
            k = starts[n]
            for ty in range(top, bottom + 1):
                for tx in range(left, right + 1):
                    if _touches(tx, ty, x, y, a, b, c, limit):
                        tile = ty * across + tx
                        place = counts[chunk, tile]
                        counts[chunk, tile] = place + 1
                        ids[place] = n
                        places[k] = place
                        k += 1
    return offsets, ids, starts, places


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def sum_pairs(pairs, starts, places):
    """[N, P]: the rows of pairs [M, P] that belong to each Gaussian, summed in a fixed order."""
    N, P = len(starts) - 1, pairs.shape[1]
    out = np.zeros((N, P), np.float32)
    for n in prange(N):
        for k in range(starts[n], starts[n + 1]):
            for p in range(P):
                out[n, p] += pairs[places[k], p]
    return out
