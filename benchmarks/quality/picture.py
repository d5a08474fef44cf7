# A picture of a result: a held-out view without and with fixing beside its photo.
#   python -m benchmarks.quality.picture results/demo docs/demo.jpg
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from evaluation.pictures import draw_error_map, join_side_by_side, to_uint8
from evaluation.sheet import Cell, draw_caption
from reconstruction.result import ResultFolder
from runtime.command import run_command
from runtime.files import atomic_path
from runtime.flags import parse_command


@dataclass(frozen=True)
class Options:
    """Show a held-out view of the last evaluation: its versions side by side, and below them their
    errors."""

    result: tyro.conf.Positional[Path]
    """Folder of a run."""
    output: tyro.conf.Positional[Path]
    """The picture to write."""
    view: int = 0
    """Which held-out view."""


def main() -> None:
    """Write the picture; ValueError if the run has no renders or no such view."""
    options = parse_command(Options, "python -m benchmarks.quality.picture")
    folder = ResultFolder(options.result)
    steps = [int(step.name) for step in (folder.path / "renders" / "val").glob("*")]
    if not steps:
        raise ValueError(f"{options.result} has no renders; give the folder of a run")
    own, vanilla = (f.val_renders(max(steps)) for f in (folder, folder.vanilla))
    name = f"{options.view:04d}.png"
    files = {
        "without fixing": vanilla / "Pred" / name,
        "distilled" if vanilla.exists() else "render": own / "Pred" / name,
        "final render fixed too": own / "Post" / name,
        "ground truth": own / "GT" / name,
    }
    pictures = {title: np.asarray(Image.open(f)) for title, f in files.items() if f.exists()}
    if "ground truth" not in pictures:
        raise ValueError(f"--view {options.view}: {options.result} has no such held-out view")
    photo = pictures["ground truth"]
    line = max(16, photo.shape[1] // 11)
    columns = []
    for title, picture in pictures.items():
        strip = np.asarray(draw_caption(Cell(picture, title), picture.shape[1], line))
        below = (
            np.full_like(photo, 255) if title == "ground truth" else draw_error_map(picture, photo)
        )
        columns.append(np.concatenate((strip, picture, below)))
    with atomic_path(options.output) as temporary:
        Image.fromarray(to_uint8(join_side_by_side(columns, gap=4))).save(temporary, quality=88)


if __name__ == "__main__":
    run_command(main)
