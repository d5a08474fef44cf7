# Bundler's bundle.out and the list of its photos.
# Format: https://github.com/snavely/bundler_sfm#output-format
from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from runtime.text import format_count
from scenes.capture import Capture
from scenes.formats.assembly import make_capture, make_points
from scenes.formats.conversions import (
    FLIP_YZ,
    make_lens,
    make_pose,
    read_rotation,
    read_size,
    read_text,
)
from scenes.formats.photo_names import match_photos, photo_folders
from scenes.formats.places import list_files, read_start, starts_with
from scenes.photos import list_photos


def find(folder: Path) -> list[Path]:
    """The bundle files of a folder and of its folder bundle."""
    files = [
        file
        for place in (folder, folder / "bundle")
        for file in list_files(place, "bundle.out", "*.out")
    ]
    return [file for file in files if starts_with(file, b"# Bundle file")]


def count_views(file: Path) -> int:
    """How many cameras a bundle file has, 0 if it is damaged."""
    numbers = read_start(file, 200).partition(b"\n")[2].split()
    return int(numbers[0]) if numbers and numbers[0].isdigit() else 0


def read(file: Path, path: Path, photos: Path | None) -> Capture:
    """The posed views and points of a bundle file.

    World to camera with axes right, up, back; pixels from the middle of the photo, whose size is
    read from the photo; a focal length of 0 means that a photo has no pose. Raises ValueError or
    FileNotFoundError.
    """
    values, n_cameras, n_points = _numbers(file)
    cameras = values[: 15 * n_cameras].reshape(-1, 5, 3)
    folders = photo_folders(file, path, photos)
    named, notes = _names(file, path, folders, n_cameras)
    posed = [i for i in range(n_cameras) if cameras[i, 0, 0] != 0]
    viewmats = [
        FLIP_YZ
        @ make_pose(
            read_rotation(cameras[i, 1:4], f"{file}: the rotation of camera {i}"), cameras[i, 4]
        )
        for i in posed
    ]

    def lens_of(i: int, photo: Path):
        f, k1, k2 = cameras[posed[i], 0]
        return make_lens(read_size(photo), (f, f), None, (k1, k2, 0, 0))

    xyz, rgb = [], []
    at = 15 * n_cameras
    for _ in range(n_points):  # a position, a colour, and a list of views
        if at + 7 > len(values) or not 0 <= values[at + 6] <= len(values):
            raise ValueError(f"{file} is cut off or damaged among its points; export it again")
        xyz.append(values[at : at + 3])
        rgb.append(values[at + 3 : at + 6])
        at += 7 + 4 * int(values[at + 6])
    points = make_points(xyz, rgb, file, notes)
    matched = match_photos([named[i] for i in posed], folders)
    return make_capture(
        "Bundler", file, matched, [named[i] for i in posed], lens_of, viewmats, points, notes
    )


def _numbers(file: Path) -> tuple[np.ndarray, int, int]:
    text = read_text(file).partition("\n")[2]  # without the line with the version
    try:
        values = np.array(text.split(), np.float64)
        n_cameras, n_points = (int(value) for value in values[:2])
    except (ValueError, OverflowError):
        raise ValueError(f"{file} is not a list of numbers; export it again") from None
    if min(n_cameras, n_points) < 0 or 2 + 15 * n_cameras + 7 * n_points > len(values):
        raise ValueError(f"{file} is cut off: it counts more cameras than it has; export it again")
    if not np.isfinite(values[: 2 + 15 * n_cameras]).all():
        raise ValueError(f"{file} has cameras with values that are not finite; export it again")
    return values[2:], n_cameras, n_points


def _names(
    file: Path, path: Path, folders: list[Path], n_cameras: int
) -> tuple[list[str], list[str]]:
    """The photo of each camera from the list beside a bundle file, else in sorted order."""
    places = dict.fromkeys((file.parent, path))
    lists = [place / name for place in places for name in ("list.txt", f"{file.stem}.txt")]
    lists += [other for place in places for other in sorted(place.glob("*.lst"))]
    lists += [other for place in places for other in sorted(place.glob("*list*.txt"))]
    for candidate in lists:
        if candidate.is_file():
            lines = [line for line in read_text(candidate).splitlines() if line.strip()]
            if len(lines) != n_cameras:
                raise ValueError(
                    f"{candidate} names {format_count(len(lines), 'photo')}, but {file.name} has "
                    f"{format_count(n_cameras, 'camera')}; export both again"
                )
            # NAME, or NAME 0 FOCAL_LENGTH
            return [re.sub(r"\s+0\s+[0-9.eE+-]+\s*$", "", line).strip() for line in lines], []
    for folder in folders:
        names = list_photos(folder)
        if names and len(names) == n_cameras:
            return names, [f"{file.name} has no list of photos beside it; taken in sorted order"]
    raise FileNotFoundError(
        f"{file} has no list of its {format_count(n_cameras, 'photo')}; put list.txt beside it"
    )
