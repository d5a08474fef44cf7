# What a worker process is given: one scene, from a data set or made from a seed.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gen_data.curate import Recipe, curate
from gen_data.scene_list import capture_folder
from scenes import procedural
from scenes.photos import list_photos, read_header


@dataclass(frozen=True)
class Procedural:
    """A capture to be made from a seed."""

    seed: int
    views: int
    width: int
    height: int


@dataclass(frozen=True)
class Task:
    """The scene `output.name` below `base`; results go below `output`."""

    base: Path
    output: Path
    recipe: Recipe
    device: str = "cpu"
    source: Procedural | None = None


def procedural_tasks(
    output: Path, recipe: Recipe, device: str, count: int, size: tuple[int, int, int]
) -> dict[str, Task]:
    """Scenes `procedural_<seed>` from the recipe's seed on; size: views, width, height.

    Each is reconstructed with its own seed, so that it does not matter with which others.
    ValueError for a wrong count, or a scene that is there in another size.
    """
    if count < 1:
        raise ValueError(f"--procedural {count} must be at least 1")
    tasks = {}
    for seed in range(recipe.seed, recipe.seed + count):
        name = f"procedural_{seed:06d}"
        source = Procedural(seed, *size)
        _is_made(source, output / name)
        own = replace(recipe, seed=seed, strategy=replace(recipe.strategy, seed=seed))
        tasks[name] = Task(output, output / name, own, device, source)
    return tasks


def work(task: Task, worker: int, report: Callable[[int, int], None]) -> str:
    """Make the capture if need be, and curate it; one line on what was done."""
    source = task.source
    if source is not None and not _is_made(source, task.output):
        sizes = {"n_views": source.views, "width": source.width, "height": source.height}
        procedural.write(task.output, source.seed, **sizes, progress=False)
    capture = capture_folder(task.base, task.output.name)
    device = _device_of(task.device, worker)
    return curate(capture, task.output, task.recipe, device=device, progress=report)


def _is_made(source: Procedural, folder: Path) -> bool:
    """Whether the capture is there; ValueError if it is, but in another size."""
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


def _device_of(device: str, worker: int) -> str:
    """`cuda` alone means: the workers take the GPUs in turn."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{worker % torch.cuda.device_count()}"
