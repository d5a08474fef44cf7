# Which photo a foreign file means by a name: a label, or a path on another machine.
from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from scenes.formats.unposed import NO_PHOTOS
from scenes.photos import SUFFIXES, list_photos

KNOWN_SUFFIXES = {*SUFFIXES, ".dng", ".heic", ".tif"}  # of photos, also of ones converted since


def match_photos(named: list[str], folders: Iterable[Path]) -> tuple[Path, list[Path | None]]:
    """The folder that holds the most of the photos a file names, and each one's file or None.

    A name may be a label without suffix or a path on another machine: as many of its last parts as
    possible decide. A name that fits several photos equally well has none.
    """
    best: tuple[int, Path, list[Path | None]] | None = None
    for folder in folders:
        paths = _match(named, folder) if folder.is_dir() else [None] * len(named)
        count = sum(path is not None for path in paths)
        if best is None or count > best[0]:
            best = count, folder, paths
        if count == len(named):
            break
    return best[1], best[2]


def photo_folders(file: Path, path: Path, photos: Path | None, *others: Path) -> list[Path]:
    """Where the photos of an export may lie: the folder users name, or else the usual ones."""
    if photos is not None:
        return [photos]
    folders = [*others, file.parent / "images", path / "images", file.parent, path]
    return list(dict.fromkeys(folders))


def _match(named: list[str], folder: Path) -> list[Path | None]:
    whole: dict[str, str] = {}
    tails: dict[str, set[str]] = {}
    for name in list_photos(folder, deep=True):
        if any(NO_PHOTOS.match(parent) for parent in name.split("/")[:-1]):
            continue
        for key in _keys(name.lower(), whole=True):
            whole.setdefault(key, name)
        for key in _keys(name.lower()):
            tails.setdefault(key, set()).add(name)
    paths: list[Path | None] = []
    for name in named:
        parts = [part for part in re.split(r"[\\/]+", name.lower()) if part not in ("", ".", "..")]
        fits = [{whole[key]} for key in _keys("/".join(parts), whole=True) if key in whole]
        fits += [tails[key] for key in _keys("/".join(parts)) if key in tails]
        unique = fits and len(fits[0]) == 1
        paths.append(folder / next(iter(fits[0])) if unique else None)
    return paths


def _keys(name: str, whole: bool = False) -> list[str]:
    """A path and, unless `whole`, its ends, longest first; each also without suffix."""
    parts = name.split("/")
    ends = ["/".join(parts[start:]) for start in range(1 if whole else len(parts))]
    return [key for end in ends for key in dict.fromkeys((end, _without_suffix(end)))]


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix in KNOWN_SUFFIXES else name
