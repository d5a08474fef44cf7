# Polycam's raw data: keyframes/cameras/NAME.json beside keyframes/images/NAME.jpg.
# Format: https://github.com/PolyCam/polyform#polycams-data-format
from __future__ import annotations

from pathlib import Path

from scenes.capture import Capture, make_no_points
from scenes.formats.assembly import make_capture
from scenes.formats.conversions import (
    FLIP_YZ,
    invert_pose,
    make_lens,
    make_pose,
    read_json,
    read_number,
    read_numbers,
    read_rotation,
)
from scenes.formats.photo_names import match_photos
from scenes.formats.places import list_files


def find(folder: Path) -> list[Path]:
    """The cameras of a raw export, the globally optimised ones if there are some."""
    for keyframes in (folder / "keyframes", folder):
        for name in ("corrected_cameras", "cameras"):
            if list_files(keyframes / name, "*.json"):
                return [keyframes / name]
    return []


def count_views(cameras: Path) -> int:
    """How many cameras there are."""
    return len(list_files(cameras, "*.json"))


def read(cameras: Path, path: Path, photos: Path | None) -> Capture:
    """The views of a raw export: ARKit's world (y up, metres), camera axes of OpenGL, no points.

    `corrected_images` belong to `corrected_cameras`. Raises ValueError or FileNotFoundError.
    """
    folder = cameras.parent / cameras.name.replace("cameras", "images")
    files = list_files(cameras, "*.json")
    frames = [read_json(file) for file in files]
    viewmats = []
    for file, frame in zip(files, frames, strict=True):
        rows = [[frame.get(f"t_{row}{column}") for column in range(4)] for row in range(3)]
        camtoworld = read_numbers(rows, (3, 4), f"{file}: the pose t_00 to t_23")
        R = read_rotation(camtoworld[:, :3], f"{file}: the pose t_00 to t_23")
        viewmats.append(invert_pose(make_pose(R, camtoworld[:, 3]) @ FLIP_YZ))

    def lens_of(i: int, photo: Path):
        fx, fy, cx, cy, width, height = (
            read_number(frames[i].get(key), f'{files[i]}: "{key}"')
            for key in ("fx", "fy", "cx", "cy", "width", "height")
        )
        return make_lens((width, height), (fx, fy), (cx, cy))

    named = [file.stem for file in files]
    folders = (photos,) if photos else (folder, cameras.parent / "images")
    matched = match_photos(named, folders)
    notes = []
    if cameras.name == "cameras":
        notes.append(
            f"{cameras.parent} has no corrected_cameras: these are ARKit's poses, with drift"
        )
    elif matched[0].name == "corrected_images":
        notes.append(
            "Polycam leaves thin black borders in corrected_images; mask them if they show"
        )
    return make_capture(
        "Polycam", cameras, matched, named, lens_of, viewmats, make_no_points(), notes
    )
