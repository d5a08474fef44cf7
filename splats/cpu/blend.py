# Front-to-back alpha blending of depth-sorted Gaussians in 16x16 tiles, forward and backward (3D Gaussian
# Splatting, Kerbl et al. 2023), with gsplat's conventions: alpha >= 1/255, alpha <= 0.999, a pixel stops
# before its transmittance would fall to 1e-4.
#
# The loops run tile > Gaussian > row > 16 pixels, so that the innermost one is straight arithmetic on 16
# lanes. All per-pixel state of a tile lives in one flat scratch array at constant offsets: distances
# between its parts are then known to the compiler, which vectorises without alias checks.
import math

import numpy as np
from numba import njit, prange

TILE = 16
PIXELS = TILE * TILE

F, U = np.float32, np.uintp
ZERO, HALF, ONE = F(0), F(0.5), F(1)
ALPHA_MIN, ALPHA_MAX, T_STOP = F(1 / 255), F(0.999), F(1e-4)
LOG2E = F(-math.log2(math.e))
# 2^f on [-1, 0], least-squares fit in Chebyshev nodes: relative error 1e-7
P0, P1, P2, P3, P4, P5, P6 = (
    F(c)
    for c in np.polynomial.Polynomial.fit(
        -0.5 + 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64),
        2 ** (-0.5 + 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)),
        6,
    )
    .convert()
    .coef
)

fast = {"contract", "nsz", "arcp"}  # fused multiply-add; no reordering, so results are repeatable


@njit(inline="always")
def _exp_negative(sigma):
    """exp(-sigma) for sigma in [0, 80], without a library call so that the loop vectorises."""
    t = sigma * LOG2E
    n = np.int32(t)
    f = t - F(n)
    p = P0 + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * (P5 + f * P6)))))
    return p * np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always")
def _shuffled(i, n):
    """A permutation of 0..n-1 that spreads neighbouring (equally busy) tiles over the threads."""
    step = 7919 if n % 7919 else 7907
    return (i * step) % n


@njit(inline="always")
def _rows(y, reach, top, rows):
    """First and one-past-last row of the tile that a Gaussian at height y can touch."""
    first = max(0, int(math.ceil(y - reach - 0.51 - top)))
    last = min(rows, int(math.floor(y + reach - 0.49 - top)) + 1)
    return first, last


@njit(parallel=True, fastmath=fast, cache=True, error_model="numpy", nogil=True)
def blend_forward(
    means2d, conics, opacities, colors, reach, offsets, ids, background, width, height
):
    """Blend one image.

    means2d [N,2], conics [N,3], opacities [N], colors [N,D], reach [N] half height in pixels, offsets
    [tiles+1] and ids [M] from `bin_tiles`, background [D], all float32 but the integer lists.
    Returns image [H,W,D], transmittance [H,W], last [H,W] int32 (rank in its tile's list of the last
    Gaussian that a pixel used, -1 if none).
    """
    D = colors.shape[1]
    across = (width + TILE - 1) // TILE
    n_tiles = len(offsets) - 1
    image = np.empty((height, width, D), np.float32)
    transmittance = np.empty((height, width), np.float32)
    last = np.empty((height, width), np.int32)
    for i in prange(n_tiles):
        tile = _shuffled(i, n_tiles)
        left, top = (tile % across) * TILE, (tile // across) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        # s: T | alive | last | column centres | D colours, 256 each
        s = np.zeros((4 + D) * PIXELS, np.float32)
        LIVE, LAST, COLUMN, WEIGHT, COLOR = (
            PIXELS,
            2 * PIXELS,
            3 * PIXELS,
            3 * PIXELS + TILE,
            4 * PIXELS,
        )
        for p in range(PIXELS):
            s[p] = ONE
            s[LIVE + p] = ONE
            s[LAST + p] = F(-1)
        for j in range(TILE):
            s[COLUMN + j] = F(left + j) + HALF
        # pixels outside the image must not keep a tile alive
        for r in range(TILE):
            for j in range(TILE):
                if r >= rows or j >= columns:
                    s[LIVE + r * TILE + j] = ZERO

        start = offsets[tile]
        for m in range(start, offsets[tile + 1]):
            g = ids[m]
            x, y, opacity = means2d[g, 0], means2d[g, 1], opacities[g]
            a, b, c = conics[g, 0], conics[g, 1], conics[g, 2]
            rank = F(m - start)
            first, end = _rows(y, reach[g], top, rows)
            for r in range(first, end):
                dy = y - (F(top + r) + HALF)
                cdy, bdy = HALF * c * dy * dy, b * dy
                row = r * TILE
                for j in range(TILE):
                    q = row + j
                    dx = x - s[U(COLUMN + j)]
                    sigma = HALF * a * dx * dx + cdy + bdy * dx
                    alpha = min(ALPHA_MAX, opacity * _exp_negative(min(max(sigma, ZERO), F(80))))
                    T = s[U(q)]
                    live = s[U(LIVE + q)]
                    rest = T * (ONE - alpha)
                    hit = (sigma >= ZERO) & (alpha >= ALPHA_MIN) & (live > ZERO)
                    use = hit & (rest > T_STOP)
                    s[U(LIVE + q)] = ZERO if hit & (rest <= T_STOP) else live
                    s[U(q)] = rest if use else T
                    s[U(LAST + q)] = rank if use else s[U(LAST + q)]
                    s[U(WEIGHT + j)] = alpha * T if use else ZERO
                for d in range(D):
                    color = colors[g, d]
                    to = COLOR + d * PIXELS + row
                    for j in range(TILE):
                        s[U(to + j)] += color * s[U(WEIGHT + j)]
            if (m - start) % 16 == 15:
                alive = ZERO
                for p in range(PIXELS):
                    alive = max(alive, s[LIVE + p])
                if alive == ZERO:
                    break

        for r in range(rows):
            for j in range(columns):
                q = r * TILE + j
                transmittance[top + r, left + j] = s[q]
                last[top + r, left + j] = np.int32(s[LAST + q])
                for d in range(D):
                    image[top + r, left + j, d] = s[COLOR + d * PIXELS + q] + s[q] * background[d]
    return image, transmittance, last


@njit(parallel=True, fastmath=fast, cache=True, error_model="numpy", nogil=True)
def blend_backward(
    means2d, conics, opacities, colors, reach, offsets, ids, background,
    transmittance, last, v_image, v_alpha, absolute,
):  # fmt: skip
    """Gradients of `blend_forward` for every (tile, Gaussian) pair, one row each, so that no two
    threads write to the same place: [M, 8 + D] float32 with columns mean x, y, |mean| x, y (zeros
    unless `absolute`), conic a, b, c, opacity, colours. v_image [H,W,D], v_alpha [H,W].
    """
    D = colors.shape[1]
    height, width = transmittance.shape
    across = (width + TILE - 1) // TILE
    n_tiles = len(offsets) - 1
    rows_out = np.empty((len(ids), 8 + D), np.float32)
    for i in prange(n_tiles):
        tile = _shuffled(i, n_tiles)
        left, top = (tile % across) * TILE, (tile // across) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        # s: T | behind | last | lanes | D image gradients | lane sums. `behind` is the gradient's dot
        # product with all colour behind the current Gaussian, the alpha gradient included
        BEHIND, LAST, LANES, IMAGE = PIXELS, 2 * PIXELS, 3 * PIXELS, 4 * PIXELS
        COLUMN, DOT, WEIGHT = LANES, LANES + TILE, LANES + 2 * TILE
        S0, S1, S2 = LANES + 3 * TILE, LANES + 4 * TILE, LANES + 5 * TILE
        AX, AY = LANES + 6 * TILE, LANES + 7 * TILE
        SC = (4 + D) * PIXELS
        s = np.zeros((4 + D) * PIXELS + D * TILE, np.float32)
        for j in range(TILE):
            s[COLUMN + j] = F(left + j) + HALF
        deepest = -1
        for r in range(TILE):
            for j in range(TILE):
                q = r * TILE + j
                s[q] = ONE
                s[LAST + q] = F(-1)
                if r < rows and j < columns:
                    T = transmittance[top + r, left + j]
                    rank = last[top + r, left + j]
                    deepest = max(deepest, rank)
                    v_T = -v_alpha[top + r, left + j]
                    for d in range(D):
                        v = v_image[top + r, left + j, d]
                        s[IMAGE + d * PIXELS + q] = v
                        v_T += v * background[d]
                    s[q] = T
                    s[LAST + q] = F(rank)
                    s[BEHIND + q] = T * v_T

        start = offsets[tile]
        for m in range(start + deepest + 1, offsets[tile + 1]):
            rows_out[m] = ZERO
        for m in range(start + deepest, start - 1, -1):
            g = ids[m]
            x, y, opacity = means2d[g, 0], means2d[g, 1], opacities[g]
            a, b, c = conics[g, 0], conics[g, 1], conics[g, 2]
            rank = F(m - start)
            for j in range(5 * TILE):
                s[U(S0 + j)] = ZERO
            for j in range(D * TILE):
                s[U(SC + j)] = ZERO
            first, end = _rows(y, reach[g], top, rows)
            for r in range(first, end):
                dy = y - (F(top + r) + HALF)
                cdy, bdy = HALF * c * dy * dy, b * dy
                row = r * TILE
                for j in range(TILE):
                    s[U(DOT + j)] = ZERO
                for d in range(D):
                    color = colors[g, d]
                    to = IMAGE + d * PIXELS + row
                    for j in range(TILE):
                        s[U(DOT + j)] += color * s[U(to + j)]
                for j in range(TILE):
                    q = row + j
                    dx = x - s[U(COLUMN + j)]
                    sigma = HALF * a * dx * dx + cdy + bdy * dx
                    peak = opacity * _exp_negative(min(max(sigma, ZERO), F(80)))
                    alpha = min(ALPHA_MAX, peak)
                    use = (sigma >= ZERO) & (alpha >= ALPHA_MIN) & (rank <= s[U(LAST + q)])
                    inverse = ONE / (ONE - alpha)
                    T = s[U(q)] * inverse
                    behind = s[U(BEHIND + q)]
                    dot = s[U(DOT + j)]
                    v = -peak * (T * dot - inverse * behind)
                    v_sigma = v if use & (peak <= ALPHA_MAX) else ZERO
                    weight = alpha * T if use else ZERO
                    s[U(q)] = T if use else s[U(q)]
                    s[U(BEHIND + q)] = behind + weight * dot
                    s[U(WEIGHT + j)] = weight
                    s[U(S0 + j)] += v_sigma
                    s[U(S1 + j)] += v_sigma * dy
                    s[U(S2 + j)] += v_sigma * dy * dy
                    if absolute:
                        s[U(AX + j)] += abs(v_sigma * (a * dx + bdy))
                        s[U(AY + j)] += abs(v_sigma * (b * dx + c * dy))
                for d in range(D):
                    to, image = SC + d * TILE, IMAGE + d * PIXELS + row
                    for j in range(TILE):
                        s[U(to + j)] += s[U(WEIGHT + j)] * s[U(image + j)]

            # dx is the same in every row of a lane, so it enters once, here
            sum0, sum_x, sum_y, sum_xx, sum_xy, sum_yy = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
            abs_x, abs_y = ZERO, ZERO
            for j in range(TILE):
                dx = x - s[COLUMN + j]
                sum0 += s[S0 + j]
                sum_x += s[S0 + j] * dx
                sum_xx += s[S0 + j] * dx * dx
                sum_y += s[S1 + j]
                sum_xy += s[S1 + j] * dx
                sum_yy += s[S2 + j]
                abs_x += s[AX + j]
                abs_y += s[AY + j]
            rows_out[m, 0] = a * sum_x + b * sum_y
            rows_out[m, 1] = b * sum_x + c * sum_y
            rows_out[m, 2] = abs_x
            rows_out[m, 3] = abs_y
            rows_out[m, 4] = HALF * sum_xx
            rows_out[m, 5] = sum_xy
            rows_out[m, 6] = HALF * sum_yy
            rows_out[m, 7] = -sum0 / opacity
            for d in range(D):
                total = ZERO
                for j in range(TILE):
                    total += s[SC + d * TILE + j]
                rows_out[m, 8 + d] = total
    return rows_out
