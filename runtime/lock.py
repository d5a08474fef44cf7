# One run at a time in a folder.
from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.files import make_writable_folder

log = logging.getLogger(__name__)

NAME = ".lock"


@contextmanager
def locked_folder(folder: Path | str, remedy: str) -> Iterator[None]:
    """Within the block the folder, which is created, is this process's.

    Raises ValueError if it is another's, naming its process id and host, with the `remedy`;
    PermissionError if nothing can be written there. The lock goes with the process, however it
    ends. Use it once at a time for a folder.
    """
    folder = Path(folder)
    created = not folder.exists()
    path = make_writable_folder(folder) / NAME
    handle = _lock(path, folder, remedy)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, or it might be another's
        os.close(handle)
        if created:
            with suppress(OSError):  # not empty
                folder.rmdir()


def _lock(path: Path, folder: Path, remedy: str) -> int:
    """The open and locked file, with this process's id and host in it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # not flock(2), which forked data workers would share and keep
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(handle, 1000).decode(errors="replace").strip()
            os.close(handle)
            raise ValueError(
                f"{folder} is in use by another run ({holder or 'which is just starting'}): "
                f"wait for it, stop it, or {remedy}"
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): start no second run there", folder, error)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)  # whoever held it has removed it meanwhile
    os.truncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return handle
