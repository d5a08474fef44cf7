# Real spherical harmonics of degree 0 to 3 and their derivatives, in the polynomial form of
# "Efficient Spherical Harmonic Evaluation" (Sloan, JCGT 2013), signs as in 3D Gaussian Splatting.
# After a change here delete splats/cpu/__pycache__: numba's cache of project.py does not see it.
from numba import njit


@njit(inline="always")
def bases(degree, x, y, z, b):
    """Write the (degree + 1)^2 basis values at the unit direction (x, y, z) into b."""
    b[0] = 0.2820947917738781
    if degree < 1:
        return
    b[1] = -0.48860251190292 * y
    b[2] = 0.48860251190292 * z
    b[3] = -0.48860251190292 * x
    if degree < 2:
        return
    c2, s2 = x * x - y * y, 2 * x * y
    b[4] = 0.5462742152960395 * s2
    b[5] = -1.092548430592079 * z * y
    b[6] = 0.9461746957575601 * z * z - 0.3153915652525201
    b[7] = -1.092548430592079 * z * x
    b[8] = 0.5462742152960395 * c2
    if degree < 3:
        return
    w = -2.285228997322329 * z * z + 0.4570457994644658
    b[9] = -0.5900435899266435 * (x * s2 + y * c2)
    b[10] = 1.445305721320277 * z * s2
    b[11] = w * y
    b[12] = z * (1.865881662950577 * z * z - 1.119528997770346)
    b[13] = w * x
    b[14] = 1.445305721320277 * z * c2
    b[15] = -0.5900435899266435 * (x * c2 - y * s2)


@njit(inline="always")
def direction_gradient(degree, x, y, z, v):
    """d/d(x, y, z) of sum_k v[k] * basis_k at (x, y, z)."""
    gx = gy = gz = 0.0
    if degree >= 1:
        gy -= 0.48860251190292 * v[1]
        gz += 0.48860251190292 * v[2]
        gx -= 0.48860251190292 * v[3]
    if degree >= 2:
        gx += 1.092548430592079 * (y * v[4] - z * v[7] + x * v[8])
        gy += 1.092548430592079 * (x * v[4] - z * v[5] - y * v[8])
        gz += 1.092548430592079 * (-y * v[5] - x * v[7]) + 1.8923493915151202 * z * v[6]
    if degree >= 3:
        w = -2.285228997322329 * z * z + 0.4570457994644658
        gx += -0.5900435899266435 * (6 * x * y * v[9] + 3 * (x * x - y * y) * v[15])
        gy += -0.5900435899266435 * (3 * (x * x - y * y) * v[9] - 6 * x * y * v[15])
        gx += 2.890611442640554 * z * (y * v[10] + x * v[14]) + w * v[13]
        gy += 2.890611442640554 * z * (x * v[10] - y * v[14]) + w * v[11]
        gz += 1.445305721320277 * (2 * x * y * v[10] + (x * x - y * y) * v[14])
        gz += -4.570457994644658 * z * (y * v[11] + x * v[13])
        gz += (5.597644988851731 * z * z - 1.119528997770346) * v[12]
    return gx, gy, gz
