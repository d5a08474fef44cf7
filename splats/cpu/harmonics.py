# Real spherical harmonics of degree 0 to 3 and their derivatives, in the polynomial form of
# "Efficient Spherical Harmonic Evaluation" (Sloan, JCGT 2013), signs as in 3D Gaussian Splatting.
# Always all 16, without branches, so that loops over directions vectorise.
# After a change here delete splats/cpu/__pycache__: numba's cache of project.py does not see it.
from numba import njit


@njit(inline="always")
def bases(x, y, z):
    """The 16 basis values at the unit direction (x, y, z)."""
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
