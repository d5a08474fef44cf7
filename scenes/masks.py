# Masks of photos: files on disk, and read for a photo. Black pixels are to be ignored, as COLMAP
# (https://colmap.github.io/faq.html#mask-image-regions: no features where the mask is 0) and
# nerfstudio (https://docs.nerf.studio/quickstart/data_conventions.html#masks) both define it.
from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from runtime.text import format_count, format_list
from scenes.photos import SUFFIXES as PHOTOS
from scenes.photos import UnreadablePhoto, open_photo, turn_back

LOSSY = (".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif")  # black is not exactly 0 there
SUFFIXES = (*PHOTOS, ".gif")
FOLDER = re.compile(r"(masks?)(?:_(\d+))?", re.I)
ALIKE = re.compile(r"mask|segment|matte", re.I)  # folders that are not read, but told


def find_masks(
    path: Path, photo_folder: Path, names: tuple[str, ...], factor: int
) -> tuple[list[Path | None], list[str]]:
    """The mask of each photo of the capture in `path`, None where there is none, and notes.

    They lie in `masks`, `masks_N` or `mask` beside the photos' folder or in the capture's, under
    the photo's name (`a/1.png` of `a/1.jpg`), or that and `.png` (COLMAP's `a/1.jpg.png`). Those of
    `masks_N` at the data factor N come first, those of other factors last.
    """
    places = list(dict.fromkeys((path if photo_folder == path else photo_folder.parent, path)))
    folders = _list_mask_folders(places, factor)
    masks: list[Path | None] = [None] * len(names)
    several: list[str] = []
    for folder in folders:
        by_name = _list_by_name(folder)
        for i, name in enumerate(names):
            files = by_name.get(name, []) + by_name.get(_without_suffix(name), [])
            if masks[i] is None and files:
                masks[i] = files[0]
                if len(files) > 1:
                    several.append(" before ".join(file.name for file in files))
    notes = []
    if several:
        what = format_count(len(several), "photo")
        notes.append(f"{what} with several masks, of which one is used ({several[0]})")
    if any(masks):
        return masks, notes
    for folder in folders:
        one = next((files[0] for files in _list_by_name(folder).values()), None)
        if one is not None:
            notes.append(
                f"no mask is used: those in {folder} ({one.name}, ...) are not named after photos; "
                f"the mask of {names[0]} would be {_without_suffix(names[0])}.png"
            )
            return masks, notes
    for folder in _list_folders(places):
        if ALIKE.search(folder.name) and folder != photo_folder and _list_by_name(folder):
            notes.append(
                f"{folder} is not read; if its pictures are masks, black where photos are to be "
                f"ignored, rename it to {folder.parent / 'masks'}"
            )
    return masks, notes


def _list_mask_folders(places: list[Path], factor: int) -> list[Path]:
    """The folders of masks, those to be preferred first."""
    ranked = []
    for folder in _list_folders(places):
        match = FOLDER.fullmatch(folder.name)
        if match:
            n = int(match[2] or 1)
            rank = 0 if n == factor else 1 if n == 1 else 1 + n
            ranked.append((rank, match[1].lower() == "mask", places.index(folder.parent), folder))
    return [folder for *_, folder in sorted(ranked)]


def _list_folders(places: list[Path]) -> list[Path]:
    return [folder for place in places for folder in sorted(place.iterdir()) if folder.is_dir()]


def _list_by_name(folder: Path) -> dict[str, list[Path]]:
    """The pictures in a folder and below, by name without suffix; .png first."""
    files = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES]
    by_name: dict[str, list[Path]] = {}
    for file in sorted(files, key=lambda file: (file.suffix.lower() != ".png", file)):
        name = file.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts):
            by_name.setdefault(_without_suffix(name.as_posix()), []).append(file)
    return by_name


def _without_suffix(name: str) -> str:
    return name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name


def read_mask(path: Path, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Where a photo counts, bool [H, W], for its stored pixels (size: width and height): where the
    mask is neither black nor transparent.

    Masks of another resolution are resized to the nearest pixel. A mask of the shape of the upright
    photo is turned as its pixels are stored. ValueError for other shapes and damaged files.
    """
    import cv2

    try:
        with open_photo(path) as image:
            if image.mode in ("RGBA", "LA", "PA", "P"):
                image = image.convert("RGBA")
            pixels = np.asarray(image)
    except UnreadablePhoto as error:
        raise ValueError(f"the mask {path} {error}; repair it or remove it") from None
    if pixels.ndim == 3:
        colors = pixels[..., :3].max(2)
        pixels = np.minimum(colors, pixels[..., 3]) if pixels.shape[2] == 4 else colors
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
