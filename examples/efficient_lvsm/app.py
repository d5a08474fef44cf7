# Incremental inference in the browser: views are added to a scene and removed, see --help.
from __future__ import annotations

import logging
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

if not __package__:  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from runtime.command import choose_device, run_command
from runtime.flags import parse_command
from runtime.ports import LOCAL, check_port

log = logging.getLogger(__name__)

LOOPBACK = (LOCAL, "localhost")


@dataclass(frozen=True)
class Options:
    """A page in the browser: add and remove input views of a scene, and see a new view change.

    Scenes are captures, RealEstate10K's lists, or both; the first 30 are offered. Photos are
    cropped to squares of the size that the weights were trained on."""

    captures: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Captures, in any format that python -m scenes reads."""
    lists: tuple[Path, ...] = ()
    """full_list.txt of utils/process_data.py, or folders of chunks *.torch."""
    checkpoint: Path | None = None
    """Weights, ours or the original's (efficient_lvsm_inc_demo.pt). Default: the included ones."""
    views: int = 6
    """Most input views of a scene."""
    window: int | None = None
    """Consecutive photos of a scene that take part, from its middle: as far apart as the weights
    were trained on, 192 for the original's. Default: all."""
    visitors: int = 8
    """Pages with a cache; of more, the one that was idle the longest begins anew."""
    device: str | None = None
    """Default: cuda if available, else cpu."""
    dtype: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 where the device multiplies it."""
    host: str = LOCAL
    """Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for the network."""
    port: int = 7860
    """Port of the page."""

    def __post_init__(self) -> None:
        for flag, least in (("views", 2), ("visitors", 1)):
            if getattr(self, flag) < least:
                raise ValueError(f"--{flag} {getattr(self, flag)} must be at least {least}")
        if self.window is not None and self.window < 3:
            raise ValueError(f"--window {self.window} must be at least 3: two views and a target")
        if not self.captures and not self.lists:
            raise ValueError("no scene: name captures, or lists of scenes with --lists")


def main(options: Options) -> None:
    """Read the scenes and serve the page. Raises ValueError or OSError, naming the file or flag."""
    check_port(options.host, options.port)
    device = choose_device(options.device)
    with tempfile.TemporaryDirectory(prefix="efficient-lvsm-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # where Gradio puts the pictures that it shows

        from examples.efficient_lvsm.demo.photos import list_photos
        from examples.efficient_lvsm.demo.visits import Visits
        from generators.efficient_lvsm import load_model
        from generators.session import Session
        from runtime.arguments import naming_flags

        with naming_flags(checkpoint="--checkpoint"):
            model = load_model(options.checkpoint, device=device, dtype=options.dtype)
        size, patch = model.config.image_size, model.config.patch
        scenes = list_photos(options.captures, options.lists, size, patch, options.window)

        from examples.efficient_lvsm.demo.page import Page

        visits = Visits(
            lambda: Session(model, capacity=options.views), scenes, most=options.visitors
        )
        if options.host not in LOOPBACK:
            log.warning("--host %s: whoever reaches this machine can use the page", options.host)
        Page(visits, options.views).serve(options.host, options.port)


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python app.py")))
