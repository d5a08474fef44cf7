# Gaussians to the image plane: EWA projection (Zwicker et al. 2001) with gsplat's conventions,
# activations and spherical-harmonic colours in the same pass; the backward pass recomputes instead
# of storing. Arithmetic is float64, storage float32.
#
# LANES Gaussians at a time go through a scratch array of rows at constant offsets (as in blend.py):
# they are copied in, processed by straight arithmetic over the lanes, which vectorizes, and copied
# out. A Gaussian's harmonics lie together, so loops over them stay outside those over the lanes.
import math

import numpy as np
from numba import njit, prange

from runtime.kernels import kernel
from splats.cpu.functions import bases, direction_gradient, exp, log, sigmoid

ALPHA_MIN = 1 / 255
LANES = 32
CHUNK = 256  # Gaussians per parallel work item, so that scratch is allocated rarely
ROWS = 52

# Rows of the scratch: the raw parameters, in the backward pass later their gradients
MX, MY, MZ, SX, SY, SZ, QW, QX, QY, QZ, OPACITY = (k * LANES for k in range(11))
# the projection, in the backward pass its gradients
U_, V_, DEPTH, ALPHA, CONIC_A, CONIC_B, CONIC_C, EXTENT_X, EXTENT_Y = (
    k * LANES for k in range(11, 20)
)
BASES, V_BASES = 20 * LANES, 36 * LANES  # harmonics and their gradients, 16 rows each

fast = {"nsz"}  # no contraction: see blend.py
F, I = np.float32, np.uintp


@njit(inline="always")
def load(s, i, n, means, scales, quats, opacities):
    """Raw parameters of Gaussian n into lane i."""
    for k in range(3):
        s[MX + k * LANES + i] = means[n, k]
        s[SX + k * LANES + i] = scales[n, k]
    for k in range(4):
        s[QW + k * LANES + i] = quats[n, k]
    s[OPACITY + i] = opacities[n]


@njit(inline="always")
def rotation(w, x, y, z):
    """Rotation matrix of a unit quaternion, by rows."""
    return (
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )  # fmt: skip


@njit(inline="always")
def unit_quaternion(s, i):
    """Quaternion of a lane, and one over its length."""
    w, x, y, z = s[I(QW + i)], s[I(QX + i)], s[I(QY + i)], s[I(QZ + i)]
    inverse = 1 / max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    return w * inverse, x * inverse, y * inverse, z * inverse, inverse


@njit(inline="always")
def _to_camera(s, i, view):
    """Centre of a lane's Gaussian in the camera."""
    x, y, z = s[I(MX + i)], s[I(MY + i)], s[I(MZ + i)]
    return (
        view[0] * x + view[1] * y + view[2] * z + view[3],
        view[4] * x + view[5] * y + view[6] * z + view[7],
        view[8] * x + view[9] * y + view[10] * z + view[11],
    )


@njit(inline="always")
def _clamp(ratio, focal, center, size):
    """x / z (or y / z) clamped to the image plus 15 % of its size on each side."""
    margin = 0.15 * size / focal
    return min(max(ratio, -center / focal - margin), (size - center) / focal + margin)


@njit(inline="always")
def _world_to_pixels(view, rx, ry, fx, fy, inverse_z):
    """J V [2, 3] by rows: the projection's derivative by the world, at (x, y) / z = (rx, ry)."""
    x, y = fx * inverse_z, fy * inverse_z
    return (
        x * (view[0] - rx * view[8]), x * (view[1] - rx * view[9]), x * (view[2] - rx * view[10]),
        y * (view[4] - ry * view[8]), y * (view[5] - ry * view[9]), y * (view[6] - ry * view[10]),
    )  # fmt: skip


@njit(inline="always")
def _footprint(M, R, s0, s1, s2):
    """M R diag(s) [2, 3] by rows, a square root of the 2D covariance."""
    return (
        (M[0] * R[0] + M[1] * R[3] + M[2] * R[6]) * s0,
        (M[0] * R[1] + M[1] * R[4] + M[2] * R[7]) * s1,
        (M[0] * R[2] + M[1] * R[5] + M[2] * R[8]) * s2,
        (M[3] * R[0] + M[4] * R[3] + M[5] * R[6]) * s0,
        (M[3] * R[1] + M[4] * R[4] + M[5] * R[7]) * s1,
        (M[3] * R[2] + M[4] * R[5] + M[5] * R[8]) * s2,
    )


@njit(inline="always")
def _covariance(U):
    """xx, xy, yy of U U^T."""
    return (
        U[0] * U[0] + U[1] * U[1] + U[2] * U[2],
        U[0] * U[3] + U[1] * U[4] + U[2] * U[5],
        U[3] * U[3] + U[4] * U[4] + U[5] * U[5],
    )


@njit(inline="always")
def _compensation(xx, xy, yy, eps2d):
    """sqrt(det / blurred det), Mip-Splatting's opacity factor, and the blurred determinant."""
    det = (xx + eps2d) * (yy + eps2d) - xy * xy
    return math.sqrt(max(0.0, (xx * yy - xy * xy) / det)), det


@njit(inline="always")
def _direction(s, i, px, py, pz):
    """Unit direction from the camera's centre to a lane's Gaussian, and one over the distance."""
    x, y, z = s[I(MX + i)] - px, s[I(MY + i)] - py, s[I(MZ + i)] - pz
    inverse = 1 / max(math.sqrt(x * x + y * y + z * z), 1e-12)
    return x * inverse, y * inverse, z * inverse, inverse


@njit(inline="always")
def _store_bases(s, first, i, px, py, pz):
    x, y, z, _ = _direction(s, i, px, py, pz)
    b = bases(x, y, z)
    for k in range(16):
        s[I(first + k * LANES + i)] = b[k]


@njit(inline="always")
def _scalars(V):
    """The upper rows of a camera's matrix; a loop that stores must not load from another array."""
    return (
        V[0, 0], V[0, 1], V[0, 2], V[0, 3],
        V[1, 0], V[1, 1], V[1, 2], V[1, 3],
        V[2, 0], V[2, 1], V[2, 2], V[2, 3],
    )  # fmt: skip


@kernel(parallel=True, fastmath=fast)
def project_forward(
    means, scales, quats, opacities, sh0, shN, degree, viewmats, Ks, positions,
    width, height, near, far, eps2d, antialiased,
):  # fmt: skip
    """Project N raw Gaussians into C cameras (positions [C,3]: their centres in the world).

    Returns means2d [C,N,2], conics [C,N,3], opacities [C,N] (activated, compensated if
    antialiased), values [C,N,4] (colour, zeros if degree < 0, and depth), extents [C,N,2] (half
    size in pixels of the box where alpha >= 1/255) and radii [C,N,2] int32 (extents rounded up).
    All are zero for Gaussians that are not visible.
    """
    N, C = len(means), len(viewmats)
    means2d = np.empty((C, N, 2), np.float32)
    conics = np.empty((C, N, 3), np.float32)
    alphas = np.empty((C, N), np.float32)
    values = np.empty((C, N, 4), np.float32)
    extents = np.empty((C, N, 2), np.float32)
    radii = np.empty((C, N, 2), np.int32)
    coefficients = (degree + 1) ** 2
    for chunk in prange((N + CHUNK - 1) // CHUNK):
        s = np.zeros(ROWS * LANES)
        for first in range(chunk * CHUNK, min(N, (chunk + 1) * CHUNK), LANES):
            count = min(LANES, N - first)
            for i in range(count):
                load(s, i, first + i, means, scales, quats, opacities)
            for c in range(C):
                view, K = _scalars(viewmats[c]), Ks[c]
                fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
                px, py, pz = positions[c, 0], positions[c, 1], positions[c, 2]
                for i in range(LANES):
                    x, y, z = _to_camera(s, i, view)
                    inverse_z = 1 / z
                    rx, ry = x * inverse_z, y * inverse_z
                    qw, qx, qy, qz, _ = unit_quaternion(s, i)
                    M = _world_to_pixels(
                        view, _clamp(rx, fx, cx, width), _clamp(ry, fy, cy, height),
                        fx, fy, inverse_z,
                    )  # fmt: skip
                    U = _footprint(
                        M, rotation(qw, qx, qy, qz),
                        exp(s[I(SX + i)]), exp(s[I(SY + i)]), exp(s[I(SZ + i)]),
                    )  # fmt: skip
                    xx, xy, yy = _covariance(U)
                    factor, det = _compensation(xx, xy, yy, eps2d)
                    opacity = sigmoid(s[I(OPACITY + i)])
                    alpha = opacity * factor if antialiased else opacity
                    visible = (z >= near) & (z <= far) & (det > 0) & (det < np.inf)
                    visible &= alpha >= ALPHA_MIN
                    extend = math.sqrt(2 * log(max(alpha, ALPHA_MIN) / ALPHA_MIN))
                    s[I(U_ + i)], s[I(V_ + i)], s[I(DEPTH + i)] = fx * rx + cx, fy * ry + cy, z
                    s[I(ALPHA + i)] = alpha if visible else -1.0
                    s[I(CONIC_A + i)] = (yy + eps2d) / det
                    s[I(CONIC_B + i)] = -xy / det
                    s[I(CONIC_C + i)] = (xx + eps2d) / det
                    s[I(EXTENT_X + i)] = extend * math.sqrt(xx + eps2d)
                    s[I(EXTENT_Y + i)] = extend * math.sqrt(yy + eps2d)
                if degree >= 0:
                    for i in range(LANES):
                        _store_bases(s, BASES, i, px, py, pz)
                for i in range(count):
                    n = first + i
                    u, v = s[U_ + i], s[V_ + i]
                    ex, ey = s[EXTENT_X + i], s[EXTENT_Y + i]
                    rx, ry = math.ceil(ex), math.ceil(ey)
                    # false for what is not finite, too
                    visible = s[ALPHA + i] > 0 and u + rx > 0 and u - rx < width
                    if not (visible and v + ry > 0 and v - ry < height):
                        means2d[c, n], conics[c, n], alphas[c, n] = 0, 0, 0
                        values[c, n], extents[c, n], radii[c, n] = 0, 0, 0
                        continue
                    means2d[c, n, 0], means2d[c, n, 1] = u, v
                    for k in range(3):
                        conics[c, n, k] = s[CONIC_A + k * LANES + i]
                        values[c, n, k] = 0
                    alphas[c, n] = s[ALPHA + i]
                    values[c, n, 3] = s[DEPTH + i]
                    extents[c, n, 0], extents[c, n, 1] = ex, ey
                    radii[c, n, 0], radii[c, n, 1] = min(rx, 2**30), min(ry, 2**30)
                    if degree >= 0:
                        b = F(s[BASES + i])
                        red, green, blue = b * sh0[n, 0, 0], b * sh0[n, 0, 1], b * sh0[n, 0, 2]
                        for k in range(coefficients - 1):
                            b = F(s[I(BASES + (k + 1) * LANES + i)])
                            red += b * shN[n, k, 0]
                            green += b * shN[n, k, 1]
                            blue += b * shN[n, k, 2]
                        values[c, n, 0] = max(red + F(0.5), F(0))
                        values[c, n, 1] = max(green + F(0.5), F(0))
                        values[c, n, 2] = max(blue + F(0.5), F(0))
    return means2d, conics, alphas, values, extents, radii


@kernel(parallel=True, fastmath=fast)
def project_backward(
    means, scales, quats, opacities, sh0, shN, degree, viewmats, Ks, positions,
    width, height, eps2d, antialiased, radii, values,
    v_means2d, v_conics, v_alphas, v_values,
):  # fmt: skip
    """Gradients of `project_forward` for the six raw parameters, summed over cameras."""
    N, C = len(means), len(viewmats)
    v_means = np.empty((N, 3), np.float32)
    v_scales = np.empty((N, 3), np.float32)
    v_quats = np.empty((N, 4), np.float32)
    v_opacities = np.empty(N, np.float32)
    v_sh0 = np.empty(sh0.shape, np.float32)
    v_shN = np.empty(shN.shape, np.float32)
    coefficients = (degree + 1) ** 2
    for chunk in prange((N + CHUNK - 1) // CHUNK):
        begin, end = chunk * CHUNK, min(N, (chunk + 1) * CHUNK)
        v_means[begin:end], v_scales[begin:end], v_quats[begin:end] = 0, 0, 0
        v_opacities[begin:end], v_sh0[begin:end], v_shN[begin:end] = 0, 0, 0
        s = np.zeros(ROWS * LANES)
        ids = np.empty(LANES, np.int64)
        for c in range(C):
            view, K = _scalars(viewmats[c]), Ks[c]
            fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
            px, py, pz = positions[c, 0], positions[c, 1], positions[c, 2]
            n = begin
            while n < end:
                count = 0
                while n < end and count < LANES:
                    if radii[c, n, 0] > 0:
                        ids[count] = n
                        count += 1
                    n += 1
                for i in range(count):
                    m = ids[i]
                    load(s, i, m, means, scales, quats, opacities)
                    s[U_ + i], s[V_ + i] = v_means2d[c, m, 0], v_means2d[c, m, 1]
                    s[DEPTH + i], s[ALPHA + i] = v_values[c, m, 3], v_alphas[c, m]
                    for k in range(3):
                        s[CONIC_A + k * LANES + i] = v_conics[c, m, k]
                if degree >= 0:
                    for i in range(LANES):
                        _store_bases(s, BASES, i, px, py, pz)
                    for i in range(count):
                        m = ids[i]
                        red = v_values[c, m, 0] if values[c, m, 0] > 0 else F(0)
                        green = v_values[c, m, 1] if values[c, m, 1] > 0 else F(0)
                        blue = v_values[c, m, 2] if values[c, m, 2] > 0 else F(0)
                        b = F(s[BASES + i])
                        v_sh0[m, 0, 0] += b * red
                        v_sh0[m, 0, 1] += b * green
                        v_sh0[m, 0, 2] += b * blue
                        for k in range(coefficients - 1):
                            b = F(s[I(BASES + (k + 1) * LANES + i)])
                            v_shN[m, k, 0] += b * red
                            v_shN[m, k, 1] += b * green
                            v_shN[m, k, 2] += b * blue
                            s[I(V_BASES + (k + 1) * LANES + i)] = (
                                shN[m, k, 0] * red + shN[m, k, 1] * green + shN[m, k, 2] * blue
                            )
                for i in range(LANES):
                    x, y, z = _to_camera(s, i, view)
                    inverse_z = 1 / z
                    x_ratio, y_ratio = x * inverse_z, y * inverse_z
                    rx, ry = _clamp(x_ratio, fx, cx, width), _clamp(y_ratio, fy, cy, height)
                    qw, qx, qy, qz, inverse_q = unit_quaternion(s, i)
                    R = rotation(qw, qx, qy, qz)
                    M = _world_to_pixels(view, rx, ry, fx, fy, inverse_z)
                    s0, s1, s2 = exp(s[I(SX + i)]), exp(s[I(SY + i)]), exp(s[I(SZ + i)])
                    U = _footprint(M, R, s0, s1, s2)
                    xx, xy, yy = _covariance(U)
                    factor, det = _compensation(xx, xy, yy, eps2d)
                    a, o, e = (yy + eps2d) / det, -xy / det, (xx + eps2d) / det

                    # conic = covariance^-1: v_covariance = -conic G conic
                    ga, gb, ge = s[I(CONIC_A + i)], 0.5 * s[I(CONIC_B + i)], s[I(CONIC_C + i)]
                    pa, pb = a * ga + o * gb, a * gb + o * ge
                    qa, qb = o * ga + e * gb, o * gb + e * ge
                    vxx, vxy, vyy = -(pa * a + pb * o), -(pa * o + pb * e), -(qa * o + qb * e)
                    opacity, v_opacity = sigmoid(s[I(OPACITY + i)]), s[I(ALPHA + i)]
                    if antialiased:
                        v_square = v_opacity * opacity * 0.5 / (factor + 1e-6)
                        rest, shrink = 1 - factor * factor, eps2d / det
                        vxx += v_square * (rest * a - shrink)
                        vxy += v_square * rest * o
                        vyy += v_square * (rest * e - shrink)
                        v_opacity = v_opacity * factor
                    s[I(OPACITY + i)] = v_opacity * opacity * (1 - opacity)

                    # U = M R diag(s): P and Q are the rows of its gradient, times s
                    p0 = 2 * (vxx * U[0] + vxy * U[3])
                    p1 = 2 * (vxx * U[1] + vxy * U[4])
                    p2 = 2 * (vxx * U[2] + vxy * U[5])
                    q0 = 2 * (vxy * U[0] + vyy * U[3])
                    q1 = 2 * (vxy * U[1] + vyy * U[4])
                    q2 = 2 * (vxy * U[2] + vyy * U[5])
                    s[I(SX + i)] = p0 * U[0] + q0 * U[3]  # for the log of the scale
                    s[I(SY + i)] = p1 * U[1] + q1 * U[4]
                    s[I(SZ + i)] = p2 * U[2] + q2 * U[5]
                    p0, p1, p2 = p0 * s0, p1 * s1, p2 * s2
                    q0, q1, q2 = q0 * s0, q1 * s1, q2 * s2
                    v00, v01, v02 = (
                        M[0] * p0 + M[3] * q0,
                        M[0] * p1 + M[3] * q1,
                        M[0] * p2 + M[3] * q2,
                    )
                    v10, v11, v12 = (
                        M[1] * p0 + M[4] * q0,
                        M[1] * p1 + M[4] * q1,
                        M[1] * p2 + M[4] * q2,
                    )
                    v20, v21, v22 = (
                        M[2] * p0 + M[5] * q0,
                        M[2] * p1 + M[5] * q1,
                        M[2] * p2 + M[5] * q2,
                    )
                    gw = 2 * (qx * (v21 - v12) + qy * (v02 - v20) + qz * (v10 - v01))
                    gx = 2 * (-2 * qx * (v11 + v22) + qy * (v01 + v10)
                              + qz * (v02 + v20) + qw * (v21 - v12))  # fmt: skip
                    gy = 2 * (qx * (v01 + v10) - 2 * qy * (v00 + v22)
                              + qz * (v12 + v21) + qw * (v02 - v20))  # fmt: skip
                    gz = 2 * (qx * (v02 + v20) + qy * (v12 + v21)
                              - 2 * qz * (v00 + v11) + qw * (v10 - v01))  # fmt: skip
                    along = gw * qw + gx * qx + gy * qy + gz * qz
                    s[I(QW + i)] = (gw - along * qw) * inverse_q
                    s[I(QX + i)] = (gx - along * qx) * inverse_q
                    s[I(QY + i)] = (gy - along * qy) * inverse_q
                    s[I(QZ + i)] = (gz - along * qz) * inverse_q

                    m00 = p0 * R[0] + p1 * R[1] + p2 * R[2]
                    m01 = p0 * R[3] + p1 * R[4] + p2 * R[5]
                    m02 = p0 * R[6] + p1 * R[7] + p2 * R[8]
                    m10 = q0 * R[0] + q1 * R[1] + q2 * R[2]
                    m11 = q0 * R[3] + q1 * R[4] + q2 * R[5]
                    m12 = q0 * R[6] + q1 * R[7] + q2 * R[8]
                    # by z through M's 1 / z, and by x / z and y / z where they are not clamped
                    v_z = -inverse_z * (m00 * M[0] + m01 * M[1] + m02 * M[2])
                    v_z -= inverse_z * (m10 * M[3] + m11 * M[4] + m12 * M[5])
                    v_rx = -fx * inverse_z * (m00 * view[8] + m01 * view[9] + m02 * view[10])
                    v_ry = -fy * inverse_z * (m10 * view[8] + m11 * view[9] + m12 * view[10])
                    v_rx = fx * s[I(U_ + i)] + (v_rx if rx == x_ratio else 0.0)
                    v_ry = fy * s[I(V_ + i)] + (v_ry if ry == y_ratio else 0.0)
                    v_x, v_y = v_rx * inverse_z, v_ry * inverse_z
                    v_z += s[I(DEPTH + i)] - v_x * x_ratio - v_y * y_ratio
                    v_mx = view[0] * v_x + view[4] * v_y + view[8] * v_z
                    v_my = view[1] * v_x + view[5] * v_y + view[9] * v_z
                    v_mz = view[2] * v_x + view[6] * v_y + view[10] * v_z
                    s[I(U_ + i)], s[I(V_ + i)], s[I(DEPTH + i)] = v_mx, v_my, v_mz
                if degree >= 1:
                    for i in range(LANES):
                        x, y, z, inverse = _direction(s, i, px, py, pz)
                        v = (
                            0.0, s[I(V_BASES + 1 * LANES + i)], s[I(V_BASES + 2 * LANES + i)],
                            s[I(V_BASES + 3 * LANES + i)], s[I(V_BASES + 4 * LANES + i)],
                            s[I(V_BASES + 5 * LANES + i)], s[I(V_BASES + 6 * LANES + i)],
                            s[I(V_BASES + 7 * LANES + i)], s[I(V_BASES + 8 * LANES + i)],
                            s[I(V_BASES + 9 * LANES + i)], s[I(V_BASES + 10 * LANES + i)],
                            s[I(V_BASES + 11 * LANES + i)], s[I(V_BASES + 12 * LANES + i)],
                            s[I(V_BASES + 13 * LANES + i)], s[I(V_BASES + 14 * LANES + i)],
                            s[I(V_BASES + 15 * LANES + i)],
                        )  # fmt: skip
                        gx, gy, gz = direction_gradient(x, y, z, v)
                        along = gx * x + gy * y + gz * z
                        s[I(U_ + i)] += (gx - along * x) * inverse
                        s[I(V_ + i)] += (gy - along * y) * inverse
                        s[I(DEPTH + i)] += (gz - along * z) * inverse
                for i in range(count):
                    m = ids[i]
                    for k in range(3):
                        v_means[m, k] += s[U_ + k * LANES + i]
                        v_scales[m, k] += s[SX + k * LANES + i]
                    for k in range(4):
                        v_quats[m, k] += s[QW + k * LANES + i]
                    v_opacities[m] += s[OPACITY + i]
    return v_means, v_scales, v_quats, v_opacities, v_sh0, v_shN
