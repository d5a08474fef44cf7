# From a folder on disk to a Scene: recognise the format, read it, decode the photos, split.
from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from runtime.text import format_count, format_list
from scenes import colmap, sfm, transforms
from scenes.cameras import Cameras
from scenes.capture import Capture, Lens
from scenes.normalize import compute_normalization, transform_points, transform_viewmats
from scenes.photos import (
    TURNS,
    Sources,
    UnreadablePhoto,
    decode,
    decode_smaller,
    find_sources,
    list_photos,
    read_header,
    shrink_size,
)
from scenes.scene import Scene, Split
from scenes.split import make_split
from scenes.undistort import compute_undistortion, remap_image

log = logging.getLogger(__name__)
FEWEST_VIEWS = 3
SHORTEST_SIDE = 16  # of a photo in pixels; SSIM needs 11


@dataclass(frozen=True)
class Format:
    """A capture format.

    name: for the message about a folder in no format. find: the format's file or folder in a
    capture's folder, or None. read: the capture, from what was found, the capture's folder and the
    photos' folder if users name one.
    """

    name: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path, Path, Path | None], Capture]


def load(
    path: Path | str,
    *,
    data_factor: int = 1,
    longest_side: int = 1600,
    split: str | None = None,
    test_every: int | None = None,
    split_file: Path | str | None = None,
    image_folder: Path | str | None = None,
    normalize: bool = False,
    progress: bool = True,
) -> Scene:
    """Read a capture: a COLMAP model (also DL3DV-Benchmark's), else transforms.json, else photos.

    Photos alone are posed by structure from motion, and the model is saved as `sparse/0`.
    data_factor: photos at 1/N of their size (`images_N`, else resized and cached); 0: the smallest
        N at which no side of a photo exceeds `longest_side` pixels.
    split, test_every, split_file: see `scenes.split.make_split`; without them the rule is
        detected, and `test_every` alone means Difix3D's: every N-th view trains.
    image_folder: the photos' folder, if not the usual one (absolute or relative to `path`).
    normalize: recentre, align and scale the world; `Scene.transform` is the applied transform.
    progress: show progress bars.
    Raises FileNotFoundError or ValueError; the message names the file or flag.
    """
    path = Path(path)
    if not path.is_dir():
        reason = "is not a folder" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {reason}; give the folder of a capture")
    data_factor = _whole("--data_factor", data_factor, 0)
    longest_side = _whole("longest_side", longest_side, SHORTEST_SIDE)
    folder = None
    if image_folder is not None:
        folder = path / image_folder
        if not folder.is_dir():
            reason = "is not a folder" if folder.exists() else "does not exist"
            raise FileNotFoundError(f"--image_folder {folder} {reason}")
    split_of = partial(make_split, rule=split, test_every=test_every, split_file=split_file)

    capture = _read(path, folder, split_of, progress)
    _check_view_count(len(capture.names), "view", path, " with a pose")
    data_factor = data_factor or _fitting_factor(capture, longest_side)
    sources = find_sources(capture.photo_folder, capture.names, data_factor)
    pairs = zip(capture.names, sources.paths, strict=True)
    names = tuple(name for name, photo in pairs if photo)
    _check_view_count(len(names), "view", path, " with a photo")
    split_of(names)  # raises errors before photos are decoded
    _check_sizes(sources, data_factor)
    views, skipped = _decode_all(capture, sources, data_factor, progress)
    notes = [*capture.notes, *sources.notes, *skipped]
    _check_view_count(len(views), "view", path, " with a readable photo")

    viewmats = np.stack([view.viewmat for view in views])
    points, transform = capture.points, np.eye(4)
    if normalize:
        transform = compute_normalization(np.linalg.inv(viewmats), points.astype(np.float64))
        viewmats = transform_viewmats(transform, viewmats)
        points = transform_points(transform, points.astype(np.float64)).astype(np.float32)
    names = tuple(view.name for view in views)
    scene = Scene(
        path=path,
        kind=capture.kind,
        names=names,
        cameras=Cameras(
            torch.from_numpy(viewmats).float(),
            torch.from_numpy(np.stack([view.K for view in views])).float(),
            torch.tensor([view.image.shape[1::-1] for view in views]),
        ),
        images=tuple(view.image for view in views),
        points=torch.from_numpy(points),
        point_colors=torch.from_numpy(capture.colors),
        split=split_of(names),
        data_factor=data_factor,
        transform=torch.from_numpy(transform),
        notes=tuple(notes),
        needs_points=capture.needs_points,
    )
    sizes = sorted({f"{width}x{height}" for width, height in scene.cameras.sizes.tolist()})
    log.info(
        "%s: %s, %d views of %s, %d points",
        *(path, scene.kind, len(scene), ", ".join(sizes), len(scene.points)),
    )
    log.info("split %s", scene.split.text)
    for note in notes:
        log.warning("%s", note)
    return scene


def _whole(name: str, value: object, least: int) -> int:
    if not isinstance(value, int | float | np.integer) or value < least or value % 1 != 0:
        raise ValueError(f"{name} {value} must be a whole number, {least} or more")
    return int(value)


def find_captures(folder: Path) -> list[Path]:
    """The folder itself, or its sub-folders, sorted by name, if the captures are those.

    Photos in the folder itself do not make it one capture if sub-folders hold some too.
    """
    if _is_capture(folder):
        return [folder]
    inner = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    return inner if any(_is_capture(f) or list_photos(f) for f in inner) else [folder]


def _is_capture(folder: Path) -> bool:
    """Whether a folder holds poses in one of FORMATS, or photos in `images`."""
    return (folder / "images").is_dir() or any(format.find(folder) for format in FORMATS)


def _read_colmap(model: Path, path: Path, photos: Path | None) -> Capture:
    return colmap.read(model, photos or _photos_of_model(path, model))


def _read_transforms(file: Path, path: Path, photos: Path | None) -> Capture:
    return transforms.read(file, photos)


# All formats with poses, the first that is there is read.
FORMATS = (
    Format("COLMAP model (sparse/0)", colmap.find_model, _read_colmap),
    Format("transforms.json", transforms.find, _read_transforms),
)


def _read(
    path: Path, folder: Path | None, split_of: Callable[[tuple[str, ...]], Split], progress: bool
) -> Capture:
    """The capture in a folder, by the first format that is there, else from its photos."""
    for format in FORMATS:
        place = format.find(path)
        if place is not None:
            return format.read(place, path, folder)

    photos = folder
    if photos is None and (path / "images").is_dir():
        photos = path / "images"
    photos = photos or path
    names = list_photos(photos, deep=photos != path)
    if not names:
        raise FileNotFoundError(
            f"{path} holds no capture: {', '.join(f'no {format.name}' for format in FORMATS)} and "
            "no photos (.jpg, .jpeg, .png, .webp; in it or in its folder images)"
        )
    _check_view_count(len(names), "photo", path)
    split_of(tuple(names))  # raises errors before structure from motion
    scene_folder = path if photos == path or folder is not None else photos.parent
    notes = sfm.structure_from_motion(photos, names, scene_folder, progress)
    capture = colmap.read(scene_folder / "sparse" / "0", photos)
    return replace(capture, notes=(*notes, *capture.notes))


def _fitting_factor(capture: Capture, longest_side: int) -> int:
    """The smallest factor at which no side of a readable photo is over `longest_side` pixels."""
    paths = find_sources(capture.photo_folder, capture.names, 1).paths
    longest = max((max(size) for _, *size in _sizes(paths)), default=1)
    return -(-longest // longest_side)


def _check_sizes(sources: Sources, factor: int) -> None:
    """ValueError if a photo has too few pixels to be of use at this factor."""
    for path, *size in _sizes(sources.paths):
        width, height = shrink_size(*size, sources.shrink)
        if min(width, height) < SHORTEST_SIDE:
            raise ValueError(
                f"{path} is {width}x{height}, under {SHORTEST_SIDE} pixels a side"
                if factor == 1
                else f"--data_factor {factor} makes the photos {width}x{height} ({path.name}), "
                f"under {SHORTEST_SIDE} pixels a side; use a smaller factor"
            )


def _sizes(paths: list[Path | None]) -> Iterator[tuple[Path, int, int]]:
    """Path, width and height of every photo that is there and readable."""
    for path in filter(None, paths):
        with suppress(UnreadablePhoto):
            yield path, *read_header(path)[:2]


def _photos_of_model(path: Path, model: Path) -> Path:
    """`images` beside the sparse folder, or in the scene's folder, or that folder itself."""
    sparse = model if model.name == "sparse" else model.parent
    for folder in (sparse.parent, path):
        if (folder / "images").is_dir() or any(folder.glob("images_[0-9]*")):
            return folder / "images"
    return next((folder for folder in (sparse.parent, path) if list_photos(folder)), path)


def _check_view_count(n: int, noun: str, path: Path, kind: str = "") -> None:
    if n < FEWEST_VIEWS:
        few = format_count(n, noun)
        raise ValueError(f"{path} has only {few}{kind}; at least {FEWEST_VIEWS} are needed")


@dataclass(frozen=True)
class _View:
    name: str
    image: np.ndarray
    K: np.ndarray
    viewmat: np.ndarray
    scaled: str  # "NAME is WxH, not WxH" if the camera states another size of the photo, else ""


def _decode_all(
    capture: Capture, sources: Sources, factor: int, progress: bool
) -> tuple[list[_View], list[str]]:
    """The views with a readable photo, in order, and notes on the others."""
    # Views that share a lens share its maps; a few suffice, since views come in order.
    maps_of = _memo(compute_undistortion)

    def decode_view(i: int) -> _View | str:
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
    views = [result for result in results if isinstance(result, _View)]
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
) -> _View:
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
    return _View(name, np.ascontiguousarray(image), K, viewmat, scaled)


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
