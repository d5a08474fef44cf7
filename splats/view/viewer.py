# The viewer: our own pictures behind viser's camera controls, small while the camera moves, so that
# a CPU keeps up, and sharp when it rests.
from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import viser
from scipy.spatial.transform import Rotation
from torch import Tensor

from scenes.cameras import Cameras
from splats import paths
from splats.gaussians import Splats
from splats.view.pictures import (
    LARGEST,
    MODES,
    SMALLEST,
    Settings,
    choose_initial_view,
    make_browser_camera,
    render_picture,
)

MOVING_SECONDS = 0.07  # time for a picture while the camera moves
SETTLE_SECONDS = 0.15  # the camera rests when it has not moved for so long
PATH_FPS = 30


@dataclass
class Browser:
    """The state of one connected browser. Times are of time.monotonic()."""

    client: viser.ClientHandle
    changed_at: float = field(default_factory=time.monotonic)
    """When the camera or the settings changed last."""
    drawn_change: float = 0.0
    """The `changed_at` of the picture that is shown."""
    sharp: bool = False
    """Whether that picture has the full resolution."""
    playing_since: float | None = None
    """When the path began to play; None if it does not."""


class Viewer:
    """Draws for every connected browser, one picture at a time, in `run`'s thread.

    cameras: the capture's; the first is the initial view, and a path leads through them. width: of
    the longer side of a picture at rest, in pixels. before: other splats to switch to. confidence
    [N] in [0,1] adds the mode of that name.
    """

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
        self.browsers: dict[int, Browser] = {}
        self.wake = threading.Event()
        self.start = choose_initial_view(splats, cameras)
        self.path = None
        if cameras is not None and len(cameras) > 1:
            seconds = min(60, max(8, len(cameras)))
            self.path = paths.interpolate_path(cameras, seconds * PATH_FPS)
        self._build_panel()
        server.scene.set_up_direction(self.start.up.numpy())
        server.initial_camera.position = self.start.position.numpy()
        server.initial_camera.look_at = self.start.target.numpy()
        server.initial_camera.up = self.start.up.numpy()
        server.initial_camera.fov = self.start.fov
        server.on_client_connect(self._connect)
        server.on_client_disconnect(lambda client: self.browsers.pop(client.client_id, None))

    def run(self) -> None:
        """Draw until interrupted."""
        while True:
            self.wake.wait(self.step())
            self.wake.clear()

    def step(self) -> float | None:
        """Draw what is due for every browser.

        Returns the seconds until more is due, None if nothing is.
        """
        due = []
        for browser in list(self.browsers.values()):
            if browser.playing_since is not None:
                self._play(browser)
            if browser.drawn_change != browser.changed_at:
                self._draw(browser, self.moving_width)
            elif not browser.sharp and time.monotonic() - browser.changed_at >= SETTLE_SECONDS:
                self._draw(browser, self.width)
            if browser.playing_since is not None:
                due.append(0.0)
            elif not browser.sharp:
                due.append(max(0.0, browser.changed_at + SETTLE_SECONDS - time.monotonic()))
        return min(due, default=None)

    def _draw(self, browser: Browser, width: int) -> None:
        changed = browser.changed_at
        view = browser.client.camera
        full = width >= self.width
        camera = make_browser_camera(view.wxyz, view.position, view.fov, view.aspect, width)
        began = time.monotonic()
        image, in_view = render_picture(self.splats, camera, self.settings, self.confidence)
        seconds = time.monotonic() - began
        browser.client.scene.set_background_image(image, format="jpeg", jpeg_quality=85)
        browser.drawn_change, browser.sharp = changed, full
        if full:
            self.status.content = (
                f"{self.splats.count:,} Gaussians, {in_view:,} in view  \n"
                f"{image.shape[1]} x {image.shape[0]} pixels in {1000 * seconds:.0f} ms"
            )
        if width == self.moving_width:  # steer towards pictures that take MOVING_SECONDS
            factor = np.clip((MOVING_SECONDS / max(seconds, 1e-4)) ** 0.5, 0.6, 1.3)
            self.moving_width = int(np.clip(width * factor, min(SMALLEST, self.width), self.width))

    def _play(self, browser: Browser) -> None:
        index = int((time.monotonic() - browser.playing_since) * PATH_FPS)
        if index >= len(self.path):
            browser.playing_since = None
            index = len(self.path) - 1
        self._move(browser, self.path[index])

    def _move(self, browser: Browser, camera: Cameras) -> None:
        pose = camera.camtoworlds[0].double().numpy()
        with browser.client.atomic():
            browser.client.camera.wxyz = Rotation.from_matrix(pose[:3, :3]).as_quat()[[3, 0, 1, 2]]
            browser.client.camera.position = pose[:3, 3]
        self._touch(browser)

    def _touch(self, browser: Browser) -> None:
        browser.changed_at, browser.sharp = time.monotonic(), False
        self.wake.set()

    def _connect(self, client: viser.ClientHandle) -> None:
        browser = Browser(client)
        self.browsers[client.client_id] = browser
        client.camera.on_update(lambda _: self._touch(browser))
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
            for browser in list(self.browsers.values()):
                self._touch(browser)

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
        browser = self.browsers.get(client.client_id)
        if browser is not None:
            browser.playing_since = time.monotonic() if browser.playing_since is None else None
            self._touch(browser)
