# The README's picture: a held-out view of a result, its photo and the error.
#   python -m benchmarks.picture results/demo docs/demo.jpg
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from evaluation.files import atomic_path
from evaluation.pictures import error_map, side_by_side
from scenes.command import run_command


@dataclass(frozen=True)
class Options:
    """Put render, photo and error map of the last evaluation side by side."""

    result: tyro.conf.Positional[Path]
    """Folder of a run."""
    output: tyro.conf.Positional[Path]
    """The picture to write."""
    view: int = 0
    """Which held-out view."""


def main() -> None:
    options = tyro.cli(Options)
    steps = [folder for folder in (options.result / "renders" / "val").glob("*")]
    if not steps:
        raise ValueError(f"{options.result} has no renders; give the folder of a run")
    folder = max(steps, key=lambda step: int(step.name))
    render, photo = (
        np.asarray(Image.open(folder / kind / f"{options.view:04d}.png")) for kind in ("Pred", "GT")
    )
    picture = side_by_side([render, photo, error_map(render, photo)])
    with atomic_path(options.output) as temporary:
        Image.fromarray(picture).resize(
            (picture.shape[1] * 3 // 2, picture.shape[0] * 3 // 2), Image.Resampling.LANCZOS
        ).save(temporary, quality=90)


if __name__ == "__main__":
    run_command(main)
