# The checkpoints of a run: the last, the best and some earlier ones.
from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from models.checkpoints import io
from runtime.files import atomic_path

log = logging.getLogger(__name__)


class RunFolder:
    """results/<exp_name>: <prefix>-ckpt-last.pth, -best.pth and -ep_<epoch>_<step>.pth."""

    def __init__(self, path: Path, prefix: str, keep: int = 2):
        self.path, self.prefix, self.keep = path, prefix, keep

    @property
    def last(self) -> Path:
        """The file of the last save."""
        return self.path / f"{self.prefix}-ckpt-last.pth"

    @property
    def best(self) -> Path:
        """The file of the best validation."""
        return self.path / f"{self.prefix}-ckpt-best.pth"

    def earlier(self) -> list[Path]:
        """Checkpoints of validations, oldest first; files of the original's among them."""
        # by their names: copies of a folder have other times
        return sorted(self.path.glob(f"{self.prefix}-ckpt-ep_*.pth"), key=read_numbers)

    def newest(self) -> tuple[Path, dict] | None:
        """The furthest checkpoint that can be gone on from, and its content.

        Damaged ones are passed over with a warning. Raises ValueError if there are only files that
        no run of ours wrote.
        """
        files = [f for f in (self.last, *reversed(self.earlier()), self.best) if f.is_file()]
        usable, foreign = [], []
        for file in files:
            try:
                content = io.read_whole(file)
            except ValueError as error:
                log.warning("%s; an earlier checkpoint is taken", error)
                continue
            if isinstance(content, Mapping) and "resume" in content:
                usable.append((content["resume"]["step"], file, content))
            else:
                foreign.append(file)
        if not usable:
            if foreign:
                raise ValueError(
                    f"{foreign[0]} is no checkpoint that this run can go on from: start from it "
                    "with --var_pretrain_path and another --exp_name"
                )
            return None
        _, file, content = max(usable, key=lambda one: one[0])
        return file, content

    def save(self, content: dict, *, best: bool = False, mark: str | None = None) -> None:
        """Write the last checkpoint, whole or not at all; `best` and `mark` (epoch and step) name
        the same file once more. Raises OSError naming the file, the old one being left."""
        for left in self.path.glob(f".{self.prefix}-ckpt-*"):
            left.unlink()  # of a save that was killed: gigabytes
        try:
            with atomic_path(self.last) as temporary:
                torch.save(content, temporary)
        except (OSError, RuntimeError) as error:
            # torch's writer reports a full disk as a RuntimeError
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number else "is the disk full?"
            raise OSError(
                number or errno.ENOSPC,
                f"the checkpoint could not be written ({reason}); the one before is whole",
                str(self.last),
            ) from None
        if best:
            add_name(self.last, self.best)
        if mark is not None and self.keep > 0:
            add_name(self.last, self.path / f"{self.prefix}-ckpt-ep_{mark}.pth")
            own = [file for file in self.earlier() if len(read_numbers(file)) == 2]
            for old in own[: -self.keep]:
                old.unlink()

    def clear(self) -> None:
        """Remove this stage's checkpoints."""
        for file in (self.last, self.best, *self.earlier()):
            file.unlink(missing_ok=True)


def read_numbers(file: Path) -> list[int]:
    """Epoch and step in a checkpoint's name; the original's has the epoch alone."""
    return [int(n) for n in re.findall(r"\d+", file.stem.rpartition("-ep_")[2])]


def add_name(file: Path, name: Path) -> None:
    """Give a file another name, without a second copy where the file system can."""
    temporary = name.with_name(f".{name.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(file, temporary)
        except OSError:
            shutil.copyfile(file, temporary)
        temporary.replace(name)
    finally:
        temporary.unlink(missing_ok=True)
