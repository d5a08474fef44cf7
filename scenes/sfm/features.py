# Features of the photos: smaller copies in a work folder, and what SIFT finds in them.
from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from runtime.files import atomic_path
from runtime.progress import ProgressBar
from scenes.bindings import pycolmap
from scenes.masks import read_mask
from scenes.photos import ORIENTATION, UnreadablePhoto, decode, open_photo, read_header

LONGEST_SIDE = 1600  # pixels of the photos in which features are detected
FEATURES = 4096  # per photo; the time of matching grows with their square


@dataclass(frozen=True)
class Copy:
    """A photo's copy: its file's name, the photo's name, and the photo's width and height as stored
    and EXIF orientation."""

    file: str
    photo: str
    size: tuple[int, int]
    orientation: int = 1

    @property
    def camera(self) -> tuple[str, tuple[int, int]]:
        """What photos of one camera have in common: their folder and size."""
        return str(PurePosixPath(self.photo).parent), self.size


def copy_photos(
    photo_folder: Path, names: Sequence[str], copies: Path, progress: bool
) -> tuple[list[Copy], list[str]]:
    """Copy photos of any format as .jpg of at most LONGEST_SIDE; EXIF keeps only the focal length.

    Copies that are there are kept. Returns the copies, in order, and messages on unreadable photos.
    """
    copies.mkdir(exist_ok=True)

    def copy(index: int) -> Copy | str:
        photo, file = photo_folder / names[index], copies / f"{index:06d}.jpg"
        try:
            if not file.exists():
                _copy(photo, file)
            width, height, orientation = read_header(photo)
            return Copy(file.name, names[index], (width, height), orientation)
        except UnreadablePhoto as error:
            return f"{names[index]} {error}"

    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    n = len(names)
    try:
        done = list(
            ProgressBar(
                pool.map(copy, range(n)),
                "photos",
                n,
                unit="photo",
                disable=not progress,
                leave=False,
            )
        )
    finally:
        pool.shutdown(cancel_futures=True)
    return [c for c in done if isinstance(c, Copy)], [c for c in done if isinstance(c, str)]


def _copy(photo: Path, file: Path) -> None:
    pixels, _ = decode(photo)
    with open_photo(photo) as opened:
        exif = opened.getexif()
    exif.pop(ORIENTATION, None)
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    with atomic_path(file) as temporary:
        image.save(temporary, "JPEG", quality=97, subsampling=0, exif=exif)


def copy_masks(photos: list[Copy], masks: dict[str, Path], copies: Path, folder: Path) -> None:
    """Write the masks of the copies, named as COLMAP has them; where a photo has none, all counts.

    masks: by the photo's name. Raises what `read_mask` raises.
    """
    folder.mkdir(exist_ok=True)
    for photo in photos:
        target = folder / f"{photo.file}.png"
        if target.exists():
            continue
        with Image.open(copies / photo.file) as copy:
            size = copy.size
        mask = np.ones(size[::-1], bool)
        if photo.photo in masks:
            mask = read_mask(masks[photo.photo], size, photo.orientation)
        with atomic_path(target) as temporary:
            Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, "PNG")


def extract_features(
    database: Path, copies: Path, photos: list[Copy], progress: bool, masks: Path | None = None
) -> None:
    """Write the features of every copy, and a camera for all that share one, to the database.

    Photos that have theirs are left out, so that a stopped extraction continues. masks: the folder
    of `copy_masks`; nothing is detected where they are black.
    """
    groups = defaultdict(list)
    for photo in photos:
        groups[photo.camera].append(photo.file)
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.sift.max_num_features = FEATURES
    batch = 2 * (os.cpu_count() or 1)
    cameras = _read_cameras(database)
    with ProgressBar(
        total=len(photos),
        initial=len(cameras),
        desc="features",
        unit="photo",
        disable=not progress,
        leave=False,
    ) as bar:
        for group in groups.values():
            reader = pycolmap.ImageReaderOptions(camera_model="SIMPLE_RADIAL")
            if masks is not None:
                reader.mask_path = str(masks)
            missing = [file for file in group if file not in cameras]
            for start in range(0, len(missing), batch):
                shared = next((cameras[file] for file in group if file in cameras), None)
                if shared is not None:
                    reader.existing_camera_id = shared
                chunk = missing[start : start + batch]
                pycolmap.extract_features(
                    database,
                    copies,
                    chunk,
                    camera_mode=pycolmap.CameraMode.SINGLE,
                    reader_options=reader,
                    extraction_options=extraction,
                    device=pycolmap.Device.cpu,
                )
                if shared is None:
                    cameras = _read_cameras(database)
                bar.update(len(chunk))


def _read_cameras(database: Path) -> dict[str, int]:
    """The camera of every image that has its features, by name."""
    with pycolmap.Database.open(database) as store:
        return {
            image.name: image.camera_id
            for image in store.read_all_images()
            if store.exists_descriptors(image.image_id)
        }
