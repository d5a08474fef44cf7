# From a finished result of gen_data.py to triplets: which frames, and which references guide them.
from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.pictures import save_png
from gen_data.curate import MARKER, load_depth, read_marker
from scenes.cameras import Cameras
from splats.warp import warp
from triplets.manifest import Reference, Triplet, View, view_from


@dataclass(frozen=True)
class Result:
    """A folder that gen_data.py finished: <scene>/gs_recon..."""

    folder: Path
    scene: str
    strategy: str
    variant: str
    iterations: tuple[int, ...]

    @property
    def train_every(self) -> int | None:
        """N, for the strategies that have one."""
        last = self.variant.rpartition("_")[2]
        return int(last) if self.strategy in ("sparse", "noise") else None

    def key(self, iteration: int, frame: int) -> str:
        """<scene>_<strategy>_<iterations or variant>_<frame>; the iteration too where several."""
        parts = [self.scene, self.strategy, self.variant or str(iteration)]
        if self.variant and len(self.iterations) > 1:
            parts.append(str(iteration))
        return "_".join([*parts, f"{frame:05d}"])


@dataclass(frozen=True)
class Frame:
    """A frame of a split: its place there, its index in the capture and its camera."""

    place: int
    index: int
    view: View


def results(scene: Path) -> tuple[list[Result], list[Path]]:
    """The finished results of a scene, sorted by name, and the folders that are not finished."""
    found, unfinished = [], []
    for folder in sorted(scene.glob("gs_recon*")):
        made = read_marker(folder)
        settings = made.get("settings")
        try:
            strategy, variant = settings["strategy"], settings["variant"]
            iterations = tuple(map(int, settings["render_iter"]))
            found.append(Result(folder, scene.name, str(strategy), str(variant), iterations))
        except (KeyError, TypeError, ValueError):
            unfinished.append(folder)
    return found, unfinished


def read_frames(file: Path) -> list[Frame]:
    """A split's cameras.json; ValueError, naming the file, if it is broken."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        views = [view_from(entry, f"{file}: a camera") for entry in content]
        return [
            Frame(i, int(entry["index"]), view)
            for i, (entry, view) in enumerate(zip(content, views, strict=True))
        ]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file} is no list of cameras as gen_data.py writes ({error!r})"
        ) from None


def triplets(
    result: Result, iteration: int, *, ref_every: int = 10, candidates: int = 4
) -> list[Triplet]:
    """A result's triplets at one iteration, with up to `candidates` references, nearest first.

    Underfitting: the training views, guided by every ref_every-th of them. Others: the held-out
    views, guided by the training views. Never by the frame itself.
    """
    train = read_frames(result.folder / "train" / "cameras.json")
    frames, pool, split = train, train, "train"
    if result.strategy == "underfitting":
        pool = train[::ref_every] if len(train) > ref_every else train
    else:
        frames, split = read_frames(result.folder / "test" / "cameras.json"), "test"
    here = result.folder / split / f"ours_{iteration}"
    guides = result.folder / "train" / f"ours_{iteration}" / "gt"
    distances = pose_distances([f.view for f in frames], [f.view for f in pool])
    made = []
    for frame, row in zip(frames, distances, strict=True):
        order = [pool[i] for i in np.argsort(row, kind="stable") if pool[i].index != frame.index]
        made.append(
            Triplet(
                result.key(iteration, frame.place),
                here / "renders" / f"{frame.place:05d}.png",
                here / "gt" / f"{frame.place:05d}.png",
                references=tuple(
                    Reference(guides / f"{f.place:05d}.png", f.view) for f in order[:candidates]
                ),
                alpha=here / "alpha" / f"{frame.place:05d}.png",
                camera=frame.view,
            )
        )
    return made


def pose_distances(views: Sequence[View], others: Sequence[View]) -> np.ndarray:
    """[N,M]: distance in units of the others' usual spacing, plus the angle between in radians."""
    (R, here), (Q, there) = _poses(views), _poses(others)
    apart = np.linalg.norm(there[:, None] - there[None], axis=-1)
    apart[apart <= 1e-6 * apart.max()] = np.inf
    nearest = apart.min(1)
    nearest = nearest[np.isfinite(nearest)]
    spacing = np.median(nearest) if len(nearest) else 1.0
    trace = np.einsum("nij,mij->nm", R, Q)
    angles = np.arccos(np.clip((trace - 1) / 2, -1, 1))
    return np.linalg.norm(here[:, None] - there[None], axis=-1) / spacing + angles


def _poses(views: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
    """Rotations [N,3,3] and positions [N,3] of cameras."""
    viewmats = np.array([view.viewmat for view in views])
    R = viewmats[:, :3, :3]
    return R, -np.einsum("nji,nj->ni", R, viewmats[:, :3, 3])


def with_warped(triplet: Triplet) -> Triplet:
    """The same, naming the files that `write_warped` makes, beside the renders."""
    folder, name = triplet.render.parent.parent, triplet.render.stem
    named = (f"{name}_{r.path.stem}.png" for r in triplet.references)
    references = tuple(
        replace(r, warped=folder / "warped" / file, mask=folder / "mask" / file)
        for r, file in zip(triplet.references, named, strict=True)
    )
    return replace(triplet, references=references)


def write_warped(
    task: Sequence[Triplet], worker: int = 0, report: Callable[[int, int], None] = lambda i, n: None
) -> str:
    """Move each reference into its render's view, with a mask; what is there already stays.

    ValueError if the results have no depth.
    """
    written = 0
    for i, triplet in enumerate(task):
        report(i, len(task))
        left = [r for r in triplet.references if not (r.warped.is_file() and r.mask.is_file())]
        if not left:
            continue
        depth = load_depth(_depth_file(triplet.render))
        alpha = _picture(triplet.alpha)
        for reference in left:
            warped, valid = warp(
                _picture(reference.path)[None],
                _cameras(reference.camera),
                _cameras(triplet.camera),
                depth[None],
                alphas=alpha[None],
                photo_depths=load_depth(_depth_file(reference.path))[None],
            )
            save_png(reference.warped, warped[0])
            save_png(reference.mask, valid[0].float())
            written += 1
    return f"{written} references warped, {sum(len(t.references) for t in task) - written} there"


def _depth_file(picture: Path) -> Path:
    file = picture.parent.parent / "depth" / f"{picture.stem}.npz"
    if not file.is_file():
        result = picture.parents[3]
        raise ValueError(
            f"{result} has no depth, which --warp needs ({file} is missing, {MARKER} is there): "
            "redo it with gen_data.py --depth --overwrite"
        )
    return file


def _picture(file: Path) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(file)).astype(np.float32) / 255)


def _cameras(view: View) -> Cameras:
    return Cameras(
        torch.tensor([view.viewmat]),
        torch.tensor([view.K]),
        torch.tensor([[view.width, view.height]]),
    )
