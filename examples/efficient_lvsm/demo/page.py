# The demo's page, by Gradio: what its controls do to a visit, and how a visit looks.
from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from evaluation.pictures import to_uint8
from examples.efficient_lvsm.demo.visits import Visit, Visits

log = logging.getLogger(__name__)

COLUMNS = 6  # of the gallery
HOUR = 3600  # seconds that files of pictures stay
ANY = -1  # a choice that is left to the visit
FARTHEST, LAST = ("the farthest from those there", ANY), ("the last one added", ANY)
ABOUT = """# Efficient-LVSM
New views from posed photos in one pass. Each input view is encoded once and stays in a cache, so
that views are added and removed without the others being encoded again."""
CSS = """
.picture img { width: 100%; height: 100%; object-fit: contain; }
#gallery .grid-wrap { padding-top: 2.4rem; }
.caption-label { font-size: 0.75rem; max-width: 95%; }
#status { font-variant-numeric: tabular-nums; }
#log textarea { font-family: monospace; font-size: 0.8rem; }
"""


class Page:
    """The controls, the pictures and the log of visits with at most `views` input views."""

    def __init__(self, visits: Visits, views: int) -> None:
        self.visits, self.views = visits, views
        # no analytics: nothing is asked of other machines
        with gr.Blocks(
            title="Efficient-LVSM",
            analytics_enabled=False,
            delete_cache=(HOUR, HOUR),
            fill_width=True,
        ) as self.blocks:
            gr.Markdown(ABOUT)
            with gr.Row():
                with gr.Column(scale=2, min_width=280):
                    self.make_controls()
                with gr.Column(scale=5):
                    self.make_pictures()
            self.log = gr.Textbox(
                label="Log (newest first)",
                lines=8,
                max_lines=8,
                interactive=False,
                autoscroll=False,
                elem_id="log",
            )
            self.connect()

    def make_controls(self) -> None:
        """Scene, target, and what adds and removes views."""
        names = [(scene.name, i) for i, scene in enumerate(self.visits.scenes)]
        self.scene = gr.Dropdown(names, value=0, label="Scene", elem_id="scene")
        self.target = gr.Slider(0, 1, step=1, label="Target view", elem_id="target")
        self.status = gr.Markdown(elem_id="status")
        self.next = gr.Dropdown([FARTHEST], value=ANY, label="View to add", elem_id="next")
        self.add = gr.Button("Add view", variant="primary", elem_id="add")
        self.there = gr.Dropdown([LAST], value=ANY, label="View to remove", elem_id="there")
        with gr.Row():
            self.remove = gr.Button("Remove view", elem_id="remove", min_width=100)
            self.clear = gr.Button("Clear", elem_id="clear", min_width=100)

    def make_pictures(self) -> None:
        """The target's photo beside the prediction, and the input views."""
        common = {"format": "png", "interactive": False}
        with gr.Row():
            self.truth, self.prediction = (
                gr.Image(
                    label=label,
                    height=380,
                    buttons=["fullscreen"],
                    elem_id=label.lower(),
                    elem_classes="picture",
                    **common,
                )
                for label in ("Photo", "Prediction")
            )
        self.gallery = gr.Gallery(
            label="Input views (a click chooses the one to remove)",
            columns=COLUMNS,
            fit_columns=False,
            height=250,
            object_fit="contain",
            allow_preview=False,
            buttons=[],
            elem_id="gallery",
            **common,
        )

    def connect(self) -> None:
        """What each control does."""
        own = {"outputs": self.outputs, "api_visibility": "private", "show_progress": "minimal"}
        self.blocks.load(self.choose, [self.scene], **own)
        # a click on an option is two inputs in Gradio 6.31, and one change
        self.scene.change(self.choose, [self.scene], **own)
        aim, clear = self.act(Visit.aim), self.act(lambda visit, _: visit.clear())
        add, remove = self.act(Visit.add), self.act(Visit.remove)
        self.target.input(aim, [self.scene, self.target], trigger_mode="always_last", **own)
        self.add.click(add, [self.scene, self.next], **own)
        self.remove.click(remove, [self.scene, self.there], **own)
        self.clear.click(clear, [self.scene], **own)
        hidden = {"api_visibility": "private", "show_progress": "hidden"}
        self.gallery.select(self.point, None, self.there, **hidden)
        self.blocks.unload(self.leave)

    @property
    def outputs(self) -> list[gr.components.Component]:
        """All that `show` has a value for."""
        controls = [self.target, self.status, self.next, self.add]
        controls += [self.there, self.remove, self.clear]
        return [*controls, self.truth, self.prediction, self.gallery, self.log]

    def show(self, visit: Visit | None) -> list:
        """Values of the outputs; without a visit, of a scene that cannot be shown, nothing."""
        if visit is None:
            idle, skip = gr.Button(interactive=False), gr.skip()
            controls = [skip, "", skip, idle, skip, idle, idle]
            return [*controls, gr.Image(None, label="Photo"), None, [], ""]
        names, frames = visit.photos.names, list(visit.frames.values())
        psnr = "" if visit.psnr is None else f" · PSNR **{visit.psnr:.2f} dB**"
        others = [FARTHEST, *((names[i], i) for i in visit.others())]
        there = [LAST, *((names[i], i) for i in frames)]
        return [
            gr.Slider(maximum=len(names) - 1, value=visit.target),
            f"**{len(frames)}** of {self.views} input views active{psnr}",
            gr.Dropdown(others, value=ANY),
            gr.Button(interactive=not visit.is_full),
            gr.Dropdown(there, value=ANY),
            *(gr.Button(interactive=bool(frames)) for _ in ("remove", "clear")),
            gr.Image(to_uint8(visit.truth), label=f"Photo {names[visit.target]}"),
            None if visit.prediction is None else to_uint8(visit.prediction),
            [(to_uint8(visit.images[i]), Path(names[i]).stem) for i in frames],
            "\n".join(reversed(visit.log)),
        ]

    def act(self, change: Callable[[Visit, int | None], None]) -> Callable[..., list]:
        """A callback that changes a visit by the value of a control; a mistake is a warning."""

        def run(request: gr.Request, scene: int, value: int = ANY) -> list:
            key = request.session_hash
            with self.visits.lock:
                try:
                    change(self.visits.find(key, scene), None if value == ANY else int(value))
                except Exception as error:
                    gr.Warning(explain(error))
                return self.show(self.visits.get(key))

        return run

    def choose(self, request: gr.Request, scene: int) -> list:
        """Begin with a scene."""
        with self.visits.lock:
            try:
                return self.show(self.visits.choose(request.session_hash, scene))
            except Exception as error:
                gr.Warning(explain(error))
                return self.show(None)

    def point(self, request: gr.Request, picture: gr.SelectData) -> int:
        """The frame of the gallery's picture that was clicked."""
        visit = self.visits.get(request.session_hash)
        return list(visit.frames.values())[picture.index] if visit else ANY

    def leave(self, request: gr.Request) -> None:
        """Free the memory of a page that was closed."""
        self.visits.leave(request.session_hash)

    def serve(self, host: str, port: int) -> None:
        """Serve until interrupted."""
        logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio's; it logs every request
        for name in ("no_proxy", "NO_PROXY"):  # Gradio asks its own server whether it is there
            before = filter(None, [os.environ.get(name)])
            os.environ[name] = ",".join([*before, "localhost", "127.0.0.1", host])
        self.blocks.queue(api_open=False).launch(
            server_name=host,
            server_port=port,
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=CSS,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            share=False,
            quiet=True,
            max_file_size="1kb",  # nothing is uploaded
            prevent_thread_lock=True,
        )
        log.info("open http://%s:%d (Ctrl-C stops)", host, port)
        try:
            threading.Event().wait()
        finally:
            self.blocks.close(verbose=False)


def explain(error: Exception) -> str:
    """A sentence for the visitor; what is no mistake of the input goes to the log as well."""
    if isinstance(error, ValueError | OSError | FloatingPointError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "the memory is not enough for another view or visitor"
    log.error("an action failed", exc_info=error)
    return f"this failed ({type(error).__name__}); the log of the command says more"
