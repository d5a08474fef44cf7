# One scene: reconstructed as its strategy says, rendered at the iterations, written whole or not.
from __future__ import annotations

import json
import math
import os
import shutil
import time
import zipfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gsplat.strategy import MCMCStrategy
from torch import Tensor

from evaluation.pictures import save_png
from gen_data.dense_points import dense_points
from gen_data.strategies import Strategy
from reconstruction import config as presets
from reconstruction.config import Config
from reconstruction.rendering import render_view
from reconstruction.trainer import Trainer
from runtime.files import atomic_path, make_writable_folder, replace_folder
from scenes import load
from scenes.scene import Scene
from splats import ply

MARKER = "done.json"
CHECK_EVERY = 50  # steps between looks at the loss and calls of `progress`
MOST_WAITING = 32  # pictures in memory for the disk
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Recipe:
    """Everything that a scene's result depends on; ValueError for absurd values.

    save_iter, render_iter: after which steps the splats are kept and the views rendered.
    image_folder: images_N for photos at 1/N of their size, or a folder's name.
    max_steps: the whole schedule, shrunk with it; None: 3DGS's own 30,000, run as far as needed.
    """

    strategy: Strategy
    render_iter: tuple[int, ...]
    save_iter: tuple[int, ...] = ()
    image_folder: str = "images"
    max_steps: int | None = None
    densify: Literal["default", "mcmc"] = "default"
    cap_max: int = 1_000_000
    init_type: Literal["sfm", "random"] = "sfm"
    init_num_pts: int = 100_000
    sh_degree: int = 3
    depth: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.render_iter:
            raise ValueError("--render_iter needs at least one iteration")
        for name in ("render_iter", "save_iter"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
            if any(step < 1 for step in getattr(self, name)):
                raise ValueError(f"--{name} counts from 1; leave out smaller numbers")
        if self.max_steps is not None and self.max_steps < self.last:
            raise ValueError(
                f"--max_steps {self.max_steps} ends before iteration {self.last} "
                "(--render_iter, --save_iter)"
            )
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed} must not be negative")
        if Path(self.image_folder).name != self.image_folder:
            raise ValueError(f"--image_folder {self.image_folder} must be a name, as images_4")
        self.strategy.split(1000, "")  # a wrong --train_every is told before any work
        self.config()

    @property
    def last(self) -> int:
        """The last iteration that is wanted."""
        return max(*self.render_iter, *self.save_iter, 1)

    def config(self) -> Config:
        """The settings of the optimisation."""
        base = presets.mcmc() if self.densify == "mcmc" else presets.default()
        steps = base.max_steps
        strategy = base.strategy
        if isinstance(strategy, MCMCStrategy):
            strategy = replace(strategy, cap_max=self.cap_max)
        noisy = self.strategy.name == "noise" and self.strategy.start == "random"
        return replace(
            base,
            max_steps=max(steps, self.last) if self.max_steps is None else steps,
            steps_scaler=1.0 if self.max_steps is None else self.max_steps / steps,
            strategy=strategy,
            init_type="random" if noisy else self.init_type,
            init_num_pts=self.init_num_pts,
            sh_degree=self.sh_degree,
            seed=self.seed,
        ).scaled()

    def settings(self) -> dict[str, Any]:
        """What matters of them, as done.json keeps it: plain values only."""
        values = asdict(self) | {"strategy": self.strategy.name, "variant": self.strategy.variant}
        if self.densify != "mcmc":
            del values["cap_max"]
        return json.loads(json.dumps(values))


def is_finished(output: Path, recipe: Recipe) -> bool:
    """Whether the scene's folder `output` holds this very result.

    ValueError if it holds one of the same strategy with other settings.
    """
    folder = output / recipe.strategy.folder
    if not folder.exists():
        return False
    made = read_marker(folder).get("settings")
    if not isinstance(made, dict):
        raise ValueError(f"{folder} has no {MARKER}: remove it, or redo it with --overwrite")
    wanted = recipe.settings()
    different = sorted(k for k in {*made, *wanted} if made.get(k) != wanted.get(k))
    if different:
        what = ", ".join(f"{k} {_plain(made.get(k))}" for k in different)
        raise ValueError(
            f"{folder} was made with other settings ({what}); redo it with --overwrite, or choose "
            "another --output_path"
        )
    return True


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def read_marker(folder: Path) -> dict[str, Any]:
    """What done.json says about a finished result, empty if there is none."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def curate(
    capture: Path,
    output: Path,
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total: None,
) -> str:
    """Reconstruct and render a capture into `output`/<strategy's folder>; returns one line.

    `output` is named as the scene. A folder that is there is replaced, only when the new one is
    whole; what a killed run left is removed. Errors as `scenes.load`, and ValueError if no frame is
    left or the optimisation diverges.
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
        points, colors = dense_points(scene, recipe.init_num_pts, recipe.seed)
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
            "notes": list(scene.notes),
            "seconds": round(time.perf_counter() - begin, 1),
        }
        _write_json(staged / MARKER, marker)
        replace_folder(staged, target)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return (
        f"{target.name}: {scene.split.text}, {recipe.last} steps, {counts[str(recipe.last)]:,} "
        f"Gaussians, {marker['seconds']:.0f} s"
    )


def _load(capture: Path, image_folder: str) -> Scene:
    """All frames; `images_N` by its factor, so that a capture without it is made smaller."""
    ending = image_folder.removeprefix("images_")
    if image_folder == "images":
        return load(capture, split="all", progress=False)
    if ending.isdecimal() and int(ending) > 0 and ending != image_folder:
        return load(capture, data_factor=int(ending), split="all", progress=False)
    return load(capture, image_folder=image_folder, split="all", progress=False)


def _advance(trainer: Trainer, halt: int, total: int, progress: Progress) -> None:
    """Steps until `halt` are done; ValueError if the loss is not finite."""
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
    """Renders, photos, alpha and depth of both splits, named by their place in the split."""
    scene, splats = trainer.scene, trainer.state.splats
    splits = {"train": scene.split.train, "test": scene.split.test}
    with ThreadPoolExecutor(4) as pool:
        jobs: deque[Future] = deque()
        for split, frames in splits.items():
            folder = root / split / f"ours_{step}"
            for i, frame in enumerate(frames):
                render = render_view(splats, trainer.cameras[frame], trainer.config)
                pictures = {"renders": render.colors[0], "alpha": render.alphas[0]}
                for kind, picture in pictures.items():
                    file = folder / kind / f"{i:05d}.png"
                    jobs.append(pool.submit(save_png, file, picture.clamp(0, 1).cpu()))
                if with_depth:
                    file = folder / "depth" / f"{i:05d}.npz"
                    jobs.append(pool.submit(save_depth, file, render.depths[0].cpu()))
                jobs.append(pool.submit(_photo, scene, frame, root / split, step, i))
                while len(jobs) > MOST_WAITING:
                    jobs.popleft().result()
            if frames:
                _write_json(root / split / "cameras.json", [_frame(scene, f) for f in frames])
        for job in jobs:
            job.result()


def _photo(scene: Scene, frame: int, folder: Path, step: int, i: int) -> None:
    """The ground truth; iterations share one file where the file system can."""
    file = folder / f"ours_{step}" / "gt" / f"{i:05d}.png"
    before = next(iter(sorted(folder.glob(f"ours_*/gt/{file.name}"))), None)
    if before is None:
        save_png(file, scene.images[frame])
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(before, file)
    except OSError:
        shutil.copyfile(before, file)


def _frame(scene: Scene, index: int) -> dict[str, Any]:
    """One entry of cameras.json: the photo's name, its index in the capture and its camera."""
    camera = scene.cameras[index]
    width, height = camera.size
    return {
        "name": scene.names[index],
        "index": index,
        "viewmat": _short(camera.viewmats[0]),
        "K": _short(camera.Ks[0]),
        "width": width,
        "height": height,
    }


def _short(matrix: Tensor) -> list[list[float]]:
    """float32 as the nine digits that tell it exactly."""
    return [[float(f"{x:.9g}") for x in row] for row in matrix.tolist()]


def save_depth(file: Path, depth: Tensor) -> None:
    """Depth [H,W] as `depth`, float16, times `unit`: 0.05 % exact whatever the world's scale."""
    values = depth.numpy().astype(np.float64)
    known = values[np.isfinite(values) & (values > 0)]
    unit = float(np.median(known)) if len(known) else 1.0
    compact = np.clip(np.nan_to_num(values / unit, posinf=0.0), 0, 6e4).astype(np.float16)
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, depth=compact, unit=np.float32(unit))


def load_depth(file: Path) -> Tensor:
    """What `save_depth` wrote, float32 [H,W]; ValueError, naming the file, if it is damaged."""
    try:
        with np.load(file) as content:
            return torch.from_numpy(content["depth"].astype(np.float32) * content["unit"])
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is no depth that gen_data.py wrote ({error})") from None


def _write_json(file: Path, content: object) -> None:
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
