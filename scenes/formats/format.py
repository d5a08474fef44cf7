# What a capture format is: a line of FORMATS in scenes/formats/registry.py.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scenes.capture import Capture


@dataclass(frozen=True)
class Format:
    """A capture format.

    name: for the message about a folder in no format. find: the format's files or folders in a
    capture's folder, the usual one first. read: the capture, from one of them, the capture's folder
    and the photos' folder if users name one. count_views: of how many views such a file has poses,
    quickly and about; 0 if it is damaged.
    """

    name: str
    find: Callable[[Path], list[Path]]
    read: Callable[[Path, Path, Path | None], Capture]
    count_views: Callable[[Path], int]
