# transforms.json of nerfstudio and instant-ngp: OpenGL camera-to-world poses, one or many lenses.
# Format: https://docs.nerf.studio/quickstart/data_conventions.html
# NeRF's synthetic scenes have a file for each part of the split, transforms_train.json and so on:
# https://github.com/bmild/nerf/blob/master/load_blender.py
from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from runtime.files import atomic_path
from runtime.text import format_count, format_list
from scenes.cameras import Cameras
from scenes.capture import (
    LARGEST,
    NOT_FINITE,
    Capture,
    Lens,
    check_lens,
    check_poses,
    make_no_points,
)
from scenes.formats.assembly import measure_visibility
from scenes.formats.conversions import read_json
from scenes.formats.places import count_matches, list_files
from scenes.formats.ply_points import is_splats, read_ply_points
from scenes.panoramas import make_panorama_lens
from scenes.photos import UnreadablePhoto, find_photos, read_header

PARTS = ("train", "test", "val")
WHOLE = "transforms.json"
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE")
POLYNOMIALS = ("OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


count_views = count_matches(rb'"transform_matrix"')


def find(folder: Path) -> list[Path]:
    """The transforms.json of a capture, else one of the files of its parts."""
    places = (folder, folder / "nerfstudio")  # DL3DV-Benchmark has the second
    whole = [file for place in places for file in list_files(place, WHOLE)]
    names = [f"transforms_{part}.json" for part in PARTS]
    return whole or [file for place in places for file in list_files(place, *names)][:1]


@dataclass(frozen=True)
class _Frame:
    """A frame and where it comes from: its file, that file's shared values and its part."""

    values: dict
    file: Path
    shared: dict
    part: str


def read(file: Path, photo_folder: Path | None = None) -> Capture:
    """The posed views and points of a transforms.json, in the world frame of the file.

    Of a transforms_train.json, the views to test on are those of transforms_test.json beside it,
    else of transforms_val.json. Frames without a photo are skipped with a note. `photo_folder`
    overrides the folder in the frames' paths. Raises ValueError or FileNotFoundError, naming the
    file.
    """
    notes: list[str] = []
    files = _find_parts(file, notes)
    frames: list[_Frame] = []
    for part, of_part in files.items():
        shared = read_json(of_part)
        listed = shared.get("frames")
        if not isinstance(listed, list) or not listed:
            raise ValueError(f'{of_part} has no "frames"; a {of_part.name} lists its photos there')
        frames += [_Frame(values, of_part, shared, part) for values in listed]
    shared = frames[0].shared
    paths = [_file_path(frame.values, i, frame.file) for i, frame in enumerate(frames)]
    folder, names = _common_folder(paths)
    folder = file.parent / folder if photo_folder is None else photo_folder

    seen: dict[str, tuple[Path, _Frame]] = {}
    paths_of_names: dict[str, str] = {}
    missing, twice = [], 0
    folder, photos = _existing(folder, names, photo_folder or file.parent / "images")
    for name, frame, path, stated in zip(names, frames, photos, paths, strict=True):
        if path is None:
            missing.append(name)
            continue
        # The file may omit the suffix; the name of the view includes it.
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else name
        name = str(PurePosixPath(name).with_name(path.name))
        twice += name in seen
        seen.setdefault(name, (path, frame))
        paths_of_names.setdefault(name, stated)
    if not seen:
        raise FileNotFoundError(
            f"none of the {format_count(len(missing), 'photo')} that {file} names is there "
            f"({folder / missing[0]})"
        )
    if missing:
        notes.append(
            f"{file.name} names {format_count(len(missing), 'photo')} not to be found "
            f"({format_list(missing, 1)}); the frames are skipped"
        )
    if twice:
        notes.append(
            f"{file.name} names {format_count(twice, 'photo')} twice; the first pose is used"
        )

    names = tuple(sorted(seen))
    masks = _masks([seen[name][1].values for name in names], file, notes)
    lenses = []
    viewmats = np.zeros((len(names), 4, 4))
    for i, name in enumerate(names):
        path, frame = seen[name]
        lenses.append(_lens(frame.values, frame.shared, path, frame.file))
        viewmats[i] = _viewmat(frame.values, name, frame.file)
    check_poses(viewmats, names, file)
    if len(files) > 1:
        split = {name: frame.part for name, (_, frame) in seen.items()}
        split = split if len(set(split.values())) > 1 else None  # the photos of a part are missing
    else:
        split = _listed_split(shared, {paths_of_names[name]: name for name in names}, file, notes)

    points, colors = _points(shared, file, notes)
    points = _in_file_frame(points, shared, file, viewmats, lenses, notes)
    return Capture(
        kind=WHOLE if file.name.lower() == WHOLE else "NeRF-synthetic",
        photo_folder=folder,
        names=names,
        lenses=tuple(lenses),
        viewmats=viewmats,
        points=points,
        colors=colors,
        notes=tuple(notes),
        needs_points=False,
        masks=masks,
        split=split,
        background=None if file.name.lower() == WHOLE else "white",  # as its benchmark
    )


def _find_parts(file: Path, notes: list[str]) -> dict[str, Path]:
    """The files to be read by the part of the split that they are."""
    beside = {part: file.with_name(f"transforms_{part}.json") for part in PARTS}
    there = {part: other for part, other in beside.items() if other.is_file()}
    if file.name.lower() == WHOLE:
        if there:
            unread = format_list([other.name for other in there.values()])
            notes.append(f"{file.name} has the poses; {unread} beside it not read")
        return {"": file}
    if "train" not in there:
        notes.append(f"there is no {beside['train'].name} beside {file.name}, so it has all views")
        return {"": file}
    test = next((part for part in ("test", "val") if part in there), None)
    if test == "test" and "val" in there:
        notes.append(
            f"{there['val'].name} is not read: the views of {there['test'].name} are held out"
        )
    return {"train": there["train"]} | ({"test": there[test]} if test else {})


def _listed_split(
    shared: dict, name_of: dict[str, str], file: Path, notes: list[str]
) -> dict[str, str] | None:
    """The split by nerfstudio's train_filenames, test_filenames and val_filenames, or None.

    val_filenames are held out if there are no test_filenames. A list that is missing is the rest.
    """
    listed: dict[str, set[str]] = {}
    for part in PARTS:
        entries = shared.get(f"{part}_filenames")
        if entries is None:
            continue
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise ValueError(f'{file}: "{part}_filenames" is not a list of names')
        stated = {os.path.normpath(entry.replace("\\", "/")) for entry in entries}
        listed[part] = {name_of[path] for path in stated if path in name_of}
        unknown = len(stated) - len(listed[part])
        if unknown:
            what = format_count(unknown, "name")
            notes.append(f"{part}_filenames in {file.name} has {what} of no photo")
    if not listed:
        return None
    rest = set(name_of.values()) - set().union(*listed.values())
    test = listed.get("test") or listed.get("val") or (rest if "train" in listed else set())
    train = listed.get("train", rest) - test
    if "train" in listed and listed["train"] & test:
        n = format_count(len(listed["train"] & test), "photo")
        notes.append(f"{file.name} lists {n} to train and to test on; they are held out")
    if not train or not test:
        notes.append(f"the filenames in {file.name} leave nothing to train or test on; not used")
        return None
    return dict.fromkeys(train, "train") | dict.fromkeys(test, "test")


def write(
    path: Path | str, cameras: Cameras, names: list[str] | tuple[str, ...], folder: str = "images"
) -> Path:
    """Write transforms.json (`path`: the file or its folder) with intrinsics per frame.

    Photos are expected as `folder`/name beside the file. Returns the file.
    """
    path = Path(path)
    path = path if path.suffix == ".json" else path / "transforms.json"
    if len(names) != len(cameras):
        raise ValueError(f"{len(names)} names for {len(cameras)} cameras")
    camtoworlds = np.linalg.inv(cameras.viewmats.double().cpu().numpy()) @ OPENGL_TO_OPENCV
    frames = [
        {
            "file_path": str(PurePosixPath(folder) / name),
            "fl_x": K[0][0],
            "fl_y": K[1][1],
            "cx": K[0][2],
            "cy": K[1][2],
            "w": width,
            "h": height,
            "transform_matrix": camtoworld.tolist(),
        }
        for name, K, (width, height), camtoworld in zip(
            names, cameras.Ks.tolist(), cameras.sizes.tolist(), camtoworlds, strict=True
        )
    ]
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"camera_model": "PINHOLE", "frames": frames}, indent=1))
    return path


def _file_path(frame: object, index: int, file: Path) -> str:
    path = frame.get("file_path") if isinstance(frame, dict) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f'{file}: frame {index} has no "file_path"')
    return os.path.normpath(path.replace("\\", "/"))


def _common_folder(paths: list[str]) -> tuple[str, list[str]]:
    """The folder shared by all paths (relative to the file) and the names below it."""
    folders = [os.path.dirname(path) or "." for path in paths]  # noqa: PTH120
    try:
        folder = os.path.commonpath(folders)
    except ValueError:  # absolute and relative ones
        folder = "."
    return folder, [os.path.relpath(path, folder) for path in paths]


def _masks(frames: list[dict], file: Path, notes: list[str]) -> tuple[Path | None, ...] | None:
    """The file of each frame's `mask_path`, None where it has none or it is not there; None if no
    frame names one."""
    if not any(frame.get("mask_path") for frame in frames):
        return None
    masks, missing = [], []
    for frame in frames:
        value = frame.get("mask_path")
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise ValueError(f'{file}: "mask_path" is {str(value)[:40]}, not a path')
        mask = file.parent / value.replace("\\", "/") if value else None
        if mask is not None and not mask.is_file():
            missing.append(value)
            mask = None
        masks.append(mask)
    if missing:
        what = format_count(len(missing), "mask")
        notes.append(f"{file.name} names {what} not to be found ({format_list(missing, 1)})")
    return tuple(masks)


def _existing(folder: Path, names: list[str], other: Path) -> tuple[Path, list[Path | None]]:
    """The folder and the photo of each name: in the folder, an images_N beside it, or `other`."""
    for place in (folder, *sorted(folder.parent.glob(f"{folder.name}_[0-9]*"))):
        paths = find_photos(place, names)
        if any(paths):  # perhaps all in `other`, which may lie in the folder
            moved = all(path is None or path.is_relative_to(other) for path in paths)
            return (other if moved else folder), paths
    return other, find_photos(other, names)


def _number(key: str, source: Mapping, file: Path) -> float | None:
    value = source.get(key)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'{file}: "{key}" is {str(value)[:40]}, not a number')
    return number


def _lens(frame: dict, shared: dict, photo: Path, file: Path) -> Lens:
    """The lens of one frame; its own values take precedence over the shared ones."""
    values = {**shared, **frame}

    def get(key: str) -> float | None:
        return _number(key, values, file)

    width, height = get("w"), get("h")
    if width is None or height is None:
        try:
            width, height, _ = read_header(photo)
        except UnreadablePhoto:
            width, height = 1, 1  # never used: the photo is skipped when it is decoded
    if width < 1 or height < 1:
        raise ValueError(f'{file}: "w" and "h" must be at least 1')

    if values.get("camera_model") == "EQUIRECTANGULAR":
        lens = make_panorama_lens(round(width), round(height))
        return check_lens(lens, f"{file}: the camera of {photo.name}")
    fx = fy = None
    for source in (frame, shared):  # a frame's field of view precedes a shared focal length
        fx = _focal(source, "x", width, file)
        fy = _focal(source, "y", height, file)
        if fx is not None or fy is not None:
            break
    if fx is None:
        fx = fy
    if fy is None:
        fy = fx
    if fx is None:
        raise ValueError(
            f'{file} has no intrinsics for {photo.name}; add "fl_x" and "fl_y" or "camera_angle_x"'
        )
    cx, cy = get("cx"), get("cy")
    cx = width / 2 if cx is None else cx
    cy = height / 2 if cy is None else cy
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    lens = _distorted(values, get, (round(width), round(height)), K, file)
    return check_lens(lens, f"{file}: the camera of {photo.name}")


def _focal(source: Mapping, axis: str, length: float, file: Path) -> float | None:
    focal = _number(f"fl_{axis}", source, file)
    if focal is not None:
        return focal
    angle = _number(f"camera_angle_{axis}", source, file)
    if angle is None:
        return None
    if not 0 < angle < math.pi:
        raise ValueError(f'{file}: "camera_angle_{axis}" is {angle:g}; it must lie in 0 to pi')
    return 0.5 * length / math.tan(0.5 * angle)


def _distorted(values: dict, get, size: tuple[int, int], K: np.ndarray, file: Path) -> Lens:
    """The lens by `camera_model` and its coefficients.

    k4 without a fisheye belongs to r^8, as in nerfstudio's `Cameras` and Metashape.
    """
    model = values.get("camera_model", "OPENCV")
    if values.get("is_fisheye") is True:  # instant-ngp
        model = "OPENCV_FISHEYE"
    k1, k2, k3, k4, p1, p2 = (get(key) or 0.0 for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if model == "OPENCV_FISHEYE":
        return Lens(*size, K, (k1, k2, k3, k4), fisheye=True)
    if model in PINHOLES:
        return Lens(*size, K)
    if model not in POLYNOMIALS:
        known = ", ".join((*PINHOLES, *POLYNOMIALS, "OPENCV_FISHEYE", "EQUIRECTANGULAR"))
        raise ValueError(
            f"{file} uses the camera_model {str(model)[:40]}, which is not supported; "
            f"use one of {known}"
        )
    if k4:
        return Lens(*size, K, (k1, k2, p1, p2, k3, k4), model="BROWN")
    return Lens(*size, K, (k1, k2, p1, p2, k3))


def _viewmat(frame: dict, name: str, file: Path) -> np.ndarray:
    """World to OpenCV camera [4, 4] from an OpenGL camera-to-world matrix."""
    rule = "transform_matrix must be 4x4: a rotation, a position, and the last row 0 0 0 1"
    try:
        pose = np.array(frame.get("transform_matrix"), np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{file}: the pose of {name} is not numbers; {rule}") from None
    if pose.shape != (4, 4):
        raise ValueError(f"{file}: the pose of {name} has the shape {pose.shape}; {rule}")
    if not (np.abs(pose) < LARGEST).all():
        raise ValueError(f"{file}: the pose of {name} has values {NOT_FINITE}; {rule}")
    R = pose[:3, :3]
    if np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-6 or np.abs(R.T @ R - np.eye(3)).max() > 0.02:
        raise ValueError(f"{file}: the pose of {name} is not rigid; {rule}")
    if np.linalg.det(R) < 0:
        raise ValueError(f"{file}: the pose of {name} is mirrored; {rule}")
    # Files carry few digits; a viewer of the splats needs a true rotation.
    U, _, Vt = np.linalg.svd(R)
    pose[:3, :3] = U @ Vt
    return np.linalg.inv(pose @ OPENGL_TO_OPENCV)


def _points(shared: dict, file: Path, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    ply = shared.get("ply_file_path")
    if ply is None:
        return make_no_points()
    if not isinstance(ply, str) or "\0" in ply:
        raise ValueError(f'{file}: "ply_file_path" is not a path')
    if not (file.parent / ply).is_file():
        notes.append(f"{ply}, named in {file.name}, is not there, so the scene has no points")
        return make_no_points()
    if is_splats(file.parent / ply):
        notes.append(f"{ply}, named in {file.name}, is splats; their centres are the points")
    return read_ply_points(file.parent / ply)


def _in_file_frame(
    points: np.ndarray,
    shared: dict,
    file: Path,
    viewmats: np.ndarray,
    lenses: list[Lens],
    notes: list[str],
) -> np.ndarray:
    """Points in the frame of the poses.

    nerfstudio applies `applied_transform` to its poses, and newer versions also to the points; the
    share of points that the cameras see decides which.
    """
    applied = shared.get("applied_transform")
    if applied is None:
        return points
    try:
        applied = np.array(applied, np.float64)
    except (TypeError, ValueError, OverflowError):
        applied = np.zeros(0)
    if applied.shape not in ((3, 4), (4, 4)) or not np.isfinite(applied).all():
        raise ValueError(f'{file}: "applied_transform" must be a 3x4 or 4x4 matrix of numbers')
    moved = points @ applied[:3, :3].T + applied[:3, 3]
    if len(points) and measure_visibility(moved, viewmats, lenses) > 1.5 * measure_visibility(
        points, viewmats, lenses
    ):
        notes.append(f"applied_transform of {file.name} was still missing from its points")
        return moved
    return points
