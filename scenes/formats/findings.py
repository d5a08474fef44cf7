# What a folder holds that is no capture, and what its user can do: the message of last resort.
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.text import format_list
from scenes.formats.format import Format
from scenes.formats.places import list_files, list_folders
from scenes.photos import list_photos


@dataclass(frozen=True)
class Finding:
    """Files or folders that tell what a user may have meant.

    what: a plural for the message; patterns: globs in the folder, compared without case; remedy:
    what to do, with {first} for the first of them. poses: such files may have poses.
    """

    what: str
    patterns: tuple[str, ...]
    remedy: str
    poses: bool = False


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
            *("*.gif", "*.exr", "*.insp", "*.jp2", "*.jxl"),
            *("*.dng", "*.cr2", "*.cr3", "*.nef", "*.arw", "*.raf", "*.rw2", "*.orf"),
        ),
        "convert them to .jpg or .png, such as {first}",
    ),
    Finding(
        "projects of photogrammetry programs",
        ("*.psx", "*.psz", "*.rsproj", "*.rcproj", "*.mg", "*.p4d", "*.reality"),
        "export the cameras of {first} as a COLMAP model, with the photos",
        poses=True,
    ),
    Finding(
        "files of cameras",
        ("*.xmp", "*.rdf", "cameras.json", "*poses*.txt", "*_calibrated*"),
        "export a COLMAP model from the program that wrote {first}, or put the photos beside it",
        poses=True,
    ),
    Finding(
        "COLMAP databases",
        ("*.db",),
        "{first} has features but no poses: run colmap mapper and put its model into sparse/0",
        poses=True,
    ),
    Finding(
        "files from which no poses could be read",
        ("*.xml", "*.csv", "*.out", "metadata.json", "transforms*.json", "*sfm*.json"),
        "if {first} should have poses, export it again",
        poses=True,
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


def describe_findings(path: Path, formats: Iterable[Format]) -> str:
    """A sentence that a folder is no capture, what it holds instead, and what to do."""
    contents, remedy = _find(path, tuple(formats))
    return f"{path} is not a capture: {contents}; {remedy} (docs/formats.md lists what is read)"


def describe_hints(path: Path, photos: Path) -> list[str]:
    """Notes on files, in a capture's folder or beside its photos, that may have poses."""
    notes = []
    for finding in (finding for finding in FINDINGS if finding.poses):
        files = [
            file
            for folder in dict.fromkeys((path, photos))
            for file in list_files(folder, *finding.patterns)
        ]
        if files:
            named = format_list([file.relative_to(path).as_posix() for file in files], 3)
            remedy = finding.remedy.format(first=files[0].name)
            notes.append(f"no poses are read from {finding.what} ({named}): {remedy}")
    return notes


def _find(path: Path, formats: tuple[Format, ...]) -> tuple[str, str]:
    """What a folder holds, as a clause, and the remedy."""
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    if not entries:
        return "it is empty", "give another folder, or put the photos there"
    folders = [entry for entry in entries if entry.is_dir()]
    if len(folders) == len(entries) and not any(any(folder.iterdir()) for folder in folders):
        named = format_list([folder.name for folder in folders], 3)
        return f"it holds only empty folders ({named})", "put the photos there"
    captures = [f for f in folders if any(format.find(f) for format in formats)]
    if captures:
        named = format_list([f.name for f in captures], 3)
        return (
            f"it has captures in its sub-folders ({named})",
            f"give one of them, such as {captures[0]}",
        )
    with_photos = [f for f in folders if list_photos(f) or list_photos(f / "images")]
    if with_photos:
        named = format_list([f.name for f in with_photos], 3)
        return (
            f"it has photos in its sub-folders ({named})",
            f"give one of them as the capture, such as {with_photos[0]}, or name it with "
            f"--image_folder {with_photos[0].name}",
        )
    deeper = sorted({f for f in folders for inner in list_folders(f) if list_photos(inner)})
    if deeper:
        return f"its photos lie deeper (in {deeper[0].name})", "give the folder that holds them"
    kinds, remedy = [], ""
    for finding in FINDINGS:
        names = [e.name for e in entries if any(_match(e.name, p) for p in finding.patterns)]
        if names:
            kinds.append(f"{finding.what} ({format_list(names, 3)})")
            remedy = remedy or finding.remedy.format(first=names[0])
    if kinds:
        return f"it holds {' and '.join(kinds)}", remedy
    named = format_list([entry.name for entry in entries], 3)
    return f"it holds only {named}", "give the folder with the photos"


def _match(name: str, pattern: str) -> bool:
    return Path(name.lower()).match(pattern)
