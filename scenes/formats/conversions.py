# Values of foreign files, checked: numbers, rotations, poses and lenses.
from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from scenes.capture import LARGEST, Lens
from scenes.formats.places import detect_encoding, read_start
from scenes.panoramas import make_panorama_lens
from scenes.photos import UnreadablePhoto, read_header

FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL's camera axes to OpenCV's, and back


def read_text(file: Path) -> str:
    """A text file, UTF-8 or UTF-16 with a mark; ValueError, naming it, if it is none."""
    try:
        return file.read_text(encoding=detect_encoding(read_start(file, 2)))
    except UnicodeError:
        raise ValueError(f"{file} is not text in UTF-8; save or export it as such") from None


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
