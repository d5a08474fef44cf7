# The capture formats, and how the one of a folder is recognised and read.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scenes.capture import Capture
from scenes.formats import (
    alicevision,
    bundler,
    colmap,
    llff,
    metashape,
    nvm,
    openmvg,
    opensfm,
    polycam,
    realitycapture,
    record3d,
    transforms,
    unposed,
)
from scenes.photos import list_photos
from scenes.scene import Split
from scenes.video import list_videos


@dataclass(frozen=True)
class Format:
    """A capture format.

    name: for the message about a folder in no format. find: the format's file or folder in a
    capture's folder, or None. read: the capture, from what was found, the capture's folder and the
    photos' folder if users name one.
    """

    name: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path, Path, Path | None], Capture]


def find_captures(folder: Path) -> list[Path]:
    """The folder itself, or its sub-folders, sorted by name, if the captures are those.

    Photos in the folder itself do not make it one capture if sub-folders hold some too, but
    sub-folders named after cameras (cam0, cam1) do.
    """
    if _is_capture(folder) or unposed.is_split_by_camera(folder):
        return [folder]
    inner = sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))
    several = any(_is_capture(f) or list_photos(f) or list_videos(f) for f in inner)
    return inner if several else [folder]


def _is_capture(folder: Path) -> bool:
    """Whether a folder holds poses in one of FORMATS, or photos in `images`."""
    return (folder / "images").is_dir() or find_format(folder) is not None


def _read_colmap(model: Path, path: Path, photos: Path | None) -> Capture:
    return colmap.read(model, photos or colmap.find_photo_folder(path, model))


def _read_transforms(file: Path, path: Path, photos: Path | None) -> Capture:
    return transforms.read(file, photos)


# All formats with poses, the first that is there is read.
FORMATS = (
    Format("COLMAP model (sparse/0)", colmap.find_model, _read_colmap),
    Format("transforms.json", transforms.find, _read_transforms),
    Format("Metashape cameras.xml", metashape.find, metashape.read),
    Format("RealityCapture csv", realitycapture.find, realitycapture.read),
    Format("OpenSfM reconstruction.json", opensfm.find, opensfm.read),
    Format("OpenMVG sfm_data.json", openmvg.find, openmvg.read),
    Format("AliceVision .sfm", alicevision.find, alicevision.read),
    Format("VisualSFM .nvm", nvm.find, nvm.read),
    Format("Bundler .out", bundler.find, bundler.read),
    Format("Polycam keyframes", polycam.find, polycam.read),
    Format("Record3D metadata.json", record3d.find, record3d.read),
    Format("LLFF poses_bounds.npy", llff.find, llff.read),
)


def find_format(folder: Path) -> tuple[Format, Path] | None:
    """The first format with poses that is there, and its file or folder."""
    places = ((format, format.find(folder)) for format in FORMATS)
    return next(((format, place) for format, place in places if place is not None), None)


def read_capture(
    path: Path, folder: Path | None, split_of: Callable[[tuple[str, ...]], Split], progress: bool
) -> Capture:
    """The capture in a folder, by the first format that is there, else from its photos."""
    match = find_format(path)
    if match is not None:
        format, place = match
        return format.read(place, path, folder)
    capture = unposed.read(path, folder, split_of, progress)
    if capture is None:
        raise FileNotFoundError(
            f"{path} holds no capture: {', '.join(f'no {format.name}' for format in FORMATS)} and "
            "no photos (.jpg, .jpeg, .png, .webp; in it or in its folder images)"
        )
    return capture
