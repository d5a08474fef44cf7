# python -m scenes.procedural OUT: write a procedural capture as a COLMAP scene.
from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from runtime.command import run_command
from scenes.procedural import write


@dataclass(frozen=True)
class Arguments:
    """Make a place from a seed, film it, and write photos, cameras and points."""

    out: tyro.conf.Positional[Path]
    """Folder of the scene to write."""
    seed: int = 0
    """The same seed gives the same place and photos."""
    views: int = 60
    width: int = 512
    height: int = 384
    kind: Literal["room", "tabletop", "courtyard"] | None = None
    """Of place; None: the seed chooses."""
    path: Literal["orbit", "walk"] | None = None
    """Of the camera; None: the seed chooses."""
    points: int = 10000
    """Surface points in the model."""
    overwrite: bool = False
    """Replace a folder that is not empty."""


def main() -> None:
    a = tyro.cli(Arguments, prog="python -m scenes.procedural")
    folder = write(
        a.out, a.seed, kind=a.kind, n_views=a.views, width=a.width, height=a.height, path=a.path,
        points=a.points, overwrite=a.overwrite,
    )  # fmt: skip
    logging.getLogger(__name__).info("wrote %d photos to %s", a.views, folder)


if __name__ == "__main__":
    run_command(main)
