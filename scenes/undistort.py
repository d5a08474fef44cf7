# Undistortion with OpenCV: the same size, and a pinhole K at which every pixel is filled.
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from scenes.capture import Lens

WIDEST_FOCAL = 0.2  # of the longer side: 136 degrees
# Our pixel centres lie at half-integers, OpenCV's at integers.
HALF_PIXEL = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def compute_undistortion(lens: Lens) -> tuple[Lens, np.ndarray, np.ndarray]:
    """The pinhole lens that replaces `lens`, and the two maps [H, W] float32 of `remap_image`.

    Raises ValueError if the distortion folds over inside the photo.
    """
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
