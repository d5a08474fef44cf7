# transforms.json of nerfstudio and instant-ngp: OpenGL camera-to-world poses, one or many lenses.
# Format: https://docs.nerf.studio/quickstart/data_conventions.html
from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
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
from scenes.formats.conversions import measure_visibility
from scenes.formats.ply_points import read_ply_points
from scenes.photos import UnreadablePhoto, find_photos, read_header

PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE")
POLYNOMIALS = ("OPENCV", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def find(folder: Path) -> Path | None:
    """The transforms.json of a capture, or None."""
    files = (folder / "transforms.json", folder / "nerfstudio" / "transforms.json")
    return next((file for file in files if file.is_file()), None)  # DL3DV-Benchmark has the second


def read(file: Path, photo_folder: Path | None = None) -> Capture:
    """The posed views and points of a transforms.json, in the world frame of the file.

    Frames without a photo are skipped with a note. `photo_folder` overrides the folder in the
    frames' paths. Raises ValueError or FileNotFoundError, naming the file.
    """
    shared = _json(file)
    frames = shared.get("frames")
    if not isinstance(frames, list) or not frames:
        raise ValueError(f'{file} has no "frames"; a transforms.json lists its photos there')
    paths = [_file_path(frame, i, file) for i, frame in enumerate(frames)]
    folder, names = _common_folder(paths)
    folder = file.parent / folder if photo_folder is None else photo_folder

    seen: dict[str, tuple[Path, dict]] = {}
    missing, twice = [], 0
    for name, frame, path in zip(names, frames, _existing(folder, names), strict=True):
        if path is None:
            missing.append(name)
            continue
        # The file may omit the suffix; the name of the view includes it.
        name = str(PurePosixPath(name).with_name(path.name))
        twice += name in seen
        seen.setdefault(name, (path, frame))
    if not seen:
        raise FileNotFoundError(
            f"none of the {format_count(len(missing), 'photo')} that {file} names is there "
            f"({folder / missing[0]})"
        )
    notes = []
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
    masks = _masks([seen[name][1] for name in names], file, notes)
    lenses = []
    viewmats = np.zeros((len(names), 4, 4))
    for i, name in enumerate(names):
        path, frame = seen[name]
        lenses.append(_lens(frame, shared, path, file))
        viewmats[i] = _viewmat(frame, name, file)
    check_poses(viewmats, names, file)

    points, colors = _points(shared, file, notes)
    points = _in_file_frame(points, shared, file, viewmats, lenses, notes)
    return Capture(
        kind="transforms.json",
        photo_folder=folder,
        names=names,
        lenses=tuple(lenses),
        viewmats=viewmats,
        points=points,
        colors=colors,
        notes=tuple(notes),
        needs_points=False,
        masks=masks,
    )


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


def _json(file: Path) -> dict:
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise ValueError(f"{file} is not valid JSON ({reason})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file} is not a transforms.json: it holds no object")
    return value


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


def _existing(folder: Path, names: list[str]) -> list[Path | None]:
    """The photo of each name, in the folder or else in an images_N beside it."""
    for place in (folder, *sorted(folder.parent.glob(f"{folder.name}_[0-9]*"))):
        paths = find_photos(place, names)
        if any(paths):
            return paths
    return paths


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
    fisheye, distortion = _distortion(values, get, file)
    lens = Lens(round(width), round(height), K, distortion, fisheye)
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


def _distortion(values: dict, get, file: Path) -> tuple[bool, tuple[float, ...]]:
    model = values.get("camera_model", "OPENCV")
    if values.get("is_fisheye") is True:  # instant-ngp
        model = "OPENCV_FISHEYE"
    k1, k2, k3, k4, p1, p2 = (get(key) or 0.0 for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if model == "OPENCV_FISHEYE":
        return True, (k1, k2, k3, k4)
    if model in PINHOLES:
        return False, ()
    if model not in POLYNOMIALS:
        known = ", ".join((*PINHOLES, *POLYNOMIALS, "OPENCV_FISHEYE"))
        raise ValueError(
            f"{file} uses the camera_model {str(model)[:40]}, which is not supported; "
            f"use one of {known}"
        )
    if k4:
        raise ValueError(
            f'{file}: "k4" belongs to the fisheye model; set "camera_model" to "OPENCV_FISHEYE"'
        )
    return False, (k1, k2, p1, p2, k3)


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
