# How time and memory grow with tiles, views, references, resolution, Gaussians and scenes; each
# should grow linearly.
#   python -m benchmarks.speed.growth --plot        the figure of docs/growth.png
#   python -m benchmarks.speed.growth --only views --points 2
from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro

import fixers
from benchmarks.speed.rasterize import random_splats_view
from benchmarks.timing import (
    Work,
    measurable,
    product,
    seconds,
    use_threads,
    warn_if_busy,
)
from gen_data import tasks
from gen_data.recipe import Recipe
from gen_data.strategies import Strategy
from runtime.command import choose_device, run_command
from runtime.files import atomic_path, write_json
from runtime.flags import parse_command
from splats.rasterize import rasterize

PLOT = Path("docs/growth.png")
ENOUGH, MOST = 3.0, 7  # seconds that a point is timed for, and runs of it
TABLES = 2  # the first of four seeds in a row that draw the same kind of place
MEGA = 1024**2


@dataclass(frozen=True)
class Options:
    """Measure time (in units of a 2048x2048x2048 float32 product in the same run) and peak memory
    of each point in a process of its own, and fit a line to each curve."""

    only: tuple[str, ...] = ()
    """Curves (default: all)."""
    points: int | None = None
    """Only the first so many points of each."""
    plot: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw docs/growth.png."""
    results: Path = Path("results/growth")
    """Folder of growth.json and growth.md."""
    dtype: Literal["float32", "bf16"] = "float32"
    """Precision of the fixer."""
    device: str = "cpu"
    threads: int = 2


@dataclass(frozen=True)
class Curve:
    """One quantity x and the work that it makes."""

    what: str
    counts: str
    """What x counts."""
    at: tuple[float, ...]
    work: Callable[[float, Options], Work]
    """What is timed at x, possibly many times."""


# work to time ---------------------------------------------------------------------------------


def fixing(
    width: int, height: int, options: Options, *, views: int = 1, references: int = 1, known=False
) -> Work:
    """One call of the shipped fixer; its references are new each time, unless they are `known`."""
    fixer = fixers.load("gsvar", device=options.device, dtype=options.dtype)
    draw = torch.Generator().manual_seed(0)
    renders = torch.rand(views, height, width, 3, generator=draw)
    photos = torch.rand(views, references, height, width, 3, generator=draw)
    alphas = torch.ones(views, height, width)

    def work() -> None:
        if not known:
            photos.copy_(photos.roll(1, dims=2))
        fixer.fix(renders, photos, alphas=alphas)

    return work


def in_tiles(count: float, options: Options) -> Work:
    """Fix a picture as wide as so many tiles can cover."""
    return fixing(32 + 224 * int(count), 192, options)


def size_of(megapixels: float) -> tuple[int, int]:
    """Width and height, 4 to 3, in steps of 16 pixels."""
    unit = math.sqrt(megapixels * 1e6 / 12) / 16
    return 64 * round(unit), 48 * round(unit)


def rasterizing(count: int, width: int, height: int, pixels: float, options: Options) -> Work:
    """Rasterize forward and backward."""
    splats, cameras = random_splats_view(count, width, height, pixels)
    splats = splats.to(options.device)

    def work() -> None:
        splats.zero_grad()
        render = rasterize(splats, cameras)
        (render.colors.mean() + render.depths.mean()).backward()

    return work


def at_resolution(megapixels: float, options: Options) -> Work:
    """Rasterize the same Gaussians from nearer: their size in pixels grows too."""
    width, height = size_of(megapixels)
    return rasterizing(30_000, width, height, 2.1 * width / 512, options)


def curating(count: float, options: Options) -> Work:
    """Curate procedural scenes: draw, reconstruct from a few views, render the others."""
    recipe = Recipe(
        Strategy("sparse", 4),
        render_iter=(100,),
        max_steps=100,
        densify="mcmc",
        cap_max=5000,
        seed=TABLES,
    )

    def work() -> None:
        with TemporaryDirectory() as folder:
            size = (12, 160, 120)
            jobs = tasks.make_procedural_tasks(
                Path(folder), recipe, options.device, int(count), size
            )
            for task in jobs.values():
                tasks.run_task(task, 0, lambda *_: None)

    return work


CURVES = {
    "tiles": Curve("fixer, one picture of 192 rows", "tiles", (1, 4, 16, 48, 96), in_tiles),
    "views": Curve(
        "fixer, one call, 256x192",
        "views",
        (1, 2, 4, 8, 16, 32, 64),
        lambda x, o: fixing(256, 192, o, views=int(x)),
    ),
    "references": Curve(
        "fixer, references new to it",
        "references",
        (0, 1, 2, 3, 4),
        lambda x, o: fixing(256, 192, o, references=int(x)),
    ),
    "references kept": Curve(
        "fixer, references it knows",
        "references",
        (0, 1, 2, 3, 4),
        lambda x, o: fixing(256, 192, o, references=int(x), known=True),
    ),
    "pixels": Curve(
        "fixer, 4:3",
        "megapixels",
        (0.049152, 0.110592, 0.196608, 0.442368),
        lambda x, o: fixing(*size_of(x), o),
    ),
    "rasterizer pixels": Curve(
        "rasterizer and backward, 30,000 Gaussians",
        "megapixels",
        (0.049152, 0.196608, 0.442368, 0.786432),
        at_resolution,
    ),
    "Gaussians": Curve(
        "rasterizer and backward, 960x540",
        "thousand Gaussians",
        (10, 30, 100, 200, 300),
        lambda x, o: rasterizing(int(1000 * x), 960, 540, 2.1, o),
    ),
    "scenes": Curve("curation, 12 photos of 160x120", "scenes", (1, 2, 3, 4), curating),
}


# measuring -------------------------------------------------------------------------------------


def measure(name: str, x: float, options: Options) -> dict[str, float]:
    """Time one point; call it in a new process, whose peak memory then is the point's."""
    use_threads(options.threads)
    curve, unit = CURVES[name], product(options.device)
    curve.work(curve.at[0], options)()  # fills caches and compiles code
    unit()
    work = curve.work(x, options)
    times, units = [], [seconds(unit, options.device)]
    while sum(times) < ENOUGH and len(times) < MOST:
        times.append(seconds(work, options.device))
        units += [seconds(unit, options.device) for _ in range(3)]
    took, one = median(times), median(units)
    return {"x": x, "ms": 1e3 * took, "units": took / one, "memory_mb": peak(options.device)}


def peak(device: str) -> float:
    """Peak memory so far in MB: of the GPU, or resident."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGA
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(x: list[float], y: list[float]) -> float | None:
    """The slope in logarithms: 1 if y is proportional to x; None for fewer than 2 points."""
    known = [(a, b) for a, b in zip(x, y, strict=True) if a > 0]
    if len(known) < 2:
        return None
    return float(np.polyfit(*np.log(known).T, 1)[0])


def fit_line(x: list[float], y: list[float]) -> dict[str, float]:
    """Fit y = fixed + each x by least relative squares; `deviation` is the largest relative one."""
    if len(x) < 2:
        return {"fixed": y[0], "each": 0.0, "deviation": 0.0}
    each, fixed = np.polyfit(x, y, 1, w=1 / np.array(y))
    deviation = max(abs(fixed + each * a - b) / b for a, b in zip(x, y, strict=True))
    return {"fixed": float(fixed), "each": float(each), "deviation": float(deviation)}


def fit_curve(curve: Curve, points: list[dict[str, float]]) -> dict:
    """A curve's points with their exponent and lines, as growth.json has them."""
    x, units = [p["x"] for p in points], [p["units"] for p in points]
    return {
        "what": curve.what,
        "counts": curve.counts,
        "points": points,
        "exponent": exponent(x, units),
        "line": fit_line(x, units),
        "memory": fit_line(x, [p["memory_mb"] for p in points]),
    }


# reporting -------------------------------------------------------------------------------------


def format_table(curves: dict[str, dict]) -> str:
    """A Markdown table with a row for each curve."""
    head = ("curve", "x", "ms", "units", "exponent", "line, units", "off by", "memory, MB", "each")
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, curve in curves.items():
        fit, power = curve["line"], curve["exponent"]

        def column(key: str, form: str, points: list[dict] = curve["points"]) -> str:
            return " ".join(format(p[key], form) for p in points)

        cells = (
            f"{name}: {curve['what']}",
            f"{column('x', '.3g')} {curve['counts']}",
            column("ms", ".0f"),
            column("units", ".3g"),
            "" if power is None else f"{power:.2f}",
            f"{fit['fixed']:.2g} + {fit['each']:.3g} x",
            f"{fit['deviation']:.0%}",
            column("memory_mb", ".0f"),
            f"{curve['memory']['each']:+.1f}",
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def draw(curves: dict[str, dict], path: Path) -> None:
    """Draw small multiples: time and its line, and peak memory in grey."""
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.7 * rows), layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(curves) :]:
        axes.set_axis_off()
    for axes, curve in zip(grid.flat, curves.values(), strict=False):
        x = [p["x"] for p in curve["points"]]
        fit = curve["line"]
        other = axes.twinx()
        memory = [p["memory_mb"] / 1024 for p in curve["points"]]
        other.plot(x, memory, "s-", color="0.7", markersize=3, linewidth=1)
        other.set_ylim(0, 2 * max(memory))
        other.tick_params(colors="0.5", labelsize=7)
        axes.plot([0, x[-1]], [fit["fixed"], fit["fixed"] + fit["each"] * x[-1]], "--", color="C1")
        axes.plot(x, [p["units"] for p in curve["points"]], "o", color="C0", markersize=5)
        axes.set_zorder(other.get_zorder() + 1)
        axes.patch.set_visible(False)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(curve["counts"], fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_title(f"{curve['what']}\nline off by {fit['deviation']:.0%}", fontsize=8)
    figure.supylabel("units: time of a 2048³ float32 product", fontsize=8)
    figure.suptitle("dots: time; dashed: fitted line; grey, right: peak memory in GB", fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure the curves and write the table, growth.json and the plot."""
    options = parse_command(Options, "python -m benchmarks.speed.growth")
    choose_device(options.device)
    if not measurable((options.dtype,), options.device):
        raise ValueError(f"--dtype {options.dtype} would be emulated here: use float32")
    if options.points is not None and options.points < 1:
        raise ValueError(f"--points {options.points}: give at least 1")
    unknown = set(options.only) - set(CURVES)
    if unknown:
        raise ValueError(f"no curve is called {sorted(unknown)[0]!r}: {', '.join(CURVES)}")
    # forked from a process that has only imported: all points start at once with equal memory
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.speed.rasterize", "fixers", "gen_data.tasks"])
    curves = {}
    for name in options.only or CURVES:
        points = []
        warn_if_busy(options.threads)
        for x in CURVES[name].at[: options.points]:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                point = pool.submit(measure, name, x, options).result()
            points.append(point)
            said = f"{point['ms']:.0f} ms, {point['units']:.2f} units, {point['memory_mb']:.0f} MB"
            sys.stderr.write(f"{name} {x:g}: {said}\n")
        curves[name] = fit_curve(CURVES[name], points)
    text = format_table(curves)
    sys.stdout.write(text)
    settings = {k: str(v) for k, v in asdict(options).items()} | {"torch": torch.__version__}
    write_json(options.results / "growth.json", {"settings": settings, "curves": curves})
    with atomic_path(options.results / "growth.md") as temporary:
        temporary.write_text(text)
    if options.plot:
        draw(curves, PLOT)


if __name__ == "__main__":
    run_command(main)
