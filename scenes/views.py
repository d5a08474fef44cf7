# Views from photos: decoded, undistorted, upright, at the wanted size.
from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from runtime.progress import ProgressBar
from runtime.text import format_count, format_list
from scenes.capture import Capture, Lens
from scenes.masks import read_mask
from scenes.photos import (
    TURNS,
    Photo,
    Sources,
    UnreadablePhoto,
    decode_photo,
    read_header,
    shrink_size,
    turn_back,
    turn_upright,
)
from scenes.shrinking import decode_smaller
from scenes.undistort import compute_undistortion, remap_image


@dataclass(frozen=True)
class View:
    """A posed photo.

    image: uint8 [H, W, 3], over white. K: [3, 3] and viewmat: [4, 4], float64. scaled: "NAME is
    WxH, not WxH" if the camera states another size of the photo, else "". alpha: uint8 [H, W], or
    None if the photo is opaque. mask: bool [H, W], where the photo counts; None: everywhere.
    """

    name: str
    image: np.ndarray
    K: np.ndarray
    viewmat: np.ndarray
    scaled: str
    alpha: np.ndarray | None = None
    mask: np.ndarray | None = None


def decode_views(
    capture: Capture,
    sources: Sources,
    masks: list[Path | None],
    factor: int,
    progress: bool,
) -> tuple[list[View], list[str]]:
    """The views with a readable photo, in order, and notes on the others. masks: of each photo."""
    # Views that share a lens share its maps; a few suffice, since views come in order.
    maps_of = _memo(compute_undistortion)
    photos = capture.photos or capture.names

    def decode_views_of(photo_name: str, indices: list[int]) -> list[View | str]:
        """The views of a photo, or why it cannot be read (empty: it is not there)."""
        first = indices[0]
        path = sources.paths[first]
        if path is None:
            return [""] * len(indices)
        try:
            photo = _read_photo(photo_name, path, sources, first)
        except UnreadablePhoto as error:
            return [str(error)] * len(indices)
        mask = masks[first] and read_mask(masks[first], photo.size, photo.orientation)
        return [
            _view(
                *(capture.names[i], path, photo, mask, capture.lenses[i], capture.viewmats[i]),
                *(factor, maps_of),
            )
            for i in indices
        ]

    views_of = [(name, list(i)) for name, i in groupby(range(len(photos)), photos.__getitem__)]
    n = len(views_of)
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        done = pool.map(lambda item: decode_views_of(*item), views_of)
        bar = ProgressBar(done, "photos", n, disable=not progress, leave=False, delay=3)
        results = [result for results_of_photo in bar for result in results_of_photo]
    finally:
        pool.shutdown(cancel_futures=True)
    views = [result for result in results if isinstance(result, View)]
    by_reason: dict[str, list[str]] = {}
    for name, result in zip(capture.names, results, strict=True):
        if isinstance(result, str):
            by_reason.setdefault(result, []).append(name)
    missing = by_reason.pop("", [])
    notes = []
    if missing:
        notes.append(
            f"skipped {format_count(len(missing), 'view')} without a photo in "
            f"{capture.photo_folder}: {format_list(missing, 3)}"
        )
    if by_reason:
        what = format_count(sum(map(len, by_reason.values())), "unreadable photo")
        each = [
            f"{first} {reason}" + (f" (as {format_list(rest, 3)})" if rest else "")
            for reason, (first, *rest) in by_reason.items()
        ]
        notes.append(f"skipped {what}: {format_list(each)}")
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
        return function(lenses[key])

    def of_lens(lens: Lens) -> tuple:
        lenses[lens.key] = lens
        return by_key(lens.key)

    return of_lens


def _read_photo(name: str, path: Path, sources: Sources, i: int) -> Photo:
    """The photo of view i, its pixels as the camera stored them, at the wanted size."""
    if sources.shrink > 1:
        cached = sources.cache and sources.cache / Path(f"{name}.npz")
        return decode_smaller(path, sources.shrink, cached)
    photo = decode_photo(path)
    original = sources.originals and sources.originals[i]
    return photo if not original or photo.orientation != 1 else _as_stored(photo, original)


def _as_stored(copy: Photo, original: Path) -> Photo:
    """A smaller copy of a photo with EXIF orientation, whose pixels some program turned upright, as
    if it had not; the pictures tell whether it did, since the copy has lost the orientation."""
    try:
        width, height, orientation = read_header(original)
        if orientation == 1:
            return copy
        scale = next((s for s in (8, 4, 2) if not (width % s or height % s)), 1)
        stored = _thumbnail(decode_photo(original, scale).pixels)
    except UnreadablePhoto:
        return copy
    turned = copy.map(lambda image: turn_back(image, orientation), orientation)
    errors = [
        np.square(_thumbnail(photo.pixels) - stored).mean()
        for photo in (replace(copy, orientation=orientation), turned)
    ]
    return turned if errors[1] < errors[0] else replace(copy, orientation=orientation)


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(pixels, (24, 24), interpolation=cv2.INTER_AREA).astype(np.float32)


def _view(
    name: str,
    path: Path,
    photo: Photo,
    mask: np.ndarray | None,
    lens: Lens,
    viewmat: np.ndarray,
    factor: int,
    maps_of: Callable[[Lens], tuple],
) -> View:
    """One view at the wanted size, undistorted and upright."""
    orientation, (width, height) = photo.orientation, photo.size
    layers = {"image": photo.pixels, "alpha": photo.alpha, "mask": mask}
    layers = {kind: layer for kind, layer in layers.items() if layer is not None}
    # Poses usually refer to the pixels as stored (COLMAP ignores EXIF), but to the rotated ones
    # where only those have the camera's shape.
    if not _same_shape(lens, width, height) and orientation >= 5:
        layers = {kind: turn_upright(layer, orientation) for kind, layer in layers.items()}
        height, width = layers["image"].shape[:2]
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
            raise ValueError(
                f"the camera of {path}: {error}; correct it in the capture, or export undistorted "
                "photos"
            ) from None
        layers = {kind: _remap(layer, tuple(maps)) for kind, layer in layers.items()}
    K = lens.K
    if orientation in TURNS:  # rotate the view upright together with its camera
        quarters = TURNS[orientation]
        _, K, viewmat = turn_view(layers["image"], K, viewmat, quarters)
        layers = {kind: np.rot90(layer, quarters) for kind, layer in layers.items()}
    layers = {kind: np.ascontiguousarray(layer) for kind, layer in layers.items()}
    return View(name=name, K=K, viewmat=viewmat, scaled=scaled, **layers)


def _remap(layer: np.ndarray, maps: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """`remap_image`; a mask's pixel counts where all that it is made of do."""
    if layer.dtype != bool:
        return remap_image(layer, maps)
    return remap_image(layer.astype(np.uint8) * 255, maps) == 255


def _same_shape(lens: Lens, width: int, height: int) -> bool:
    """Whether a photo is the lens's own but for its resolution: within 1 % or a rounded pixel."""
    expected = width * lens.height / lens.width
    return abs(expected - height) <= max(0.01 * height, 1.0)


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
