# Triplets of a finished result: which frames are fixed, and which references guide them.
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.pictures import save_png
from gen_data.results import MARKER, Result, load_depth, read_frames
from scenes.cameras import Cameras
from scenes.nearest import measure_nearest_distances, measure_pose_distances
from splats.warp import warp
from triplets.manifest import Reference, Triplet, View


def build_triplets(
    result: Result, iteration: int, *, ref_every: int = 10, candidates: int = 4
) -> list[Triplet]:
    """The triplets of a result at one iteration, with up to `candidates` references, nearest first.

    Underfitting: the training views, with every ref_every-th of them as references. Others: the
    held-out views, with the training views as references. A frame is never its own reference.
    """
    train = read_frames(result.folder / "train" / "cameras.json")
    frames, pool, split = train, train, "train"
    if result.strategy == "underfitting":
        pool = train[::ref_every] if len(train) > ref_every else train
    else:
        frames, split = read_frames(result.folder / "test" / "cameras.json"), "test"
    here = result.folder / split / f"ours_{iteration}"
    guides = result.folder / "train" / f"ours_{iteration}" / "gt"
    distances = measure_view_distances([f.view for f in frames], [f.view for f in pool])
    triplets = []
    for frame, row in zip(frames, distances, strict=True):
        order = [pool[i] for i in row.argsort(stable=True) if pool[i].index != frame.index]
        triplets.append(
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
    return triplets


def measure_view_distances(views: Sequence[View], others: Sequence[View]) -> Tensor:
    """[N,M] float64: `measure_pose_distances`, in units of the others' median spacing.

    The median of an even number is the mean of the middle two, as in the lists made so far.
    """
    here, there = _to_cameras(views, torch.float64), _to_cameras(others, torch.float64)
    nearest = measure_nearest_distances(there)
    spacing = float(nearest.quantile(0.5)) if len(nearest) else 1.0
    return measure_pose_distances(here, there, spacing)


def add_warped_paths(triplet: Triplet) -> Triplet:
    """The same triplet with the paths that `write_warped` writes, beside the renders."""
    folder, name = triplet.render.parent.parent, triplet.render.stem
    files = (f"{name}_{r.path.stem}.png" for r in triplet.references)
    references = tuple(
        replace(r, warped=folder / "warped" / file, mask=folder / "mask" / file)
        for r, file in zip(triplet.references, files, strict=True)
    )
    return replace(triplet, references=references)


def write_warped(
    task: Sequence[Triplet], worker: int = 0, report: Callable[[int, int], None] = lambda i, n: None
) -> str:
    """Warp each reference into its render's view and write it with its mask, if not there yet.

    Returns a log line. Raises ValueError if the result has no depth.
    """
    written = 0
    for i, triplet in enumerate(task):
        report(i, len(task))
        missing = [r for r in triplet.references if not (r.warped.is_file() and r.mask.is_file())]
        if not missing:
            continue
        depth = load_depth(_depth_file(triplet.render))
        alpha = _read_picture(triplet.alpha)
        for reference in missing:
            photo = _read_picture(reference.path)
            hidden = reference.path.parent.parent / "photo_mask" / reference.path.name
            if hidden.is_file():
                photo = torch.cat((photo, _read_picture(hidden)[..., None]), -1)
            warped, valid = warp(
                photo[None],
                _to_cameras([reference.camera]),
                _to_cameras([triplet.camera]),
                depth[None],
                alphas=alpha[None],
                photo_depths=load_depth(_depth_file(reference.path))[None],
            )
            if hidden.is_file():  # all four pixels that a value is interpolated from must count
                valid &= warped[..., 3] > 0.999
                warped = warped[..., :3] * valid[..., None]
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


def _read_picture(file: Path) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(file)).astype(np.float32) / 255)


def _to_cameras(views: Sequence[View], dtype: torch.dtype = torch.float32) -> Cameras:
    return Cameras(
        torch.tensor([view.viewmat for view in views], dtype=dtype),
        torch.tensor([view.K for view in views], dtype=dtype),
        torch.tensor([[view.width, view.height] for view in views]),
    )
