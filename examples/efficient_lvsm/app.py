# A page on which photos are added and taken away one by one, and views drawn from them:
#   python app.py CAPTURE --checkpoint efficient_lvsm_inc_demo.pt
from __future__ import annotations

import logging
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

if not __package__:  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from runtime.command import choose_device, run_command
from runtime.flags import parse_command

if TYPE_CHECKING:
    import gradio
    import numpy as np

    from generators.session import Session
    from models.efficient_lvsm import EfficientLVSM
    from scenes.cameras import Cameras

log = logging.getLogger(__name__)

MOST_SCENES = 30
FIRST = 2  # photos that a scene begins with
LONGEST = 512  # pixels of a picture's longer side on the page
HEIGHT = 360  # of the two pictures
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Options:
    """Show views of captures in a browser while photos are added and taken away.

    Latencies on the page are of the network; what the browser shows comes later. For figures take
    scripts/eval_efficiency.sh."""

    scenes: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Captures, in any format that python -m scenes reads; the first 30 are offered."""
    lists: tuple[Path, ...] = ()
    """Lists of RealEstate10K's scenes (full_list.txt), or folders of its chunks."""
    checkpoint: Path | None = None
    """Weights, ours or the original's (efficient_lvsm_inc_demo.pt). Default: the included ones."""
    views: int = 6
    """Most photos at a time."""
    device: str | None = None
    """Default: cuda if available, else cpu."""
    dtype: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 where the device multiplies it."""
    host: str = LOCAL[0]
    """Address to serve at; another one than this lets other machines in."""
    port: int = 7860
    """Port to serve at."""

    def __post_init__(self) -> None:
        if self.views < FIRST:
            raise ValueError(f"--views {self.views} must be at least {FIRST}")
        if not 0 < self.port < 65536:
            raise ValueError(f"--port {self.port} must lie in 1 to 65535")


@dataclass(frozen=True)
class Shown:
    """A scene's cameras, and its photos by number, [H,W,3] in [0,1]."""

    name: str
    cameras: Cameras
    read: object

    def photo(self, i: int):
        """A photo."""
        return self.read(i)


@dataclass
class Visit:
    """What one visitor sees: a scene, a session with some of its photos, the view asked for."""

    model: EfficientLVSM
    most: int
    scene: Shown | None = None
    session: Session | None = None
    photos: dict[int, int] = field(default_factory=dict)
    """Photo -> its id in the session, in the order in which they came."""
    target: int = 0
    lines: list[str] = field(default_factory=list)

    def __deepcopy__(self, memo: dict) -> Visit:
        """gradio copies a page's first state for every visitor: a visit of their own."""
        return Visit(self.model, self.most)

    def choose(self, scene: Shown) -> None:
        """Begin with a scene, and two photos that are far apart."""
        from generators.session import Session

        session = Session(self.model, capacity=self.most)
        session.set_frame(scene.cameras)  # of all cameras: photos to come do not change it
        self.scene, self.session, self.photos = scene, session, {}
        self.target = len(scene.cameras) // 2
        self.say(f"{scene.name}: {len(scene.cameras)} photos")
        for _ in range(min(FIRST, len(scene.cameras) - 1)):
            self.add()

    def next_photo(self) -> int | None:
        """The photo farthest from those that are there, of those that are not the view asked
        for; at first the one nearest to it. None where there is no other."""
        others = [
            i for i in range(len(self.scene.cameras)) if i not in self.photos and i != self.target
        ]
        if not others:
            return None
        places = self.scene.cameras.positions
        if not self.photos:
            return min(others, key=lambda i: (places[i] - places[self.target]).norm().item())
        there = places[list(self.photos)]
        return max(others, key=lambda i: (there - places[i]).norm(dim=1).min().item())

    def add(self) -> None:
        """Encode one photo more. ValueError where there is no room or none left."""
        if len(self.photos) >= self.most:
            raise ValueError(f"There is room for {self.most} photos: remove one first.")
        photo = self.next_photo()
        if photo is None:
            raise ValueError("All photos of the scene are there.")
        image = self.scene.photo(photo)
        start = time.perf_counter()
        (identity,) = self.session.add_views([image], self.scene.cameras[[photo]])
        self.photos[photo] = identity
        held = len(self.photos) * self.session.slot_bytes / 2**20
        self.say(f"added photo {photo} in {elapsed(start)}; the cache holds {held:.0f} MiB")

    def remove(self, photo: int | None = None) -> None:
        """Take a photo away, by default the last one. ValueError where there is none."""
        if not self.photos:
            raise ValueError("There is no photo to remove.")
        photo = list(self.photos)[-1] if photo is None else photo
        if photo not in self.photos:
            raise ValueError(f"Photo {photo} is not there.")
        start = time.perf_counter()
        self.session.remove([self.photos.pop(photo)])
        self.say(f"removed photo {photo} in {elapsed(start)}")

    def clear(self) -> None:
        """Take all photos away."""
        if self.session is not None:
            self.session.remove(list(self.photos.values()))
        self.photos = {}
        self.say("removed all photos")

    def render(self) -> np.ndarray | None:
        """The view asked for, uint8; None without photos."""
        from evaluation.metrics import measure_psnr
        from evaluation.pictures import to_uint8

        if not self.photos:
            return None
        start = time.perf_counter()
        (view,) = self.session.render(self.scene.cameras[[self.target]])
        text = elapsed(start)
        truth = self.scene.photo(self.target)
        psnr = measure_psnr(view.clamp(0, 1).permute(2, 0, 1)[None], truth.permute(2, 0, 1)[None])
        among = ", which is among the inputs" if self.target in self.photos else ""
        self.say(f"drew view {self.target}{among} in {text}: {psnr:.2f} dB")
        return to_uint8(view.clamp(0, 1))

    def say(self, text: str) -> None:
        """A line of the log."""
        self.lines = [*self.lines[-199:], text]


def enlarge(image: np.ndarray | None) -> np.ndarray | None:
    """A small picture several times as large, for browsers show them pixel by pixel."""
    times = 1 if image is None else max(1, HEIGHT // image.shape[0])
    return image if times == 1 else image.repeat(times, 0).repeat(times, 1)


def elapsed(start: float) -> str:
    """Milliseconds since then."""
    return f"{1e3 * (time.perf_counter() - start):.0f} ms"


def load_scenes(options: Options) -> list[Shown]:
    """The scenes to choose from. Raises ValueError or FileNotFoundError for what is none."""
    import scenes
    from scenes.re10k import list_scenes

    shown = []
    for path in options.scenes:
        scene = scenes.load(path, data_factor=0, longest_side=LONGEST, progress=False)
        shown.append(Shown(scene.path.resolve().name, scene.cameras, scene.image))
    for path in options.lists:
        shown += [show_processed(scene) for scene in list_scenes(path)[:MOST_SCENES]]
    if not shown:
        raise ValueError("name captures, or --lists of processed scenes")
    if len(shown) > MOST_SCENES:
        log.warning("%d scenes, of which the first %d are offered", len(shown), MOST_SCENES)
    return shown[:MOST_SCENES]


def show_processed(scene) -> Shown:
    """A scene of RealEstate10K, all of whose pictures have one size."""
    import numpy as np
    import torch

    from scenes.cameras import Cameras

    size = torch.tensor(scene.image(0).size).expand(len(scene), 2)
    cameras = Cameras(torch.from_numpy(scene.viewmats).float(), scene.Ks, size)

    def read(i: int) -> torch.Tensor:
        return torch.from_numpy(np.array(scene.image(i))).float() / 255

    return Shown(scene.name, cameras, read)


def build_page(scenes: list[Shown], model: EfficientLVSM, most: int) -> gradio.Blocks:
    """The page."""
    import gradio

    from evaluation.pictures import to_uint8

    lock = threading.Lock()  # one visitor's network at a time
    names = [f"{i + 1}. {scene.name}" for i, scene in enumerate(scenes)]

    def draw(visit: Visit) -> tuple:
        """What the page shows of a visit."""
        if visit.scene is None:  # the first one could not be shown
            return visit, None, None, [], "", "\n".join(visit.lines[::-1]), target, which
        view = enlarge(visit.render())
        truth = enlarge(to_uint8(visit.scene.photo(visit.target)))
        photos = [(to_uint8(visit.scene.photo(i)), f"photo {i}") for i in visit.photos]
        count = f"**{len(visit.photos)} of {visit.most} photos** are inputs."
        last = len(visit.scene.cameras) - 1
        slider = gradio.Slider(maximum=last, value=visit.target, interactive=True)
        choice = gradio.Dropdown(choices=["the last", *map(str, visit.photos)], value="the last")
        return visit, truth, view, photos, count, "\n".join(visit.lines[::-1]), slider, choice

    def act(visit: Visit, change) -> tuple:
        """The page after a change; what cannot be is a warning on it."""
        with lock:
            try:
                change()
            except (ValueError, OSError) as error:
                gradio.Warning(str(error))
                visit.say(str(error))
            return draw(visit)

    def choose(name: str, visit: Visit) -> tuple:
        return act(visit, lambda: visit.choose(scenes[names.index(name)]))

    def add(visit: Visit) -> tuple:
        return act(visit, visit.add)

    def remove(visit: Visit, photo: str) -> tuple:
        return act(visit, lambda: visit.remove(None if photo == "the last" else int(photo)))

    def clear(visit: Visit) -> tuple:
        return act(visit, visit.clear)

    def aim(visit: Visit, target: float) -> tuple:
        return act(visit, lambda: setattr(visit, "target", int(target)))

    png = {"format": "png", "buttons": ["fullscreen"]}
    with gradio.Blocks(title="Efficient-LVSM", analytics_enabled=False) as page:
        visit = gradio.State(Visit(model, most))
        gradio.Markdown("# Efficient-LVSM\nViews from posed photos, which come and go one by one.")
        with gradio.Row():
            scene = gradio.Dropdown(names, value=names[0], label="Scene", scale=2)
            target = gradio.Slider(0, 1, step=1, value=0, label="View to draw", scale=3)
        with gradio.Row():
            add_view = gradio.Button("Add view", variant="primary", elem_id="add")
            remove_view = gradio.Button("Remove view", elem_id="remove")
            which = gradio.Dropdown(["the last"], value="the last", label="which", elem_id="which")
            clear_views = gradio.Button("Clear", elem_id="clear")
        count = gradio.Markdown(elem_id="count")
        with gradio.Row():
            truth = gradio.Image(
                label="Photo", interactive=False, elem_id="truth", height=HEIGHT, **png
            )
            view = gradio.Image(
                label="Drawn", interactive=False, elem_id="view", height=HEIGHT, **png
            )
        photos = gradio.Gallery(
            label="Inputs", columns=6, object_fit="contain", height="auto", elem_id="photos"
        )
        lines = gradio.Textbox(label="Log", lines=8, max_lines=8, elem_id="log", interactive=False)
        shown = [visit, truth, view, photos, count, lines, target, which]
        hidden = {"show_progress": "hidden"}
        page.load(choose, [scene, visit], shown)
        scene.input(choose, [scene, visit], shown)
        add_view.click(add, [visit], shown, **hidden)
        remove_view.click(remove, [visit, which], shown, **hidden)
        clear_views.click(clear, [visit], shown, **hidden)
        target.release(aim, [visit, target], shown, **hidden)
    return page


def check_port(options: Options) -> None:
    """ValueError where the address cannot be served at."""
    import socket

    try:
        with socket.create_server((options.host, options.port)):
            pass
    except OSError as error:
        raise ValueError(
            f"--port {options.port} at {options.host} cannot be used ({error.strerror}): name "
            "another"
        ) from None
    if options.host not in LOCAL:
        log.warning("--host %s: whoever reaches this machine can use the page", options.host)


def main(options: Options) -> None:
    """Serve the page until Ctrl-C. Raises ValueError or OSError, naming the file or flag."""
    device = choose_device(options.device)
    check_port(options)

    from generators.efficient_lvsm import load_model
    from runtime.arguments import naming_flags

    with naming_flags(checkpoint="--checkpoint"):
        model = load_model(options.checkpoint, device=device, dtype=options.dtype)
    shown = load_scenes(options)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    page = build_page(shown, model, options.views)
    page.queue(max_size=32)
    page.launch(
        server_name=options.host,
        server_port=options.port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
    )
    log.info("http://%s:%d (Ctrl-C ends it)", options.host, options.port)
    threading.Event().wait()


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python app.py")))
