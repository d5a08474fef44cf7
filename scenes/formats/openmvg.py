# OpenMVG's sfm_data.json, as its serialisation library cereal writes it.
# Format: https://openmvg.readthedocs.io/en/latest/software/SfM/SfM_OutputFormat, and
# src/openMVG/cameras/*_io.hpp of https://github.com/openMVG/openMVG
from __future__ import annotations

from pathlib import Path

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

# Camera model: the key of its distortion, and the places of the file's terms in Lens.
TERMS = {
    "pinhole": ("", ()),
    "pinhole_radial_k1": ("disto_k1", (0,)),
    "pinhole_radial_k3": ("disto_k3", (0, 1, None, None, 2)),
    "pinhole_brown_t2": ("disto_t2", (0, 1, 3, 4, 2)),  # k1 k2 k3 t1 t2
    "fisheye": ("fisheye", (0, 1, 2, 3)),
}
FIRST = 0x80000000  # marks the first object of a class, the one that carries the class's name


count_views = count_matches(rb'"center"')


def find(folder: Path) -> list[Path]:
    """The sfm_data.json of a folder, and of the folders that openMVG's scripts write to."""
    written = [f for f in list_folders(folder) if f.name.startswith(("reconstruction", "matches"))]
    places = (folder, *sorted(written, key=lambda f: f.name.startswith("matches")))
    return [file for f in places for file in list_files(f, "sfm_data.json", "sfm_data*.json")]


def read(file: Path, path: Path, photos: Path | None) -> Capture:
    """The views of a sfm_data.json with a pose; OpenCV's axes, pixel centres at integers.

    Its points have no colours. Raises ValueError or FileNotFoundError.
    """
    content = read_json(file)
    poses = dict(_entries(content, "extrinsics", file))
    lenses = {}
    models: dict[int, str] = {}
    for key, value in _entries(content, "intrinsics", file):
        what = f"{file}: intrinsics {key}"
        number = int(read_number(value.get("polymorphic_id"), f'{what}: "polymorphic_id"'))
        if number & FIRST:
            models[number ^ FIRST] = str(value.get("polymorphic_name"))
        lenses[key] = models.get(number & ~FIRST, "unknown"), _data(value, what)
    views = [_data(value, f"{file}: a view") for _, value in _entries(content, "views", file)]
    posed = [view for view in views if str(view.get("id_pose")) in poses]
    if not posed:
        raise ValueError(
            f"{file} has views but no poses of them; use the one that openMVG_main_SfM wrote"
        )
    notes = []

    named, viewmats = [], []
    for view in posed:
        filename = get(view, "filename", str, f"{file}: a view")
        named.append(f"{view.get('local_path') or ''}/{filename}")
        what = f"{file}: the pose of {filename[:60]}"
        pose = poses[str(view["id_pose"])]
        R, centre = read_rotation(pose.get("rotation"), what), pose.get("center")
        viewmats.append(make_pose(R, -R @ read_numbers(centre, 3, what)))

    def lens_of(i: int, photo: Path) -> Lens:
        key = str(posed[i].get("id_intrinsic"))
        what = f"{file}: the intrinsics {key[:20]} of {photo.name}"
        if key not in lenses:
            raise ValueError(f"{what} are missing; export it again")
        return _lens(*lenses[key], what)

    landmarks = _entries(content, "structure", file) if content.get("structure") else []
    points = make_points([point.get("X") for _, point in landmarks], None, file, notes)
    root = content.get("root_path")
    others = [Path(root)] if isinstance(root, str) and root and "\0" not in root else []
    matched = match_photos(named, photo_folders(file, path, photos, *others))
    return make_capture("OpenMVG", file, matched, named, lens_of, viewmats, points, notes)


def _entries(content: dict, key: str, file: Path) -> list[tuple[str, dict]]:
    entries = get(content, key, list, f"{file}")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("value"), dict):
            raise ValueError(f'{file}: "{key}" must be a list of keys and values; export it again')
    return [(str(entry["key"]), entry["value"]) for entry in entries if "key" in entry]


def _data(value: dict, what: str) -> dict:
    """What a pointer points to; older versions put a base class's part in "value0"."""
    data = get(get(value, "ptr_wrapper", dict, what), "data", dict, what)
    base = data.get("value0")
    return {**base, **data} if isinstance(base, dict) else data


def _lens(model: str, camera: dict, what: str) -> Lens:
    if model not in TERMS:
        raise ValueError(
            f"{what} are of the type {model[:40]}, which is not supported; export undistorted "
            "photos (openMVG_main_ExportUndistortedImages)"
        )
    width, height, focal = (
        read_number(camera.get(key), f'{what}: "{key}"')
        for key in ("width", "height", "focal_length")
    )
    centre = read_numbers(camera.get("principal_point"), 2, f'{what}: "principal_point"')
    key, places = TERMS[model]
    terms = read_numbers(camera.get(key), sum(p is not None for p in places), what) if key else ()
    return make_lens(
        (width, height),
        (focal, focal),
        tuple(centre + 0.5),
        [0.0 if place is None else terms[place] for place in places],
        fisheye=model == "fisheye",
    )
