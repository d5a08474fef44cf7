# MCMC's noise (arXiv 2404.09591, equation 8) on the CPU, in one pass over the lanes of project.py.
import numpy as np
from numba import prange

from runtime.kernels import WarmUp, kernel
from splats.cpu.functions import exp, sigmoid
from splats.cpu.project import (
    CHUNK,
    LANES,
    MX,
    MY,
    MZ,
    OPACITY,
    SX,
    SY,
    SZ,
    I,
    fast,
    load,
    rotation,
    unit_quaternion,
)  # fmt: skip

X, Y, Z, ROWS = 11 * LANES, 12 * LANES, 13 * LANES, 14


@kernel(parallel=True, fastmath=fast)
def add_noise(means, scales, quats, opacities, noise, amount):
    """Add noise [N, 3], normal, to the means [N, 3] in place: times `amount`, by each Gaussian's
    covariance and by a sigmoid that is next to nothing for opaque ones.

    scales [N, 3] log, quats [N, 4] and opacities [N] logit are raw; all float32.
    """
    N = len(means)
    for chunk in prange((N + CHUNK - 1) // CHUNK):
        s = np.zeros(ROWS * LANES)
        for first in range(chunk * CHUNK, min(N, (chunk + 1) * CHUNK), LANES):
            count = min(LANES, N - first)
            for i in range(count):
                load(s, i, first + i, means, scales, quats, opacities)
                for k in range(3):
                    s[X + k * LANES + i] = noise[first + i, k]
            for i in range(LANES):
                w, x, y, z, _ = unit_quaternion(s, i)
                R = rotation(w, x, y, z)
                gate = amount * sigmoid(100 * (1 - sigmoid(s[I(OPACITY + i)]) - 0.995))
                a, b, c = s[I(X + i)], s[I(Y + i)], s[I(Z + i)]
                u = gate * exp(2 * s[I(SX + i)]) * (R[0] * a + R[3] * b + R[6] * c)
                v = gate * exp(2 * s[I(SY + i)]) * (R[1] * a + R[4] * b + R[7] * c)
                t = gate * exp(2 * s[I(SZ + i)]) * (R[2] * a + R[5] * b + R[8] * c)
                s[I(MX + i)] += R[0] * u + R[1] * v + R[2] * t
                s[I(MY + i)] += R[3] * u + R[4] * v + R[5] * t
                s[I(MZ + i)] += R[6] * u + R[7] * v + R[8] * t
            for i in range(count):
                for k in range(3):
                    means[first + i, k] = s[MX + k * LANES + i]


def compile_noise() -> None:
    """Have numba compile the kernel, on one Gaussian."""
    rows, opacity = np.ones((1, 3), np.float32), np.ones(1, np.float32)
    add_noise(rows, rows, np.ones((1, 4), np.float32), opacity, rows, 1.0)


NOISE = WarmUp(compile_noise, (add_noise,))
