# Functions of the kernels' loops without library calls or branches, so that loops over Gaussians
# vectorize: exp, log and sigmoid, and real spherical harmonics of degree 0 to 3 in the polynomial
# form of "Efficient Spherical Harmonic Evaluation" (Sloan, JCGT 2013), signs as in 3D Gaussian
# Splatting. After a change here delete splats/cpu/__pycache__: numba's caches of the files that use
# these do not notice it.
import math

import numpy as np
from numba import njit

# exp: 2^f on [-1/2, 1/2]; with float64 the relative error is below 1e-13, as is log's
_nodes = 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
E0, E1, E2, E3, E4, E5, E6, E7, E8, E9, E10 = np.polynomial.polynomial.polyfit(
    _nodes, 2**_nodes, 10
)
LOG2E, LN2 = math.log2(math.e), math.log(2)
SQRT_HALF_BITS = np.float64(math.sqrt(0.5)).view(np.int64)


@njit(inline="always")
def exp(x):
    """e^x; constant beyond -700 and 700."""
    t = LOG2E * min(max(x, -700.0), 700.0)
    n = np.int64(t + 1100.5) - 1100
    f = t - n
    p = E5 + f * (E6 + f * (E7 + f * (E8 + f * (E9 + f * E10))))
    p = E0 + f * (E1 + f * (E2 + f * (E3 + f * (E4 + f * p))))
    return p * np.int64((n + 1023) << 52).view(np.float64)


@njit(inline="always")
def log(x):
    """Natural logarithm of a positive, finite x."""
    bits = np.float64(x).view(np.int64)
    n = (bits - SQRT_HALF_BITS) >> 52
    m = np.int64(bits - (n << 52)).view(np.float64)  # sqrt(1/2) <= m < sqrt(2)
    s = (m - 1) / (m + 1)
    q = s * s
    p = 1 / 9 + q * (1 / 11 + q * (1 / 13 + q * (1 / 15 + q * (1 / 17))))
    return n * LN2 + 2 * s * (1 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * p))))


@njit(inline="always")
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1 / (1 + exp(-x))


@njit(inline="always")
def bases(x, y, z):
    """The 16 basis values at the unit direction (x, y, z); always all of them."""
    c2, s2 = x * x - y * y, 2 * x * y
    w = -2.285228997322329 * z * z + 0.4570457994644658
    return (
        0.2820947917738781,
        -0.48860251190292 * y,
        0.48860251190292 * z,
        -0.48860251190292 * x,
        0.5462742152960395 * s2,
        -1.092548430592079 * z * y,
        0.9461746957575601 * z * z - 0.3153915652525201,
        -1.092548430592079 * z * x,
        0.5462742152960395 * c2,
        -0.5900435899266435 * (x * s2 + y * c2),
        1.445305721320277 * z * s2,
        w * y,
        z * (1.865881662950577 * z * z - 1.119528997770346),
        w * x,
        1.445305721320277 * z * c2,
        -0.5900435899266435 * (x * c2 - y * s2),
    )


@njit(inline="always")
def direction_gradient(x, y, z, v):
    """d/d(x, y, z) of sum_k v[k] * basis_k at (x, y, z); v holds 16 values, the first unread."""
    _, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15 = v
    c2, s2 = x * x - y * y, 2 * x * y
    w = -2.285228997322329 * z * z + 0.4570457994644658
    gx = -0.48860251190292 * v3 + 1.092548430592079 * (y * v4 - z * v7 + x * v8)
    gx += -1.7701307697799304 * (s2 * v9 + c2 * v15)
    gx += 2.890611442640554 * z * (y * v10 + x * v14) + w * v13
    gy = -0.48860251190292 * v1 + 1.092548430592079 * (x * v4 - z * v5 - y * v8)
    gy += -1.7701307697799304 * (c2 * v9 - s2 * v15)
    gy += 2.890611442640554 * z * (x * v10 - y * v14) + w * v11
    gz = 0.48860251190292 * v2 - 1.092548430592079 * (y * v5 + x * v7)
    gz += 1.8923493915151202 * z * v6 + 1.445305721320277 * (s2 * v10 + c2 * v14)
    gz += -4.570457994644658 * z * (y * v11 + x * v13)
    gz += (5.597644988851731 * z * z - 1.119528997770346) * v12
    return gx, gy, gz
