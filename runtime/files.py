# Atomic files and folders: written under a temporary name beside their target, then renamed.
from __future__ import annotations

import errno
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

# what NumPy's tofile, torch.save and safetensors say, without an errno, when a write fails
WRITE_FAILURES = ("requested and", "PytorchStreamWriter", "inline_container", "I/O error")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path in the same folder, renamed to `path` on success, else removed.

    Where it cannot be written, an OSError of one sentence names `path` and why.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix, suffix = f".{path.stem}-", path.suffix
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=path.parent)
    except OSError as error:
        raise _rename(error, path) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes private files
        temporary.replace(path)
    except Exception as error:
        failure = _find_failure(error, temporary)
        if failure is None:
            raise
        raise _rename(failure, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _find_failure(error: Exception, temporary: Path) -> OSError | None:
    """The failure to write the file that the error is about; None if it is about something else."""
    if isinstance(error, OSError) and error.errno is not None:
        if error.strerror is None:  # the sentence of another atomic_path
            return None
        is_ours = error.filename is None or str(error.filename) == str(temporary)
        return error if is_ours else None
    if not any(words in str(error) for words in WRITE_FAILURES):
        return None
    try:  # the reason is lost in these: write more to learn it
        with temporary.open("ab") as file:
            file.write(bytes(1 << 20))
    except OSError as reason:
        return reason
    return OSError(errno.EIO, os.strerror(errno.EIO))


def _rename(error: OSError, path: Path) -> OSError:
    """The error in one sentence that names `path`, of the same type and errno."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "no space left on the disk" if full else error.strerror or str(error)
    named = type(error)(f"{path} cannot be written: {reason[:1].lower()}{reason[1:]}")
    named.errno = error.errno
    return named


def write_bytes(path: Path, data: bytes) -> Path:
    """Write `data` to `path` atomically, creating its folder; returns the path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_json(path: Path | str, data: object) -> Path:
    """Write `data` as strict JSON (RFC 8259) in one step and return the path.

    Paths, NumPy scalars and arrays, and tensors are converted. JSON has no NaN and no Infinity:
    such numbers become null, and a warning names them.
    """
    not_finite: list[str] = []
    text = json.dumps(_to_json(data, "", not_finite), indent=2, allow_nan=False, ensure_ascii=False)
    if not_finite:
        log.warning("%s: no finite number at %s; written as null.", path, ", ".join(not_finite))
    return write_bytes(path, (text + "\n").encode())


def _to_json(value: object, place: str, not_finite: list[str]) -> object:
    if isinstance(value, Mapping):
        return {str(key): _to_json(v, f"{place}/{key}", not_finite) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(v, f"{place}/{i}", not_finite) for i, v in enumerate(value)]
    if hasattr(value, "tolist"):  # NumPy's and torch's; neither is imported here
        return _to_json(value.tolist(), place, not_finite)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        not_finite.append(place)
        return None
    return value


def make_writable_folder(path: Path | str) -> Path:
    """Create the folder if it does not exist and test that a file can be written; returns it.

    Raises PermissionError if not, also for root if the folder is marked read-only.
    """
    path = Path(path)
    try:
        check_writable(path)
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise PermissionError(
            f"cannot write to the folder {path} ({error.strerror}); choose another one"
        ) from error
    return path


def check_writable(path: Path) -> None:
    """Raise OSError if the folder, or its nearest existing parent, is read-only; writes nothing."""
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not nearest.stat().st_mode & 0o222 or not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def replace_folder(new: Path, target: Path) -> Path:
    """Rename `new` to `target` and return it; an older one is deleted after that succeeded."""
    aside = new.with_name(f"{new.name}-old")
    try:
        if target.exists():
            target.rename(aside)
        new.rename(target)
    except BaseException:  # Ctrl-C too
        if aside.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    return target
