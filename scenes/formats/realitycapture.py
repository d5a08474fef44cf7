# The csv "Internal/External camera parameters" of RealityCapture and RealityScan.
# Conventions: "Camera geometry in RealityScan", https://dev.epicgames.com/documentation/realityscan,
# and the readers of the same csv in https://github.com/ArthurBrussee/brush and nerfstudio.
from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from scenes.capture import Capture, Lens, make_no_points
from scenes.formats.assembly import add_points_beside, make_capture
from scenes.formats.conversions import (
    FLIP_YZ,
    invert_pose,
    make_lens,
    make_pose,
    read_number,
    read_size,
    read_text,
)
from scenes.formats.photo_names import match_photos, photo_folders
from scenes.formats.places import count_matches, detect_encoding, list_files, read_start

REQUIRED = ("name", "x", "y", "alt", "heading", "pitch", "roll", "f")
OPTIONAL = ("px", "py", "k1", "k2", "k3", "k4", "t1", "t2")
FILM = 36.0  # millimetres: focal lengths are those of a film of this longer side


count_views = count_matches(rb"(?m)^[^#\r\n].*$")


def find(folder: Path) -> list[Path]:
    """The .csv files of a folder with these columns."""
    return [
        file
        for file in list_files(folder, "*.csv")
        for start in (read_start(file, 1024),)
        if _find_columns(start.decode(detect_encoding(start), "replace").splitlines())
    ]


def read(file: Path, path: Path, photos: Path | None) -> Capture:
    """The cameras of a csv: a world with z up, camera axes of OpenGL.

    Camera to world is Rz(-heading) Rx(pitch) Ry(roll), in degrees: zeros look down with north up.
    The principal point is in units of the photo's longer side, from its middle; the photo's size
    is read from the photo, points from a .ply beside. Raises ValueError or FileNotFoundError.
    """
    lines = [line for line in read_text(file).splitlines() if line.strip()]
    head = _find_columns(lines)
    if head is None:
        raise ValueError(f"{file} lacks one of the columns {', '.join(REQUIRED)}; export it again")
    start, separator, columns = head
    named, values = [], []
    for number, row in enumerate(csv.reader(lines[start + 1 :], delimiter=separator), start + 2):
        if row[0].startswith("#"):
            continue
        name, *numbers = row
        if separator != ",":  # where the comma is free, some write decimals with it
            numbers = [number.replace(",", ".") for number in numbers]
        cells = dict(zip(columns, (name, *numbers), strict=False))
        named.append(cells.get("name", ""))
        values.append(
            {
                key: read_number(cells.get(key) if key in REQUIRED else cells.get(key) or "0", what)
                for key in (*REQUIRED[1:], *OPTIONAL)
                for what in (f'{file}, line {number}: "{key}"',)
            }
        )
    viewmats = []
    for value in values:
        angles = (-value["heading"], value["pitch"], value["roll"])
        R = Rotation.from_euler("ZXY", angles, degrees=True).as_matrix()
        position = np.array([value["x"], value["y"], value["alt"]])
        viewmats.append(invert_pose(make_pose(R, position) @ FLIP_YZ))

    def lens_of(i: int, photo: Path) -> Lens:
        width, height = read_size(photo)
        unit, value = max(width, height), values[i]
        focal = value["f"] * unit / FILM
        terms = [value[key] for key in ("k1", "k2", "t1", "t2", "k3", "k4")]
        return make_lens(
            (width, height),
            (focal, focal),
            (width / 2 + unit * value["px"], height / 2 + unit * value["py"]),
            terms,
        )

    matched = match_photos(named, photo_folders(file, path, photos))
    capture = make_capture(
        "RealityCapture", file, matched, named, lens_of, viewmats, make_no_points(), []
    )
    return add_points_beside(capture, file, [np.eye(4)])


def _find_columns(lines: list[str]) -> tuple[int, str, list[str]] | None:
    """The place of the line with the columns, the first or second, its separator, and the columns.

    Spreadsheets of some countries save `;` or tabs between them.
    """
    for number, line in enumerate(lines[:2]):
        for separator in (",", ";", "\t"):
            cells = line.split(separator)
            columns = [cell.strip().lstrip("#").strip().lower() for cell in cells]
            if set(REQUIRED) <= set(columns) and columns[0] == "name":
                return number, separator, columns
    return None
