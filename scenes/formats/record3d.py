# Record3D's "EXR + RGB" export: metadata.json beside rgb/0.jpg, rgb/1.jpg, ...
# Format: https://record3d.app and nerfstudio/data/dataparsers/record3d_dataparser.py
from __future__ import annotations

from pathlib import Path

from scipy.spatial.transform import Rotation

from scenes.capture import Capture, make_no_points
from scenes.formats.conversions import (
    FLIP_YZ,
    invert_pose,
    make_capture,
    make_lens,
    make_pose,
    match_photos,
    read_json,
    read_number,
    read_numbers,
)


def find(folder: Path) -> Path | None:
    """The metadata.json of an export (also in its folder EXR_RGBD), or None."""
    for place in (folder, folder / "EXR_RGBD"):
        file = place / "metadata.json"
        if file.is_file() and any((place / photos).is_dir() for photos in ("rgb", "rgbd")):
            return file
    return None


def read(file: Path, path: Path, photos: Path | None) -> Capture:
    """The views of an export: ARKit's world (y up, metres), camera axes of OpenGL, no points.

    K is stored by columns; `perFrameIntrinsicCoeffs` (fx fy cx cy), if there, precede it. Pose i
    (quaternion x y z w, position) belongs to the photo named i. Raises ValueError or
    FileNotFoundError.
    """
    content = read_json(file)
    size = tuple(read_number(content.get(key), f'{file}: "{key}"') for key in ("w", "h"))
    poses = read_numbers(content.get("poses"), (-1, 7), f'{file}: "poses"')
    K = read_numbers(content.get("K"), 9, f'{file}: "K"').reshape(3, 3).T
    own = content.get("perFrameIntrinsicCoeffs")
    if own is not None:
        own = read_numbers(own, (len(poses), 4), f'{file}: "perFrameIntrinsicCoeffs"')
    viewmats = []
    for i, pose in enumerate(poses):
        if not 0.5 < (pose[:4] ** 2).sum() < 2:
            raise ValueError(f'{file}: "poses" {i} is not a rotation; export it again')
        R = Rotation.from_quat(pose[:4]).as_matrix()
        viewmats.append(invert_pose(make_pose(R, pose[4:]) @ FLIP_YZ))

    def lens_of(i: int, photo: Path):
        focal, centre = ((K[0, 0], K[1, 1]), K[:2, 2]) if own is None else (own[i, :2], own[i, 2:])
        return make_lens(size, focal, centre)

    folder = next(f for f in (file.parent / "rgb", file.parent / "rgbd", file.parent) if f.is_dir())
    named = [str(i) for i in range(len(poses))]
    matched = match_photos(named, [photos or folder])
    return make_capture("Record3D", file, matched, named, lens_of, viewmats, make_no_points(), [])
