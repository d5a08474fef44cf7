# python -m splats convert IN OUT: the same splats in another format.
from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from runtime.command import run_command
from runtime.flags import parse_command

log = logging.getLogger(__name__)

USAGE = """usage: python -m splats convert IN OUT [--sh 0|1|2|3] [--overwrite]

Writes splats in another format; python -m splats convert --help names all of them.
python -m splats.view IN shows splats in the browser."""


@dataclass(frozen=True)
class Convert:
    """Write splats in the format that the ending of OUT names.

    Read:
      .ply             Inria, gsplat, nerfstudio, SuperSplat, Brush, Polycam, 2DGS, Mip-Splatting
      .compressed.ply  SuperSplat
      .splat .ksplat   antimatter15's and mkkellogg's viewers
      .spz             Niantic, versions 1 to 4
      .sog             PlayCanvas; also its meta.json beside the pictures
      .glb .gltf       glTF with KHR_gaussian_splatting
      .pt .pth .ckpt   checkpoints of gsplat, Inria (chkpnt*.pth) and nerfstudio
      a result folder  the newest splats of any of these trainers

    Written:
      .ply .pt .glb    every bit of float32 (.glb: but for rounding)
      .compressed.ply .splat .spz .sog
                       fewer bits; docs/formats.md has a table of what each one loses

    For example:
      python -m splats convert results/garden garden.spz
      python -m splats convert garden.compressed.ply garden.ply --sh 0
    """

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A file of splats, or a result folder."""
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The file to write."""
    sh: Literal[0, 1, 2, 3] = 3
    """Highest degree of the harmonics to write; less makes a smaller file."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace OUT if it exists."""


def main() -> None:
    """Convert, as the command line says; ValueError for another command."""
    command = sys.argv[1:2]
    if command in ([], ["-h"], ["--help"]):
        print(USAGE)
    elif command == ["convert"]:
        convert(parse_command(Convert, "python -m splats convert", args=sys.argv[2:]))
    else:
        raise ValueError(f"there is no command {command[0]}; see python -m splats --help")


def convert(options: Convert) -> None:
    """Read and write; ValueError or OSError names the file and what is wrong."""
    from splats import files
    from splats.formats.registry import find_format

    target = options.target
    files.check_written(target)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; give the name of a file to write")
    if target.exists() and not options.overwrite:
        raise ValueError(f"{target} exists; choose another name or give --overwrite")
    if options.source.is_dir():
        for file in files.find_files(options.source):
            log.info("reading %s", file)
    splats = files.load(options.source)
    if options.sh < splats.sh_degree:
        splats = splats.with_sh_degree(options.sh)
    elif splats.sh_degree < options.sh < Convert.sh:
        log.info(
            "--sh %d changes nothing: the splats have SH degree %d", options.sh, splats.sh_degree
        )
    files.save(target, splats)
    format = find_format(target)
    log.info(
        "wrote %s: %s Gaussians, SH degree %d, %.2f MB%s",
        target,
        f"{splats.count:,}",
        min(splats.sh_degree, format.sh_degree),
        target.stat().st_size / 1e6,
        f"; precision: {format.precision}" if format.precision else "",
    )


if __name__ == "__main__":
    run_command(main)
