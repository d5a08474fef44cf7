# A result of gen_data.py on disk: which results a scene has, their marker, cameras and depths.
#
#   <scene>/gs_recon_<strategy>_<variant>/
#     done.json                                  settings, written last: without it unfinished
#     point_cloud/iteration_<n>/point_cloud.ply  splats
#     train/, test/                              splits of the strategy
#       cameras.json
#       ours_<n>/{renders,gt,alpha,depth}/       pictures, named by their index in the split
#       ours_<n>/photo_mask/                     of photos with masks: gt shows the render where 0
from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from runtime.files import atomic_path
from triplets.manifest import View, view_from

if TYPE_CHECKING:
    from gen_data.recipe import Recipe
    from scenes.scene import Scene

MARKER = "done.json"


@dataclass(frozen=True)
class Result:
    """A finished result: its folder <scene>/gs_recon..., what made it, and its iterations."""

    folder: Path
    scene: str
    strategy: str
    variant: str
    iterations: tuple[int, ...]

    @property
    def train_every(self) -> int | None:
        """N of the strategies that train on every N-th frame, else None."""
        last = self.variant.rpartition("_")[2]
        return int(last) if self.strategy in ("sparse", "noise") else None

    def key(self, iteration: int, frame: int) -> str:
        """The triplet's key: <scene>_<strategy>_<variant or iteration>_<frame>.

        The iteration is added to the variant if the result has several.
        """
        parts = [self.scene, self.strategy, self.variant or str(iteration)]
        if self.variant and len(self.iterations) > 1:
            parts.append(str(iteration))
        return "_".join([*parts, f"{frame:05d}"])


@dataclass(frozen=True)
class Frame:
    """A frame of a split: its index there (`place`) and in the capture, and its camera."""

    place: int
    index: int
    view: View


def find_results(scene: Path) -> tuple[list[Result], list[Path]]:
    """The finished results in a scene's folder, sorted by name, and the unfinished folders."""
    finished, unfinished = [], []
    for folder in sorted(scene.glob("gs_recon*")):
        settings = read_marker(folder).get("settings")
        try:
            strategy, variant = settings["strategy"], settings["variant"]
            iterations = tuple(map(int, settings["render_iter"]))
            finished.append(Result(folder, scene.name, str(strategy), str(variant), iterations))
        except (KeyError, TypeError, ValueError):
            unfinished.append(folder)
    return finished, unfinished


def is_finished(output: Path, recipe: Recipe) -> bool:
    """Whether the scene's folder `output` already holds the result of this recipe.

    Raises ValueError if it holds one of the same strategy with other settings.
    """
    folder = output / recipe.strategy.folder
    if not folder.exists():
        return False
    previous = read_marker(folder).get("settings")
    if not isinstance(previous, dict):
        raise ValueError(f"{folder} has no {MARKER}: remove it, or redo it with --overwrite")
    wanted = recipe.settings()
    different = sorted(k for k in {*previous, *wanted} if previous.get(k) != wanted.get(k))
    if different:
        what = ", ".join(f"{k} {_join(previous.get(k))}" for k in different)
        raise ValueError(
            f"{folder} was made with other settings ({what}); redo it with --overwrite, or choose "
            "another --output_path"
        )
    return True


def _join(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def read_marker(folder: Path) -> dict[str, Any]:
    """The content of a result's done.json; empty if it is missing or damaged."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_marker(folder: Path, content: dict[str, Any]) -> None:
    """Write done.json, which makes the result a finished one."""
    _write_json(folder / MARKER, content)


def read_frames(file: Path) -> list[Frame]:
    """The frames in a split's cameras.json; ValueError, naming the file, if it is damaged."""
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


def write_frames(file: Path, scene: Scene, frames: Sequence[int]) -> None:
    """Write cameras.json: photo name, index in the capture and camera of each frame."""
    _write_json(file, [_frame_entry(scene, frame) for frame in frames])


def _frame_entry(scene: Scene, index: int) -> dict[str, Any]:
    camera = scene.cameras[index]
    width, height = camera.size
    return {
        "name": scene.names[index],
        "index": index,
        "viewmat": _to_lists(camera.viewmats[0]),
        "K": _to_lists(camera.Ks[0]),
        "width": width,
        "height": height,
    }


def _to_lists(matrix: Tensor) -> list[list[float]]:
    """Nine significant digits, which determine a float32 exactly."""
    return [[float(f"{x:.9g}") for x in row] for row in matrix.tolist()]


def save_depth(file: Path, depth: Tensor) -> None:
    """Write depth [H,W] as .npz: float16 `depth` times float32 `unit`, their median.

    Whatever the scale of the world, depths are exact to 0.05 %. Unknown ones are 0.
    """
    values = depth.numpy().astype(np.float64)
    known = values[np.isfinite(values) & (values > 0)]
    unit = float(np.median(known)) if len(known) else 1.0
    compact = np.clip(np.nan_to_num(values / unit, posinf=0.0), 0, 6e4).astype(np.float16)
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, depth=compact, unit=np.float32(unit))


def load_depth(file: Path) -> Tensor:
    """Read what `save_depth` wrote, float32 [H,W]; ValueError, naming the file, if damaged."""
    try:
        with np.load(file) as content:
            return torch.from_numpy(content["depth"].astype(np.float32) * content["unit"])
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is no depth that gen_data.py wrote ({error})") from None


def _write_json(file: Path, content: object) -> None:
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
