# Undistortion: the same size, and a pinhole K at which every pixel is filled. OpenCV makes the
# maps of its own models; for COLMAP's others, pycolmap's projection of a grid of rays is the map.
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from scenes.capture import Lens
from scenes.panoramas import compute_panorama_maps

WIDEST_FOCAL = 0.2  # of the longer side: 136 degrees
# Our pixel centres lie at half-integers, OpenCV's at integers.
HALF_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def compute_undistortion(lens: Lens) -> tuple[Lens, np.ndarray, np.ndarray]:
    """The pinhole lens that replaces `lens`, and the two maps [H, W] float32 of `remap_image`.

    Raises ValueError if the distortion folds over inside the photo.
    """
    if lens.model == "EQUIRECTANGULAR":
        return compute_panorama_maps(lens)
    if lens.model or lens.K[0, 1]:
        return _undistort_by_projection(lens)
    size = (lens.width, lens.height)
    K = lens.K - HALF_PIXEL
    distortion = np.array(lens.distortion, np.float64)
    try:
        if lens.fisheye:
            K_new = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(
                K, distortion, size, np.eye(3), balance=0.0
            )
            # Near 180 degrees a pinhole would stretch the rim without limit: crop to the middle.
            shortest = WIDEST_FOCAL * max(size)
            if not min(K_new[0, 0], K_new[1, 1]) > shortest:
                K_new = np.array([[shortest, 0, K[0, 2]], [0, shortest, K[1, 2]], [0, 0, 1]])
        else:
            K_new, _ = cv2.getOptimalNewCameraMatrix(K, distortion, size, 0.0, size)
        maps = _maps(lens, K, distortion, K_new)
        # OpenCV fits the view to a few points of the border; check all of them.
        for _ in range(60):
            if _all_inside(maps, size):
                break
            K_new = K_new.copy()
            K_new[[0, 1], [0, 1]] *= 1.005
            maps = _maps(lens, K, distortion, K_new)
    except cv2.error:
        K_new = np.full((3, 3), np.nan)
    if not np.isfinite(K_new).all() or min(K_new[0, 0], K_new[1, 1]) <= 0:
        raise ValueError(_FOLDS.format(lens.distortion))
    if not _all_inside(maps, size) or max(K_new[0, 0] / K[0, 0], K_new[1, 1] / K[1, 1]) > 20:
        raise ValueError(_FOLDS.format(lens.distortion))
    K_new = K_new.astype(np.float64) + HALF_PIXEL
    return replace(lens, K=K_new, distortion=(), fisheye=False), *maps


def project_rays(lens: Lens, rays: np.ndarray) -> np.ndarray:
    """Where rays [N, 2] (x/z, y/z) land in the photo, [N, 2] in pixels; not finite where nowhere.

    Sources: COLMAP's camera models; OpenCV's; BROWN is Metashape's (appendix "Camera models" of
    its manual) with tangential terms in OpenCV's order.
    """
    if lens.model not in ("", "BROWN"):
        from scenes.bindings import pycolmap

        if lens.model not in pycolmap.CameraModelId.__members__:
            raise ValueError(
                f"pycolmap {pycolmap.__version__} does not know its model {lens.model}; install a "
                "newer one (pip install -U pycolmap)"
            )
        (fx, fy), (cx, cy) = lens.K[[0, 1], [0, 1]], lens.K[:2, 2]
        camera = pycolmap.Camera(
            model=lens.model,
            width=lens.width,
            height=lens.height,
            params=[fx, fy, cx, cy, *lens.distortion],
        )
        return camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))]))
    if lens.fisheye:
        bent = cv2.fisheye.distortPoints(rays[:, None], np.eye(3), np.array(lens.distortion))[:, 0]
    else:
        k1, k2, p1, p2, k3, k4, k5, k6 = (*lens.distortion, *[0.0] * 8)[:8]
        x, y = rays.T
        r2 = x * x + y * y
        if lens.model == "BROWN":
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
        else:
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            radial /= 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        bent = np.column_stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ]
        )
    return bent @ lens.K[:2, :2].T + lens.K[:2, 2]


def _undistort_by_projection(lens: Lens) -> tuple[Lens, np.ndarray, np.ndarray]:
    """`compute_undistortion` of any model that can project rays."""
    # How far rays along the axes reach, in either direction, before they leave the photo.
    widest = 0.5 / WIDEST_FOCAL
    steps = np.linspace(0, widest, 2000)
    reach = []
    for axis, length in enumerate((lens.width, lens.height)):
        for sign in (-1, 1):
            rays = np.zeros((len(steps), 2))
            rays[:, axis] = sign * steps
            at = sign * project_rays(lens, rays)[:, axis]
            inside = at < (length if sign > 0 else 0)
            grows = np.append(True, np.diff(at) > 0)
            # Without a pinhole's growth, the lens shows the same pixel in two directions.
            n = int(np.argmin(inside & grows)) or len(steps)
            if n < len(steps) and not grows[n]:
                raise ValueError(_FOLDS.format(lens.distortion))
            reach.append(sign * steps[max(1, n - 1)])
    left, right, top, bottom = reach
    fx, fy = lens.width / (right - left), lens.height / (bottom - top)
    shortest = WIDEST_FOCAL * max(lens.width, lens.height)
    fx, fy = max(fx, shortest), max(fy, shortest)
    K = np.array([[fx, 0, -left * fx], [0, fy, -top * fy], [0, 0, 1]])
    size = (lens.width, lens.height)
    # Corners may reach less far than the axes do: narrow the view until all pixels are inside.
    low, high = 1.0, 1.0
    while not _all_inside(_project_maps(lens, _narrowed(K, high, size), border=True), size):
        low, high = high, 1.5 * high
        if high > 20:
            raise ValueError(_FOLDS.format(lens.distortion))
    while high / low > 1.0005:
        scale = (low * high) ** 0.5
        inside = _all_inside(_project_maps(lens, _narrowed(K, scale, size), border=True), size)
        low, high = (low, scale) if inside else (scale, high)
    K = _narrowed(K, high, size)
    maps = _project_maps(lens, K)
    unfolded = all((np.diff(map_, axis=1 - i) > 0).all() for i, map_ in enumerate(maps))
    if not unfolded or not _all_inside(maps, size):
        raise ValueError(_FOLDS.format(lens.distortion))
    return replace(lens, K=K, distortion=(), fisheye=False, model=""), *maps


def _narrowed(K: np.ndarray, scale: float, size: tuple[int, int]) -> np.ndarray:
    """K with `scale` times the focal lengths about the middle of the view."""
    narrow = K.copy()
    narrow[[0, 1], [0, 1]] *= scale
    middle = np.array(size) / 2
    narrow[:2, 2] = middle + scale * (K[:2, 2] - middle)
    return narrow


def _project_maps(lens: Lens, K: np.ndarray, border: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The maps [H, W] float32 from a pinhole K to the photo, or only their border, [1, N]."""
    columns, rows = np.arange(lens.width) + 0.5, np.arange(lens.height) + 0.5
    x, y = (columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]
    if border:
        sides = [(x, y[:1]), (x, y[-1:]), (x[:1], y), (x[-1:], y)]
        grids = [np.stack(np.meshgrid(*side), -1).reshape(-1, 2) for side in sides]
        at = project_rays(lens, np.concatenate(grids))[None] - 0.5
        return at[..., 0], at[..., 1]
    maps = np.empty((2, lens.height, lens.width), np.float32)
    rows_at_once = max(1, 1_000_000 // lens.width)
    for first in range(0, lens.height, rows_at_once):
        rays = np.stack(np.meshgrid(x, y[first : first + rows_at_once]), -1)
        at = project_rays(lens, rays.reshape(-1, 2)).reshape(rays.shape) - 0.5
        maps[:, first : first + rows_at_once] = at.transpose(2, 0, 1)
    return maps[0], maps[1]


_FOLDS = "the distortion {} cannot be undone: it folds over inside the photo"


def _maps(
    lens: Lens, K: np.ndarray, distortion: np.ndarray, K_new: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    size = (lens.width, lens.height)
    make = cv2.fisheye.initUndistortRectifyMap if lens.fisheye else cv2.initUndistortRectifyMap
    return make(K, distortion, np.eye(3), K_new, size, cv2.CV_32FC1)


def _all_inside(maps: tuple[np.ndarray, np.ndarray], size: tuple[int, int]) -> bool:
    return all(
        bool((map_ >= -0.5).all() and (map_ <= length - 0.5).all())
        for map_, length in zip(maps, size, strict=True)
    )


def remap_image(image: np.ndarray, maps: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The undistorted image [H, W, 3]; the outermost half pixel repeats its neighbour."""
    return cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
