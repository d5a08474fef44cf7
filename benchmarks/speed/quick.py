# The parts that benchmarks.run --quick compares; each takes seconds at most.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

import fixers
import scenes
from benchmarks.speed import training
from benchmarks.speed.rasterize import random_splats_view
from benchmarks.timing import Work, measurable, product, seconds
from reconstruction import Config
from reconstruction.trainer import Trainer
from scenes.procedural import generate, write
from splats.rasterize import rasterize

SIZE = 256, 192  # width and height of pictures
LEAST = 0.15  # seconds that are timed in one go
Cases = dict[str, Work]


def rasterizing(device: str) -> Cases:
    """The rasterizer with and without gradients, 30,000 Gaussians at 960x540."""
    splats, cameras = random_splats_view(30_000, 960, 540, 2.1)
    splats = splats.to(device)

    @torch.no_grad()
    def forward() -> None:
        rasterize(splats, cameras)

    def both() -> None:
        splats.zero_grad()
        render = rasterize(splats, cameras)
        (render.colors.mean() + render.depths.mean()).backward()

    return {"rasterizer, forward": forward, "rasterizer, forward and backward": both}


def optimising(device: str) -> Cases:
    """A training step of splats before the first densification, from a scene's points."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / "table", 2, n_views=8, width=SIZE[0], height=SIZE[1], progress=False)
        scene = scenes.load(Path(folder) / "table", split="all", progress=False)
        for view in range(len(scene)):
            scene.image(view)  # reads it before the folder is deleted
    trainer = Trainer(scene, Config(), torch.device(device))
    return {"splats, training step": trainer.step}


def fixing(device: str, dtype: torch.dtype) -> Cases:
    """The shipped fixer on one render with a reference that is new each time, and its parts."""
    fixer = fixers.load("gsvar", device=device, dtype=dtype)
    name = "bf16" if dtype == torch.bfloat16 else "float32"
    model, restorer, (width, height) = fixer.model, fixer.restorer, SIZE
    draw = torch.Generator().manual_seed(0)
    render = torch.rand(1, height, width, 3, generator=draw)
    photo = torch.rand(1, 1, height, width, 3, generator=draw)
    alpha = torch.ones(1, height, width)
    inside = [2 * x.flatten(0, -4).movedim(-1, 1).to(device) - 1 for x in (render, photo)]
    memory, f_hat = restorer.encode_references(inside[1][:, None]), restorer.restore(inside[0])
    fused = {"guide": inside[1], "alpha": alpha[:, None].to(device)}

    def fix() -> None:
        photo.copy_(photo.roll(1, dims=2))
        fixer.fix(render, photo, alphas=alpha)

    return {
        f"fixer, {name}": fix,
        f"reference's tokens, {name}": lambda: restorer.encode_references(inside[1][:, None]),
        f"all scales, {name}": lambda: restorer.restore(inside[0], memory),
        f"decoder and bridge, {name}": lambda: model.decode(f_hat, inside[0], bridge=True, **fused),
    }


def learning(device: str) -> Cases:
    """A training step of each stage."""
    options = training.Options(batch_size=2)
    return {
        f"stage {number}, training step, tiny": training.step_of(
            number, options, torch.float32, torch.device(device)
        )[0]
        for number in (0, 1, 2)
    }


def drawing(device: str) -> Cases:
    """The ray tracer of procedural scenes."""
    scene = generate(0, "room")
    cameras = scene.capture(4, *SIZE)
    return {"procedural room, 4 views": lambda: scene.render(cameras)}


def cases(device: str) -> Cases:
    """All parts by name."""
    precisions: list[Callable[[str], Cases]] = [
        lambda device, dtype=dtype: fixing(device, dtype)
        for dtype in measurable(("float32", "bf16"), device)
    ]
    parts: Cases = {}
    for make in (rasterizing, optimising, *precisions, learning, drawing):
        parts |= make(device)
    return parts


def measure(cases: Cases, rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Milliseconds and units of each case: medians over rounds of its time, and of its time divided
    by the unit's just before and after it."""
    unit = repeat_enough(product(device), device, LEAST / 2)
    timed = {name: repeat_enough(work, device, LEAST) for name, work in cases.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        before = unit()
        for name, work in timed.items():
            took, after = work(), unit()
            taken[name].append((took, took / (before + after) * 2))
            before = after
    return {
        name: {"ms": 1e3 * median(t for t, _ in runs), "units": median(u for _, u in runs)}
        for name, runs in taken.items()
    }


def repeat_enough(work: Work, device: str, least: float) -> Callable[[], float]:
    """A function that times as many runs in a row as take `least` seconds, and divides."""
    work()
    count = max(1, round(least / seconds(work, device)))

    def run() -> None:
        for _ in range(count):
            work()

    return lambda: seconds(run, device) / count
