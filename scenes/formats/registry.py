# The capture formats, and how the one of a folder is recognised and read.
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.text import format_count, format_list
from scenes.capture import Capture
from scenes.formats import (
    alicevision,
    bundler,
    colmap,
    llff,
    metashape,
    nvm,
    openmvg,
    opensfm,
    polycam,
    realitycapture,
    record3d,
    transforms,
    unposed,
)
from scenes.formats.findings import describe_findings, describe_hints
from scenes.formats.format import Format
from scenes.formats.places import list_folders
from scenes.panoramas import cut_panoramas
from scenes.photos import NO_PHOTOS, list_photos
from scenes.scene import Split
from scenes.video import list_videos

log = logging.getLogger(__name__)


def find_captures(folder: Path) -> list[Path]:
    """The folder itself, or its sub-folders, sorted by name, if the captures are those.

    Photos in the folder itself do not make it one capture if sub-folders hold some too, but
    sub-folders named after cameras (cam0, cam1) do.
    """
    if _is_capture(folder) or unposed.is_split_by_camera(folder):
        return [folder]
    inner = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    several = any(_is_capture(f) or list_photos(f) or list_videos(f) for f in inner)
    return inner if several else [folder]


def _is_capture(folder: Path) -> bool:
    """Whether a folder holds poses in one of FORMATS, or photos in `images`."""
    return (folder / "images").is_dir() or bool(find_poses(folder))


def _read_colmap(model: Path, path: Path, photos: Path | None) -> Capture:
    return colmap.read(model, photos, path)


def _read_transforms(file: Path, path: Path, photos: Path | None) -> Capture:
    return transforms.read(file, photos)


# All formats with poses, the first that is there is read.
FORMATS = (
    Format("COLMAP model (such as sparse/0)", colmap.find_models, _read_colmap, colmap.count_views),
    Format(
        "transforms.json or transforms_train.json",
        transforms.find,
        _read_transforms,
        transforms.count_views,
    ),
    Format("Metashape cameras.xml", metashape.find, metashape.read, metashape.count_views),
    Format(
        "RealityCapture csv", realitycapture.find, realitycapture.read, realitycapture.count_views
    ),
    Format("OpenSfM reconstruction.json", opensfm.find, opensfm.read, opensfm.count_views),
    Format("OpenMVG sfm_data.json", openmvg.find, openmvg.read, openmvg.count_views),
    Format("AliceVision .sfm", alicevision.find, alicevision.read, alicevision.count_views),
    Format("VisualSFM .nvm", nvm.find, nvm.read, nvm.count_views),
    Format("Bundler .out", bundler.find, bundler.read, bundler.count_views),
    Format("Polycam keyframes", polycam.find, polycam.read, polycam.count_views),
    Format("Record3D metadata.json", record3d.find, record3d.read, record3d.count_views),
    Format("LLFF poses_bounds.npy", llff.find, llff.read, llff.count_views),
)


@dataclass(frozen=True)
class Poses:
    """A format, and one of its files or folders in a capture's folder."""

    format: Format
    place: Path

    def describe(self, path: Path) -> str:
        """Its name from the capture's folder, and how many views it has."""
        count = format_count(self.format.count_views(self.place), "view")
        return f"{self.place.relative_to(path).as_posix()} ({count})"


def find_poses(folder: Path) -> list[Poses]:
    """All poses that a folder holds, those to be read first.

    They go by format, and of one format, those of the most views go first. Poses that the project
    itself found by structure from motion go last.
    """
    there: list[Poses] = []
    for format in FORMATS:
        places = format.find(folder)
        if len(places) > 1:  # counting takes time
            places = sorted(places, key=lambda place: -format.count_views(place))
        there += [Poses(format, place) for place in places]
    return sorted(there, key=lambda poses: colmap.is_own(poses.place))


def read_capture(
    path: Path, folder: Path | None, split_of: Callable[[tuple[str, ...]], Split], progress: bool
) -> Capture:
    """The capture in a folder, by the first format that is there, else from its photos."""
    there = find_poses(path)
    hints = []
    if folder is None and (not there or colmap.is_own(there[0].place)):
        hints = _look_around(path)
    if not there:
        for hint in hints:
            log.warning("%s", hint)  # structure from motion takes long
        capture = unposed.read(path, folder, split_of, progress)
        if capture is None:
            raise FileNotFoundError(describe_findings(path, FORMATS))
        return cut_panoramas(replace(capture, notes=(*hints, *capture.notes)))
    used, *others = there
    capture = used.format.read(used.place, path, folder)
    notes = [str(note) for note in colmap.read_marker(used.place).get("notes") or []]
    notes += [*_note(others, used, path), *hints]
    return cut_panoramas(replace(capture, notes=(*capture.notes, *notes)))


def _note(others: list[Poses], used: Poses, path: Path) -> list[str]:
    """Notes on poses that are not read; the reader of COLMAP models names other ones itself."""
    notes = []
    own = [poses.place for poses in others if colmap.is_own(poses.place)]
    if own:
        notes.append(
            f"the poses are those of {used.place}, not those of structure from motion in {own[0]}"
        )
    unread = [
        poses.describe(path)
        for poses in others
        if poses.place not in own
        and not poses.format is used.format is FORMATS[0]
        and poses.format.count_views(poses.place) > 0
    ]
    if unread:
        named = format_list(unread, 5)
        notes.append(f"the poses are those of {used.describe(path)}, not those of {named}")
    return notes


def _look_around(path: Path) -> list[str]:
    """Notes on files that may have poses; ValueError if some lie up to two folders too deep."""
    photos, names = unposed.find_photos(path)
    if not names:
        return []
    for folder, poses in _find_deeper(path, None if photos == path else photos, depth=2):
        raise ValueError(
            f"{path} has poses in {poses.describe(path)}, too deep to be looked for: give "
            f"{folder} with --image_folder {photos.absolute()} to read them, or give {path} "
            f"with --image_folder {photos.relative_to(path)} to have poses computed"
        )
    return describe_hints(path, photos)


def _find_deeper(path: Path, photos: Path | None, depth: int) -> Iterator[tuple[Path, Poses]]:
    """Poses in sub-folders with the folder to be given for them, but not those of other captures.

    Those have photos of their own, unlike `photos`, which are the capture's.
    """
    for folder in list_folders(path):
        own_photos = photos is not None and folder.is_relative_to(photos)
        others = not own_photos and (list_photos(folder) or list_photos(folder / "images"))
        if others or NO_PHOTOS.match(folder.name):
            continue
        for poses in find_poses(folder):
            if not colmap.is_own(poses.place) and poses.format.count_views(poses.place):
                yield folder, poses
        if depth > 1:
            yield from _find_deeper(folder, photos, depth - 1)
