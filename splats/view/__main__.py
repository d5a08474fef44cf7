# python -m splats.view PATH: look around in splats in the browser.
from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from runtime.command import run_command
from runtime.flags import parse_command


@dataclass(frozen=True)
class Config:
    """Show splats in the browser."""

    path: Annotated[Path, tyro.conf.Positional]
    """A file of splats (.ply, .pt, .spz, .sog, .glb, ...), or a result folder."""
    before: Path | None = None
    """Other splats of the same world to switch to (default: `vanilla` in the result folder)."""
    port: int = 8080
    """Port of the page."""
    host: str = "127.0.0.1"
    """Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for the network."""
    width: int | None = None
    """Longer side of the picture at rest, in pixels (default: from the measured speed)."""


def main() -> None:
    """Load the splats and serve the page until interrupted.

    ValueError or OSError, in one sentence, for a wrong flag, path or port.
    """
    config = parse_command(Config, "python -m splats.view")
    from splats.view.show import show

    show(**{f.name: getattr(config, f.name) for f in fields(config)})


if __name__ == "__main__":
    run_command(main)
