# python -m splats.view PATH: look around in splats in the browser.
from __future__ import annotations

import errno
import logging
import socket
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from runtime.command import run_command
from runtime.flags import parse_command

log = logging.getLogger(__name__)


LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Config:
    """Show splats in the browser."""

    path: Annotated[Path, tyro.conf.Positional]
    """A file of splats (.ply, .pt, .spz, .sog, .glb, ...), or a result folder."""
    before: Path | None = None
    """Other splats of the same world to switch to (default: `vanilla` in the result folder)."""
    port: int = 8080
    """Port of the page."""
    host: str = LOCAL
    """Address to listen on: 127.0.0.1 for this machine only, 0.0.0.0 for the network."""
    width: int | None = None
    """Longer side of the picture at rest, in pixels (default: from the measured speed)."""


def main() -> None:
    """Load the splats and serve the page until interrupted.

    ValueError or OSError, in one sentence, for a wrong flag, path or port.
    """
    config = parse_command(Config, "python -m splats.view")
    show(**{f.name: getattr(config, f.name) for f in fields(config)})


def show(
    path: Path,
    *,
    before: Path | None = None,
    port: int = 8080,
    host: str = LOCAL,
    width: int | None = None,
) -> None:
    """Serve the page until interrupted; arguments and errors as of the command."""
    import torch
    import viser

    from splats import files
    from splats.view.pictures import LARGEST, SMALLEST, choose_initial_view, measure_width
    from splats.view.viewer import Viewer

    logging.getLogger("websockets").setLevel(logging.WARNING)  # viser's; it logs every connection
    if width is not None and not SMALLEST <= width <= LARGEST:
        raise ValueError(f"--width {width} is outside {SMALLEST} to {LARGEST}")
    check_port(host, port)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    splats = files.load(path).to(device)
    if before is None and (path / "vanilla" / "ckpts").is_dir():
        before = path / "vanilla"
    splats_before = None if before is None else files.load(before).to(device)
    camera_file = path / "cameras.json"
    cameras = files.read_cameras(camera_file) if camera_file.exists() else None
    log.info("%s Gaussians from %s", f"{splats.count:,}", path)
    width = width or measure_width(splats, choose_initial_view(splats, cameras))
    check_port(host, port)  # again: viser would quietly take another one
    server = viser.ViserServer(host, port, verbose=False)
    viewer = Viewer(
        server,
        splats,
        cameras=cameras,
        width=width,
        before=splats_before,
        confidence=files.read_confidence(path),
        antialiased=files.read_antialiased(path),
    )
    log.info("open http://%s:%d (Ctrl-C stops)", host, server.get_port())
    viewer.run()


def check_port(host: str, port: int) -> None:
    """Raise OSError or ValueError, in one sentence, unless a server can listen there."""
    if not 0 < port < 65536:
        raise ValueError(f"--port {port} is not a port; choose one from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise OSError(f"port {port} is in use; choose another one with --port") from error
            raise OSError(
                f"cannot listen on --host {host} --port {port} ({error.strerror})"
            ) from error


if __name__ == "__main__":
    run_command(main)
