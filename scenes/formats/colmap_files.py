# COLMAP's binary and text files. Every step stays inside the file, so that a wrong count or a
# truncated file ends in a message that names the file, not in a crash or a huge allocation.
# Format: https://colmap.github.io/format.html
from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scenes.formats.conversions import read_text

# Camera models and how many parameters each has; a model's number is its place here.
# Source: src/colmap/sensor/models.h of COLMAP 4.2.
PARAMS_OF = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
    "FULL_OPENCV": 12,
    "FOV": 5,
    "SIMPLE_RADIAL_FISHEYE": 4,
    "RADIAL_FISHEYE": 5,
    "THIN_PRISM_FISHEYE": 12,
    "RAD_TAN_THIN_PRISM_FISHEYE": 16,
    "SIMPLE_DIVISION": 4,
    "DIVISION": 5,
    "SIMPLE_FISHEYE": 3,
    "FISHEYE": 4,
    "EUCM": 6,
    "EQUIRECTANGULAR": 2,
}
MODEL_NAMES = tuple(PARAMS_OF)
MARKER = "structure_from_motion.json"  # in the folder of a model that this project computed


@dataclass(frozen=True)
class ModelCamera:
    """A line of cameras.txt: COLMAP's name of the model, the photo's size and its parameters."""

    model: str
    width: int
    height: int
    params: list[float]


@dataclass(frozen=True)
class ModelView:
    """A pose of images.txt; quaternion (w, x, y, z) and translation are world to camera."""

    name: str
    pose: list[float]
    camera_id: int
    image_id: int


@dataclass(frozen=True)
class ModelFiles:
    """What the files of a model hold, as stored; observations are not read.

    xyz: [P, 3] float64, rgb: [P, 3] uint8, in the order of the points' ids. tracks: the ids of the
    images that see each of them, as arrays.
    """

    cameras: dict[int, ModelCamera]
    views: list[ModelView]
    xyz: np.ndarray
    rgb: np.ndarray
    tracks: list[np.ndarray]


def find_files(model: Path) -> tuple[Path, Path, Path | None]:
    """cameras, images and, if there is one, points3D of the same format; FileNotFoundError.

    Binary ones go first, but not those of this project, to which users have added text.
    """
    ends = ("txt", "bin") if (model / MARKER).is_file() else ("bin", "txt")
    for end in ends:
        cameras, images, points = (
            model / f"{part}.{end}" for part in ("cameras", "images", "points3D")
        )
        if cameras.is_file() and images.is_file():
            return cameras, images, points if points.is_file() else None
    missing = "cameras" if not list(model.glob("cameras.*")) else "images"
    raise FileNotFoundError(
        f"{model} has no {missing}.bin (or .txt); a COLMAP model needs cameras and images files"
    )


def count_views(model: Path) -> int:
    """The number of registered images of a model; 0 if it is incomplete or damaged."""
    try:
        return count_images(find_files(model)[1])
    except OSError:
        return 0


def count_images(images: Path) -> int:
    """The number of poses in images.bin or images.txt; 0 if it is damaged."""
    try:
        if images.suffix == ".bin":
            with images.open("rb") as file:
                (count,) = COUNT.unpack(file.read(COUNT.size))
            # A record has its fields, a name of a letter or more, and a count of observations.
            least = IMAGE.size + 2 + COUNT.size
            return count if count * least <= images.stat().st_size else 0
        return sum(1 for _ in _view_lines(images))
    except (OSError, ValueError, struct.error):
        return 0


def read_files(cameras: Path, images: Path, points: Path | None) -> ModelFiles:
    """Read the files of a model, all binary or all text.

    Raises ValueError, naming the file, unless they are complete and consistent.
    """
    if cameras.suffix == ".bin":
        read = (_binary_cameras, _binary_views, _binary_points)
    else:
        read = (_text_cameras, _text_views, _text_points)
    by_id = read[0](cameras)
    views = read[1](images)
    for view in views:
        if view.camera_id not in by_id:
            raise ValueError(
                f"{images}: {view.name} uses camera {view.camera_id}, not in {cameras.name}"
            )
    records = [] if points is None else sorted(read[2](points), key=lambda record: record[0])
    table = np.array([record[1:7] for record in records], np.float64).reshape(-1, 6)
    if points is not None and not ((table[:, 3:] >= 0) & (table[:, 3:] <= 255)).all():
        raise ValueError(f"{points} is damaged: a colour is not in 0 to 255")
    tracks = [record[7] for record in records]
    return ModelFiles(by_id, views, table[:, :3], table[:, 3:].astype(np.uint8), tracks)


class Walk:
    """Steps through a binary file; every step stays inside or raises ValueError naming it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()
        self.at = 0

    def take(self, layout: struct.Struct) -> tuple:
        """Read one record."""
        if self.at + layout.size > len(self.data):
            raise ValueError(f"{self.path} is cut off or damaged; copy or export it again")
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def skip(self, n_bytes: int) -> None:
        """Step over some bytes."""
        self.at += n_bytes
        if self.at > len(self.data):
            raise ValueError(f"{self.path} is cut off or damaged; copy or export it again")

    def text(self) -> bytes:
        """Read a string up to its zero byte."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ValueError(f"{self.path} is cut off or damaged; copy or export it again")
        value = self.data[self.at : end]
        self.at = end + 1
        return value

    def finish(self) -> None:
        """Raise ValueError if bytes follow the last record."""
        if self.at != len(self.data):
            raise ValueError(
                f"{self.path} is damaged: {len(self.data) - self.at} bytes follow its last record"
            )


COUNT = struct.Struct("<Q")
CAMERA = struct.Struct("<IiQQ")
IMAGE = struct.Struct("<I7dI")
POINT = struct.Struct("<Q3d3BdQ")
OBSERVATION_BYTES, TRACK_BYTES = 24, 8


def _binary_cameras(path: Path) -> dict[int, ModelCamera]:
    walk, cameras = Walk(path), {}
    for _ in range(*walk.take(COUNT)):
        camera_id, number, width, height = walk.take(CAMERA)
        if not 0 <= number < len(MODEL_NAMES):
            raise ValueError(f"{path} is damaged: there is no camera model number {number}")
        model = MODEL_NAMES[number]
        params = walk.take(struct.Struct(f"<{PARAMS_OF[model]}d"))
        cameras[camera_id] = ModelCamera(model, width, height, list(params))
    walk.finish()
    return cameras


def _binary_views(path: Path) -> list[ModelView]:
    walk, views = Walk(path), []
    for _ in range(*walk.take(COUNT)):
        image_id, *pose, camera_id = walk.take(IMAGE)
        name = _check_name(walk.text(), path)
        _check_pose(pose, name, path)
        walk.skip(OBSERVATION_BYTES * walk.take(COUNT)[0])
        views.append(ModelView(name, pose, camera_id, image_id))
    walk.finish()
    return views


def _binary_points(path: Path) -> Iterator[tuple]:
    walk = Walk(path)
    for _ in range(*walk.take(COUNT)):
        *record, _, track = walk.take(POINT)
        first = walk.at
        walk.skip(TRACK_BYTES * track)  # pairs of an image's id and an observation's index
        yield *record, np.frombuffer(walk.data, "<u4", 2 * track, first)[::2]
    walk.finish()


def _text_cameras(path: Path) -> dict[int, ModelCamera]:
    cameras = {}
    for number, line in _lines(path):
        fields = line.split()
        model = fields[1] if len(fields) > 1 else ""
        if model not in PARAMS_OF:
            raise ValueError(
                f"{path}, line {number}: {model[:40]!r} is no camera model; "
                f"COLMAP's are {', '.join(MODEL_NAMES)}"
            )
        if len(fields) != 4 + PARAMS_OF[model]:
            raise ValueError(f"{path}, line {number}: wrong number of parameters")
        camera_id, width, height = _whole_numbers([fields[0], *fields[2:4]], path, number)
        cameras[camera_id] = ModelCamera(model, width, height, _numbers(fields[4:], path, number))
    return cameras


def _text_views(path: Path) -> list[ModelView]:
    views = []
    for number, line in _view_lines(path):
        fields = line.split(maxsplit=9)
        if len(fields) < 10:
            raise ValueError(
                f"{path}, line {number}: a view needs 10 fields (and observations come in threes)"
            )
        name = _check_name(fields[9].rstrip().encode(), path)
        pose = _numbers(fields[1:8], path, number)
        _check_pose(pose, name, path)
        camera_id, image_id = _whole_numbers([fields[8], fields[0]], path, number)
        views.append(ModelView(name, pose, camera_id, image_id))
    return views


def _view_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines with poses: every second one, or all of a file without lines of observations."""
    is_pose = True
    for number, line in _lines(path, keep_empty=True):
        if not is_pose and _is_observations(line):
            is_pose = True
        elif line.strip():
            yield number, line
            is_pose = False


def _is_observations(line: str) -> bool:
    """Whether a line holds numbers in threes (x, y, point id), or none; a name is no number."""
    fields = line.split()
    if len(fields) % 3:
        return False
    try:
        return all(math.isfinite(float(field)) for field in fields)
    except ValueError:
        return False


def _text_points(path: Path) -> Iterator[tuple]:
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) < 8 or len(fields) % 2:
            raise ValueError(f"{path}, line {number}: wrong number of fields")
        values = _numbers(fields, path, number)
        yield *values[:7], np.array(values[8::2])


def _check_name(name: bytes, path: Path) -> str:
    """A photo's name as text; ValueError if it is not printable UTF-8."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise ValueError(f"{path} is damaged: one of its photo names is {name[:40]!r}")
    return text


def _check_pose(pose: list[float], name: str, path: Path) -> None:
    """Raise ValueError unless the pose (quaternion wxyz, translation) is finite and a rotation."""
    if not all(map(math.isfinite, pose)) or not 0.5 < math.hypot(*pose[:4]) < 2:
        raise ValueError(f"{path}: the pose of {name} is not a rotation and a finite position")


def _lines(path: Path, keep_empty: bool = False) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.startswith("#") and (keep_empty or line.strip()):
            yield number, line


def _numbers(fields: list[str], path: Path, line: int) -> list[float]:
    try:
        return [float(field) for field in fields]
    except ValueError:
        raise ValueError(f"{path}, line {line}: a number was expected") from None


def _whole_numbers(fields: list[str], path: Path, line: int) -> list[int]:
    try:
        return [int(field) for field in fields]
    except ValueError:
        raise ValueError(f"{path}, line {line}: a whole number was expected") from None
