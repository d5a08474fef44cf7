# AliceVision's and Meshroom's .sfm (JSON; all numbers are strings).
# Format: https://github.com/alicevision/AliceVision, src/aliceVision/sfmDataIO/jsonIO.cpp
from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.text import format_count
from scenes.capture import Capture, Lens
from scenes.formats.assembly import make_capture, make_points
from scenes.formats.conversions import (
    get,
    make_lens,
    make_pose,
    read_json,
    read_number,
    read_numbers,
    read_rotation,
)
from scenes.formats.photo_names import match_photos, photo_folders
from scenes.formats.places import count_matches, list_files, list_folders

# Type of the camera, or in newer files of its distortion: the places of the file's terms in Lens.
TERMS = {
    "none": (),
    "pinhole": (),
    "radial1": (0,),
    "radialk1": (0,),
    "radial3": (0, 1, None, None, 2),
    "radialk3": (0, 1, None, None, 2),
    "brown": (0, 1, 3, 4, 2),  # k1 k2 k3 t1 t2
    "fisheye4": (0, 1, 2, 3),
    "fisheye": (0, 1, 2, 3),
}


count_views = count_matches(rb'"center"')


def find(folder: Path) -> list[Path]:
    """The .sfm files of a folder, and those that Meshroom leaves in its cache."""
    caches = [folder, folder / "MeshroomCache"]
    nodes = [node for cache in caches for node in list_folders(cache / "StructureFromMotion")]
    return [file for place in (folder, *nodes) for file in list_files(place, "*.sfm")]


def read(file: Path, path: Path, photos: Path | None) -> Capture:
    """The views of a .sfm with a pose; OpenCV's axes, pixel centres at integers.

    A pose is the rotation from world to camera by columns, and the position. Raises ValueError or
    FileNotFoundError.
    """
    content = read_json(file)
    version = tuple(read_numbers(content.get("version"), 3, f'{file}: "version"').astype(int))
    poses = {
        str(pose["poseId"]): pose.get("pose")
        for pose in _objects(content, "poses", file)
        if "poseId" in pose
    }
    lenses = {str(lens.get("intrinsicId")): lens for lens in _objects(content, "intrinsics", file)}
    views, rig = [], 0
    for view in _objects(content, "views", file):
        if str(view.get("isPoseIndependant", "true")).lower() in ("false", "0"):
            rig += 1  # its pose is relative to the rig's
        elif str(view.get("poseId")) in poses:
            views.append(view)
    if not views:
        raise ValueError(
            f"{file} has views but no poses of them; use the cameras.sfm of StructureFromMotion"
        )
    notes = []
    if rig:
        notes.append(f"{file.name}: skipped {format_count(rig, 'photo')} posed by a rig")

    named = [get(view, "path", str, f"{file}: a view") for view in views]
    viewmats = []
    for view, name in zip(views, named, strict=True):
        what = f"{file}: the pose of {Path(name).name[:60]}"
        transform = get(poses[str(view["poseId"])], "transform", dict, what)
        rotation = read_numbers(transform.get("rotation"), 9, what).reshape(3, 3).T
        R, centre = read_rotation(rotation, what), read_numbers(transform.get("center"), 3, what)
        viewmats.append(make_pose(R, -R @ centre))

    def lens_of(i: int, photo: Path) -> Lens:
        key = str(views[i].get("intrinsicId"))
        what = f"{file}: the intrinsics {key[:20]} of {photo.name}"
        return _lens(get(lenses, key, dict, f"{file}: intrinsics"), version, what)

    landmarks = _objects(content, "structure", file) if content.get("structure") else []
    points = make_points(
        [point.get("X") for point in landmarks],
        [point.get("color") for point in landmarks],
        file,
        notes,
    )
    matched = match_photos(named, photo_folders(file, path, photos))
    return make_capture("AliceVision", file, matched, named, lens_of, viewmats, points, notes)


def _objects(content: dict, key: str, file: Path) -> list[dict]:
    values = get(content, key, list, f"{file}")
    if not all(isinstance(value, dict) for value in values):
        raise ValueError(f'{file}: "{key}" must be a list of objects; export it again')
    return values


def _lens(camera: dict, version: tuple[int, ...], what: str) -> Lens:
    def number(key: str, default: float | None = None) -> float:
        return read_number(camera.get(key, default), f'{what}: "{key}"')

    size = np.array([number("width"), number("height")])
    kind = str(camera.get("type"))
    if kind == "pinhole":
        kind = str(camera.get("distortionType", "none"))
    undistortion = str(camera.get("undistortionType", "none"))
    if kind not in TERMS or undistortion != "none":
        raise ValueError(
            f"{what} are of the type {kind[:40]}, which is not supported; export undistorted "
            "photos (ExportColmap or PrepareDenseScene)"
        )
    centre = read_numbers(camera.get("principalPoint"), 2, f'{what}: "principalPoint"')
    if version >= (1, 2, 1):
        centre = centre + size / 2
    if version < (1, 2, 2):
        focal = read_numbers(
            np.broadcast_to(np.array(camera.get("pxFocalLength"), object), 2).tolist(),
            2,
            f'{what}: "pxFocalLength"',
        )
    else:
        focal = number("focalLength") / number("sensorWidth", 36) * size[0]
        ratio = number("pixelRatio", 1)
        if not 0.01 < ratio < 100:
            raise ValueError(f'{what}: "pixelRatio" is {ratio:g}; export it again')
        # Of the files that AliceVision keeps for its tests, 1.2.8 still states the horizontal
        # focal length, 1.2.11 the vertical one; before 1.2.5 the ratio was its inverse.
        focal = (
            (focal, focal / ratio if version < (1, 2, 5) else focal * ratio)
            if version <= (1, 2, 8)
            else (focal / ratio, focal)
        )
    terms = camera.get("distortionParams") or []
    terms = read_numbers(terms, -1, f'{what}: "distortionParams"')
    places = TERMS[kind]
    if len(terms) != sum(place is not None for place in places):
        if len(terms) and terms.any():
            raise ValueError(f'{what}: "distortionParams" has {len(terms)} terms; export it again')
        places = ()
    return make_lens(
        tuple(size),
        tuple(focal),
        tuple(centre + 0.5),
        [0.0 if place is None else terms[place] for place in places],
        fisheye=kind.startswith("fisheye"),
    )
