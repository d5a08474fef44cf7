# Parts of the CPU kernel that pictures and gradients do not reveal.
import numpy as np
from numba import njit

from splats.cpu import functions
from splats.cpu.functions import bases, direction_gradient
from splats.cpu.tiles import sort_by_depth


@njit(error_model="numpy")
def exp_log_sigmoid(x):
    out = np.empty((3, len(x)))
    for i in range(len(x)):
        out[0, i] = functions.exp(x[i])
        out[1, i] = functions.log(out[0, i])
        out[2, i] = functions.sigmoid(x[i])
    return out


def test_exp_log_and_sigmoid_are_those_of_the_library():
    x = np.linspace(-90, 90, 10_001)
    exp, log, sigmoid = exp_log_sigmoid(x)
    np.testing.assert_allclose(exp, np.exp(x), rtol=1e-13)
    np.testing.assert_allclose(log, x, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-x)), rtol=1e-13)
    beyond = exp_log_sigmoid(np.array([-np.inf, -1e9, 1e9, np.inf, np.nan]))
    assert (beyond[0, :2] > 0).all() and (beyond[0, :2] < 1e-300).all()
    assert (beyond[0, 2:4] > 1e300).all()
    assert np.isnan(beyond[0, 4]) and np.isnan(beyond[2, 4])


def test_gradients_of_harmonics_are_their_slopes():
    rng = np.random.default_rng(0)
    point, v, step = rng.normal(size=3), rng.normal(size=16), 1e-6
    value = lambda p: np.dot(bases.py_func(*p), v)  # noqa: E731
    slopes = [(value(point + d) - value(point - d)) / (2 * step) for d in step * np.eye(3)]
    np.testing.assert_allclose(direction_gradient.py_func(*point, v), slopes, rtol=1e-6)


def test_the_visible_are_ordered_by_depth_and_equal_depths_by_index():
    rng = np.random.default_rng(0)
    depths = rng.choice(np.exp(rng.normal(0, 20, 300)).astype(np.float32), 2000)
    radii = rng.integers(0, 2, (2000, 2)).astype(np.int32)
    expected = np.argsort(np.where(radii[:, 0] > 0, depths, np.inf), kind="stable")
    expected = expected[: (radii[:, 0] > 0).sum()]
    np.testing.assert_array_equal(sort_by_depth(depths, radii), expected)
    assert len(sort_by_depth(depths[:0], radii[:0])) == 0
