# In which folder the photos of an export lie.
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from scenes.photos import find_photos


def match_photos(named: list[str], folders: Iterable[Path]) -> tuple[Path, list[Path | None]]:
    """The folder that holds the most of the photos a file names, and each one's file or None.

    Names are matched as `find_photos` does.
    """
    best: tuple[int, Path, list[Path | None]] | None = None
    folders = list(folders)
    for folder in [folder for folder in folders if folder.is_dir()] or folders[:1]:
        paths = find_photos(folder, named)
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
