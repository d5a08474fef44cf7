# Record3D's "EXR + RGB" export (metadata.json, rgb/0.jpg, rgb/1.jpg, ...) and unpacked .r3d files.
# Format: https://record3d.app and nerfstudio/data/dataparsers/record3d_dataparser.py
from __future__ import annotations

from pathlib import Path

from scipy.spatial.transform import Rotation

from scenes.capture import Capture, make_no_points
from scenes.formats.assembly import make_capture
from scenes.formats.conversions import (
    FLIP_YZ,
    invert_pose,
    make_lens,
    make_pose,
    read_json,
    read_number,
    read_numbers,
)
from scenes.formats.places import list_files
from scenes.photos import list_photos

PHOTOS = ("rgb", "rgbd")  # the second in a .r3d, which is a .zip file


def find(folder: Path) -> list[Path]:
    """The metadata of an export (also in its folder EXR_RGBD) and of an unpacked .r3d."""
    return [
        file
        for place in (folder, folder / "EXR_RGBD")
        if any((place / photos).is_dir() for photos in PHOTOS)
        for file in list_files(place, "metadata.json", "metadata")
    ]


def count_views(file: Path) -> int:
    """How many poses a metadata.json has, 0 if it is damaged."""
    try:
        return len(read_json(file)["poses"])
    except (ValueError, OSError, KeyError, TypeError):
        return 0


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

    folders = (photos,) if photos else (file.parent / name for name in PHOTOS)
    folder = next((folder for folder in folders if folder.is_dir()), file.parent)
    numbered = {Path(name).stem.lstrip("0") or "0": folder / name for name in list_photos(folder)}
    named = [str(i) for i in range(len(poses))]
    matched = (folder, [numbered.get(name) for name in named])
    return make_capture("Record3D", file, matched, named, lens_of, viewmats, make_no_points(), [])
