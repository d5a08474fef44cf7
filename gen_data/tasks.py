# The task of a worker process: curate one scene of a data set, or a procedural one.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gen_data.curate import curate
from gen_data.recipe import Recipe
from gen_data.scene_list import find_capture_folder
from scenes import procedural
from scenes.photos import list_photos, read_header


@dataclass(frozen=True)
class Procedural:
    """A procedural scene: its seed, number of views, and size of the photos in pixels."""

    seed: int
    views: int
    width: int
    height: int


@dataclass(frozen=True)
class Task:
    """Curate the scene `output.name` in `base` into `output`; source: if it is procedural."""

    base: Path
    output: Path
    recipe: Recipe
    device: str = "cpu"
    source: Procedural | None = None


def make_procedural_tasks(
    output: Path, recipe: Recipe, device: str, count: int, size: tuple[int, int, int]
) -> dict[str, Task]:
    """Tasks for `count` scenes `procedural_<seed>`, starting with the recipe's seed.

    size: views, width, height. A scene is reconstructed with its own seed, so that results do not
    depend on the count. Raises ValueError if the count is below 1 or a scene exists in another
    size.
    """
    if count < 1:
        raise ValueError(f"--procedural {count} must be at least 1")
    tasks = {}
    for seed in range(recipe.seed, recipe.seed + count):
        name = f"procedural_{seed:06d}"
        source = Procedural(seed, *size)
        _is_written(source, output / name)
        own = replace(recipe, seed=seed, strategy=replace(recipe.strategy, seed=seed))
        tasks[name] = Task(output, output / name, own, device, source)
    return tasks


def run_task(task: Task, worker: int, report: Callable[[int, int], None]) -> str:
    """Write the capture if it is procedural and missing, and curate it; returns a log line."""
    source = task.source
    if source is not None and not _is_written(source, task.output):
        sizes = {"n_views": source.views, "width": source.width, "height": source.height}
        procedural.write(task.output, source.seed, **sizes, progress=False)
    capture = find_capture_folder(task.base, task.output.name)
    device = _choose_device(task.device, worker)
    return curate(capture, task.output, task.recipe, device=device, progress=report)


def _is_written(source: Procedural, folder: Path) -> bool:
    """Whether the capture exists; ValueError if it does, but in another size."""
    names = list_photos(folder / "images") if (folder / "sparse").is_dir() else []
    if not names:
        return False
    width, height, _ = read_header(folder / "images" / names[0])
    if (len(names), width, height) != (source.views, source.width, source.height):
        raise ValueError(
            f"{folder} has {len(names)} views of {width}x{height}, not {source.views} of "
            f"{source.width}x{source.height}; use these sizes or another --output_path"
        )
    return True


def _choose_device(device: str, worker: int) -> str:
    """With `cuda` alone, workers are distributed over all GPUs."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{worker % torch.cuda.device_count()}"
