# COLMAP models, binary and text: https://colmap.github.io/format.html
from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from glob import escape
from operator import itemgetter
from pathlib import Path, PurePosixPath

import numpy as np
from torch import Tensor

from runtime.files import make_writable_folder, replace_folder, write_json
from runtime.text import format_count, format_list
from scenes.bindings import pycolmap
from scenes.cameras import Cameras
from scenes.capture import LARGEST, Capture, Lens, check_lens, check_poses
from scenes.formats.colmap_files import (
    MARKER,
    ModelCamera,
    ModelView,
    count_images,
    count_views,
    find_files,
    read_files,
)
from scenes.formats.places import list_folders
from scenes.panoramas import make_panorama_lens
from scenes.photos import find_photos, list_photos

# Where models lie below the folder a user names: in these or in their sub-folders (0, 1, ...).
# COLMAP and gsplat, nerfstudio, Difix and DL3DV-Benchmark, COLMAP's undistorter and automatic
# reconstructor, Inria's convert.py before it undistorts, instant-ngp, hloc.
PLACES = (
    *("sparse", "colmap/sparse", "gaussian_splat/sparse", ".", "colmap"),
    *("dense/0/sparse", "dense/sparse", "dense/0", "dense", "undistorted/sparse", "undistorted"),
    *("colmap/dense/0/sparse", "colmap/dense/sparse"),
    *("distorted/sparse", "distorted", "colmap_text", "sfm"),
)
# Where their photos lie, in a folder above the model; Inria's convert.py has the second.
PHOTO_FOLDERS = ("images", "input")


def find_models(folder: Path) -> list[Path]:
    """The folders with the files of a model, the one to be read first.

    The model with the most images goes first, of equal ones that at the first of PLACES; but models
    that the project itself found by structure from motion go last.
    """
    models: list[Path] = []
    for place in PLACES:
        here = folder / place
        inner = list_folders(here)
        if place == ".":  # its sub-folders might be other captures
            inner = [f for f in inner if f.name.isdigit() and not (f / "images").exists()]
        parts_needed = 1 if "sparse" in place else 2
        there = [f for f in (*inner, here) if _count_parts(f) >= parts_needed and f not in models]
        models += there
    if len(models) < 2:  # counting views takes time
        return models
    return sorted(models, key=lambda model: (is_own(model), -count_views(model)))


def _count_parts(folder: Path) -> int:
    """How many of the files cameras and images are there, or 1 if there are only points."""
    there = {f.stem for end in ("bin", "txt") for f in _part_files(folder, end) if f.is_file()}
    return len(there - {"points3D"}) or len(there)


def _part_files(folder: Path, end: str) -> list[Path]:
    return [folder / f"{part}.{end}" for part in ("cameras", "images", "points3D")]


def is_own(model: Path) -> bool:
    """Whether structure from motion of this project computed the poses, and they are the same."""
    return bool(read_marker(model))


def read_marker(model: Path) -> dict:
    """The facts that structure from motion of this project left with its poses.

    Empty for the poses of others, also if those were copied over.
    """
    try:
        marker = json.loads((model / MARKER).read_text(encoding="utf-8"))
        return marker if marker["images_sha256"] == _digest(model) else {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def _digest(model: Path) -> str:
    with find_files(model)[1].open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_photo_folder(path: Path, model: Path, names: tuple[str, ...] = ()) -> Path:
    """The first folder of PHOTO_FOLDERS, from the model's up to `path`, with one of the photos.

    Without any: any folder in `path` with the first photo, else the first of PHOTO_FOLDERS that
    exists, also as `images_N`, else one with photos.
    """
    folders = [folder for folder in (model, *model.parents) if folder.is_relative_to(path)]
    named = path.absolute()
    if "sparse" in (named.name, named.parent.name):  # the user named the model, not the capture
        folders += named.parents[: 1 if named.name == "sparse" else 2]
    places = [folder / place for folder in folders for place in PHOTO_FOLDERS]
    if "distorted" in model.relative_to(path).parts:  # `images` are undistorted, `input` not yet
        places.sort(key=lambda place: place.name != "input")
    relative = [name for name in names if not PurePosixPath(name).is_absolute()]
    for place in (*places, *folders):
        if any((place / name).is_file() for name in relative):
            return place
    for place in (*places, *folders):
        if any(find_photos(place, names)):
            return place
    for place in places:
        if place.is_dir() or any(place.parent.glob(f"{place.name}_[0-9]*")):
            return place
    for name in names[:1]:
        for photo in path.glob(f"*/{escape(name)}"):
            return path / photo.relative_to(path).parts[0]
    return next((folder for folder in folders if list_photos(folder)), path)


def read(model: Path, photo_folder: Path | None = None, path: Path | None = None) -> Capture:
    """The posed views and points of a model.

    Photos are looked up in `photo_folder`, or where `find_photo_folder` finds them below `path`.
    Raises ValueError or FileNotFoundError, naming the file, if it is incomplete or damaged.
    """
    notes = _note_others(model, path)
    cameras, images, points = find_files(model)
    files = read_files(cameras, images, points)
    stated = [view.name for view in files.views]
    if len(set(stated)) < len(stated):
        raise ValueError(f"{images} lists the same photo twice")
    photo_folder = photo_folder or find_photo_folder(path or model, model, tuple(sorted(stated)))
    views = sorted(zip(_rename(stated, photo_folder), files.views, strict=True), key=itemgetter(0))
    names, views = tuple(name for name, _ in views), [view for _, view in views]
    lenses = {
        number: check_lens(make_lens(camera), f"{cameras}: camera {number}")
        for number, camera in files.cameras.items()
    }
    viewmats = np.tile(np.eye(4), (len(views), 1, 1))
    for viewmat, view in zip(viewmats, views, strict=True):
        w, x, y, z = np.array(view.pose[:4]) / np.linalg.norm(view.pose[:4])
        viewmat[:3, :3] = pycolmap.Rotation3d(np.array([x, y, z, w])).matrix()
        viewmat[:3, 3] = view.pose[4:]
    check_poses(viewmats, names, images)

    xyz, colors = files.xyz, files.rgb.astype(np.float32) / 255
    if points is None:
        notes.append(f"{model} has no points3D file, so the scene has no points")
    good = (np.abs(xyz) < LARGEST).all(1)
    if not good.all():
        skipped = format_count(int((~good).sum()), "point")
        notes.append(f"{points}: skipped {skipped} not finite or beyond {LARGEST:g}")
    name_of = {view.name: name for name, view in zip(names, views, strict=True)}
    seen = _invert_tracks([files.tracks[i] for i in np.flatnonzero(good)], views)
    split = _read_test_list(model, name_of, notes)
    return Capture(
        kind="COLMAP",
        photo_folder=photo_folder,
        names=names,
        lenses=tuple(lenses[view.camera_id] for view in views),
        viewmats=viewmats,
        points=xyz[good],
        colors=colors[good],
        notes=tuple(notes),
        split=split,
        seen=seen,
    )


def _invert_tracks(tracks: list[np.ndarray], views: list[ModelView]) -> list[np.ndarray] | None:
    """The points that each view sees, by index, of the views that see each point."""
    image_ids = np.concatenate(tracks) if tracks else np.zeros(0)
    if not len(image_ids):
        return None
    points = np.repeat(np.arange(len(tracks)), [len(track) for track in tracks])
    order = np.argsort(image_ids, kind="stable")
    image_ids, points = image_ids[order], points[order]
    ends = [np.searchsorted(image_ids, [v.image_id, v.image_id + 1]) for v in views]
    return [np.unique(points[first:last]) for first, last in ends]


def _note_others(model: Path, path: Path | None) -> list[str]:
    """Notes if there are more models than the one that is read, or two in its folder."""
    path = path or model
    notes = []
    here = (model, model.parent)
    others = [
        other
        for other in find_models(path)
        if other != model
        and not is_own(other)
        # Some programs keep a model undistorted and as it was, at two places.
        and (other in here or other.parent in here or count_views(other) != count_views(model))
    ]
    if others:
        named = format_list([_name_with_count(m, path) for m in others], 5)
        used = _name_with_count(model, path)
        notes = [f"{path} has {len(others) + 1} COLMAP models; {used} is read, not {named}"]
    _, used, _ = find_files(model)
    other = used.with_suffix(".txt" if used.suffix == ".bin" else ".bin")
    if other.is_file() and count_images(other) != count_images(used) and not is_own(model):
        named = format_count(count_images(other), "photo")
        notes.append(f"{_name_with_count(used, path)} is read, not {other.name} ({named})")
    return notes


def _name_with_count(place: Path, path: Path) -> str:
    """A model, or its images file, as users see it from the capture's folder, and its photos."""
    name = place.relative_to(path).as_posix() if place.is_relative_to(path) else str(place)
    count = count_views(place) if place.is_dir() else count_images(place)
    return f"{name} ({format_count(count, 'photo')})"


def _rename(stated: list[str], folder: Path) -> list[str]:
    """The names of the photos that are meant, where they are another: by case or path."""
    photos = find_photos(folder, stated)
    return [
        photo.relative_to(folder).as_posix() if photo else name
        for name, photo in zip(stated, photos, strict=True)
    ]


def _read_test_list(
    model: Path, name_of: dict[str, str], notes: list[str]
) -> dict[str, str] | None:
    """The split by a `test.txt` beside the model, one name a line, as Inria's readers use it.

    name_of: of each view by the name that the model states.
    """
    file = model / "test.txt"
    if not file.is_file():
        return None
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    listed = {line.strip() for line in lines} - {""}
    split = {name: "test" if listed & {name, old} else "train" for old, name in name_of.items()}
    if set(split.values()) != {"train", "test"}:
        notes.append(f"{file} lists no photo of the model, or all of them; it is not used")
        return None
    return split


def write(
    scene_folder: Path | str,
    cameras: Cameras,
    names: list[str] | tuple[str, ...],
    points: Tensor,
    colors: Tensor,
) -> Path:
    """Write a model to `scene_folder`/sparse/0 (PINHOLE, binary) and return that folder.

    points: [P, 3], colors: [P, 3] in [0, 1]. Views with equal intrinsics share a camera. An older
    model is replaced. Raises ValueError if the numbers of names and cameras differ.
    """
    if len(names) != len(cameras) or len(points) != len(colors):
        raise ValueError(
            f"{len(names)} names for {len(cameras)} cameras, "
            f"{len(colors)} colours for {len(points)} points"
        )
    model = pycolmap.Reconstruction()
    camera_ids: dict[tuple, int] = {}
    for index, (name, viewmat, K, size) in enumerate(
        zip(
            names,
            cameras.viewmats.double().cpu().numpy(),
            cameras.Ks.double().cpu().numpy(),
            cameras.sizes.tolist(),
            strict=True,
        )
    ):
        params = (K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        camera_id = camera_ids.get((*size, *params))
        if camera_id is None:
            camera_id = camera_ids[(*size, *params)] = len(camera_ids) + 1
            model.add_camera_with_trivial_rig(
                pycolmap.Camera(
                    model="PINHOLE",
                    width=size[0],
                    height=size[1],
                    params=params,
                    camera_id=camera_id,
                )
            )
        model.add_image_with_trivial_frame(
            pycolmap.Image(name=str(name), camera_id=camera_id, image_id=index + 1),
            pycolmap.Rigid3d(viewmat[:3]),
        )
    colors = (colors.detach().double().cpu() * 255).round().clamp(0, 255).byte().numpy()
    for xyz, color in zip(points.detach().double().cpu().numpy(), colors, strict=True):
        model.add_point3D(xyz, pycolmap.Track(), color)
    return write_model(model, Path(scene_folder))


def write_model(
    model: pycolmap.Reconstruction, scene_folder: Path, own: dict[str, object] | None = None
) -> Path:
    """Write a model to `scene_folder`/sparse/0, whole or not at all.

    own: facts about poses that structure from motion of this project computed; they are saved as
        MARKER, by which the poses of users outrank them.
    """
    sparse = make_writable_folder(scene_folder / "sparse")
    temporary = Path(tempfile.mkdtemp(prefix=".0-", dir=sparse))
    try:
        temporary.chmod(0o755)
        model.write_binary(temporary)
        if own is not None:
            write_json(temporary / MARKER, {**own, "images_sha256": _digest(temporary)})
        return replace_folder(temporary, sparse / "0")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# COLMAP's models with one focal length, in the terms of those with two.
_WITH_TWO = {
    "SIMPLE_PINHOLE": "PINHOLE",
    "SIMPLE_RADIAL": "OPENCV",
    "RADIAL": "OPENCV",
    "SIMPLE_FISHEYE": "OPENCV_FISHEYE",
    "SIMPLE_RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "SIMPLE_DIVISION": "DIVISION",
}


def make_lens(camera: ModelCamera) -> Lens:
    """The lens in OpenCV's terms, or in COLMAP's where OpenCV has no such model."""
    model, params = camera.model, list(camera.params)
    if model == "EQUIRECTANGULAR":  # its two parameters are the photo's width and height
        return make_panorama_lens(camera.width, camera.height)
    if model in _WITH_TWO:
        model, params = _WITH_TWO[model], [params[0], *params]
    fx, fy, cx, cy, *extra = params
    fisheye = model in ("FISHEYE", "OPENCV_FISHEYE")
    if fisheye or model == "OPENCV":
        extra = [*extra, *[0.0] * 4][:4]
    in_opencv = fisheye or model in ("PINHOLE", "OPENCV", "FULL_OPENCV")
    K = np.array([[fx, 0.0, cx], [0, fy, cy], [0, 0, 1]])
    size = (camera.width, camera.height)
    return Lens(*size, K, tuple(extra), fisheye, "" if in_opencv else model)
