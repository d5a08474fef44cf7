# What a file of splats is by its first bytes, where its name says something else.
from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path

CHECKPOINTS = (".pt", ".pth", ".ckpt")
ENDINGS = {  # of files with such content
    ".ply": (".ply",),
    ".glb": (".glb", ".gltf"),
    ".spz": (".spz",),
    ".sog": (".sog",),
    ".pt": CHECKPOINTS,
}
KNOWN = (*(name for names in ENDINGS.values() for name in names), ".splat", ".ksplat")


def check_content(path: Path) -> None:
    """ValueError if the file is empty, or splats of another format than its ending says."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; copy or export it again")
    name = path.name.lower()
    kind = _find_kind(path) if name.endswith(KNOWN) else None
    if kind is not None and not name.endswith(ENDINGS[kind]):
        raise ValueError(f"{path} is a {kind} by its content; rename it")


def _find_kind(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(4)
        if head[:2] == b"\x1f\x8b":
            file.seek(0)
            try:
                with gzip.open(file) as content:
                    head = content.read(4)
            except (OSError, EOFError, zlib.error):
                return None
    if head in (b"ply\n", b"ply\r"):
        return ".ply"
    if head == b"PK\3\4":
        return _find_kind_of_zip(path)
    return {b"glTF": ".glb", b"NGSP": ".spz"}.get(head)


def _find_kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    if "meta.json" in names:
        return ".sog"
    return ".pt" if any(name.endswith("data.pkl") for name in names) else None
