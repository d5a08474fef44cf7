# Splats in formats that store less than 32 bits a value: SuperSplat's compressed .ply, .splat, .spz
# and .sog. GaussForge, a native library, converts them from and to a plain .ply. It runs in a
# process of its own, because it does not check all that a damaged file can hold.
from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from runtime.files import atomic_path
from splats.formats import ply
from splats.gaussians import NAMES, Splats

log = logging.getLogger(__name__)

SPZ_REACH = 2047.0  # 24 bits of which 12 are a fraction
SPZ_VERSIONS = (1, 2, 3, 4)
SOG_PALETTE = 65_536
# The least and largest values that formats hold; positions of .spz are refused beyond SPZ_REACH.
LIMITS = {
    "spz": {"scales": (-10.0, 5.9375), "sh0": (-3.33, 3.33), "shN": (-1.0, 127 / 128)},
    "compressed.ply": {"scales": (-20.0, 20.0), "shN": (-4.0, 4.0)},
    "splat": {"scales": (-87.0, 88.0), "sh0": (-1.77, 1.77)},
}
WORDS = {"scales": "log scales", "sh0": "colours", "shN": "harmonics"}
LEAST_MEMORY, MEMORY_FACTOR = 4 << 30, 400  # bytes, and bytes for each byte of the file
LEAST_SECONDS, SECONDS_PER_BYTE = 120, 20e-6
CONVERT = """
import sys
source, kind, target, target_kind, memory = sys.argv[1:]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
def fail(code, reason):
    sys.stderr.write("\\nreason: " + " ".join(str(reason).split()))
    sys.exit(code)
try:
    import gaussforge
    with open(source, "rb") as file:
        content = file.read()
    result = gaussforge.GaussForge().convert(content, kind, target_kind)
    if not result.get("data"):
        error = result.get("error", "no splats")
        fail(5 if "bad_alloc" in error else 3, error)
    with open(target, "wb") as file:
        file.write(result["data"])
except ImportError as error:
    fail(4, error)
except MemoryError as error:
    fail(5, error)
except OSError as error:
    fail(6, f"{error.errno} {error.filename or target}")
"""
DAMAGED, NOT_LOADED, NO_MEMORY, NOT_WRITTEN = 3, 4, 5, 6  # the exit codes of CONVERT


def read(path: Path | str, kind: str) -> Splats:
    """Splats of a file of a `kind`: "compressed.ply", "splat", "spz" or "sog".

    ValueError names the file and what is wrong, also where the decoder itself fails on it.
    """
    path = Path(path)
    version = _read_spz_version(path) if kind == "spz" else None
    if version is not None and version not in SPZ_VERSIONS:
        raise ValueError(
            f"{path} is .spz of version {version}; versions 1 to 4 are read; export it again"
        )
    return _read_file(path, path, kind)


def _read_spz_version(path: Path) -> int | None:
    """The version in the header, which only version 4 has outside of gzip; None without one."""
    with path.open("rb") as file:
        head = file.read(8)
        if head[:2] == b"\x1f\x8b":
            file.seek(0)
            try:
                with gzip.open(file) as content:
                    head = content.read(8)
            except (OSError, EOFError, zlib.error):
                return None
    return struct.unpack("<4xI", head)[0] if len(head) == 8 and head[:4] == b"NGSP" else None


def _read_file(name: Path, source: Path, kind: str) -> Splats:
    """Splats of the file `source`, which errors call `name`."""
    with _make_folder(name) as folder:
        plain = folder / "splats.ply"
        _convert(name, source, kind, plain, "ply")
        return ply.read(plain, name=name)


@contextmanager
def _make_folder(name: Path) -> Iterator[Path]:
    """A temporary folder; where its disk fails, an OSError names it and the file `name`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Path(folder)
        except OSError as error:
            unnamed = error.strerror is not None and error.filename is None
            if not unnamed and folder not in str(error):  # about another file
                raise
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "no space left on the disk" if full else error.strerror or str(error)
            raise OSError(
                f"{name} is converted by way of the temporary folder {Path(folder).parent}, which "
                f"cannot be written: {reason}; make room there or set TMPDIR to another folder"
            ) from error


def read_unpacked_sog(path: Path | str) -> Splats:
    """Splats of a meta.json of SOG, with the pictures that it names beside it; as `read`."""
    path = Path(path)
    meta = path.read_bytes()
    try:
        parts = [part for part in json.loads(meta).values() if isinstance(part, dict)]
        names = [str(name) for part in parts for name in part.get("files", ())]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a meta.json of SOG: it is no table of pictures; give another file"
        ) from error
    if not names:
        raise ValueError(f"{path} is not a meta.json of SOG: it names no pictures")
    for name in names:
        if len(name) > 255 or Path(name).name != name or not (path.parent / name).is_file():
            raise ValueError(
                f"{path} names {name[:80]!r}, which is not beside it; copy the whole folder"
            )
    with _make_folder(path) as folder:
        packed = folder / "splats.sog"
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("meta.json", meta)
            for name in dict.fromkeys(names):
                archive.writestr(name, (path.parent / name).read_bytes())
        return _read_file(path, packed, "sog")


def write(path: Path | str, splats: Splats, kind: str) -> None:
    """Write splats as a file of a `kind`, atomically; .spz in version 3.

    Values beyond LIMITS are clipped with a warning. ValueError for values that are not finite, and
    for positions beyond what the format holds.
    """
    path = Path(path)
    splats = _fit(path, splats, kind)
    reach = float(splats["means"].detach().abs().max())
    if kind == "spz" and reach > SPZ_REACH:
        raise ValueError(
            f"{path}: .spz holds positions up to {SPZ_REACH:,.0f} from the origin, these reach "
            f"{reach:,.0f}; write a .ply or move them"
        )
    if kind == "sog" and splats.sh_degree > 0 and splats.count > SOG_PALETTE:
        log.warning(
            "%s: the harmonics of more than %s Gaussians are clustered, which may take hours; none "
            "(--sh 0), a .spz or a .compressed.ply take seconds",
            path,
            f"{SOG_PALETTE:,}",
        )
    with _make_folder(path) as folder, atomic_path(path) as temporary:
        plain = folder / "splats.ply"
        if kind == "compressed.ply":  # GaussForge 0.6.0 mixes up the harmonics of this one
            ply.write(plain, splats.with_sh_degree(0), name=path)
            _convert(path, plain, "ply", temporary, kind)
            _append_harmonics(temporary, splats["shN"].detach().cpu().numpy())
        else:
            ply.write(plain, splats, name=path)
            _convert(path, plain, "ply", temporary, kind)


def _fit(path: Path, splats: Splats, kind: str) -> Splats:
    """The splats with unit quaternions, which GaussForge's .sog takes for granted, and values that
    the format can hold; a warning says how many are clipped."""
    values = {name: splats[name].detach() for name in NAMES}
    norms = values["quats"].norm(dim=1, keepdim=True)
    unrotated = values["quats"].new_tensor([1.0, 0.0, 0.0, 0.0])
    values["quats"] = torch.where(norms > 0, values["quats"] / norms, unrotated)
    for name, (least, most) in LIMITS.get(kind, {}).items():
        beyond = ((values[name] < least) | (values[name] > most)).flatten(1).any(1).sum()
        if beyond:
            log.warning(
                "%s: %s of %s Gaussians have %s beyond %g to %g, which is all that .%s holds; they "
                "are clipped",
                *(path, f"{int(beyond):,}", f"{splats.count:,}", WORDS[name], least, most, kind),
            )
            values[name] = values[name].clamp(least, most)
    return Splats(**values)


def _append_harmonics(path: Path, shN: np.ndarray) -> None:
    """Add the element `sh` of a compressed .ply: shN [N,K,3] in bytes, channel-major, of which 0
    and 255 are -4 and 4 and the others centres of 256 steps."""
    n, K, _ = shN.shape
    if K == 0:
        return
    header, data = path.read_bytes().split(b"end_header\n", 1)
    names = "".join(f"property uchar f_rest_{i}\n" for i in range(3 * K))
    steps = np.floor((shN.transpose(0, 2, 1) / 8 + 0.5) * 256).clip(0, 255).astype(np.uint8)
    element = f"element sh {n}\n{names}end_header\n".encode()
    path.write_bytes(header + element + data + steps.tobytes())


def _convert(name: Path, source: Path, kind: str, target: Path, target_kind: str) -> None:
    """Convert one file to another in a process of its own; errors name `name`."""
    size = source.stat().st_size
    if find_spec("gaussforge") is None:
        raise ValueError(f"{name} needs the package gaussforge; pip install gaussforge")
    memory = LEAST_MEMORY + MEMORY_FACTOR * size
    reads = target_kind == "ply"
    seconds = LEAST_SECONDS + SECONDS_PER_BYTE * size if reads else None
    command = [sys.executable, "-c", CONVERT, source, kind, target, target_kind, str(memory)]
    failed = "is damaged or not of its format; export it again" if reads else "cannot be written"
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{name} {failed} (no result after {seconds:.0f} s)") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        reason = "".join(last).removeprefix("reason: ")[:200] or f"exit code {done.returncode}"
        if done.returncode == NOT_WRITTEN:
            code, _, file = reason.partition(" ")
            raise OSError(int(code), os.strerror(int(code)), file)
        if done.returncode == NOT_LOADED:
            raise ValueError(
                f"{name} needs the package gaussforge, which cannot be loaded ({reason}); "
                "pip install --force-reinstall gaussforge"
            )
        killed = done.returncode == -signal.SIGKILL  # by Linux, when memory runs out
        if done.returncode == NO_MEMORY or killed or "bad_alloc" in reason:
            raise ValueError(
                f"{name} needs more memory than there is, or than the {memory / 2**30:.0f} GiB "
                "that a file of its size may take; free some or convert a smaller file"
            )
        raise ValueError(f"{name} {failed} (gaussforge: {reason})")
