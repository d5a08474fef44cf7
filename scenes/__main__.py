# python -m scenes PATH: what is in a capture, and a contact sheet of it.
from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from runtime.command import run_command
from runtime.files import make_writable_folder
from runtime.flags import parse_command


@dataclass(frozen=True)
class Options:
    """Show what is in a capture: photos, a video, or poses of COLMAP, transforms.json (nerfstudio,
    instant-ngp), DL3DV-Benchmark, Metashape, RealityCapture, OpenSfM, OpenMVG, AliceVision,
    VisualSFM, Bundler, Polycam, Record3D or LLFF."""

    path: tyro.conf.Positional[Path]
    """Folder of the capture, or a video."""
    json: bool = False
    """Print only JSON."""
    data_factor: int = 1
    """Load photos at 1/N of their size."""
    split: Literal["gsplat", "difix", "filename", "json", "capture", "all"] | None = None
    """Rule of the train/test split (default: detected)."""
    test_every: int | None = None
    """Train on every N-th view and test on the others, as in Difix3D (1: `_train_` and `_eval_` in
    the names decide; 0: all train). With --split gsplat the opposite: test on every N-th view.
    Default: the split that the capture states, else every 8th view is held out."""
    split_file: Path | None = None
    """JSON file with lists of names, for the rule json."""
    image_folder: Path | None = None
    """Folder of the photos, if not the usual one; relative to PATH."""
    video_frames: int | None = None
    """Number of frames taken of a video (default: 3 a second, 60 to 150)."""
    normalize: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Recentre, align and scale the world."""
    contact_sheet: Path | None = None
    """Picture to write (default: results/NAME/contact_sheet.png, NAME being the capture's, or in
    the system's temporary folder if that cannot be written)."""


def main(options: Options) -> None:
    """Load the capture, write its contact sheet and print the summary.

    Raises ValueError or OSError, naming the file or flag.
    """
    from scenes.contact_sheet import check_sheet_file, write_contact_sheet
    from scenes.loading import load
    from scenes.summary import describe, summarize

    if options.json:
        logging.getLogger().setLevel(logging.ERROR)  # the JSON contains the notes
    if options.contact_sheet:
        check_sheet_file(options.contact_sheet)  # before any work
    scene = load(
        options.path,
        data_factor=options.data_factor,
        split=options.split,
        test_every=options.test_every,
        split_file=options.split_file,
        image_folder=options.image_folder,
        video_frames=options.video_frames,
        normalize=options.normalize,
        progress=not options.json,
    )
    sheet = write_contact_sheet(scene, options.contact_sheet or _default_sheet(scene.path))
    summary = summarize(scene) | {"contact_sheet": str(sheet)}
    print(json.dumps(summary, indent=2) if options.json else describe(scene, sheet))


def _default_sheet(path: Path) -> Path:
    name = path.resolve().name
    try:
        return make_writable_folder(Path("results") / name) / "contact_sheet.png"
    except OSError:
        return Path(tempfile.gettempdir()) / f"{name}_contact_sheet.png"


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python -m scenes")))
