# Photos on disk: find them, decode them, and cache smaller copies for a data factor.
from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from runtime.files import atomic_path, check_writable
from runtime.text import format_count

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
MOST_PIXELS = 500_000_000  # of one photo
ORIENTATION = 0x0112  # the EXIF tag
# Quarter turns, counter-clockwise as np.rot90, that make a photo of this EXIF orientation upright.
TURNS = {3: 2, 6: 3, 8: 1}


def list_photos(folder: Path, deep: bool = False) -> list[str]:
    """Sorted names of the photos in a folder (`deep`: and its subfolders), relative to it."""
    files = folder.rglob("*") if deep else folder.glob("*")
    names = [file.relative_to(folder) for file in files if file.suffix.lower() in SUFFIXES]
    hidden = [name for name in names if any(part.startswith(".") for part in name.parts)]
    hidden += [
        name for name in names if name.stem == "contact_sheet"
    ]  # ours, see scenes.contact_sheet
    return sorted(name.as_posix() for name in set(names) - set(hidden))


def find_photos(folder: Path, names: tuple[str, ...] | list[str]) -> list[Path | None]:
    """The file of each name, else one with the same stem and another photo suffix, else None."""
    exact = [folder / name for name in names]
    if all(path.is_file() for path in exact):
        return exact
    by_stem = {_stem(name): folder / name for name in list_photos(folder, deep=True)}
    return [
        path if path.is_file() else by_stem.get(_stem(name))
        for name, path in zip(names, exact, strict=True)
    ]


def _stem(name: str) -> str:
    path = Path(name)
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()


@dataclass(frozen=True)
class Sources:
    """Where the pixels of each view come from at a data factor.

    paths: one file per view, None where there is no photo.
    shrink: the factor by which decoded photos must still be shrunk (1: none).
    cache: folder of the shrunk copies, or None if they are not cached.
    """

    paths: list[Path | None]
    shrink: int
    cache: Path | None
    notes: tuple[str, ...] = ()


def find_sources(folder: Path, names: tuple[str, ...], factor: int) -> Sources:
    """Photos of the views at 1/factor of the size: `images_N` beside `images`, or to be resized.

    Raises FileNotFoundError if there is no photo at all.
    """
    full = find_photos(folder, names)
    if factor == 1:
        if not any(full):
            raise FileNotFoundError(_no_photos(folder, names))
        return Sources(full, 1, None)

    notes = []
    ready = _beside(folder, f"_{factor}")
    if ready.is_dir():
        small = find_photos(ready, names)
        wanted = sum(path is not None for path in full) or len(names)
        if not any(small):
            # Some data sets renamed their smaller photos; then only the order can match them.
            listed, originals = list_photos(ready, deep=True), list_photos(folder, deep=True)
            if listed and len(listed) == len(originals):
                renamed = dict(zip(originals, listed, strict=True))
                small = [ready / renamed[name] if name in renamed else None for name in names]
                notes.append(f"photos in {ready.name} have other names; matched in sorted order")
        available = sum(path is not None for path in small)
        if available >= wanted:
            return Sources(small, 1, None, tuple(notes))
        if not any(full) and available:
            return Sources(small, 1, None, tuple(notes))
        notes = [
            f"{ready} has {available} of {wanted} photos; resizing those of {folder.name} instead"
        ]
    if not any(full):
        raise FileNotFoundError(_no_photos(folder, names))
    cache = _beside(folder, f"_{factor}_cache")
    try:
        check_writable(cache)
    except OSError:
        notes.append(f"{cache} cannot be written, so photos are resized at every start")
        return Sources(full, factor, None, tuple(notes))
    return Sources(full, factor, cache, tuple(notes))


def _beside(folder: Path, ending: str) -> Path:
    """`images_4` beside `images`; below the folder if the photos lie in the scene folder itself."""
    beside = folder.parent / f"{folder.name}{ending}"
    return beside if folder.name.startswith("images") else folder / f"images{ending}"


def _no_photos(folder: Path, names: tuple[str, ...]) -> str:
    photos = format_count(len(names), "photo")
    text = f"{folder} has none of the {photos} that the capture names ({names[0]}, ...)"
    smaller = sorted(
        (path.name.rsplit("_", 1)[1] for path in folder.parent.glob(f"{folder.name}_*")), key=len
    )
    smaller = [ending for ending in smaller if ending.isdigit()]
    if smaller:
        return f"{text}; {folder.name}_{smaller[0]} is there: use --data_factor {smaller[0]}"
    return f"{text}; put them there or name their folder (--image_folder)"


class UnreadablePhoto(ValueError):
    """A photo that cannot be decoded; the message is a short predicate (`is damaged`)."""


def read_header(path: Path) -> tuple[int, int, int]:
    """Width and height as stored, and EXIF orientation (1 to 8). Raises UnreadablePhoto."""
    with open_photo(path) as image:
        return *image.size, _orientation(image)


def decode(path: Path, upright: bool = False) -> tuple[np.ndarray, int]:
    """The pixels, uint8 [H, W, 3], and the EXIF orientation still to be applied (1: none).

    upright: apply it. Grey, 16-bit and palette photos become RGB; transparent ones are composited
    over white. Raises UnreadablePhoto.
    """
    with open_photo(path) as image:
        orientation = _orientation(image)
        if upright and orientation != 1:
            image = ImageOps.exif_transpose(image)
            orientation = 1
        if image.mode in ("I;16", "I;16B", "I;16L", "I"):
            grey = np.clip(np.asarray(image).astype(np.int64) // 257, 0, 255)
            return np.repeat(grey.astype(np.uint8)[:, :, None], 3, 2), orientation
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return np.array(image.convert("RGB")), orientation


class open_photo:
    """Context manager that opens a photo; any error of the decoder becomes UnreadablePhoto."""

    _limit = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Image.Image:
        try:
            if self.path.stat().st_size == 0:
                raise UnreadablePhoto("is empty")
            # Pillow refuses more than 179 megapixels by a global limit; MOST_PIXELS replaces it.
            with self._limit:
                limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                try:
                    self.image = Image.open(self.path)
                finally:
                    Image.MAX_IMAGE_PIXELS = limit
        except UnreadablePhoto:
            raise
        except Exception:
            raise UnreadablePhoto("is not a photo that can be read") from None
        width, height = self.image.size
        if width * height > MOST_PIXELS:
            self.image.close()
            most = MOST_PIXELS // 1_000_000
            raise UnreadablePhoto(f"has {width}x{height} pixels, more than {most} megapixels")
        return self.image

    def __exit__(self, kind, error, trace) -> None:
        self.image.close()
        if isinstance(error, Exception) and not isinstance(error, UnreadablePhoto):
            raise UnreadablePhoto("is damaged") from None


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def shrink_size(width: int, height: int, factor: int) -> tuple[int, int]:
    """Width and height at 1/factor, rounded, at least 1 pixel."""
    return max(1, round(width / factor)), max(1, round(height / factor))


def decode_smaller(path: Path, factor: int, cached: Path | None) -> tuple[np.ndarray, int]:
    """`decode` at 1/factor of the size (area average), cached in the file `cached` if given.

    The copy is a .png with the photo's EXIF orientation, valid while it is newer than the photo.
    """
    width, height, _ = read_header(path)
    size = shrink_size(width, height, factor)
    if cached is not None and _is_fresh(cached, path):
        try:
            pixels, orientation = decode(cached)
            if (pixels.shape[1], pixels.shape[0]) == size:
                return pixels, orientation
        except UnreadablePhoto:
            pass  # written again below
    import cv2

    pixels, orientation = decode(path)
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    if cached is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        with atomic_path(cached) as temporary:
            Image.fromarray(pixels).save(temporary, "PNG", exif=exif, compress_level=1)
    return pixels, orientation


def _is_fresh(copy: Path, original: Path) -> bool:
    return copy.is_file() and copy.stat().st_mtime_ns >= original.stat().st_mtime_ns
