# The capture formats, and how the one of a folder is recognised and read.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from scenes.formats.findings import describe_findings
from scenes.panoramas import cut_panoramas
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
    return colmap.read(model, photos, path)


def _read_transforms(file: Path, path: Path, photos: Path | None) -> Capture:
    return transforms.read(file, photos)


# All formats with poses, the first that is there is read.
FORMATS = (
    Format("COLMAP model (such as sparse/0)", colmap.find_model, _read_colmap),
    Format("transforms.json or transforms_train.json", transforms.find, _read_transforms),
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
    """The first format with poses that is there, and its file or folder.

    Poses that the project itself found by structure from motion count only if there are no others.
    """
    own = None
    for format in FORMATS:
        place = format.find(folder)
        if place is not None and not colmap.is_own(place):
            return format, place
        own = own or (place and (format, place))
    return own


def read_capture(
    path: Path, folder: Path | None, split_of: Callable[[tuple[str, ...]], Split], progress: bool
) -> Capture:
    """The capture in a folder, by the first format that is there, else from its photos."""
    match = find_format(path)
    if match is None:
        capture = unposed.read(path, folder, split_of, progress)
        if capture is None:
            raise FileNotFoundError(describe_findings(path, FORMATS))
        return cut_panoramas(capture)
    format, place = match
    capture = format.read(place, path, folder)
    notes = [str(note) for note in colmap.read_marker(place).get("notes") or []]
    own = next(filter(colmap.is_own, colmap.find_models(path)), None)
    if own not in (None, place):
        notes.append(f"the poses are those of {place}, not those of structure from motion in {own}")
    return cut_panoramas(replace(capture, notes=(*capture.notes, *notes)))
