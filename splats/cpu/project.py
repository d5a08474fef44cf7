# Gaussians to the image plane: EWA projection (Zwicker et al. 2001) with gsplat's conventions,
# activations and spherical-harmonic colours in the same pass; the backward pass recomputes instead
# of storing. Arithmetic is float64 (a small part of the cost), storage float32.
import math

import numpy as np
from numba import njit, prange

from splats.cpu.harmonics import bases, direction_gradient

ALPHA_MIN = 1 / 255
CHUNK = 256  # Gaussians per parallel work item, so that scratch is allocated rarely


@njit(inline="always")
def _rotation(qw, qx, qy, qz, R):
    """Rotation matrix of a unit quaternion."""
    R[0, 0] = 1 - 2 * (qy * qy + qz * qz)
    R[0, 1] = 2 * (qx * qy - qw * qz)
    R[0, 2] = 2 * (qx * qz + qw * qy)
    R[1, 0] = 2 * (qx * qy + qw * qz)
    R[1, 1] = 1 - 2 * (qx * qx + qz * qz)
    R[1, 2] = 2 * (qy * qz - qw * qx)
    R[2, 0] = 2 * (qx * qz - qw * qy)
    R[2, 1] = 2 * (qy * qz + qw * qx)
    R[2, 2] = 1 - 2 * (qx * qx + qy * qy)


@njit(inline="always")
def _unit_quaternion(q):
    norm = max(math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]), 1e-12)
    return q[0] / norm, q[1] / norm, q[2] / norm, q[3] / norm, norm


@njit(inline="always")
def _clamped(x, z, focal, center, size):
    """z * (x / z kept within the image plus 15 % of its size on each side), and if it was kept."""
    margin = 0.15 * size / focal
    low, high = -center / focal - margin, (size - center) / focal + margin
    ratio = x / z
    if ratio < low:
        return z * low, True
    if ratio > high:
        return z * high, True
    return x, False


@njit(inline="always")
def _camera_axes(V, R, A):
    """A = V[:3, :3] @ R, the Gaussian's axes in the camera."""
    for i in range(3):
        for k in range(3):
            A[i, k] = V[i, 0] * R[0, k] + V[i, 1] * R[1, k] + V[i, 2] * R[2, k]


@njit(inline="always")
def _footprint(A, s, fx, fy, z, tx, ty, U):
    """U = J A diag(s) [2, 3], a square root of the 2D covariance (tx, ty: clamped centre)."""
    for k in range(3):
        U[0, k] = (fx / z * A[0, k] - fx * tx / (z * z) * A[2, k]) * s[k]
        U[1, k] = (fy / z * A[1, k] - fy * ty / (z * z) * A[2, k]) * s[k]


@njit(inline="always")
def _covariance(U):
    """xx, xy, yy of U U^T."""
    return (
        U[0, 0] * U[0, 0] + U[0, 1] * U[0, 1] + U[0, 2] * U[0, 2],
        U[0, 0] * U[1, 0] + U[0, 1] * U[1, 1] + U[0, 2] * U[1, 2],
        U[1, 0] * U[1, 0] + U[1, 1] * U[1, 1] + U[1, 2] * U[1, 2],
    )


@njit(inline="always")
def _compensation(xx, xy, yy, eps2d):
    """sqrt(det / blurred det), Mip-Splatting's opacity factor, and the blurred determinant."""
    det = (xx + eps2d) * (yy + eps2d) - xy * xy
    return math.sqrt(max(0.0, (xx * yy - xy * xy) / det)), det


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def project_forward(
    means, scales, quats, opacities, sh0, shN, degree, viewmats, Ks, positions,
    width, height, near, far, eps2d, antialiased,
):  # fmt: skip
    """Project N raw Gaussians into C cameras (positions [C,3]: their centres in the world).

    Returns means2d [C,N,2], conics [C,N,3], depths [C,N], opacities [C,N] (activated, compensated
    if antialiased), colors [C,N,3] (zeros if degree < 0), extents [C,N,2] (half size in pixels of
    the box where alpha >= 1/255) and radii [C,N,2] int32 (extents rounded up; 0: not visible).
    """
    N, C = len(means), len(viewmats)
    means2d = np.zeros((C, N, 2), np.float32)
    conics = np.zeros((C, N, 3), np.float32)
    depths = np.zeros((C, N), np.float32)
    alphas = np.zeros((C, N), np.float32)
    colors = np.zeros((C, N, 3), np.float32)
    extents = np.zeros((C, N, 2), np.float32)
    radii = np.zeros((C, N, 2), np.int32)
    for chunk in prange((N + CHUNK - 1) // CHUNK):
        R, A, U = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
        s, b = np.empty(3), np.empty(16)
        for n in range(chunk * CHUNK, min(N, (chunk + 1) * CHUNK)):
            ready = False
            opacity = 1 / (1 + math.exp(-opacities[n]))
            for c in range(C):
                V, K = viewmats[c], Ks[c]
                mx, my, mz = means[n, 0], means[n, 1], means[n, 2]
                x = V[0, 0] * mx + V[0, 1] * my + V[0, 2] * mz + V[0, 3]
                y = V[1, 0] * mx + V[1, 1] * my + V[1, 2] * mz + V[1, 3]
                z = V[2, 0] * mx + V[2, 1] * my + V[2, 2] * mz + V[2, 3]
                if not (near <= z <= far):
                    continue
                if not ready:
                    qw, qx, qy, qz, _ = _unit_quaternion(quats[n])
                    _rotation(qw, qx, qy, qz, R)
                    for k in range(3):
                        s[k] = math.exp(scales[n, k])
                    ready = True
                fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
                tx, _ = _clamped(x, z, fx, cx, width)
                ty, _ = _clamped(y, z, fy, cy, height)
                _camera_axes(V, R, A)
                _footprint(A, s, fx, fy, z, tx, ty, U)
                xx, xy, yy = _covariance(U)
                factor, det = _compensation(xx, xy, yy, eps2d)
                if not 0 < det < np.inf:
                    continue
                xx, yy = xx + eps2d, yy + eps2d
                alpha = opacity * factor if antialiased else opacity
                if not alpha >= ALPHA_MIN:
                    continue
                extend = min(3.33, math.sqrt(2 * math.log(alpha / ALPHA_MIN)))
                u, v = fx * x / z + cx, fy * y / z + cy
                ex, ey = extend * math.sqrt(xx), extend * math.sqrt(yy)
                rx, ry = math.ceil(ex), math.ceil(ey)
                # also turns away what is not finite
                if not (u + rx > 0 and u - rx < width and v + ry > 0 and v - ry < height):
                    continue
                means2d[c, n, 0], means2d[c, n, 1] = u, v
                conics[c, n, 0] = yy / det
                conics[c, n, 1] = -xy / det
                conics[c, n, 2] = xx / det
                depths[c, n] = z
                alphas[c, n] = alpha
                extents[c, n, 0], extents[c, n, 1] = ex, ey
                radii[c, n, 0], radii[c, n, 1] = min(rx, 2**30), min(ry, 2**30)
                if degree >= 0:
                    dx, dy, dz = mx - positions[c, 0], my - positions[c, 1], mz - positions[c, 2]
                    norm = max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
                    bases(degree, dx / norm, dy / norm, dz / norm, b)
                    for d in range(3):
                        color = 0.5 + b[0] * sh0[n, 0, d]
                        for k in range((degree + 1) ** 2 - 1):
                            color += b[k + 1] * shN[n, k, d]
                        colors[c, n, d] = max(color, 0.0)
    return means2d, conics, depths, alphas, colors, extents, radii


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def project_backward(
    means, scales, quats, opacities, sh0, shN, degree, viewmats, Ks, positions,
    width, height, eps2d, antialiased, radii, colors,
    v_means2d, v_conics, v_depths, v_alphas, v_colors,
):  # fmt: skip
    """Gradients of `project_forward` for the six raw parameters, summed over cameras."""
    N, C = len(means), len(viewmats)
    v_means = np.zeros((N, 3), np.float32)
    v_scales = np.zeros((N, 3), np.float32)
    v_quats = np.zeros((N, 4), np.float32)
    v_opacities = np.zeros(N, np.float32)
    v_sh0 = np.zeros(sh0.shape, np.float32)
    v_shN = np.zeros(shN.shape, np.float32)
    for chunk in prange((N + CHUNK - 1) // CHUNK):
        R, A, U = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
        vR, vU = np.empty((3, 3)), np.empty((2, 3))
        s, b, vb, vm, vs = np.empty(3), np.empty(16), np.empty(16), np.empty(3), np.empty(3)
        for n in range(chunk * CHUNK, min(N, (chunk + 1) * CHUNK)):
            seen = False
            for c in range(C):
                seen |= radii[c, n, 0] > 0
            if not seen:
                continue
            qw, qx, qy, qz, qnorm = _unit_quaternion(quats[n])
            _rotation(qw, qx, qy, qz, R)
            for k in range(3):
                s[k] = math.exp(scales[n, k])
                vm[k] = vs[k] = 0.0
                for i in range(3):
                    vR[i, k] = 0.0
            opacity = 1 / (1 + math.exp(-opacities[n]))
            v_opacity = 0.0
            for c in range(C):
                if radii[c, n, 0] == 0:
                    continue
                V, K = viewmats[c], Ks[c]
                mx, my, mz = means[n, 0], means[n, 1], means[n, 2]
                x = V[0, 0] * mx + V[0, 1] * my + V[0, 2] * mz + V[0, 3]
                y = V[1, 0] * mx + V[1, 1] * my + V[1, 2] * mz + V[1, 3]
                z = V[2, 0] * mx + V[2, 1] * my + V[2, 2] * mz + V[2, 3]
                fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
                tx, x_held = _clamped(x, z, fx, cx, width)
                ty, y_held = _clamped(y, z, fy, cy, height)
                _camera_axes(V, R, A)
                _footprint(A, s, fx, fy, z, tx, ty, U)
                xx, xy, yy = _covariance(U)
                factor, det = _compensation(xx, xy, yy, eps2d)
                a, o, e = (yy + eps2d) / det, -xy / det, (xx + eps2d) / det

                # conic = covariance^-1: v_covariance = -conic G conic
                ga, gb, ge = v_conics[c, n, 0], 0.5 * v_conics[c, n, 1], v_conics[c, n, 2]
                pa, pb = a * ga + o * gb, a * gb + o * ge
                qa, qb = o * ga + e * gb, o * gb + e * ge
                vxx, vxy, vyy = -(pa * a + pb * o), -(pa * o + pb * e), -(qa * o + qb * e)
                v_alpha = v_alphas[c, n]
                if antialiased:
                    v_opacity += v_alpha * factor
                    v_square = v_alpha * opacity * 0.5 / (factor + 1e-6)
                    rest, shrink = 1 - factor * factor, eps2d / det
                    vxx += v_square * (rest * a - shrink)
                    vxy += v_square * rest * o
                    vyy += v_square * (rest * e - shrink)
                else:
                    v_opacity += v_alpha

                vj0x = vj0z = vj1y = vj1z = 0.0
                for k in range(3):
                    vU[0, k] = 2 * (vxx * U[0, k] + vxy * U[1, k])
                    vU[1, k] = 2 * (vxy * U[0, k] + vyy * U[1, k])
                    vj0x += vU[0, k] * A[0, k] * s[k]
                    vj0z += vU[0, k] * A[2, k] * s[k]
                    vj1y += vU[1, k] * A[1, k] * s[k]
                    vj1z += vU[1, k] * A[2, k] * s[k]
                    vs[k] += vU[0, k] * U[0, k] + vU[1, k] * U[1, k]  # for the log of the scale
                    va0 = vU[0, k] * fx / z * s[k]
                    va1 = vU[1, k] * fy / z * s[k]
                    va2 = -(vU[0, k] * fx * tx + vU[1, k] * fy * ty) / (z * z) * s[k]
                    for i in range(3):
                        vR[i, k] += V[0, i] * va0 + V[1, i] * va1 + V[2, i] * va2

                vu, vv = v_means2d[c, n, 0], v_means2d[c, n, 1]
                vx, vy = vu * fx / z, vv * fy / z
                vz = v_depths[c, n] - (vu * fx * x + vv * fy * y) / (z * z)
                vz -= (vj0x * fx + vj1y * fy) / (z * z)
                if x_held:
                    vz += vj0z * fx * tx / (z * z * z)
                else:
                    vx -= vj0z * fx / (z * z)
                    vz += 2 * vj0z * fx * tx / (z * z * z)
                if y_held:
                    vz += vj1z * fy * ty / (z * z * z)
                else:
                    vy -= vj1z * fy / (z * z)
                    vz += 2 * vj1z * fy * ty / (z * z * z)
                for i in range(3):
                    vm[i] += V[0, i] * vx + V[1, i] * vy + V[2, i] * vz

                if degree >= 0:
                    dx, dy, dz = mx - positions[c, 0], my - positions[c, 1], mz - positions[c, 2]
                    norm = max(math.sqrt(dx * dx + dy * dy + dz * dz), 1e-12)
                    dx, dy, dz = dx / norm, dy / norm, dz / norm
                    bases(degree, dx, dy, dz, b)
                    count = (degree + 1) ** 2
                    for k in range(count):
                        vb[k] = 0.0
                    for d in range(3):
                        v = v_colors[c, n, d]
                        if colors[c, n, d] > 0 and v != 0:
                            v_sh0[n, 0, d] += b[0] * v
                            for k in range(1, count):
                                v_shN[n, k - 1, d] += b[k] * v
                                vb[k] += shN[n, k - 1, d] * v
                    gx, gy, gz = direction_gradient(degree, dx, dy, dz, vb)
                    along = gx * dx + gy * dy + gz * dz
                    vm[0] += (gx - along * dx) / norm
                    vm[1] += (gy - along * dy) / norm
                    vm[2] += (gz - along * dz) / norm

            for k in range(3):
                v_means[n, k] = vm[k]
                v_scales[n, k] = vs[k]
            v_opacities[n] = v_opacity * opacity * (1 - opacity)
            gw = 2 * (qx * (vR[2, 1] - vR[1, 2]) + qy * (vR[0, 2] - vR[2, 0])
                      + qz * (vR[1, 0] - vR[0, 1]))  # fmt: skip
            gx = 2 * (-2 * qx * (vR[1, 1] + vR[2, 2]) + qy * (vR[0, 1] + vR[1, 0])
                      + qz * (vR[0, 2] + vR[2, 0]) + qw * (vR[2, 1] - vR[1, 2]))  # fmt: skip
            gy = 2 * (qx * (vR[0, 1] + vR[1, 0]) - 2 * qy * (vR[0, 0] + vR[2, 2])
                      + qz * (vR[1, 2] + vR[2, 1]) + qw * (vR[0, 2] - vR[2, 0]))  # fmt: skip
            gz = 2 * (qx * (vR[0, 2] + vR[2, 0]) + qy * (vR[1, 2] + vR[2, 1])
                      - 2 * qz * (vR[0, 0] + vR[1, 1]) + qw * (vR[1, 0] - vR[0, 1]))  # fmt: skip
            along = gw * qw + gx * qx + gy * qy + gz * qz
            v_quats[n, 0] = (gw - along * qw) / qnorm
            v_quats[n, 1] = (gx - along * qx) / qnorm
            v_quats[n, 2] = (gy - along * qy) / qnorm
            v_quats[n, 3] = (gz - along * qz) / qnorm
    return v_means, v_scales, v_quats, v_opacities, v_sh0, v_shN
