# Captures without poses: where their photos lie; structure from motion poses them.
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from runtime.text import format_list
from scenes.capture import Capture, check_view_count
from scenes.formats import colmap
from scenes.photos import NO_PHOTOS, list_photos
from scenes.scene import Split
from scenes.sfm.pipeline import structure_from_motion

# Sub-folders named like these hold the photos of one camera each.
CAMERA = re.compile(r"(cam|camera|gopro)[ _-]?\w*$|(left|right|front|back|rear|up|down)$", re.I)


def find_photos(path: Path) -> tuple[Path, list[str]]:
    """The folder of a capture's photos and their names in it, which may be none.

    In turn: `images` with its sub-folders, the folder itself, its sub-folders (of several cameras).
    """
    names = list_photos(path / "images", deep=True)
    if names:
        return path / "images", names
    folders = list_photo_folders(path)
    return path, list_photos(path) or [
        f"{folder.name}/{name}" for folder in folders for name in list_photos(folder)
    ]


def list_photo_folders(path: Path) -> list[Path]:
    """Sub-folders that hold photos, sorted, without hidden ones and those of NO_PHOTOS."""
    folders = [f for f in path.iterdir() if f.is_dir() and not f.name.startswith(".")]
    return sorted(f for f in folders if not NO_PHOTOS.match(f.name) and list_photos(f))


def is_split_by_camera(path: Path) -> bool:
    """Whether a folder is one capture, whose photos lie in sub-folders named after cameras."""
    folders = list_photo_folders(path)
    return len(folders) > 0 and all(CAMERA.match(folder.name) for folder in folders)


def read(
    path: Path, folder: Path | None, split_of: Callable[[tuple[str, ...]], Split], progress: bool
) -> Capture | None:
    """The photos of a capture's folder (or of `folder`), posed; None if there are none.

    The poses are saved as `path`/sparse/0 for the next time. split_of raises errors of the split
    before they are computed. Raises what `structure_from_motion` raises.
    """
    photos, names = find_photos(path)
    if folder is not None:
        photos, names = folder, list_photos(folder, deep=folder != path)
    if not names:
        return None
    notes = []
    if photos == path and "/" in names[0]:
        captures = [f.name for f in list_photo_folders(path) if colmap.find_models(f)]
        if captures:
            raise ValueError(f"{path} holds several captures; name one: {format_list(captures, 5)}")
        notes = [f"{path} has photos in sub-folders only; they are taken as one capture"]
    check_view_count(len(names), "photo", path)
    split_of(tuple(names))
    notes += structure_from_motion(photos, names, path, progress)
    capture = colmap.read(path / "sparse" / "0", photos)
    return replace(capture, notes=(*notes, *capture.notes))
