# OpenSfM's reconstruction.json, also that of OpenDroneMap.
# Format: https://opensfm.org/docs/dataset.html, https://opensfm.org/docs/geometry.html
from __future__ import annotations

from pathlib import Path

from scipy.spatial.transform import Rotation

from runtime.text import format_count
from scenes.capture import Capture, Lens
from scenes.formats.assembly import make_capture, make_points
from scenes.formats.conversions import (
    get,
    make_lens,
    make_panorama,
    make_pose,
    read_json,
    read_number,
    read_numbers,
)
from scenes.formats.photo_names import match_photos, photo_folders
from scenes.formats.places import count_matches, list_files

# The distortion of each type in the order of Lens; what a camera lacks is 0.
TERMS = {
    "perspective": ("k1", "k2"),
    "simple_radial": ("k1",),
    "radial": ("k1", "k2"),
    "brown": ("k1", "k2", "p1", "p2", "k3"),
    "fisheye": ("k1", "k2", "", ""),
    "fisheye_opencv": ("k1", "k2", "k3", "k4"),
}
PANORAMAS = ("spherical", "equirectangular")


count_views = count_matches(rb'"rotation"')


def find(folder: Path) -> list[Path]:
    """The reconstruction.json of a data set and of OpenDroneMap's results."""
    places = (folder, folder / "opensfm")
    return [file for place in places for file in list_files(place, "reconstruction.json")]


def read(file: Path, path: Path, photos: Path | None) -> Capture:
    """The largest reconstruction of a file; OpenCV's axes, rotations as vectors, world to camera.

    Focal lengths and principal points are in units of the longer side, the latter from the middle.
    Raises ValueError or FileNotFoundError.
    """
    reconstructions = read_json(file, list)
    shots = [get(one, "shots", dict, f"{file}: a reconstruction") for one in reconstructions]
    if not any(shots):
        raise ValueError(f"{file} has no reconstruction with photos; run opensfm reconstruct again")
    largest = max(range(len(shots)), key=lambda i: len(shots[i]))
    reconstruction, shots = reconstructions[largest], shots[largest]
    notes = []
    if len(reconstructions) > 1:
        notes.append(
            f"{file.name} has {len(reconstructions)} reconstructions; the one with the most "
            f"photos ({len(shots)}) is read"
        )
    cameras = get(reconstruction, "cameras", dict, f"{file}")
    named = sorted(shots)
    viewmats = []
    for name in named:
        what = f"{file}: the shot {name[:60]}"
        rotation, translation = (
            read_numbers(get(shots[name], key, list, what), 3, f'{what}: "{key}"')
            for key in ("rotation", "translation")
        )
        viewmats.append(make_pose(Rotation.from_rotvec(rotation).as_matrix(), translation))

    def lens_of(i: int, photo: Path) -> Lens:
        key = get(shots[named[i]], "camera", str, f"{file}: the shot {named[i][:60]}")
        return _lens(get(cameras, key, dict, f"{file}: cameras"), f"{file}: the camera {key[:60]}")

    points = reconstruction.get("points", {})
    points = list(points.values()) if isinstance(points, dict) else []
    what = f"{file}: a point"
    cloud = make_points(
        [get(point, "coordinates", list, what) for point in points],
        [get(point, "color", list, what) for point in points],
        file,
        notes,
    )
    skipped = len(reconstruction.get("pano_shots") or ())
    if skipped:
        notes.append(f"{file.name}: skipped {format_count(skipped, 'panorama')}")
    matched = match_photos(named, photo_folders(file, path, photos))
    return make_capture("OpenSfM", file, matched, named, lens_of, viewmats, cloud, notes)


def _lens(camera: dict, what: str) -> Lens:
    kind = camera.get("projection_type", "perspective")
    if kind not in (*TERMS, *PANORAMAS):
        raise ValueError(
            f"{what} is of the type {str(kind)[:40]}, which is not supported; use the undistorted "
            "reconstruction (opensfm undistort writes the folder undistorted)"
        )

    def number(key: str, default: float | None = None) -> float:
        return read_number(camera.get(key, default), f'{what}: "{key}"')

    width, height = number("width"), number("height")
    if kind in PANORAMAS:
        return make_panorama(width, height, what)
    keys = ("focal", "focal") if "focal" in camera else ("focal_x", "focal_y")
    unit = max(width, height)
    return make_lens(
        (width, height),
        (unit * number(keys[0]), unit * number(keys[1])),
        (width / 2 + unit * number("c_x", 0), height / 2 + unit * number("c_y", 0)),
        [number(key, 0) for key in TERMS[kind]],
        fisheye=kind.startswith("fisheye"),
    )
