# A page with the viewer, from files of splats.
from __future__ import annotations

import logging
from pathlib import Path

import torch
import viser

from runtime.ports import LOCAL, check_port
from splats import files
from splats.view.pictures import LARGEST, SMALLEST, choose_initial_view, measure_width
from splats.view.viewer import Viewer

log = logging.getLogger(__name__)


def show(
    path: Path,
    *,
    before: Path | None = None,
    port: int = 8080,
    host: str = LOCAL,
    width: int | None = None,
) -> None:
    """Serve the page until interrupted; arguments and errors as of the command."""
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
