# Checks of COLMAP's binary and text files before they are parsed, so that a wrong count or a
# truncated file ends in a message that names the file, not in a crash or a huge allocation.
# Format: https://colmap.github.io/format.html
from __future__ import annotations

import math
import struct
from pathlib import Path

PARAMS_OF = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 4,
    "RADIAL": 5,
    "OPENCV": 8,
    "OPENCV_FISHEYE": 8,
}
OTHER_MODELS = (
    *("FULL_OPENCV", "FOV", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE"),
    *("RAD_TAN_THIN_PRISM_FISHEYE", "SIMPLE_DIVISION", "DIVISION", "SIMPLE_FISHEYE", "FISHEYE"),
    *("EUCM", "EQUIRECTANGULAR"),
)
MODEL_NAMES = (*PARAMS_OF, *OTHER_MODELS)  # a model's number is its place here


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


def check_model(name: str, path: Path) -> int:
    """The number of parameters of a camera model; ValueError if it is not supported."""
    if name not in PARAMS_OF:
        raise ValueError(
            f"{path} uses the camera model {name}, which is not supported; undistort the capture "
            f"(colmap image_undistorter) or use one of {', '.join(PARAMS_OF)}"
        )
    return PARAMS_OF[name]


def check_binary(cameras: Path, images: Path, points: Path | None) -> None:
    """Raise ValueError, naming the file, unless the three files are complete and consistent."""
    walk = Walk(cameras)
    camera_ids = set()
    for _ in range(*walk.take(COUNT)):
        camera_id, model, _, _ = walk.take(CAMERA)
        if not 0 <= model < len(MODEL_NAMES):
            raise ValueError(f"{cameras} is damaged: there is no camera model number {model}")
        walk.skip(8 * check_model(MODEL_NAMES[model], cameras))
        camera_ids.add(camera_id)
    walk.finish()

    walk = Walk(images)
    for _ in range(*walk.take(COUNT)):
        _, *pose, camera_id = walk.take(IMAGE)
        name = check_name(walk.text(), images)
        if camera_id not in camera_ids:
            raise ValueError(f"{images}: {name} uses camera {camera_id}, not in {cameras.name}")
        check_pose(pose, name, images)
        walk.skip(OBSERVATION_BYTES * walk.take(COUNT)[0])
    walk.finish()

    if points is not None:
        walk = Walk(points)
        for _ in range(*walk.take(COUNT)):
            walk.skip(TRACK_BYTES * walk.take(POINT)[-1])
        walk.finish()


def check_text(cameras: Path, images: Path, points: Path | None) -> None:
    """The same for COLMAP's text files; the message also names the line."""
    for number, fields in _lines(cameras):
        check_model(fields[1] if len(fields) > 1 else "''", cameras)
        if len(fields) != 4 + PARAMS_OF[fields[1]]:
            raise ValueError(f"{cameras}, line {number}: wrong number of parameters")
        _numbers(fields[:1] + fields[2:], cameras, number)

    # Every second line lists a view's observations and may be empty, so lines come in pairs.
    is_pose = True
    for number, fields in _lines(images, keep_empty=True):
        if is_pose and not fields:
            continue
        if is_pose:
            if len(fields) < 10:
                raise ValueError(f"{images}, line {number}: a view needs 10 fields")
            check_pose(_numbers(fields[:9], images, number)[1:8], " ".join(fields[9:]), images)
        elif len(fields) % 3:
            raise ValueError(f"{images}, line {number}: observations come in threes")
        is_pose = not is_pose

    if points is not None:
        for number, fields in _lines(points):
            if len(fields) < 8 or len(fields) % 2:
                raise ValueError(f"{points}, line {number}: wrong number of fields")
            _numbers(fields, points, number)


def check_name(name: bytes, path: Path) -> str:
    """A photo's name as text; ValueError if it is not printable UTF-8."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise ValueError(f"{path} is damaged: one of its photo names is {name[:40]!r}")
    return text


def check_pose(pose: list[float], name: str, path: Path) -> None:
    """Raise ValueError unless the pose (quaternion wxyz, translation) is finite and a rotation."""
    if not all(map(math.isfinite, pose)) or not 0.5 < math.hypot(*pose[:4]) < 2:
        raise ValueError(f"{path}: the pose of {name} is not a rotation and a finite position")


def _lines(path: Path, keep_empty: bool = False):
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file") from None
    for number, line in enumerate(lines, 1):
        if not line.startswith("#") and (keep_empty or line.strip()):
            yield number, line.split()


def _numbers(fields: list[str], path: Path, line: int) -> list[float]:
    try:
        return [float(field) for field in fields]
    except ValueError:
        raise ValueError(f"{path}, line {line}: a number was expected") from None
