# Views from photos: decoded, undistorted, upright, at the wanted size.
from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from runtime.text import format_count, format_list
from scenes.capture import Capture, Lens
from scenes.photos import TURNS, Sources, UnreadablePhoto, decode, decode_smaller, shrink_size
from scenes.undistort import compute_undistortion, remap_image


@dataclass(frozen=True)
class View:
    """A posed photo.

    image: uint8 [H, W, 3]. K: [3, 3] and viewmat: [4, 4], float64. scaled: "NAME is WxH, not WxH"
    if the camera states another size of the photo, else "".
    """

    name: str
    image: np.ndarray
    K: np.ndarray
    viewmat: np.ndarray
    scaled: str


def decode_views(
    capture: Capture, sources: Sources, factor: int, progress: bool
) -> tuple[list[View], list[str]]:
    """The views with a readable photo, in order, and notes on the others."""
    # Views that share a lens share its maps; a few suffice, since views come in order.
    maps_of = _memo(compute_undistortion)

    def decode_view(i: int) -> View | str:
        path = sources.paths[i]
        if path is None:
            return ""
        try:
            return _view(
                *(capture.names[i], path, capture.lenses[i], capture.viewmats[i]),
                *(sources, factor, maps_of),
            )
        except UnreadablePhoto as error:
            return f"{capture.names[i]} {error}"

    n = len(capture.names)
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        results = list(
            tqdm(pool.map(decode_view, range(n)), "photos", n, disable=not progress, leave=False)
        )
    finally:
        pool.shutdown(cancel_futures=True)
    views = [result for result in results if isinstance(result, View)]
    missing = [name for name, result in zip(capture.names, results, strict=True) if result == ""]
    unreadable = [result for result in results if isinstance(result, str) and result]
    notes = []
    if missing:
        notes.append(
            f"skipped {format_count(len(missing), 'view')} without a photo in "
            f"{capture.photo_folder}: {format_list(missing, 3)}"
        )
    if unreadable:
        what = format_count(len(unreadable), "unreadable photo")
        notes.append(f"skipped {what}: {format_list(unreadable)}")
    scaled = [view.scaled for view in views if view.scaled]
    if scaled:
        at_factor = f" at --data_factor {factor}" if factor > 1 else ""
        notes.append(
            f"{format_count(len(scaled), 'photo')} not of the size that the camera states"
            f"{at_factor} ({scaled[0]}); the cameras are scaled to fit"
        )
    return views, notes


def _memo(function: Callable) -> Callable[[Lens], tuple]:
    """`compute_undistortion` with a cache of the last lenses, by their values."""
    lenses: dict[tuple, Lens] = {}

    @lru_cache(maxsize=4)
    def by_key(key: tuple) -> tuple:
        return function(lenses.pop(key))

    def of_lens(lens: Lens) -> tuple:
        key = (lens.width, lens.height, lens.K.tobytes(), lens.distortion, lens.fisheye)
        lenses[key] = lens
        return by_key(key)

    return of_lens


def _view(
    name: str,
    path: Path,
    lens: Lens,
    viewmat: np.ndarray,
    sources: Sources,
    factor: int,
    maps_of: Callable[[Lens], tuple],
) -> View:
    """One view at the wanted size, undistorted and upright."""
    if sources.shrink == 1:
        image, orientation = decode(path)
    else:
        cached = sources.cache and sources.cache / Path(f"{name}.png")
        image, orientation = decode_smaller(path, sources.shrink, cached)
    height, width = image.shape[:2]
    # Poses usually refer to the pixels as stored (COLMAP ignores EXIF), but to the rotated ones
    # where only those have the camera's shape.
    if not _same_shape(lens, width, height) and orientation >= 5:
        image = _apply_orientation(image, orientation)
        height, width = image.shape[:2]
        orientation = 1
    if not _same_shape(lens, width, height):
        raise ValueError(
            f"{path} is {width}x{height}, but its camera says {lens.width}x{lens.height}: another "
            "shape, not just another size; use the photos from which the capture was made"
        )
    stated = shrink_size(lens.width, lens.height, factor)
    scaled = ""
    if abs(width - stated[0]) > max(1, 0.01 * stated[0]):
        scaled = f"{name} is {width}x{height}, not {stated[0]}x{stated[1]}"
    lens = lens.resized(width, height)
    if not lens.is_pinhole:
        try:
            lens, *maps = maps_of(lens)
        except ValueError as error:
            raise ValueError(f"the camera of {name}: {error}") from None
        image = remap_image(image, tuple(maps))
    K = lens.K
    if orientation in TURNS:  # rotate the view upright together with its camera
        image, K, viewmat = turn_view(image, K, viewmat, TURNS[orientation])
    return View(name, np.ascontiguousarray(image), K, viewmat, scaled)


def _same_shape(lens: Lens, width: int, height: int) -> bool:
    """Whether a photo is the lens's own but for its resolution: within 1 % or a rounded pixel."""
    expected = width * lens.height / lens.width
    return abs(expected - height) <= max(0.01 * height, 1.0)


def _apply_orientation(image: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels rotated as EXIF orientations 5 to 8 require."""
    flipped = image.transpose(1, 0, 2)
    return {
        5: flipped,
        6: flipped[:, ::-1],
        7: flipped[::-1, ::-1],
        8: flipped[::-1],
    }[orientation]


def turn_view(
    image: np.ndarray, K: np.ndarray, viewmat: np.ndarray, quarters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotate a photo by quarter turns counter-clockwise (as np.rot90), and its camera with it."""
    for _ in range(quarters % 4):
        width = image.shape[1]
        image = np.rot90(image)
        # A pixel (x, y) moves to (y, width - x), so the camera's axes turn as (x, y) -> (y, -x).
        K = np.array([[K[1, 1], 0, K[1, 2]], [0, K[0, 0], width - K[0, 2]], [0, 0, 1]])
        quarter = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        viewmat = quarter @ viewmat
    return image, K, viewmat
