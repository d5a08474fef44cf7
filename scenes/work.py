# Folders of unfinished work: a long job that was stopped continues from what is in its folder.
from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from runtime.files import check_writable, make_writable_folder, write_json

log = logging.getLogger(__name__)


@contextmanager
def work_folder(folder: Path, key: dict[str, object], job: str) -> Iterator[Path]:
    """The folder, empty unless it was left by a stopped run with the same key.

    key: all that results depend on, as JSON has it. job: what is done, for messages ("structure
    from motion"). The folder is removed in the end, also on a ValueError, whose cause would be met
    again. Raises PermissionError if it cannot be written, ValueError while another process works
    in it.
    """
    capture = folder.parent
    new = not capture.exists()
    try:
        check_writable(folder)
        make_writable_folder(folder)
    except OSError:
        raise PermissionError(
            f"{job} cannot save its result in {capture}; copy the capture to a folder you can "
            "write to"
        ) from None
    with (folder / "lock").open("w") as lock:
        _lock(lock, capture, job)
        try:
            _prepare(folder, key, job)
        except BaseException:  # there is nothing to continue
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            yield folder
        except ValueError:
            shutil.rmtree(folder, ignore_errors=True)
            if new:
                shutil.rmtree(capture, ignore_errors=True)
            raise
        except BaseException:  # Ctrl-C too
            log.warning("%s stopped; the same command continues it (%s)", job, folder)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _lock(lock: TextIO, capture: Path, job: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"another process works on {capture} ({job}); wait until it has finished"
        ) from None
    except OSError:
        pass  # a file system without locks


def _prepare(folder: Path, key: dict[str, object], job: str) -> None:
    """Empty the folder unless its key is this one; write the key."""
    file = folder / "key.json"
    try:
        same = json.loads(file.read_text()) == json.loads(json.dumps(key))
    except (OSError, ValueError):
        same = False
    if same:
        log.info("continuing the %s that was stopped (%s)", job, folder)
        return
    for old in folder.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
        elif old.name != "lock":
            old.unlink()
    write_json(file, key)
