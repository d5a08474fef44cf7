# A viewer in the browser: python -m splats.view RESULT_OR_PLY
# The pictures are our own renders, set behind viser's camera controls: small while the camera
# moves, so that a CPU keeps up, and sharp when it rests.
from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
import viser
from matplotlib import colormaps
from scipy.spatial.transform import Rotation
from torch import Tensor

from runtime.command import run_command
from scenes.cameras import Cameras
from splats import cameras_json, files, paths
from splats.gaussians import Splats
from splats.rasterize import rasterize

log = logging.getLogger(__name__)

MODES = ("colour", "depth", "alpha")
DEPTH_COLORS = torch.from_numpy(colormaps["turbo"](np.linspace(1, 0, 256))[:, :3]).float()
CONFIDENCE_COLORS = torch.from_numpy(colormaps["RdYlGn"](np.linspace(0, 1, 256))[:, :3]).float()
MOVING_SECONDS = 0.07  # a picture may take so long while the camera moves
STILL_SECONDS = 0.5  # and so long when it rests, for the resolution chosen at start
SETTLE_SECONDS = 0.15  # the camera rests when it has not moved for so long
SMALLEST, LARGEST = 160, 1920  # longer side of a picture, in pixels
PATH_FPS = 30


@dataclass(frozen=True)
class Config:
    """Show splats in the browser."""

    path: Annotated[Path, tyro.conf.Positional]
    """A .ply, a .pt, or a result folder (the newest splats in it)."""
    before: Path | None = None
    """Other splats of the same world to switch to; a result folder's own `vanilla` by default."""
    port: int = 8080
    """Where the browser finds the viewer."""
    host: str = "127.0.0.1"
    """Who may connect: this machine only, or with 0.0.0.0 the network."""
    width: int | None = None
    """Longer side of the resting picture in pixels; default: chosen from the measured speed."""


@dataclass(frozen=True)
class Start:
    """Where the viewer's camera begins: all [3], in the world; fov is vertical, in radians."""

    position: Tensor
    target: Tensor
    up: Tensor
    fov: float


@dataclass(frozen=True)
class Settings:
    """What the panel chose."""

    mode: str = "colour"
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sh_degree: int = 3
    antialiased: bool = False


@torch.no_grad()
def picture(
    splats: Splats, camera: Cameras, settings: Settings, confidence: Tensor | None = None
) -> tuple[np.ndarray, int]:
    """One view as uint8 [H,W,3], and how many Gaussians reach it; their confidence [N] in [0,1]
    for the mode of that name (without it: colour)."""
    device = splats["means"].device
    background = torch.tensor(settings.background, device=device)
    shown = {"sh_degree": min(settings.sh_degree, splats.sh_degree), "background": background}
    if settings.mode == "confidence" and confidence is not None:
        values = CONFIDENCE_COLORS.to(device)[(confidence.to(device) * 255).long()]
        shown = {"signals": values, "signal_background": background, "colors": False}
    render = rasterize(splats, camera.to(device), antialiased=settings.antialiased, **shown)
    alphas = render.alphas[0].cpu()
    if settings.mode == "alpha":
        image = alphas[..., None].expand(-1, -1, 3)
    elif settings.mode == "depth":
        image = _depth_colors(render.depths[0].cpu(), alphas)
    else:
        image = (render.signals if render.colors is None else render.colors)[0].cpu()
    in_view = int((render.info["radii"][0] > 0).all(-1).sum())
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy(), in_view


def _depth_colors(depths: Tensor, alphas: Tensor) -> Tensor:
    """Near is red, far is blue; the range is this picture's own, by inverse depth."""
    hit = alphas > 0.5
    if not hit.any():
        return torch.zeros(*depths.shape, 3)
    inverse = 1 / depths.clamp(min=1e-6)
    near, far = np.quantile(inverse[hit].numpy(), [0.98, 0.02])
    t = (1 - (inverse - far) / max(near - far, 1e-9)).clamp(0, 1)
    return DEPTH_COLORS[(t * 255).long()] * alphas[..., None]


def start_from_cameras(cameras: Cameras) -> Start:
    """The first camera's view."""
    pose = cameras.camtoworlds[0].cpu()
    position, forward = pose[:3, 3], pose[:3, 2]
    distance = (paths.looked_at(cameras) - position) @ forward
    spread = (cameras.positions.cpu() - position).norm(dim=1).max()
    distance = torch.maximum(distance, 0.1 * spread).clamp(min=1e-3)
    height = cameras.sizes[0, 1].item()
    fov = 2 * np.arctan(height / 2 / cameras.Ks[0, 1, 1].item())
    return Start(position, position + distance * forward, paths.up_direction(cameras), fov)


def start_from_splats(splats: Splats) -> Start:
    """A view of the bulk of the Gaussians from a little above; stray ones do not count.

    Up is -y (COLMAP's habit) or +z (aligned worlds), whichever is nearer to the axis along which
    the splats are flattest.
    """
    means = splats["means"].detach().cpu()
    means = means[:: max(1, len(means) // 100_000)]
    center = means.median(dim=0).values
    distances = (means - center).norm(dim=1)
    extent = distances.quantile(0.7).clamp(min=1e-3)
    bulk = (means - center)[distances <= distances.quantile(0.7)]
    flattest = torch.linalg.eigh(bulk.T @ bulk).eigenvectors[:, 0]
    minus_y, plus_z = torch.tensor([0.0, -1, 0]), torch.tensor([0.0, 0, 1])
    up = minus_y if (flattest @ minus_y).abs() >= (flattest @ plus_z).abs() else plus_z
    back = plus_z if up is minus_y else -minus_y
    return Start(center - extent * (2 * back - 0.7 * up), center, up, np.radians(50))


@dataclass
class Eye:
    """What one browser sees. Times are of time.monotonic()."""

    client: viser.ClientHandle
    changed: float = field(default_factory=time.monotonic)
    """When the camera or the settings changed last."""
    drawn: float = 0.0
    """The change that the picture on show has seen."""
    sharp: bool = False
    """Whether that picture has the full resolution."""
    played: float | None = None
    """When the path began to play; None if it does not."""


class Viewer:
    """Draws for every browser that is connected, one picture at a time, in `run`'s thread."""

    def __init__(
        self,
        server: viser.ViserServer,
        splats: Splats,
        *,
        cameras: Cameras | None = None,
        width: int = 480,
        before: Splats | None = None,
        confidence: Tensor | None = None,
        antialiased: bool = False,
    ) -> None:
        self.server = server
        self.splats = splats
        self.confidence = confidence
        self.choices = {"after": (splats, confidence)}
        if before is not None:
            self.choices["before"] = before, None
        self.settings = Settings(sh_degree=splats.sh_degree, antialiased=antialiased)
        self.width = width
        self.moving_width = min(width, 320)
        self.eyes: dict[int, Eye] = {}
        self.wake = threading.Event()
        self.start = start_from_splats(splats) if cameras is None else start_from_cameras(cameras)
        self.path = None
        if cameras is not None and len(cameras) > 1:
            seconds = min(60, max(8, len(cameras)))
            self.path = paths.interpolated(cameras, seconds * PATH_FPS)
        self._build_panel()
        server.scene.set_up_direction(self.start.up.numpy())
        server.initial_camera.position = self.start.position.numpy()
        server.initial_camera.look_at = self.start.target.numpy()
        server.initial_camera.up = self.start.up.numpy()
        server.initial_camera.fov = self.start.fov
        server.on_client_connect(self._connect)
        server.on_client_disconnect(lambda client: self.eyes.pop(client.client_id, None))

    def run(self) -> None:
        """Draw until interrupted."""
        while True:
            self.wake.wait(self.step())
            self.wake.clear()

    def step(self) -> float | None:
        """Draw what is due for every browser; seconds until more is due, None if nothing is."""
        due = []
        for eye in list(self.eyes.values()):
            if eye.played is not None:
                self._play(eye)
            if eye.drawn != eye.changed:
                self._draw(eye, self.moving_width)
            elif not eye.sharp and time.monotonic() - eye.changed >= SETTLE_SECONDS:
                self._draw(eye, self.width)
            if eye.played is not None:
                due.append(0.0)
            elif not eye.sharp:
                due.append(max(0.0, eye.changed + SETTLE_SECONDS - time.monotonic()))
        return min(due, default=None)

    def _draw(self, eye: Eye, width: int) -> None:
        changed = eye.changed
        view = eye.client.camera
        full = width >= self.width
        camera = browser_camera(view.wxyz, view.position, view.fov, view.aspect, width)
        began = time.monotonic()
        image, in_view = picture(self.splats, camera, self.settings, self.confidence)
        seconds = time.monotonic() - began
        eye.client.scene.set_background_image(image, format="jpeg", jpeg_quality=85)
        eye.drawn, eye.sharp = changed, full
        if full:
            self.status.content = (
                f"{self.splats.count:,} Gaussians, {in_view:,} in view  \n"
                f"{image.shape[1]} x {image.shape[0]} pixels in {1000 * seconds:.0f} ms"
            )
        if width == self.moving_width:  # steer towards pictures that take MOVING_SECONDS
            factor = np.clip((MOVING_SECONDS / max(seconds, 1e-4)) ** 0.5, 0.6, 1.3)
            self.moving_width = int(np.clip(width * factor, min(SMALLEST, self.width), self.width))

    def _play(self, eye: Eye) -> None:
        index = int((time.monotonic() - eye.played) * PATH_FPS)
        if index >= len(self.path):
            eye.played = None
            index = len(self.path) - 1
        self._move(eye, self.path[index])

    def _move(self, eye: Eye, camera: Cameras) -> None:
        pose = camera.camtoworlds[0].double().numpy()
        with eye.client.atomic():
            eye.client.camera.wxyz = Rotation.from_matrix(pose[:3, :3]).as_quat()[[3, 0, 1, 2]]
            eye.client.camera.position = pose[:3, 3]
        self._touch(eye)

    def _touch(self, eye: Eye) -> None:
        eye.changed, eye.sharp = time.monotonic(), False
        self.wake.set()

    def _connect(self, client: viser.ClientHandle) -> None:
        eye = Eye(client)
        self.eyes[client.client_id] = eye
        client.camera.on_update(lambda _: self._touch(eye))
        self.wake.set()

    def _build_panel(self) -> None:
        gui = self.server.gui
        gui.set_panel_label("Splats")
        gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False)
        self.status = gui.add_markdown(f"{self.splats.count:,} Gaussians")
        which = None
        if len(self.choices) > 1:
            which = gui.add_dropdown("Splats", tuple(self.choices))
        modes = MODES if self.confidence is None else (*MODES, "confidence")
        mode = gui.add_dropdown("Show", modes)
        background = gui.add_rgb("Background", (0, 0, 0))
        degree = gui.add_slider(
            "SH degree",
            0,
            max(1, self.splats.sh_degree),
            1,
            self.splats.sh_degree,
            disabled=self.splats.sh_degree == 0,
        )
        smooth = gui.add_checkbox("Antialiased", self.settings.antialiased)
        width = gui.add_slider("Resolution", SMALLEST, LARGEST, 8, self.width)
        if self.path is not None:
            play = gui.add_button("Play or stop the path")
            play.on_click(lambda event: self._toggle_path(event.client))
        level = gui.add_button("Level the horizon here")
        reset = gui.add_button("Back to the first view")

        def update(_: object) -> None:
            color = tuple(channel / 255 for channel in background.value)
            self.settings = Settings(mode.value, color, int(degree.value), smooth.value)
            self.width = int(width.value)
            if which is not None:
                self.splats, self.confidence = self.choices[which.value]
            self.moving_width = min(self.moving_width, self.width)
            for eye in list(self.eyes.values()):
                self._touch(eye)

        for handle in (which, mode, background, degree, smooth, width):
            if handle is not None:
                handle.on_update(update)

        @level.on_click
        def _(event: viser.GuiEvent) -> None:
            xyzw = np.roll(event.client.camera.wxyz, -1)
            self.server.scene.set_up_direction(-Rotation.from_quat(xyzw).as_matrix()[:, 1])

        @reset.on_click
        def _(event: viser.GuiEvent) -> None:
            with event.client.atomic():
                event.client.camera.up_direction = self.start.up.numpy()
                event.client.camera.position = self.start.position.numpy()
                event.client.camera.look_at = self.start.target.numpy()
                event.client.camera.fov = self.start.fov

    def _toggle_path(self, client: viser.ClientHandle) -> None:
        eye = self.eyes.get(client.client_id)
        if eye is not None:
            eye.played = time.monotonic() if eye.played is None else None
            self._touch(eye)


def browser_camera(
    wxyz: np.ndarray, position: np.ndarray, fov: float, aspect: float, width: int
) -> Cameras:
    """The camera of a browser window, whose longer side gets `width` pixels.

    wxyz [4] and position [3] are camera to world in OpenCV axes; fov is vertical, in radians.
    """
    shorter = max(1, round(width * min(aspect, 1 / aspect)))
    w, h = (width, shorter) if aspect >= 1 else (shorter, width)
    focal = h / 2 / np.tan(fov / 2)
    R = Rotation.from_quat(np.roll(wxyz, -1)).as_matrix().T
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = R, -R @ position
    K = np.array([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]])
    return Cameras(
        torch.from_numpy(viewmat).float()[None],
        torch.from_numpy(K).float()[None],
        torch.tensor([[w, h]]),
    )


def measured_width(splats: Splats, start: Start) -> int:
    """The longer side in pixels of a 4:3 picture that takes STILL_SECONDS, measured."""
    pose = paths.look_at(
        start.position.double().numpy()[None], start.target.double().numpy(), start.up.numpy()
    )[0]
    wxyz = Rotation.from_matrix(pose[:3, :3]).as_quat()[[3, 0, 1, 2]]
    settings = Settings(sh_degree=splats.sh_degree)
    seconds = {}
    for width in (160, 160, 160, 480, 480):  # the first one also compiles or warms up
        camera = browser_camera(wxyz, pose[:3, 3], start.fov, 4 / 3, width)
        began = time.monotonic()
        picture(splats, camera, settings)
        seconds[width] = min(seconds.get(width, np.inf), time.monotonic() - began)
    per_pixel = max(seconds[480] - seconds[160], 1e-4) / (480**2 - 160**2)  # of a square
    fixed = max(0.0, seconds[160] - 160**2 * per_pixel)
    pixels = max(STILL_SECONDS - fixed, 0.05) / per_pixel
    return int(np.clip(pixels**0.5, 240, 1280)) // 8 * 8


def check_port(host: str, port: int) -> None:
    """OSError or ValueError, as one sentence, unless a server can listen there."""
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


def main() -> None:
    config = tyro.cli(Config)
    logging.getLogger("websockets").setLevel(logging.WARNING)  # viser's; it tells every connection
    if config.width is not None and not SMALLEST <= config.width <= LARGEST:
        raise ValueError(f"--width {config.width} is outside {SMALLEST} to {LARGEST}")
    check_port(config.host, config.port)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    splats = files.load(config.path).to(device)
    before = config.before
    if before is None and (config.path / "vanilla" / "ckpts").is_dir():
        before = config.path / "vanilla"
    other = None if before is None else files.load(before).to(device)
    sure = files.confidence(config.path)
    camera_file = config.path / "cameras.json"
    cameras = cameras_json.read(camera_file) if camera_file.exists() else None
    log.info("%s Gaussians from %s", f"{splats.count:,}", config.path)
    start = start_from_splats(splats) if cameras is None else start_from_cameras(cameras)
    width = config.width or measured_width(splats, start)
    check_port(config.host, config.port)  # again: viser would quietly take another one
    server = viser.ViserServer(config.host, config.port, verbose=False)
    shown = {"before": other, "confidence": sure, "antialiased": files.antialiased(config.path)}
    viewer = Viewer(server, splats, cameras=cameras, width=width, **shown)
    log.info("open http://%s:%d (Ctrl-C stops)", config.host, server.get_port())
    viewer.run()


if __name__ == "__main__":
    run_command(main)
