# Masks of photos: found on disk, and read for a photo. Black pixels are to be ignored, as COLMAP
# (https://colmap.github.io/faq.html#mask-image-regions: no features where the mask is 0) and
# nerfstudio (https://docs.nerf.studio/quickstart/data_conventions.html#masks) both define it.
from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.text import format_count, format_list
from scenes.photos import SUFFIXES, UnreadablePhoto, list_photos, open_photo, turn_back

LOSSY = (".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif")  # black is not exactly 0 there


def find_masks(
    path: Path, photo_folder: Path, names: tuple[str, ...], factor: int
) -> tuple[list[Path | None], list[str]]:
    """The mask of each photo of the capture in `path`, None where there is none, and notes.

    They lie in `masks` (`masks_N` beside `images_N`) beside the photos' folder or in the capture's,
    under the photo's name (`a/1.png` of `a/1.jpg`), or that and `.png` (COLMAP's `a/1.jpg.png`).
    """
    places = [path] if photo_folder == path else [path, photo_folder.parent]
    endings = ["", f"_{factor}"] if factor > 1 else [""]
    folders = [place / f"masks{ending}" for ending in endings for place in places]
    by_name: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            listed = list_photos(folder, deep=True)
            by_name |= {_without_suffix(name): folder / name for name in listed}
    if not by_name:
        return [None] * len(names), []
    masks = [by_name.get(name) or by_name.get(_without_suffix(name)) for name in names]
    notes = []
    if not any(masks):
        one = next(iter(by_name.values()))
        notes.append(
            f"no mask is used: those in {one.parent} ({one.name}, ...) have not the names of "
            f"photos; the mask of {names[0]} would be {_without_suffix(names[0])}.png"
        )
    return masks, notes


def _without_suffix(name: str) -> str:
    return name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name


def read_mask(path: Path, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Where a photo counts, bool [H, W], for its stored pixels (size: width and height).

    Masks of another resolution are resized to the nearest pixel. A mask of the shape of the upright
    photo is turned as its pixels are stored. ValueError for other shapes and damaged files.
    """
    import cv2

    try:
        with open_photo(path) as image:
            if image.mode in ("RGBA", "LA", "PA", "P"):
                image = image.convert("RGB")
            pixels = np.asarray(image)
    except UnreadablePhoto as error:
        raise ValueError(f"the mask {path} {error}; repair it or remove it") from None
    if pixels.ndim == 3:
        pixels = pixels.max(2)
    mask = pixels >= 128 if path.suffix.lower() in LOSSY else pixels > 0
    if orientation >= 5 and not _same_shape(mask, size) and _same_shape(mask.T, size):
        mask = turn_back(mask, orientation)
    if not _same_shape(mask, size):
        height, width = mask.shape
        raise ValueError(
            f"the mask {path} is {width}x{height}, but its photo {size[0]}x{size[1]}: another "
            "shape, not just another size"
        )
    if mask.shape[::-1] == size:
        return np.ascontiguousarray(mask)
    mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return mask.astype(bool)


def _same_shape(mask: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a mask is the photo's own but for its resolution: within 1 % or a rounded pixel."""
    height, width = mask.shape
    return abs(width * size[1] / size[0] - height) <= max(0.01 * height, 1.0)


def describe_masks(names: list[str], masks: list[np.ndarray | None]) -> list[str]:
    """Notes on masks [H, W] of these photos: how much they leave out, and who has none."""
    there = [mask for mask in masks if mask is not None]
    if not there:
        return []
    hidden = 1 - sum(mask.sum() for mask in there) / sum(mask.size for mask in there)
    what = format_count(len(there), "mask")
    notes = [f"{what}: {100 * hidden:.1f} % of the pixels (black ones) are ignored"]
    bare = [name for name, mask in zip(names, masks, strict=True) if mask is None]
    if bare:
        few = f"{format_count(len(bare), 'photo')} without a mask ({format_list(bare, 3)})"
        notes.append(f"{few}; all of their pixels count")
    return notes
