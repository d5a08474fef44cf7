# Front-to-back alpha blending of depth-sorted Gaussians in 16x16 tiles, forward and backward (3D
# Gaussian Splatting, Kerbl et al. 2023), with gsplat's conventions: alpha >= 1/255, alpha <= 0.999,
# and a pixel stops before its transmittance would fall to 1e-4.
#
# The loops run tile > Gaussian > row > 16 pixels, so that the innermost one is straight arithmetic
# on 16 lanes. All per-pixel state of a tile lives in one flat scratch array at constant offsets:
# distances between its parts are then known to the compiler, which vectorizes without alias checks.
# Four channels (colour and depth) are blended in that loop; further ones in a loop of their own
# over stored weights. Conditions are arithmetic: a load under a condition prevents vectorization.
import math

import numpy as np
from numba import njit, prange

from runtime.kernels import kernel

TILE = 16
PIXELS = TILE * TILE
INLINE = 4  # channels blended in the innermost loop; fewer are padded with zeros

# The scratch of a tile: arrays of 256 at these offsets, the D channels last. The first, at 0, is
# left out of index sums; in the forward pass it turns negative once the pixel has stopped.
TRANSMITTANCE, LAST, WEIGHT, COLUMN, ROW, BEHIND, DOT, V_SIGMA, LANES, CHANNELS = (
    k * PIXELS for k in range(10)
)

F, U = np.float32, np.uintp
ZERO, HALF, ONE = F(0), F(0.5), F(1)
ALPHA_MIN, ALPHA_MAX, T_STOP = F(1 / 255), F(0.999), F(1e-4)
LOG2E = F(-math.log2(math.e))
# 2^f on [-1, 0], fitted in Chebyshev nodes: exp(-sigma) has a relative error below 5e-7
_nodes = -0.5 + 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
P0, P1, P2, P3, P4, P5, P6 = np.polynomial.polynomial.polyfit(_nodes, 2**_nodes, 6).astype(F)

# no contraction: whether a product and a sum are fused differs between a fresh compilation and one
# from the cache, and a resumed run must equal an uninterrupted one
fast = {"nsz"}


@njit(inline="always")
def _exp_negative(sigma):
    """exp(-sigma) for sigma in [0, 80], without a library call so that the loop vectorizes."""
    t = sigma * LOG2E
    n = np.int32(t)
    f = t - F(n)
    p = P0 + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * (P5 + f * P6)))))
    return p * np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)


@njit(inline="always")
def _shuffle(i, n):
    """Element i of a permutation of 0..n-1, which spreads neighbouring (equally busy) tiles over
    the threads."""
    step = 7919 if n % 7919 else 7907
    return (i * step) % n


@njit(inline="always")
def _rows(y, reach, top, rows):
    """First and one-past-last row of the tile that a Gaussian at height y can touch."""
    first = max(0, math.ceil(y - reach - 0.51 - top))
    last = min(rows, math.floor(y + reach - 0.49 - top) + 1)
    return first, last


@njit(fastmath=True)
def _dot(s, a, b, n):
    """Sum of s[a + i] * s[b + i] for i < n."""
    total = ZERO
    for i in range(n):
        total += s[U(a + i)] * s[U(b + i)]
    return total


@njit(fastmath=True)
def _largest(s, n):
    result = F(-1)
    for i in range(n):
        result = max(result, s[U(i)])
    return result


@kernel(parallel=True, fastmath=fast)
def blend_forward(
    means2d, conics, opacities, colors, reach, offsets, ids, background, shown, width, height
):
    """Blend one image.

    means2d [N,2], conics [N,3], opacities [N], colors [N,D] with D >= 4, reach [N] half height in
    pixels, offsets [tiles+1] and ids [M] from `bin_tiles`, background [D]; shown <= D: how many of
    the channels are returned. All but the lists are float32.
    Returns image [H,W,shown], transmittance [H,W], last [H,W] int32 (rank in its tile's list of the
    last Gaussian that a pixel used, -1 if none).
    """
    D = colors.shape[1]
    across = (width + TILE - 1) // TILE
    n_tiles = len(offsets) - 1
    image = np.empty((height, width, shown), np.float32)
    transmittance = np.empty((height, width), np.float32)
    last = np.empty((height, width), np.int32)
    for i in prange(n_tiles):
        tile = _shuffle(i, n_tiles)
        left, top = (tile % across) * TILE, (tile // across) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        s = np.zeros(CHANNELS + D * PIXELS, np.float32)
        for r in range(TILE):
            for j in range(TILE):
                # pixels outside the image are stopped from the start
                s[r * TILE + j] = ONE if r < rows and j < columns else -ONE
                s[LAST + r * TILE + j] = F(-1)
        for j in range(TILE):
            s[COLUMN + j] = F(left + j) + HALF

        start = offsets[tile]
        for m in range(start, offsets[tile + 1]):
            g = ids[m]
            x, y, opacity = means2d[g, 0], means2d[g, 1], opacities[g]
            a, b, c = conics[g, 0], conics[g, 1], conics[g, 2]
            c0, c1, c2, c3 = colors[g, 0], colors[g, 1], colors[g, 2], colors[g, 3]
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
                    rest = T * (ONE - alpha)
                    hit = (sigma >= ZERO) & (alpha >= ALPHA_MIN) & (T > ZERO)
                    use = hit & (rest > T_STOP)
                    weight = alpha * T if use else ZERO
                    s[U(q)] = rest if use else (-T if hit else T)
                    before = s[U(LAST + q)]
                    s[U(LAST + q)] = before + F(use) * (rank - before)
                    s[U(WEIGHT + q)] = weight
                    s[U(CHANNELS + q)] += c0 * weight
                    s[U(CHANNELS + PIXELS + q)] += c1 * weight
                    s[U(CHANNELS + 2 * PIXELS + q)] += c2 * weight
                    s[U(CHANNELS + 3 * PIXELS + q)] += c3 * weight
            for d in range(INLINE, D):
                color = colors[g, d]
                for q in range(first * TILE, end * TILE):
                    s[U(CHANNELS + d * PIXELS + q)] += color * s[U(WEIGHT + q)]
            if (m - start) % 16 == 15 and _largest(s, PIXELS) < ZERO:
                break

        for r in range(rows):
            for j in range(columns):
                q = r * TILE + j
                T = abs(s[q])
                transmittance[top + r, left + j] = T
                last[top + r, left + j] = np.int32(s[LAST + q])
                for d in range(shown):
                    image[top + r, left + j, d] = s[CHANNELS + d * PIXELS + q] + T * background[d]
    return image, transmittance, last


@njit(fastmath=True)
def _moments(s, x, y, begin, end):
    """Sums over pixels begin..end of the exponent's gradient times 1, dx, dy, dx dx, dx dy, dy dy,
    and of the weights times the image gradient of the first four channels."""
    v_0 = v_x = v_y = v_xx = v_xy = v_yy = ZERO
    w_0 = w_1 = w_2 = w_3 = ZERO
    for q in range(begin, end):
        v, w = s[U(V_SIGMA + q)], s[U(WEIGHT + q)]
        dx, dy = x - s[U(COLUMN + q)], y - s[U(ROW + q)]
        v_0 += v
        v_x += v * dx
        v_y += v * dy
        v_xx += v * dx * dx
        v_xy += v * dx * dy
        v_yy += v * dy * dy
        w_0 += w * s[U(CHANNELS + q)]
        w_1 += w * s[U(CHANNELS + PIXELS + q)]
        w_2 += w * s[U(CHANNELS + 2 * PIXELS + q)]
        w_3 += w * s[U(CHANNELS + 3 * PIXELS + q)]
    return v_0, v_x, v_y, v_xx, v_xy, v_yy, w_0, w_1, w_2, w_3


@njit(fastmath=fast)
def _absolute_moments(s, x, y, a, b, c, begin, end):
    """Sums over pixels of |d loss / d mean x| and |d loss / d mean y|, by columns first: the order
    is then explicit and the same in every compilation."""
    for j in range(2 * TILE):
        s[U(LANES + j)] = ZERO
    for row in range(begin, end, TILE):
        for j in range(TILE):
            q = row + j
            v, dx, dy = s[U(V_SIGMA + q)], x - s[U(COLUMN + q)], y - s[U(ROW + q)]
            s[U(LANES + j)] += abs(v * (a * dx + b * dy))
            s[U(LANES + TILE + j)] += abs(v * (b * dx + c * dy))
    sum_x = sum_y = ZERO
    for j in range(TILE):
        sum_x += s[U(LANES + j)]
        sum_y += s[U(LANES + TILE + j)]
    return sum_x, sum_y


@kernel(parallel=True, fastmath=fast)
def blend_backward(
    means2d, conics, opacities, colors, reach, offsets, ids, background,
    transmittance, last, v_image, v_alpha, attached, absolute,
):  # fmt: skip
    """Gradients of `blend_forward` for every (tile, Gaussian) pair, one row each, so that no two
    threads write to the same place: [M, 8 + D] float32 with columns mean x, y, |mean| x, y (zeros
    unless `absolute`), conic a, b, c, opacity, colours. v_image [H,W,shown], v_alpha [H,W]. Only
    the first `attached` channels of the image reach the first eight columns.
    """
    D, shown = colors.shape[1], v_image.shape[2]
    height, width = transmittance.shape
    across = (width + TILE - 1) // TILE
    n_tiles = len(offsets) - 1
    pairs = np.empty((len(ids), 8 + D), np.float32)
    for i in prange(n_tiles):
        tile = _shuffle(i, n_tiles)
        left, top = (tile % across) * TILE, (tile // across) * TILE
        columns, rows = min(TILE, width - left), min(TILE, height - top)
        # the channels hold the image's gradient; DOT is its product with the Gaussian's colour,
        # BEHIND that product summed over all that lies behind, with the gradient of alpha
        s = np.zeros(CHANNELS + D * PIXELS, np.float32)
        for q in range(PIXELS):
            s[COLUMN + q] = F(left + q % TILE) + HALF
            s[ROW + q] = F(top + q // TILE) + HALF
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
                    for d in range(shown):
                        v = v_image[top + r, left + j, d]
                        s[CHANNELS + d * PIXELS + q] = v
                        if d < attached:
                            v_T += v * background[d]
                    s[q] = T
                    s[LAST + q] = F(rank)
                    s[BEHIND + q] = T * v_T

        start = offsets[tile]
        for m in range(start + deepest + 1, offsets[tile + 1]):
            pairs[m] = ZERO
        for m in range(start + deepest, start - 1, -1):
            g = ids[m]
            x, y, opacity = means2d[g, 0], means2d[g, 1], opacities[g]
            a, b, c = conics[g, 0], conics[g, 1], conics[g, 2]
            c0 = colors[g, 0] if attached > 0 else ZERO
            c1 = colors[g, 1] if attached > 1 else ZERO
            c2 = colors[g, 2] if attached > 2 else ZERO
            c3 = colors[g, 3] if attached > 3 else ZERO
            rank = F(m - start)
            first, end = _rows(y, reach[g], top, rows)
            if attached > INLINE:
                for q in range(first * TILE, end * TILE):
                    s[U(DOT + q)] = ZERO
                for d in range(INLINE, attached):
                    color = colors[g, d]
                    for q in range(first * TILE, end * TILE):
                        s[U(DOT + q)] += color * s[U(CHANNELS + d * PIXELS + q)]
            for r in range(first, end):
                dy = y - (F(top + r) + HALF)
                cdy, bdy = HALF * c * dy * dy, b * dy
                row = r * TILE
                for j in range(TILE):
                    q = row + j
                    v0, v1 = s[U(CHANNELS + q)], s[U(CHANNELS + PIXELS + q)]
                    v2, v3 = s[U(CHANNELS + 2 * PIXELS + q)], s[U(CHANNELS + 3 * PIXELS + q)]
                    dot = s[U(DOT + q)] + c0 * v0 + c1 * v1 + c2 * v2 + c3 * v3
                    dx = x - s[U(COLUMN + q)]
                    sigma = HALF * a * dx * dx + cdy + bdy * dx
                    peak = opacity * _exp_negative(min(max(sigma, ZERO), F(80)))
                    alpha = min(ALPHA_MAX, peak)
                    use = (sigma >= ZERO) & (alpha >= ALPHA_MIN) & (rank <= s[U(LAST + q)])
                    inverse = ONE / (ONE - alpha)
                    behind = s[U(BEHIND + q)]
                    before = s[U(q)]
                    T = before * inverse
                    weight = alpha * T if use else ZERO
                    v = peak * (inverse * behind - T * dot)
                    v_sigma = v if use & (peak <= ALPHA_MAX) else ZERO
                    s[U(q)] = T if use else before
                    s[U(BEHIND + q)] = behind + weight * dot
                    s[U(WEIGHT + q)] = weight
                    s[U(V_SIGMA + q)] = v_sigma

            begin, stop = first * TILE, end * TILE
            v_0, v_x, v_y, v_xx, v_xy, v_yy, w_0, w_1, w_2, w_3 = _moments(s, x, y, begin, stop)
            abs_x, abs_y = ZERO, ZERO
            if absolute:
                abs_x, abs_y = _absolute_moments(s, x, y, a, b, c, begin, stop)
            pairs[m, 0] = a * v_x + b * v_y
            pairs[m, 1] = b * v_x + c * v_y
            pairs[m, 2] = abs_x
            pairs[m, 3] = abs_y
            pairs[m, 4] = HALF * v_xx
            pairs[m, 5] = v_xy
            pairs[m, 6] = HALF * v_yy
            pairs[m, 7] = -v_0 / opacity
            pairs[m, 8], pairs[m, 9], pairs[m, 10], pairs[m, 11] = w_0, w_1, w_2, w_3
            for d in range(INLINE, D):
                channel = CHANNELS + d * PIXELS
                pairs[m, 8 + d] = _dot(s, WEIGHT + begin, channel + begin, stop - begin)
    return pairs
