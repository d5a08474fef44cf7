# exp and log without library calls, so that loops over Gaussians vectorise. float64: the relative
# error is below 1e-13. After a change here delete splats/cpu/__pycache__: numba's caches of the
# files that use these do not see it.
import math

import numpy as np
from numba import njit

_nodes = 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
E0, E1, E2, E3, E4, E5, E6, E7, E8, E9, E10 = np.polynomial.polynomial.polyfit(
    _nodes, 2**_nodes, 10
)
LOG2E, LN2 = math.log2(math.e), math.log(2)
SQRT_HALF_BITS = np.float64(math.sqrt(0.5)).view(np.int64)


@njit(inline="always")
def exp(x):
    """e^x; beyond -700 and 700 it stays what it is there."""
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
    return 1 / (1 + exp(-x))
