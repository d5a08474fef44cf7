# LLFF's poses_bounds.npy: a row per photo, in sorted order.
# Format: https://github.com/Fyusion/LLFF, llff/poses/pose_utils.py
from __future__ import annotations

from pathlib import Path

import numpy as np

from scenes.capture import Capture, make_no_points
from scenes.formats.assembly import make_capture
from scenes.formats.conversions import (
    invert_pose,
    make_lens,
    make_pose,
    read_numbers,
    read_rotation,
)
from scenes.formats.places import list_files
from scenes.photos import list_photos


def find(folder: Path) -> list[Path]:
    """The poses_bounds.npy of a capture."""
    return list_files(folder, "poses_bounds.npy")


def count_views(file: Path) -> int:
    """How many rows a poses_bounds.npy has, 0 if it is damaged."""
    try:
        return len(np.load(file, mmap_mode="r"))
    except Exception:  # numpy's reader of headers raises many kinds
        return 0


def read(file: Path, path: Path, photos: Path | None) -> Capture:
    """The views of a poses_bounds.npy: one focal length, centred, COLMAP's world, no points.

    A row is [3, 5], camera to world with axes down, right, back, and a column height, width, focal
    length; then two depths, which are not used. Raises ValueError or FileNotFoundError.
    """
    try:
        rows = np.load(file, mmap_mode="r")
    except Exception as error:  # numpy's reader of headers raises many kinds
        reason = str(error).splitlines()[0][:100] if str(error) else "it is cut off"
        raise ValueError(f"{file} is not an array of numbers ({reason}); export it again") from None
    rows = read_numbers(rows, (-1, 17), f"{file}: its array")
    smaller = sorted(path.glob("images_[0-9]*"))
    places = (photos,) if photos else (path / "images", path, *smaller)
    there = next((place for place in places if place.is_dir() and list_photos(place)), places[0])
    names = list_photos(there)
    folder = path / "images" if there in smaller else there
    if len(names) != len(rows):
        raise ValueError(
            f"{file} has poses of {len(rows)} photos, but {there} holds {len(names)}; they belong "
            "together by their order, so keep exactly the photos with a pose there"
        )
    matrices = rows[:, :15].reshape(-1, 3, 5)
    viewmats = []
    for name, pose in zip(names, matrices, strict=True):
        R = pose[:, [1, 0, 2]] * [1, 1, -1]  # right, down, forward
        R = read_rotation(R, f"{file}: the pose of {name}")
        viewmats.append(invert_pose(make_pose(R, pose[:, 3])))

    def lens_of(i: int, photo: Path):
        height, width, focal = matrices[i, :, 4]
        return make_lens((width, height), (focal, focal))

    matched = (folder, [folder / name for name in names])
    return make_capture("LLFF", file, matched, names, lens_of, viewmats, make_no_points(), [])
