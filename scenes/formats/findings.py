# What a folder holds that is no capture, and what its user can do: the message of last resort.
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtime.text import format_list
from scenes.photos import SUFFIXES, list_photos


class _Format(Protocol):
    name: str
    find: Callable[[Path], Path | None]


@dataclass(frozen=True)
class Finding:
    """Files or folders that tell what a user may have meant.

    what: a plural for the message; patterns: globs in the folder, compared without case; remedy:
    what to do, with {first} for the first of them.
    """

    what: str
    patterns: tuple[str, ...]
    remedy: str


FINDINGS = (
    Finding(
        "archives",
        ("*.zip", "*.tar", "*.tgz", "*.tar.gz", "*.7z", "*.rar"),
        "unpack {first} and give the folder that comes out",
    ),
    Finding(
        "videos of a 360-degree camera",
        ("*.insv", "*.360"),
        "export {first} with the camera's own program as a video or panoramas",
    ),
    Finding(
        "pictures in other formats",
        (
            *("*.tif", "*.tiff", "*.bmp", "*.gif", "*.heic", "*.heif", "*.avif", "*.exr", "*.insp"),
            *("*.dng", "*.cr2", "*.cr3", "*.nef", "*.arw", "*.raf", "*.rw2", "*.orf"),
        ),
        "convert them to .jpg or .png, such as {first}",
    ),
    Finding(
        "projects of photogrammetry programs",
        ("*.psx", "*.psz", "*.rsproj", "*.rcproj", "*.mg", "*.p4d", "*.reality"),
        "export the cameras of {first} as a COLMAP model, with the photos",
    ),
    Finding(
        "files of cameras",
        ("cameras.xml", "*.xmp", "*.rdf", "cameras.json", "*.p4d", "poses.txt", "*_calibrated*"),
        "export a COLMAP model from the program that wrote {first}, or put the photos beside it",
    ),
    Finding(
        "COLMAP databases",
        ("*.db",),
        "{first} has features but no poses: run colmap mapper and put its model into sparse/0",
    ),
    Finding(
        "splats, point clouds or meshes",
        ("*.ply", "*.splat", "*.spz", "*.ksplat", "*.sog", "*.glb", "*.obj", "*.las", "*.laz"),
        "a capture is photos; splats such as {first} open with python -m splats.view",
    ),
    Finding(
        "folders of depths, masks or renders only",
        ("depth*", "mask*", "normal*", "renders", "keyframes", "ply", "ckpts"),
        "give the folder of the capture itself, which has the photos",
    ),
)


def describe_findings(path: Path, formats: Iterable[_Format]) -> str:
    """A sentence that a folder holds no capture, what it does hold, and what to do."""
    formats = tuple(formats)
    contents, remedy = _find(path, formats)
    known = ", ".join(format.name for format in formats)
    return (
        f"{path} holds no capture but {contents}: {remedy} (a capture is photos, "
        f"{', '.join(SUFFIXES)}, in the folder or in its images, with or without poses: {known})"
    )


def _find(path: Path, formats: tuple[_Format, ...]) -> tuple[str, str]:
    """What a folder holds, and the remedy."""
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    if not entries:
        return "nothing at all", "give another folder, or put the photos there"
    folders = [entry for entry in entries if entry.is_dir()]
    if len(folders) == len(entries) and not any(any(folder.iterdir()) for folder in folders):
        named = format_list([folder.name for folder in folders], 3)
        return f"empty folders ({named})", "put the photos there"
    captures = [f for f in folders if any(format.find(f) for format in formats)]
    if captures:
        named = format_list([f.name for f in captures], 3)
        return f"captures in sub-folders ({named})", f"give one of them, such as {captures[0]}"
    with_photos = [f for f in folders if list_photos(f) or list_photos(f / "images")]
    if with_photos:
        named = format_list([f.name for f in with_photos], 3)
        return (
            f"photos in sub-folders ({named})",
            f"give one of them as the capture, such as {with_photos[0]}, or name it with "
            f"--image_folder {with_photos[0].name}",
        )
    deeper = sorted({f for f in folders for inner in _folders(f) if list_photos(inner)})
    if deeper:
        return f"photos deeper down (in {deeper[0].name})", "give the folder that has them"
    kinds, remedy = [], ""
    for finding in FINDINGS:
        names = [e.name for e in entries if any(_match(e.name, p) for p in finding.patterns)]
        if names:
            kinds.append(f"{finding.what} ({format_list(names, 3)})")
            remedy = remedy or finding.remedy.format(first=names[0])
    if kinds:
        return " and ".join(kinds), remedy
    named = format_list([entry.name for entry in entries], 3)
    return f"only {named}", "give the folder with the photos"


def _match(name: str, pattern: str) -> bool:
    return Path(name.lower()).match(pattern)


def _folders(path: Path) -> list[Path]:
    try:
        return [entry for entry in path.iterdir() if entry.is_dir()]
    except OSError:
        return []
