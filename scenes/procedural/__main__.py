# python -m scenes.procedural OUT: write a procedural capture as a COLMAP scene.
from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from runtime.command import run_command
from runtime.flags import parse_command


@dataclass(frozen=True)
class Options:
    """Generate a scene from a seed and write its photos, cameras and points as a COLMAP scene."""

    out: tyro.conf.Positional[Path]
    """Folder to write."""
    seed: int = 0
    """The same seed gives the same scene and photos."""
    views: int = 60
    """Number of photos."""
    width: int = 512
    """Width of the photos in pixels."""
    height: int = 384
    """Height of the photos in pixels."""
    kind: Literal["room", "tabletop", "courtyard"] | None = None
    """Kind of scene; None: the seed decides."""
    path: Literal["orbit", "walk"] | None = None
    """Path of the camera; None: the seed decides."""
    points: int = 10000
    """Number of surface points in the COLMAP model."""
    overwrite: bool = False
    """Replace a folder that is not empty."""


def main(options: Options) -> None:
    """Write the scene; ValueError or OSError, naming the folder or flag, if that is impossible."""
    from scenes.procedural.writing import write

    folder = write(
        options.out,
        options.seed,
        kind=options.kind,
        n_views=options.views,
        width=options.width,
        height=options.height,
        path=options.path,
        points=options.points,
        overwrite=options.overwrite,
    )
    logging.getLogger(__name__).info("wrote %d photos to %s", options.views, folder)


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python -m scenes.procedural")))
