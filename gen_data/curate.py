# One scene: reconstructed as its strategy says, rendered at the iterations, written atomically.
from __future__ import annotations

import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from evaluation.pictures import save_png
from gen_data.dense_points import sample_dense_points
from gen_data.recipe import Recipe
from gen_data.results import save_depth, write_frames, write_marker
from reconstruction.backgrounds import hide
from reconstruction.rendering import render_view
from reconstruction.trainer import Trainer
from runtime.files import make_writable_folder, replace_folder
from scenes import load
from scenes.scene import Scene
from splats.formats import ply

CHECK_EVERY = 50  # steps between checks of the loss and calls of `progress`
MOST_WAITING = 32  # pictures held in memory until they are written
Progress = Callable[[int, int], None]


def curate(
    capture: Path,
    output: Path,
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total: None,
) -> str:
    """Reconstruct and render a capture into `output`/<strategy's folder>; returns a log line.

    The name of `output` is the scene's. An older result is replaced only by a complete new one;
    leftovers of a killed run are removed. progress: called with the steps done and their total.
    Raises what `scenes.load` raises, and ValueError if no frame is left to render or the
    optimisation diverges.
    """
    begin = time.perf_counter()
    device = torch.device(device)
    target = make_writable_folder(output) / recipe.strategy.folder
    staged = output / f".{target.name}.partial"
    for stale in (staged, staged.with_name(f"{staged.name}-old")):
        shutil.rmtree(stale, ignore_errors=True)
    scene = _load(capture, recipe.image_folder)
    scene = replace(scene, split=recipe.strategy.split(len(scene), output.name))
    if recipe.strategy.name == "noise" and recipe.strategy.start == "dense":
        points, colors = sample_dense_points(scene, recipe.init_num_pts, recipe.seed)
        scene = replace(scene, points=points, point_colors=colors)
    counts: dict[str, int] = {}
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            trainer = Trainer(scene, recipe.config(), device)
            for step in sorted({*recipe.render_iter, *recipe.save_iter}):
                _advance(trainer, step, recipe.last, progress)
                counts[str(step)] = trainer.state.splats.count
                if step in recipe.save_iter:
                    place = staged / "point_cloud" / f"iteration_{step}" / "point_cloud.ply"
                    ply.write(place, trainer.state.splats)
                if step in recipe.render_iter:
                    _render(trainer, staged, step, recipe.depth)
        marker = {
            "settings": recipe.settings(),
            "scene": output.name,
            "frames": {"train": len(scene.split.train), "test": len(scene.split.test)},
            "gaussians": counts,
            "transform": scene.transform.tolist(),
            "notes": list(scene.notes),
            "seconds": round(time.perf_counter() - begin, 1),
        }
        write_marker(staged, marker)
        replace_folder(staged, target)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return (
        f"{target.name}: {scene.split.text}, {recipe.last} steps, {counts[str(recipe.last)]:,} "
        f"Gaussians, {marker['seconds']:.0f} s"
    )


def _load(capture: Path, image_folder: str) -> Scene:
    """All frames; `images_N` is loaded by its factor, so that it need not exist."""
    ending = image_folder.removeprefix("images_")
    if image_folder == "images":
        return load(capture, split="all", progress=False)
    if ending.isdecimal() and int(ending) > 0 and ending != image_folder:
        return load(capture, data_factor=int(ending), split="all", progress=False)
    return load(capture, image_folder=image_folder, split="all", progress=False)


def _advance(trainer: Trainer, halt: int, total: int, progress: Progress) -> None:
    """Optimise up to step `halt`; ValueError if the loss is not finite."""
    state = trainer.state
    while state.done < halt:
        loss, _ = trainer.step()
        if state.done % CHECK_EVERY == 0 or state.done == halt:
            if not math.isfinite(loss.item()):
                raise ValueError(
                    f"the optimisation diverged before step {state.done} (NaN or infinite values); "
                    "change --seed, --densify or --init_type"
                )
            progress(state.done, total)


@torch.no_grad()
def _render(trainer: Trainer, root: Path, step: int, with_depth: bool) -> None:
    """Write renders, photos, alpha and depth of both splits, named by index in the split."""
    scene, splats, background = trainer.scene, trainer.state.splats, trainer.background
    splits = {"train": scene.split.train, "test": scene.split.test}
    with ThreadPoolExecutor(4) as pool:
        writes: deque[Future] = deque()
        for split, frames in splits.items():
            folder = root / split / f"ours_{step}"
            for i, frame in enumerate(frames):
                camera = trainer.cameras[frame]
                render = render_view(splats, camera, trainer.config, background=background)
                pictures = {"renders": render.colors[0], "alpha": render.alphas[0]}
                for kind, picture in pictures.items():
                    file = folder / kind / f"{i:05d}.png"
                    writes.append(pool.submit(save_png, file, picture.clamp(0, 1).cpu()))
                if with_depth:
                    file = folder / "depth" / f"{i:05d}.npz"
                    writes.append(pool.submit(save_depth, file, render.depths[0].cpu()))
                photo, mask = scene.image(frame, background), scene.mask(frame)
                if mask is None:
                    job = pool.submit(_save_photo, photo, root / split, step, i)
                else:
                    colors = render.colors[0].clamp(0, 1).cpu()
                    job = pool.submit(_save_masked, colors, photo, mask, folder, i)
                writes.append(job)
                while len(writes) > MOST_WAITING:
                    writes.popleft().result()
            if frames:
                write_frames(root / split / "cameras.json", scene, frames)
        for write in writes:
            write.result()


def _save_masked(render: Tensor, photo: Tensor, mask: Tensor, folder: Path, i: int) -> None:
    """The ground truth with the render where the mask hides the photo, so that there is nothing to
    learn there, and the mask."""
    save_png(folder / "gt" / f"{i:05d}.png", hide(photo, render, mask))
    save_png(folder / "photo_mask" / f"{i:05d}.png", mask.float())


def _save_photo(photo: Tensor, folder: Path, step: int, i: int) -> None:
    """The ground truth; all iterations share one file where the file system has hard links."""
    file = folder / f"ours_{step}" / "gt" / f"{i:05d}.png"
    before = next(iter(sorted(folder.glob(f"ours_*/gt/{file.name}"))), None)
    if before is None:
        save_png(file, photo)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(before, file)
    except OSError:
        shutil.copyfile(before, file)
