# Structure from motion from start to end: photos -> features -> matches -> a COLMAP model.
from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.text import format_count, format_list
from scenes.bindings import pycolmap
from scenes.formats.colmap import write_model
from scenes.masks import find_masks
from scenes.sfm import features, matching
from scenes.sfm.features import Copy, copy_masks, copy_photos, extract_features
from scenes.sfm.mapping import map_photos
from scenes.sfm.matching import match_photos
from scenes.work import work_folder

log = logging.getLogger(__name__)

WORK = ".structure_from_motion"  # folder of unfinished work beside `sparse`
SEED = 0


def structure_from_motion(
    photo_folder: Path, names: list[str], scene_folder: Path, progress: bool = True
) -> list[str]:
    """Pose the photos, write `scene_folder`/sparse/0, and return notes on photos left out.

    Photos of one folder and size share a camera. The model refers to pixels as stored (EXIF
    orientation is not applied), as COLMAP's own does; a marker beside it holds settings and result.
    A stopped run continues where it was, see `scenes.work`. Raises PermissionError if the
    folder cannot be written, ValueError if fewer than three photos can be posed.
    """
    begin = time.monotonic()
    _check_names(photo_folder, names)
    masks, _ = find_masks(scene_folder, photo_folder, tuple(names), 1)
    masked = {name: mask for name, mask in zip(names, masks, strict=True) if mask is not None}
    key = _key(photo_folder, names, masked)
    with work_folder(scene_folder / WORK, key, "structure from motion") as work, _quiet():
        log.info("no poses in %s: structure from motion on %d photos", scene_folder, len(names))
        copies, database = work / "photos", work / "database.db"
        photos, unreadable = copy_photos(photo_folder, names, copies, progress)
        notes = []
        if unreadable:
            what = format_count(len(unreadable), "unreadable photo")
            notes.append(f"skipped {what}: {format_list(unreadable)}")
        if len(photos) < 3:
            raise ValueError(
                f"{photo_folder}: {format_count(len(photos), 'photo')} readable "
                f"({'; '.join(notes)}); structure from motion needs at least 3"
            )
        notes += _note_cameras(photos)
        pycolmap.set_random_seed(SEED)
        if masked:
            copy_masks(photos, masked, copies, work / "masks")
        extract_features(database, copies, photos, progress, work / "masks" if masked else None)
        pairs = match_photos(database, [photo.file for photo in photos], work, SEED, progress)
        model = map_photos(database, copies, work, len(photos), SEED, progress)

        posed = model.num_reg_images() if model is not None else 0
        if posed < 3:
            raise ValueError(
                f"structure from motion posed {posed} of {len(photos)} photos in {photo_folder}; "
                "take more photos that overlap by about two thirds, sharp and textured, of a "
                "scene that stands still"
            )
        left_out = _name_photos(model, photos)
        if left_out:
            notes.append(f"structure from motion posed {posed} of {len(photos)} photos")
        seconds = round(time.monotonic() - begin, 1)
        settings = {**_settings(), "pairs": pairs}
        result = {"posed": posed, "without_pose": left_out, "unreadable": unreadable}
        marker = {"settings": settings, **result, "seconds": seconds, "notes": notes}
        target = write_model(model, scene_folder, own=marker)
    log.info("structure from motion posed %d photos in %.0f s; see %s", posed, seconds, target)
    return notes


def _check_names(photo_folder: Path, names: list[str]) -> None:
    """ValueError for a path that is not UTF-8, as COLMAP's models and JSON need it."""
    for path in (photo_folder.resolve() / name for name in names):
        try:
            str(path).encode()
        except UnicodeEncodeError:
            shown = os.fsencode(path).decode(errors="backslashreplace")
            raise ValueError(
                f"{shown}: this name is not UTF-8, so poses cannot be stored under it; rename it "
                "(such as by convmv -f latin1 -t utf8)"
            ) from None


def _settings() -> dict[str, object]:
    return {
        "longest_side": features.LONGEST_SIDE,
        "features": features.FEATURES,
        "exhaustive_photos": matching.EXHAUSTIVE_PHOTOS,
        "seed": SEED,
        "pycolmap": pycolmap.__version__,
    }


def _key(photo_folder: Path, names: list[str], masks: dict[str, Path]) -> dict[str, object]:
    """All that the work depends on: the settings, and photos and masks by name, size and time."""

    def version(photo: Path) -> list[int]:
        try:
            stat = photo.stat()
        except OSError:  # such as a link to nowhere
            return []
        return [stat.st_size, stat.st_mtime_ns]

    return {
        "settings": _settings(),
        "photo_folder": str(photo_folder.resolve()),
        "photos": {name: version(photo_folder / name) for name in names},
        "masks": {name: [str(mask), *version(mask)] for name, mask in masks.items()},
    }


def _note_cameras(photos: list[Copy]) -> list[str]:
    """A note if photos lie in several folders, of which each has its own cameras."""
    folders = Counter(photo.camera[0] for photo in photos)
    if len(folders) < 2:
        return []
    cameras = len({photo.camera for photo in photos})
    each = format_list([f"{folder} ({n})" for folder, n in sorted(folders.items())])
    return [
        f"photos of one folder and size share a camera: {format_count(cameras, 'camera')}, "
        f"photos by folder: {each}"
    ]


def _name_photos(model: pycolmap.Reconstruction, photos: list[Copy]) -> list[str]:
    """Name and size the model's images and cameras as the photos; names of those without pose."""
    by_file = {photo.file: photo for photo in photos}
    left_out = by_file.keys() - {image.name for image in model.images.values()}
    for image in model.images.values():
        photo = by_file[image.name]
        if (image.camera.width, image.camera.height) != photo.size:
            image.camera.rescale(*photo.size)
        image.name = photo.photo
    return sorted(by_file[file].photo for file in left_out)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pycolmap's log; its errors are exceptions."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
