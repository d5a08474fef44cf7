# Photos decoded at a fraction of their size, and the cache that keeps them for the next start.
from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from runtime.files import atomic_path
from scenes.photos import Photo, decode_photo, read_header, shrink_size

METHOD = 1  # changes with what a copy contains, so that older ones are not used


def decode_smaller(path: Path, factor: int, cached: Path | None) -> Photo:
    """A photo at 1/factor of its size, kept in the file `cached` if given. Raises UnreadablePhoto.

    JPEG files are decoded at 1/2, 1/4 or 1/8 (libjpeg's scaled DCT) as far as the factor allows;
    what remains is averaged by area, over white and so on premultiplied values.
    """
    width, height, orientation = read_header(path)
    size = shrink_size(width, height, factor)
    if cached is not None:
        pixels = _read_copy(cached, path, size)
        if pixels is not None:
            return Photo(
                pixels[..., :3], pixels[..., 3] if pixels.shape[2] == 4 else None, orientation
            )
    import cv2

    scale = next((s for s in (8, 4, 2) if s <= factor and not (width % s or height % s)), 1)
    photo = decode_photo(path, scale)
    if photo.size != size:
        photo = photo.map(
            lambda image: cv2.resize(image, size, interpolation=cv2.INTER_AREA), orientation
        )
    if cached is not None:
        _write_copy(cached, path, photo)
    return photo


def _read_copy(copy: Path, original: Path, size: tuple[int, int]) -> np.ndarray | None:
    """What `_write_copy` wrote; None unless it is whole, of this size and of this very file."""
    try:
        with np.load(copy) as content:
            if content["source"].tolist() != _describe(original):
                return None
            pixels = content["pixels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    right = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    return pixels if right and (pixels.shape[1], pixels.shape[0]) == size else None


def _write_copy(copy: Path, original: Path, photo: Photo) -> None:
    """Write a copy without compression: a .png of it takes longer than decoding the JPEG file."""
    layers = [photo.pixels] if photo.alpha is None else [photo.pixels, photo.alpha]
    with atomic_path(copy) as temporary, temporary.open("wb") as stream:
        np.savez(stream, pixels=np.dstack(layers), source=np.array(_describe(original)))


def _describe(original: Path) -> list[int]:
    """What tells this version of a file from others."""
    stat = original.stat()
    return [METHOD, stat.st_mtime_ns, stat.st_size]
