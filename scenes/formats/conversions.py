# What the readers of other programs' exports share: numbers, rotations and photos from foreign
# files, checked, and the Capture that is made of them.
from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from runtime.text import format_count, format_list
from scenes.capture import LARGEST, NOT_FINITE, Capture, Lens, check_lens, check_poses
from scenes.formats.ply_points import read_ply_points
from scenes.formats.unposed import NO_PHOTOS
from scenes.panoramas import make_panorama_lens
from scenes.photos import SUFFIXES, UnreadablePhoto, list_photos, read_header

KNOWN_SUFFIXES = {*SUFFIXES, ".dng", ".heic", ".tif"}  # of photos, also of ones converted since
FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL's camera axes to OpenCV's, and back


def read_text(file: Path) -> str:
    """A text file, UTF-8 with or without a mark; ValueError, naming it, if it is none."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not a text file; export it again") from None


def read_json(file: Path, kind: type = dict) -> Any:
    """The content of a JSON file, an object (`kind` list: an array); ValueError otherwise."""
    try:
        value = json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:100]
        raise ValueError(f"{file} is not valid JSON ({reason}); export it again") from None
    if not isinstance(value, kind):
        expected = "object" if kind is dict else "list"
        raise ValueError(f"{file} holds no JSON {expected}; export it again")
    return value


def get(source: Any, key: str, kind: type, what: str) -> Any:
    """`source[key]` if it is there and of the kind (dict, list, str); ValueError otherwise."""
    value = source.get(key) if isinstance(source, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f'{what} has no "{key}"; export it again')
    return value


def read_numbers(value: Any, shape: int | tuple[int, ...], what: str) -> np.ndarray:
    """Numbers, or strings of numbers, as float64 of this shape; ValueError if they are not finite.

    A size of -1 is any.
    """
    shape = (shape,) if isinstance(shape, int) else shape
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.full((), np.nan)
    fits = array.ndim == len(shape) and all(
        wanted in (-1, size) for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or not (np.abs(array) < LARGEST).all():
        size = " x ".join("N" if n < 0 else str(n) for n in shape)
        wanted = f"{size} finite numbers" if shape else "a finite number"
        raise ValueError(f"{what} must be {wanted}; export it again")
    return array


def read_number(value: Any, what: str) -> float:
    """One finite number, or a string of it; ValueError otherwise."""
    return float(read_numbers(value, (), what))


def read_rotation(value: Any, what: str) -> np.ndarray:
    """The rotation [3, 3] nearest to nine numbers; ValueError if they are none or mirrored."""
    R = read_numbers(value, (3, 3), what)
    if np.abs(R.T @ R - np.eye(3)).max() > 0.02 or np.linalg.det(R) < 0:
        raise ValueError(f"{what} must be a rotation; export it again")
    U, _, Vt = np.linalg.svd(R)
    return U @ Vt


def make_pose(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """[4, 4] of a rotation and a translation."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R, t
    return pose


def invert_pose(pose: np.ndarray) -> np.ndarray:
    """The inverse of a rigid [4, 4]: camera to world becomes world to camera."""
    return make_pose(pose[:3, :3].T, -pose[:3, :3].T @ pose[:3, 3])


def make_lens(
    size: tuple[float, float],
    focal: tuple[float, float],
    centre: tuple[float, float] | None = None,
    distortion: Iterable[float] = (),
    fisheye: bool = False,
    skew: float = 0.0,
) -> Lens:
    """A Lens; sizes, focal lengths, principal point (default: the middle) and skew in pixels.

    distortion: OpenCV's first terms, none at all for a pinhole; unless `fisheye`, a sixth one is
    that of r^8.
    """
    width, height = size
    cx, cy = (width / 2, height / 2) if centre is None else centre
    K = np.array([[focal[0], skew, cx], [0, focal[1], cy], [0, 0, 1]], np.float64)
    terms = tuple(float(term) for term in distortion)
    terms += (0.0,) * (4 - len(terms))
    if not any(terms) and not fisheye:
        return Lens(round(width), round(height), K)
    model = "BROWN" if len(terms) == 6 and not fisheye else ""
    return Lens(round(width), round(height), K, terms, fisheye, model)


def make_panorama(width: float, height: float, what: str) -> Lens:
    """The lens of an equirectangular photo, whose middle looks forwards; ValueError if not 2:1."""
    if not abs(width - 2 * height) <= 0.02 * height:
        raise ValueError(
            f"{what} is a panorama of {width:g}x{height:g}; only those of the whole sphere (2:1) "
            "are read: export perspective photos"
        )
    return make_panorama_lens(round(width), round(height))


def read_size(photo: Path) -> tuple[int, int]:
    """Width and height of a photo as stored."""
    try:
        return read_header(photo)[:2]
    except UnreadablePhoto:
        return 1, 1  # never used: the photo is skipped when it is decoded


def make_points(
    xyz: list, rgb: list | None, file: Path, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """points [P, 3] float64 and colors [P, 3] float32 in [0, 1], from colours of 0 to 255.

    Points that are not finite are left out with a note; without colours they are grey, said too.
    """
    try:
        points = np.array(xyz, np.float64).reshape(len(xyz), 3)
        colors = np.full(points.shape, 127.5) if rgb is None else np.array(rgb, np.float64)
        colors = colors.reshape(len(xyz), 3)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{file} has points that are not three numbers; export it again") from None
    good = (np.abs(points) < LARGEST).all(1) & np.isfinite(colors).all(1)
    if not good.all():
        skipped = format_count(int((~good).sum()), "point")
        notes.append(f"{file.name}: skipped {skipped} {NOT_FINITE}")
    if rgb is None and len(points):
        notes.append(f"{file.name} has no colours of its points; they start grey")
    return points[good], (colors[good] / 255).clip(0, 1).astype(np.float32)


def make_capture(
    kind: str,
    file: Path,
    photos: tuple[Path, list[Path | None]],
    named: list[str],
    lens_of: Callable[[int, Path], Lens],
    viewmats: list[np.ndarray] | np.ndarray,
    points: tuple[np.ndarray, np.ndarray],
    notes: list[str],
) -> Capture:
    """The Capture of views, whose photos `match_photos` found; `named` is what the file calls them.

    lens_of: the lens of view i, whose photo is given. Views without a photo, or with the photo of
    an earlier view, are left out with a note. Raises ValueError or FileNotFoundError.
    """
    folder, paths = photos
    missing = [name for name, path in zip(named, paths, strict=True) if path is None]
    if len(missing) == len(named):
        raise FileNotFoundError(
            f"none of the {format_count(len(named), 'photo')} of {file} is in {folder}"
            f"{f' ({missing[0]})' if named else ''}; name their folder (--image_folder)"
        )
    first: dict[str, int] = {}
    for i, path in enumerate(paths):
        if path is not None:
            first.setdefault(path.relative_to(folder).as_posix(), i)
    notes = list(notes)
    if missing:
        notes.append(
            f"{file.name} names {format_count(len(missing), 'photo')} not to be found "
            f"({format_list(missing, 1)}); the views are skipped"
        )
    twice = len(named) - len(missing) - len(first)
    if twice:
        notes.append(
            f"{file.name} names {format_count(twice, 'photo')} twice; the first pose is used"
        )
    names = tuple(sorted(first))
    order = [first[name] for name in names]
    poses = np.array([viewmats[i] for i in order])
    check_poses(poses, names, file)
    lenses = tuple(
        check_lens(lens_of(i, paths[i]), f"{file}: the camera of {name}")
        for name, i in zip(names, order, strict=True)
    )
    return Capture(
        kind=kind,
        photo_folder=folder,
        names=names,
        lenses=lenses,
        viewmats=poses,
        points=points[0],
        colors=points[1],
        notes=tuple(notes),
        needs_points=False,
    )


def add_points_beside(capture: Capture, file: Path, frames: list[np.ndarray]) -> Capture:
    """The capture with the points of the only .ply beside the file, if the cameras see them.

    frames: [4, 4] each, from where the points may be to the capture's world; the one in which the
    cameras see the most of them is right. All else is noted.
    """
    clouds = sorted(file.parent.glob("*.ply"))
    if len(clouds) != 1:
        text = f"{file.parent} has {len(clouds)} .ply files; leave the points' one there to use it"
        return replace(capture, notes=(*capture.notes, text)) if clouds else capture
    points, colors = read_ply_points(clouds[0])
    moved = [points @ frame[:3, :3].T + frame[:3, 3] for frame in frames]
    shares = [measure_visibility(xyz, capture.viewmats, capture.lenses) for xyz in moved]
    best = int(np.argmax(shares))
    if shares[best] < 0.01:
        text = f"the cameras see hardly any point of {clouds[0].name}, so it is not used"
        return replace(capture, notes=(*capture.notes, text))
    return replace(capture, points=moved[best], colors=colors)


def measure_visibility(points: np.ndarray, viewmats: np.ndarray, lenses: Iterable[Lens]) -> float:
    """The mean share of points that lie in front of a camera and inside its photo."""
    points = points[:: max(1, len(points) // 2000)].astype(np.float64)
    shares = []
    for viewmat, lens in zip(viewmats, lenses, strict=True):
        x, y, z = viewmat[:3, :3] @ points.T + viewmat[:3, 3:]
        in_front = z > 1e-6
        z = np.where(in_front, z, 1)
        u = lens.K[0, 0] * x / z + lens.K[0, 2]
        v = lens.K[1, 1] * y / z + lens.K[1, 2]
        inside = (u > 0) & (u < lens.width) & (v > 0) & (v < lens.height)
        shares.append((in_front & inside).mean() if len(points) else 0.0)
    return float(np.mean(shares))


def match_photos(named: list[str], folders: Iterable[Path]) -> tuple[Path, list[Path | None]]:
    """The folder that holds the most of the photos a file names, and each one's file or None.

    A name may be a label without suffix or a path on another machine: as many of its last parts as
    possible decide. A name that fits several photos equally well has none.
    """
    best: tuple[int, Path, list[Path | None]] | None = None
    for folder in folders:
        paths = _match(named, folder) if folder.is_dir() else [None] * len(named)
        count = sum(path is not None for path in paths)
        if best is None or count > best[0]:
            best = count, folder, paths
        if count == len(named):
            break
    return best[1], best[2]


def photo_folders(file: Path, path: Path, photos: Path | None, *others: Path) -> list[Path]:
    """Where the photos of an export may lie: the folder users name, or else the usual ones."""
    if photos is not None:
        return [photos]
    folders = [*others, file.parent / "images", path / "images", file.parent, path]
    return list(dict.fromkeys(folders))


def _match(named: list[str], folder: Path) -> list[Path | None]:
    whole: dict[str, str] = {}
    tails: dict[str, set[str]] = {}
    for name in list_photos(folder, deep=True):
        if any(NO_PHOTOS.match(parent) for parent in name.split("/")[:-1]):
            continue
        for key in _keys(name.lower(), whole=True):
            whole.setdefault(key, name)
        for key in _keys(name.lower()):
            tails.setdefault(key, set()).add(name)
    paths: list[Path | None] = []
    for name in named:
        parts = [part for part in re.split(r"[\\/]+", name.lower()) if part not in ("", ".", "..")]
        fits = [{whole[key]} for key in _keys("/".join(parts), whole=True) if key in whole]
        fits += [tails[key] for key in _keys("/".join(parts)) if key in tails]
        unique = fits and len(fits[0]) == 1
        paths.append(folder / next(iter(fits[0])) if unique else None)
    return paths


def _keys(name: str, whole: bool = False) -> list[str]:
    """A path and, unless `whole`, its ends, longest first; each also without suffix."""
    parts = name.split("/")
    ends = ["/".join(parts[start:]) for start in range(1 if whole else len(parts))]
    return [key for end in ends for key in dict.fromkeys((end, _without_suffix(end)))]


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix in KNOWN_SUFFIXES else name
