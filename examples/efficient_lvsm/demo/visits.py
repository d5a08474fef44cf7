# What visitors of the demo do: each has a session of its own; all share one network.
from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from evaluation.metrics import measure_psnr
from examples.efficient_lvsm.demo.photos import Photos
from generators.session import Session
from runtime.text import format_count

log = logging.getLogger(__name__)

LINES = 200  # of a visit's log
FIRST = 2  # views that a scene begins with
MIB = 2**20

Answer = TypeVar("Answer")


class Visit:
    """A visitor's scene: the input views that are there, and the target as drawn from them.

    Normalised by all cameras of the scene, so that views come and go without moving it. All raise
    ValueError or FloatingPointError, as the session does.
    """

    def __init__(self, session: Session, photos: Photos) -> None:
        session.set_frame(photos.poses())
        self.session, self.photos = session, photos
        self.frames: dict[int, int] = {}  # by the session's ids, in the order of adding
        self.images: dict[int, Tensor] = {}  # of these frames
        self.target = photos.target
        self.prediction: Tensor | None = None
        self.psnr: float | None = None
        self.log: list[str] = []
        self.say(f"scene {photos.name}: {len(photos)} photos")
        self.aim(photos.target)

    @property
    def is_full(self) -> bool:
        """Whether there is no room, or no photo, for one more view."""
        return len(self.frames) >= self.session.capacity or not self.others()

    def others(self) -> list[int]:
        """The frames that can be added: neither there nor the target."""
        taken = {self.target, *self.frames.values()}
        return [i for i in range(len(self.photos)) if i not in taken]

    def farthest(self) -> int | None:
        """The frame whose camera is farthest from those that are there (at first from the mean of
        all); None if all are."""
        others = self.others()
        positions = self.photos.positions
        there = positions[list(self.frames.values())] if self.frames else positions.mean(0)[None]
        distances = np.linalg.norm(positions[others][:, None] - there, axis=2).min(
            1, initial=np.inf
        )
        return others[int(distances.argmax())] if others else None

    def add(self, frame: int | None = None) -> None:
        """Encode a photo, by default the farthest, and draw the target anew."""
        picked = self.farthest() if frame is None else frame
        if picked is None:
            raise ValueError("all photos of this scene are there already")
        if picked in self.frames.values():
            raise ValueError(f"{self.photos.names[picked]} is there already")
        image, camera = self.photos.load(picked)
        (added,), ms = self.time(lambda: self.session.add_views([image], camera))
        self.frames[added], self.images[picked] = picked, image
        why = ", the farthest" if frame is None else ""
        self.say(f"added {self.photos.names[picked]}{why}: encoded in {ms:.0f} ms")
        self.render()

    def remove(self, frame: int | None = None) -> None:
        """Take a view away, by default the last one added, and draw the target anew."""
        if not self.frames:
            raise ValueError("no view is there to remove")
        ids = {shown: i for i, shown in self.frames.items()}
        picked = next(reversed(ids)) if frame is None else frame
        if picked not in ids:
            raise ValueError(f"{self.photos.names[picked]} is not there")
        _, ms = self.time(lambda: self.session.remove([ids[picked]]))
        del self.frames[ids[picked]], self.images[picked]
        self.say(f"removed {self.photos.names[picked]} in {ms:.1f} ms")
        self.render()

    def clear(self) -> None:
        """Take all views away."""
        self.session.remove(self.session.views)
        self.frames.clear()
        self.images.clear()
        self.say("cleared")
        self.render()

    def aim(self, target: int) -> None:
        """Ask for the view of another photo."""
        self.truth, self.camera = self.photos.load(target)
        self.target = target
        self.say(f"target {self.photos.names[target]}")
        self.render()

    def render(self) -> None:
        """Draw the target from the views that are there; without any there is no picture."""
        self.prediction = self.psnr = None
        if not self.frames:
            return
        (self.prediction,), ms = self.time(lambda: self.session.render(self.camera))
        planes = (image.permute(2, 0, 1)[None] for image in (self.prediction, self.truth))
        self.psnr = measure_psnr(*planes)
        inputs, slot = format_count(len(self.frames), "view"), self.session.slot_bytes / MIB
        memory = f"{len(self.frames) * slot:.3g} of {self.session.capacity * slot:.3g}"
        self.say(f"rendered from {inputs} in {ms:.0f} ms; cache {memory} MiB; {self.psnr:.2f} dB")
        if self.target in self.frames.values():
            self.say("the target is among the views: the network has seen it")

    def time(self, run: Callable[[], Answer]) -> tuple[Answer, float]:
        """The answer, and the milliseconds that it took."""
        start = time.perf_counter()
        answer = run()
        device = self.session.model.colors.weight.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return answer, 1e3 * (time.perf_counter() - start)

    def say(self, text: str) -> None:
        """Add a line to the log."""
        self.log = [*self.log, f"{time.strftime('%H:%M:%S')}  {text}"][-LINES:]


class Visits:
    """The visits of all pages, by the pages' keys.

    begin: makes a session. Of more than `most` pages the one that was idle the longest loses its
    session; at its next action it begins anew. A lock keeps actions apart: the network and the
    memory are shared.
    """

    def __init__(self, begin: Callable[[], Session], scenes: Sequence[Photos], most: int) -> None:
        self.begin, self.scenes, self.most = begin, scenes, most
        self.visits: OrderedDict[str, Visit] = OrderedDict()
        self.lock = Lock()

    def choose(self, key: str, scene: int) -> Visit:
        """Begin with a scene and its first views. Raises as Visit."""
        self.visits.pop(key, None)  # memory is free before the new session takes its own
        while len(self.visits) >= self.most:
            self.visits.popitem(last=False)
            log.info("more than %d pages: the one idle the longest is forgotten", self.most)
        visit = Visit(self.begin(), self.scenes[scene])
        for _ in range(FIRST):
            if not visit.is_full:
                visit.add()
        self.visits[key] = visit
        return visit

    def find(self, key: str, scene: int) -> Visit:
        """The visit of a page, or a new one of this scene if it was forgotten. Raises as Visit."""
        if key not in self.visits:
            visit = self.choose(key, scene)
            visit.say("this page had been forgotten: begun anew")
        self.visits.move_to_end(key)
        return self.visits[key]

    def get(self, key: str) -> Visit | None:
        """The visit of a page, if it has one."""
        return self.visits.get(key)

    def leave(self, key: str) -> None:
        """Forget a page that was closed."""
        with self.lock:
            if self.visits.pop(key, None):
                log.info("a page was closed; %d open", len(self.visits))
