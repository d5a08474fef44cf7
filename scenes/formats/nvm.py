# VisualSFM's .nvm (N-View Match).
# Format: http://ccwu.me/vsfm/doc.html#nvm; distortion: SetNormalizedMeasurementDistortion of
# http://grail.cs.washington.edu/projects/mcba, src/pba/DataInterface.h
from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from scenes.capture import Capture, Lens
from scenes.formats.assembly import make_capture, make_points
from scenes.formats.conversions import (
    make_lens,
    make_pose,
    read_number,
    read_numbers,
    read_size,
    read_text,
)
from scenes.formats.photo_names import match_photos, photo_folders
from scenes.formats.places import list_files, read_start


def find(folder: Path) -> list[Path]:
    """The .nvm files of a folder."""
    return list_files(folder, "*.nvm")


def count_views(file: Path) -> int:
    """How many cameras the first model of a .nvm has, 0 if it is damaged."""
    numbers = read_start(file, 1000).partition(b"\n")[2].split()
    return int(numbers[0]) if numbers and numbers[0].isdigit() else 0


def read(file: Path, path: Path, photos: Path | None) -> Capture:
    """The posed views and points of the first model of a .nvm.

    Rotations (w x y z) from world to camera with OpenCV's axes, and positions; one focal length,
    centred (or shared, after FixedK), the size is read from the photo. A distorted point times
    1 + r d^2 is the undistorted one, d its distance from the middle in focal lengths. Raises
    ValueError or FileNotFoundError.
    """
    head, *lines = read_text(file).splitlines() or [""]
    lines = [line for line in lines if line.strip()]
    if not head.startswith("NVM_V3"):
        raise ValueError(f'{file} does not start with "NVM_V3"; save it again with VisualSFM')
    notes: list[str] = []
    fixed = None
    if "FixedK" in head:
        fixed = read_numbers(head.split("FixedK")[1].split()[:4], 4, f"{file}: its FixedK")

    cameras, rest = _take(lines, f"{file}: its cameras")
    rows = [line.rsplit(maxsplit=10) for line in cameras]
    named = [row[0].replace('"', " ") for row in rows]  # VisualSFM writes spaces so
    numbers = [row[1:] for row in rows]
    values = read_numbers(numbers, (-1, 10), f"{file}: its cameras") if rows else np.zeros((0, 10))
    viewmats = []
    for name, quaternion, centre in zip(named, values[:, 1:5], values[:, 5:8], strict=True):
        if not 0.5 < (quaternion**2).sum() < 2:
            raise ValueError(f"{file}: the pose of {name[:60]} is not a rotation; save it again")
        R = Rotation.from_quat(quaternion, scalar_first=True).as_matrix()
        viewmats.append(make_pose(R, -R @ centre))

    def lens_of(i: int, photo: Path) -> Lens:
        size = read_size(photo)
        focal, centre = (values[i, 0],) * 2, None
        if fixed is not None:
            focal, centre = (fixed[0], fixed[2]), (fixed[1], fixed[3])
        if not min(focal) > 0:
            raise ValueError(f"{file}: the focal length of {photo.name} is {min(focal):g}")
        distortion = _distortion(values[i, 8], size, focal[0], f"{file}: {photo.name}")
        return make_lens(size, focal, centre, distortion)

    points, rest = _take(rest, f"{file}: its points") if rest else ([], [])
    fields = [line.split(maxsplit=6)[:6] for line in points]
    cloud = make_points([row[:3] for row in fields], [row[3:] for row in fields], file, notes)
    if rest and rest[0].strip().isdigit() and int(rest[0]) > 0:
        notes.append(f"{file.name} has several models; the first one is read")
    matched = match_photos(named, photo_folders(file, path, photos))
    return make_capture("VisualSFM", file, matched, named, lens_of, viewmats, cloud, notes)


def _take(lines: list[str], what: str) -> tuple[list[str], list[str]]:
    """The lines that a first one counts, and those after them."""
    n = read_number(lines[0] if lines else None, f"{what}: their number")
    if not (0 <= n < len(lines) and n % 1 == 0):
        raise ValueError(f"{what} are cut off: there should be {n:g}; save it again")
    return lines[1 : 1 + int(n)], lines[1 + int(n) :]


def _distortion(r: float, size: tuple[int, int], focal: float, what: str) -> tuple[float, ...]:
    """OpenCV's terms for VisualSFM's, which is the inverse; fitted where the photo has pixels."""
    if r == 0:
        return ()
    distorted = np.linspace(0, 0.5 * np.hypot(*size) / focal, 200)[1:]
    undistorted = distorted * (1 + r * distorted**2)
    if 1 + 3 * r * distorted[-1] ** 2 < 0.05:
        raise ValueError(f"{what}: its distortion {r:g} folds over inside the photo")
    powers = undistorted[:, None] ** [2, 4, 6]
    terms = np.linalg.lstsq(powers * undistorted[:, None], distorted - undistorted, rcond=None)[0]
    error = focal * np.abs((powers @ terms + 1) * undistorted - distorted).max()
    if error > 0.5:
        raise ValueError(f"{what}: its distortion {r:g} is too strong; export undistorted photos")
    k1, k2, k3 = terms
    return k1, k2, 0.0, 0.0, k3
