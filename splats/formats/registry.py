# Every format of splats by the ending of its files' names.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from splats.formats import checkpoint, gltf, ksplat, packed, ply
from splats.gaussians import Splats


@dataclass(frozen=True)
class Format:
    """A file format of splats.

    read: the splats in a file. write: splats and their step to a file; None: it is only read.
    patterns: where trainers put such files in a result folder. is_checkpoint: such files are
    checkpoints of `splats.formats.checkpoint`, with a step, and perhaps a history and a confidence.
    precision: what is left of the values, in a few words; empty: all of it. sh_degree: the highest
    that the format holds.
    """

    read: Callable[[Path], Splats]
    write: Callable[[Path, Splats, int], None] | None = None
    patterns: tuple[str, ...] = ()
    is_checkpoint: bool = False
    precision: str = ""
    sh_degree: int = 3


def _read_checkpoint(path: Path) -> Splats:
    return checkpoint.read(path)[0]


def _read_ply(path: Path) -> Splats:
    return packed.read(path, "compressed.ply") if ply.is_compressed(path) else ply.read(path)


def _write_ply(path: Path, splats: Splats, step: int) -> None:
    ply.write(path, splats)  # which has no place for a step


def _write_gltf(path: Path, splats: Splats, step: int) -> None:
    gltf.write(path, splats)


def _write_packed(path: Path, splats: Splats, step: int, *, kind: str) -> None:
    packed.write(path, splats, kind)


def _packed(kind: str, precision: str, sh_degree: int = 3) -> Format:
    return Format(
        _read_ply if kind.endswith("ply") else partial(packed.read, kind=kind),
        partial(_write_packed, kind=kind),
        precision=precision,
        sh_degree=sh_degree,
    )


# Of files of the same step in a folder, the first pattern's counts.
FORMATS = {
    ".pt": Format(
        _read_checkpoint,
        checkpoint.write,
        ("ckpts/ckpt_*_rank*.pt", "ckpt_*_rank*.pt"),
        is_checkpoint=True,
    ),
    ".pth": Format(_read_checkpoint, is_checkpoint=True, patterns=("chkpnt*.pth",)),  # Inria's
    ".ckpt": Format(
        _read_checkpoint, is_checkpoint=True, patterns=("nerfstudio_models/step-*.ckpt",)
    ),
    ".ply": Format(
        _read_ply,
        _write_ply,
        (  # gsplat's and ours, Inria's, and a bare folder
            "ply/point_cloud_*.ply",
            "point_cloud_*.ply",
            "point_cloud/iteration_*/point_cloud.ply",
            "iteration_*/point_cloud.ply",
            "point_cloud.ply",
        ),
    ),
    ".compressed.ply": _packed(
        "compressed.ply",
        "10 to 11 bits for positions and scales, 10 for rotations, 8 for colours and harmonics",
    ),
    ".splat": _packed("splat", "8 bits for rotations and colours; no harmonics above degree 0", 0),
    ".spz": _packed(
        "spz",
        "12 bits behind the point for positions, 10 for rotations, 8 for scales and colours, "
        "4 to 5 for harmonics",
    ),
    ".sog": _packed(
        "sog", "16 bits for positions, 8 for the rest; up to 65,536 different harmonics; reordered"
    ),
    "meta.json": Format(packed.read_unpacked_sog),  # of a .sog that is unpacked
    ".ksplat": Format(ksplat.read),
    ".glb": Format(gltf.read, _write_gltf),
    ".gltf": Format(gltf.read),
}


def find_format(path: Path | str) -> Format | None:
    """The format whose ending, the longest that fits, is that of the name; None if none fits."""
    name = Path(path).name.lower()
    endings = [ending for ending in FORMATS if name.endswith(ending)]
    return FORMATS[max(endings, key=len)] if endings else None


def list_written() -> list[str]:
    """The endings of the formats that can be written."""
    return sorted(ending for ending, format in FORMATS.items() if format.write is not None)
