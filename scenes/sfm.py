# Structure from motion with pycolmap: photos only -> a COLMAP model beside them.
from __future__ import annotations

import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pycolmap
from PIL import Image
from tqdm import tqdm

from runtime.files import check_writable
from runtime.text import format_count, format_list
from scenes.formats.colmap import write_model
from scenes.photos import ORIENTATION, UnreadablePhoto, decode, open_photo

log = logging.getLogger(__name__)

LONGEST_SIDE = 1600  # pixels of the photos in which features are detected
FEATURES = 4096  # per photo; the time of matching grows with their square
EXHAUSTIVE_PHOTOS = 80  # up to this number of photos, every pair is matched
SEED = 0


def structure_from_motion(
    photo_folder: Path, names: list[str], scene_folder: Path, progress: bool = True
) -> list[str]:
    """Pose the photos, write `scene_folder`/sparse/0, and return notes on photos left out.

    Photos of one size share a camera. The model refers to pixels as stored (EXIF orientation is not
    applied), as COLMAP's own does. Raises PermissionError if the folder cannot be written,
    ValueError if fewer than three photos can be posed.
    """
    _check_writable(scene_folder)
    log.info("no poses in %s: running structure from motion on %d photos", scene_folder, len(names))
    with tempfile.TemporaryDirectory() as work, _quiet():
        copies, database = Path(work) / "photos", Path(work) / "database.db"
        copied, sizes, unreadable = _copy(photo_folder, names, copies, progress)
        notes = []
        if unreadable:
            what = format_count(len(unreadable), "unreadable photo")
            notes.append(f"skipped {what}: {format_list(unreadable)}")
        if len(sizes) < 3:
            raise ValueError(
                f"{photo_folder}: {format_count(len(sizes), 'photo')} readable "
                f"({'; '.join(notes)}); structure from motion needs at least 3"
            )
        pycolmap.set_random_seed(SEED)
        _extract(database, copies, sizes, progress)
        _match(database, list(sizes), Path(work) / "pairs.txt", progress)
        model = _map(database, copies, Path(work) / "models", len(sizes), progress)

    posed = model.num_reg_images() if model is not None else 0
    if posed < 3:
        raise ValueError(
            f"structure from motion posed {posed} of {len(sizes)} photos in {photo_folder}; take "
            "more photos that overlap by about two thirds, sharp and textured, of a scene that "
            "stands still"
        )
    left_out = sorted(set(sizes) - {image.name for image in model.images.values()})
    if left_out:
        few = format_list([copied[copy] for copy in left_out])
        notes.append(
            f"structure from motion posed {posed} of {len(sizes)} photos; without a pose: {few}"
        )
    for image in model.images.values():
        size = sizes[image.name]
        if (image.camera.width, image.camera.height) != size:
            image.camera.rescale(*size)
    for image in model.images.values():
        image.name = copied[image.name]
    target = write_model(model, scene_folder)
    log.info("structure from motion posed %d photos; saved to %s", posed, target)
    return notes


def choose_pairs(n: int) -> list[tuple[int, int]]:
    """Pairs i < j of n photos, in name order, to match: all, or neighbours and anchors of many.

    Neighbours are the next 10 and those at distances of powers of two; every 10th photo (fewer for
    very many) is an anchor and matched with every other anchor, which closes loops.
    """
    if n <= EXHAUSTIVE_PHOTOS:
        return [(i, j) for i in range(n) for j in range(i + 1, n)]
    steps = {*range(1, 11), *(2**k for k in range(4, n.bit_length()))}
    pairs = {(i, i + step) for i in range(n) for step in steps if i + step < n}
    anchors = range(0, n, max(10, n // 60))
    pairs |= {(i, j) for i in anchors for j in anchors if i < j}
    return sorted(pairs)


def _check_writable(scene_folder: Path) -> None:
    try:
        check_writable(scene_folder / "sparse")
    except OSError:
        raise PermissionError(
            f"{scene_folder} has no poses, and structure from motion cannot save them there; "
            "copy the photos to a folder you can write to"
        ) from None


def _copy(
    photo_folder: Path, names: list[str], copies: Path, progress: bool
) -> tuple[dict[str, str], dict[str, tuple[int, int]], list[str]]:
    """Copy photos of any format as .jpg of at most LONGEST_SIDE; EXIF keeps only the focal length.

    Returns name and full (width, height) by the copy's name, and messages on unreadable photos.
    """
    copies.mkdir()
    copied, sizes, unreadable = {}, {}, []
    for index, name in enumerate(tqdm(names, "photos", disable=not progress, leave=False)):
        try:
            pixels, _ = decode(photo_folder / name)
        except UnreadablePhoto as error:
            unreadable.append(f"{name} {error}")
            continue
        with open_photo(photo_folder / name) as photo:
            exif = photo.getexif()
        exif.pop(ORIENTATION, None)
        copy = f"{index:06d}.jpg"
        copied[copy], sizes[copy] = name, (pixels.shape[1], pixels.shape[0])
        image = Image.fromarray(pixels)
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        image.save(copies / copy, quality=97, subsampling=0, exif=exif)
    return copied, sizes, unreadable


def _extract(
    database: Path, copies: Path, sizes: dict[str, tuple[int, int]], progress: bool
) -> None:
    """Features of every photo; one camera for all photos of a size."""
    groups = defaultdict(list)
    for name, size in sizes.items():
        groups[size].append(name)
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.sift.max_num_features = FEATURES
    batch = 2 * (os.cpu_count() or 1)
    with tqdm(total=len(sizes), desc="features", disable=not progress, leave=False) as bar:
        for group in groups.values():
            reader = pycolmap.ImageReaderOptions(camera_model="SIMPLE_RADIAL")
            for start in range(0, len(group), batch):
                chunk = group[start : start + batch]
                pycolmap.extract_features(
                    database,
                    copies,
                    chunk,
                    camera_mode=pycolmap.CameraMode.SINGLE,
                    reader_options=reader,
                    extraction_options=extraction,
                    device=pycolmap.Device.cpu,
                )
                if start == 0:
                    with pycolmap.Database.open(database) as store:
                        reader.existing_camera_id = max(
                            camera.camera_id for camera in store.read_all_cameras()
                        )
                bar.update(len(chunk))


def _match(database: Path, names: list[str], list_file: Path, progress: bool) -> None:
    pairs = choose_pairs(len(names))
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    batch = max(16, len(pairs) // 100)
    with tqdm(total=len(pairs), desc="matching", disable=not progress, leave=False) as bar:
        for start in range(0, len(pairs), batch):
            chunk = pairs[start : start + batch]
            list_file.write_text("".join(f"{names[i]} {names[j]}\n" for i, j in chunk))
            pycolmap.match_image_pairs(
                database,
                pairing_options=pycolmap.ImportedPairingOptions(match_list_path=list_file),
                verification_options=verification,
                device=pycolmap.Device.cpu,
            )
            bar.update(len(chunk))


def _map(
    database: Path, copies: Path, models: Path, n: int, progress: bool
) -> pycolmap.Reconstruction | None:
    """The largest model of incremental mapping, or None."""
    models.mkdir()
    options = pycolmap.IncrementalPipelineOptions(min_model_size=3, random_seed=SEED)
    options.mapper.random_seed = options.triangulation.random_seed = SEED
    with tqdm(total=n, desc="mapping", disable=not progress, leave=False) as bar:
        reconstructions = pycolmap.incremental_mapping(
            database,
            copies,
            models,
            options,
            initial_image_pair_callback=lambda: bar.update(2),
            next_image_callback=lambda: bar.update(1),
        )
    return max(reconstructions.values(), key=lambda model: model.num_reg_images(), default=None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pycolmap's log; its errors are exceptions."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
