# Pictures to fix and their references on disk: one image, a folder, a video.
from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import torch
from torch import Tensor

from scenes.photos import SUFFIXES, list_photos

log = logging.getLogger(__name__)

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


@dataclass(frozen=True)
class Pair:
    """A picture to fix: its name below the output folder, and its reference, if it has one."""

    name: str
    image: Path
    reference: Path | None


def is_video(path: Path) -> bool:
    """Whether a file's name ends as a video's does."""
    return path.suffix.lower() in VIDEOS


def find_pairs(source: Path, reference: Path | None, flag: str = "--reference") -> list[Pair]:
    """The pictures of a file or folder and their references.

    A reference that is one photo goes with all; a folder's are paired by name (stem), or, where no
    name fits and there are as many, in sorted order, which is logged. `flag` names them in
    messages. Raises FileNotFoundError and ValueError in one sentence.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder")
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{source} is neither a picture ({', '.join(SUFFIXES)}) nor a video")
        folder, names = source.parent, [source.name]
    else:
        folder, names = source, list_photos(source)
        if not names:
            raise ValueError(f"{source} has no pictures ({', '.join(SUFFIXES)})")
    return [
        Pair(name, folder / name, guide)
        for name, guide in zip(names, _references(names, reference, flag), strict=True)
    ]


def _references(names: list[str], reference: Path | None, flag: str) -> list[Path | None]:
    if reference is None:
        return [None] * len(names)
    if not reference.exists():
        raise FileNotFoundError(f"{reference}: no such file or folder ({flag})")
    if reference.is_file():
        return [reference] * len(names)
    photos = list_photos(reference)
    if not photos:
        raise ValueError(f"{reference} has no pictures ({flag})")
    by_stem = {Path(photo).stem: reference / photo for photo in photos}
    paired = [by_stem.get(Path(name).stem) for name in names]
    if all(paired):
        return paired
    if not any(paired) and len(photos) == len(names):
        log.info("no names fit: pictures and those of %s are paired in sorted order", flag)
        return [reference / photo for photo in photos]
    if not any(paired):
        raise ValueError(
            f"{reference} has {len(photos)} pictures for {len(names)}, and no names fit: "
            f"name them alike, or give one ({flag})"
        )
    missing = [name for name, guide in zip(names, paired, strict=True) if guide is None]
    log.info("%d pictures have none in %s (%s, ...)", len(missing), flag, missing[0])
    return paired


@dataclass(frozen=True)
class Video:
    """A video file: frames per second and, where it tells, their number."""

    path: Path
    fps: float
    count: int | None

    @classmethod
    def open(cls, path: Path) -> Video:
        """Raises ValueError if it cannot be read."""
        try:
            header = iio.immeta(path, plugin="FFMPEG")
        except Exception:
            raise ValueError(f"{path} is not a video that can be read") from None
        duration = header.get("duration") or 0
        return cls(path, header.get("fps") or 30.0, round(duration * header.get("fps", 0)) or None)

    def frames(self) -> Iterator[Tensor]:
        """Frame by frame, [H,W,3] in [0,1]. Raises ValueError where the file is damaged."""
        try:
            for frame in iio.imiter(self.path, plugin="FFMPEG"):
                yield torch.from_numpy(frame).float() / 255
        except (OSError, RuntimeError, StopIteration):
            raise ValueError(f"{self.path} is damaged or no video") from None
