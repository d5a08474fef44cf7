# The capture formats, and how the one of a folder is recognised and read.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from scenes import sfm
from scenes.capture import Capture, check_view_count
from scenes.formats import colmap, transforms
from scenes.photos import list_photos
from scenes.scene import Split


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
    return colmap.read(model, photos or colmap.find_photo_folder(path, model))


def _read_transforms(file: Path, path: Path, photos: Path | None) -> Capture:
    return transforms.read(file, photos)


# All formats with poses, the first that is there is read.
FORMATS = (
    Format("COLMAP model (sparse/0)", colmap.find_model, _read_colmap),
    Format("transforms.json", transforms.find, _read_transforms),
)


def read_capture(
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
    check_view_count(len(names), "photo", path)
    split_of(tuple(names))  # raises errors before structure from motion
    scene_folder = path if photos == path or folder is not None else photos.parent
    notes = sfm.structure_from_motion(photos, names, scene_folder, progress)
    capture = colmap.read(scene_folder / "sparse" / "0", photos)
    return replace(capture, notes=(*notes, *capture.notes))
