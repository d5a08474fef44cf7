# Files in a capture's folder, and how many views a file has poses of: what finders share.
from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path


def list_files(folder: Path, *patterns: str) -> list[Path]:
    """The files of a folder, by pattern and then by name; names are compared without case.

    None, too, if the folder is not there or cannot be listed. Folders and hidden files are none.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []
    matches = (
        entry
        for pattern in patterns
        for entry in entries
        if fnmatchcase(entry.name.lower(), pattern) and entry.is_file()
    )
    return list(dict.fromkeys(matches))


def list_folders(folder: Path) -> list[Path]:
    """The sub-folders of a folder, sorted, without hidden ones; none if it cannot be listed."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        return [entry for entry in entries if entry.is_dir()]
    except OSError:
        return []


def starts_with(file: Path, start: bytes) -> bool:
    """Whether a file can be read and its first bytes are `start`."""
    return read_start(file, len(start)) == start


def read_start(file: Path, n_bytes: int) -> bytes:
    """The first bytes of a file, none if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(n_bytes)
    except OSError:
        return b""


def detect_encoding(start: bytes) -> str:
    """The encoding of a text by its first bytes: UTF-16 has a mark, and UTF-8 may have one."""
    return "utf-16" if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def count_matches(pattern: bytes) -> Callable[[Path], int]:
    """A function that counts a pattern in a file (such as the key of each pose), 0 without one."""

    def count(file: Path) -> int:
        try:
            return sum(1 for _ in re.finditer(pattern, file.read_bytes()))
        except OSError:
            return 0

    return count
