# Which Gaussians touch which tile, in depth order: one sort of the Gaussians by depth, then a
# counting sort by tile.
import math

import numpy as np
from numba import njit, prange

from runtime.kernels import kernel
from splats.cpu.blend import TILE

DIGIT = 11
MASK = np.uint32((1 << DIGIT) - 1)
CHUNKS = 8  # independent parts of the counting sort; the result does not depend on their number


@kernel()
def sort_by_depth(depths, radii):
    """Indices of the visible Gaussians from near to far, equal depths by index. depths [N] > 0."""
    order = np.empty(len(depths), np.int32)
    V = 0
    for n in range(len(depths)):
        order[V] = n
        V += radii[n, 0] > 0
    # positive floats sort like their bits: a radix sort, DIGIT bits at a time
    order, keys = order[:V], depths.view(np.uint32)[order[:V]]
    new_order, new_keys = np.empty_like(order), np.empty_like(keys)
    for shift in range(0, 32, DIGIT):
        places = np.zeros((1 << DIGIT) + 1, np.int64)
        for i in range(V):
            places[((keys[i] >> shift) & MASK) + 1] += 1
        for digit in range(1 << DIGIT):
            places[digit + 1] += places[digit]
        for i in range(V):
            digit = (keys[i] >> shift) & MASK
            new_order[places[digit]], new_keys[places[digit]] = order[i], keys[i]
            places[digit] += 1
        order, new_order, keys, new_keys = new_order, order, new_keys, keys
    return order


@njit(inline="always")
def _tile_range(center, extent, tiles):
    first = max(0, math.floor((center - extent - 0.5) / TILE))
    return first, min(tiles - 1, math.floor((center + extent - 0.5) / TILE))


@njit(inline="always")
def _nearest(x0, x1, y0, y1, x, y, a, b, c):
    """Smallest exponent sigma of the Gaussian over the rectangle [x0, x1] x [y0, y1]."""
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


@kernel(parallel=True)
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


@kernel(parallel=True)
def sum_pairs(pairs, starts, places):
    """The rows of pairs [M, 8 + D] that belong to each Gaussian, summed in a fixed order, as
    gradients of means [N,2], |means| [N,2], conics [N,3], opacities [N] and colours [N,D]."""
    N, D = len(starts) - 1, pairs.shape[1] - 8
    means, absolute = np.empty((N, 2), np.float32), np.empty((N, 2), np.float32)
    conics, opacities = np.empty((N, 3), np.float32), np.empty(N, np.float32)
    colors = np.empty((N, D), np.float32)
    for n in prange(N):
        means[n], absolute[n], conics[n], opacities[n], colors[n] = 0, 0, 0, 0, 0
        for k in range(starts[n], starts[n + 1]):
            row = places[k]
            for p in range(2):
                means[n, p] += pairs[row, p]
                absolute[n, p] += pairs[row, 2 + p]
            for p in range(3):
                conics[n, p] += pairs[row, 4 + p]
            opacities[n] += pairs[row, 7]
            for p in range(D):
                colors[n, p] += pairs[row, 8 + p]
    return means, absolute, conics, opacities, colors
