# Photos on disk: find and decode them. Smaller copies: scenes.shrinking.
from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.files import check_writable
from runtime.text import format_count

HEIF = (".heic", ".heif")  # Pillow reads them with the package pillow-heif
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif", *HEIF)
KNOWN_SUFFIXES = {*SUFFIXES, ".dng"}  # also of photos that were converted since
# Folders of pictures that are no photos of the capture, or smaller copies of them.
_MAPS = "masks?|depths?|normals?|alphas?|segmentations?"
NO_PHOTOS = re.compile(rf"(images_.*|({_MAPS})(_\d+)?|renders?|results?)$", re.I)
MOST_PIXELS = 500_000_000  # of one photo
ORIENTATION = 0x0112  # the EXIF tag
# Quarter turns, counter-clockwise as np.rot90, that make a photo of this EXIF orientation upright.
TURNS = {3: 2, 6: 3, 8: 1}


def list_photos(folder: Path, deep: bool = False) -> list[str]:
    """Sorted names of the photos in a folder (`deep`: and its subfolders), relative to it.

    A HEIC photo with a copy in another format beside it is left out.
    """
    files = folder.rglob("*") if deep else folder.glob("*")
    names = [file.relative_to(folder) for file in files if file.suffix.lower() in SUFFIXES]
    hidden = [name for name in names if any(part.startswith(".") for part in name.parts)]
    hidden += [
        name for name in names if name.stem == "contact_sheet"
    ]  # ours, see scenes.contact_sheet
    copied = {name.with_suffix("") for name in names if name.suffix.lower() not in HEIF}
    hidden += [n for n in names if n.suffix.lower() in HEIF and n.with_suffix("") in copied]
    return sorted(name.as_posix() for name in set(names) - set(hidden))


def find_photos(folder: Path, names: Sequence[str]) -> list[Path | None]:
    """The photo in a folder and its sub-folders that each name means, or None.

    The file of that very name goes first. Names may also be labels without suffix or paths on
    another machine: as many of their last parts as possible decide, in turn as they are, without
    suffix, and without case, in any Unicode form. A name that fits several photos equally well has
    none, and so has one whose photo another name fits better, or as well.
    """
    exact = [_exact(folder, name) for name in names]
    if all(exact) or not folder.is_dir():
        return exact
    index: dict[tuple[int, str], list[str]] = {}
    for photo in list_photos(folder, deep=True):
        if not is_no_photo(photo):
            for end in _ends(photo):
                for key in _keys(end):
                    index.setdefault(key, []).append(photo)
    photos: list[Path | None] = []
    claims: dict[Path, dict[str, int]] = {}  # by photo: names, and how many parts fit
    for name, path in zip(names, exact, strict=True):
        parts = len(Path(name).parts)
        if path is None:
            photo, parts = _find(name, index)
            path = photo and folder / photo
        photos.append(path)
        if path is not None:
            claims.setdefault(path, {})[_loosen(name)] = parts + 1000 * (path in exact)
    for i, (name, path) in enumerate(zip(names, photos, strict=True)):
        if path is not None:
            own = claims[path][_loosen(name)]
            if any(other >= own for key, other in claims[path].items() if key != _loosen(name)):
                photos[i] = None
    return photos


def find_namesakes(folder: Path, name: str) -> list[str]:
    """The photos in a folder and its sub-folders with the last part of a name, in any case."""
    end = _loosen(name).rpartition("/")[2]
    names = list_photos(folder, deep=True) if folder.is_dir() else []
    return [n for n in names if _loosen(n).rpartition("/")[2] == end and not is_no_photo(n)]


def is_no_photo(name: str) -> bool:
    """Whether a picture lies in a folder of NO_PHOTOS."""
    return any(NO_PHOTOS.match(parent) for parent in name.split("/")[:-1])


def _exact(folder: Path, name: str) -> Path | None:
    parts = Path(name)
    if parts.is_absolute() or ".." in parts.parts:  # of another machine, or leads elsewhere
        return None
    try:
        return folder / name if (folder / name).is_file() else None
    except (OSError, ValueError):  # too long a name, or one with a zero
        return None


def _find(name: str, index: dict[tuple[int, str], list[str]]) -> tuple[str | None, int]:
    """The photo that a name fits best, and how many parts of its path do."""
    for end in _ends(name):
        for key in _keys(end):
            fits = index.get(key, [])
            if len(fits) > 1:  # one in the folder itself goes before those in sub-folders
                fits = [photo for photo in fits if photo.count("/") == end.count("/")] or fits
            if fits:
                return (fits[0] if len(fits) == 1 else None), end.count("/") + 1
    return None, 0


def _ends(name: str) -> list[str]:
    """A path and its ends, longest first."""
    parts = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _keys(name: str) -> list[tuple[int, str]]:
    """Forms of a name in which it may agree with another, strictest first."""
    plain = unicodedata.normalize("NFC", name)
    forms = (plain, _without_suffix(plain), plain.casefold(), _loosen(name))
    return list(enumerate(forms))


def _loosen(name: str) -> str:
    """A path in the form that is compared last: without case and suffix."""
    plain = unicodedata.normalize("NFC", name).casefold().replace("\\", "/")
    return _without_suffix(plain)


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in KNOWN_SUFFIXES else name


@dataclass(frozen=True)
class Sources:
    """Where the pixels of each view come from at a data factor.

    paths: one file per view, None where there is no photo.
    shrink: the factor by which decoded photos must still be shrunk (1: none).
    cache: folder of the shrunk copies, or None if they are not cached.
    originals: the photos of full size, where `paths` are smaller copies that users made of them.
    """

    paths: list[Path | None]
    shrink: int
    cache: Path | None
    notes: tuple[str, ...] = ()
    originals: list[Path | None] | None = None


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
            return Sources(small, 1, None, tuple(notes), full)
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


@dataclass(frozen=True)
class Photo:
    """A decoded photo, its pixels as stored.

    pixels: uint8 [H, W, 3]; transparent ones are composited over white.
    alpha: uint8 [H, W], 0 where transparent; None if the photo is opaque.
    orientation: the EXIF orientation, 1 to 8, that makes it upright (1: it is).
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def map(self, function: Callable[[np.ndarray], np.ndarray], orientation: int) -> Photo:
        """The photo with a function applied to pixels and alpha, and another orientation."""
        alpha = None if self.alpha is None else function(self.alpha)
        return Photo(function(self.pixels), alpha, orientation)


def read_header(path: Path) -> tuple[int, int, int]:
    """Width and height as stored, and EXIF orientation (1 to 8). Raises UnreadablePhoto.

    A file is opened only once, unless it changes.
    """
    try:
        stat = path.stat()
    except OSError:
        raise UnreadablePhoto("is not a photo that can be read") from None
    return _read_header(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=20_000)
def _read_header(path: Path, changed: int, length: int) -> tuple[int, int, int]:
    with open_photo(path) as image:
        return *image.size, _orientation(image)


def decode(path: Path, upright: bool = False) -> tuple[np.ndarray, int]:
    """The pixels, uint8 [H, W, 3], and the EXIF orientation still to be applied (1: none).

    upright: apply it. Transparent photos are composited over white. Raises UnreadablePhoto.
    """
    photo = decode_photo(path)
    if not upright:
        return photo.pixels, photo.orientation
    return np.ascontiguousarray(turn_upright(photo.pixels, photo.orientation)), 1


def decode_photo(path: Path, scale: int = 1) -> Photo:
    """A photo with its alpha; grey, 16-bit and palette photos become 8-bit RGB.

    scale: 2, 4 or 8 lets the decoder of JPEG files make the photo smaller by that factor, which is
    several times as fast; others, and those whose sides it does not divide, keep their size.
    Raises UnreadablePhoto.
    """
    with open_photo(path) as image:
        deep = _read_16_bits(image, path)
        orientation = _orientation(image)
        if scale > 1 and image.format == "JPEG" and not any(side % scale for side in image.size):
            image.draft("RGB", tuple(side // scale for side in image.size))
        if image.mode == "F":
            raise UnreadablePhoto("has pixels of 32-bit floats; export it with 8 or 16 bits")
        if deep is not None:
            image = Image.fromarray(_round_to_8_bits(deep))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            alpha = np.array(image.getchannel("A"))
            if alpha.min() < 255:
                premultiplied = np.array(image.convert("RGBa"))[..., :3]
                return Photo(premultiplied + (255 - alpha)[..., None], alpha, orientation)
        return Photo(np.array(image.convert("RGB")), None, orientation)


def _read_16_bits(image: Image.Image, path: Path) -> np.ndarray | None:
    """The pixels of a photo with 16 bits a channel, [H, W] or [H, W, 3 or 4]; None of others.

    Pillow 13 keeps only the upper byte of colours, which darkens by half a level.
    """
    if image.mode.startswith("I"):
        return np.asarray(image)
    if ";16" not in str(image.tile):  # how Pillow calls the pixels in the file, until it reads them
        return None
    import cv2

    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        return None
    order = [2, 1, 0, 3][: pixels.shape[2]]  # OpenCV's is BGR
    return pixels[..., order]


def _round_to_8_bits(values: np.ndarray) -> np.ndarray:
    return ((np.clip(values, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels [H, W, ...] as their EXIF orientation wants them shown."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    down, right = _FLIPS[orientation]
    return image[::down, ::right]


def turn_back(image: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of `turn_upright`: the stored pixels of an upright image."""
    down, right = _FLIPS[orientation]
    image = image[::down, ::right]
    return image.swapaxes(0, 1) if orientation >= 5 else image


# Steps along rows and columns of the upright image, by EXIF orientation (from 5 on transposed).
_FLIPS = {
    **{1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1)},
    **{5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)},
}


@cache
def can_read_heif() -> bool:
    """Whether the package pillow-heif is installed; it is then told to Pillow."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


class open_photo:
    """Context manager that opens a photo; any error of the decoder becomes UnreadablePhoto.

    ValueError with the remedy for a HEIC photo if the package that reads it is missing.
    """

    _limit = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Image.Image:
        if self.path.suffix.lower() in HEIF and not can_read_heif():
            raise ValueError(
                f"{self.path} is a HEIC photo, which needs the package pillow-heif: pip install "
                "pillow-heif, or export the photos as JPEG"
            )
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
    if image.format == "PNG" and "exif" not in image.info and not _may_have_exif(image):
        return 1
    value = image.getexif().get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _may_have_exif(image: Image.Image) -> bool:
    """Whether a .png has metadata; to look for some behind the pixels, Pillow decodes those."""
    with Path(image.filename).open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


def shrink_size(width: int, height: int, factor: int) -> tuple[int, int]:
    """Width and height at 1/factor, rounded, at least 1 pixel."""
    return max(1, round(width / factor)), max(1, round(height / factor))
