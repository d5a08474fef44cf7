# Time of whole calls of the fixer, beside the least time that their arithmetic takes.
#   python -m benchmarks.speed.engine                      the table of docs/speed.md
#   python -m benchmarks.speed.engine --graphs --compiled  on a GPU, with the original's size
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import fixer as networks
from benchmarks.timing import SIDE, best, measurable, product, seconds
from fixers.gsvar import GSVARFixer, GSVAROptions
from runtime.command import choose_device, run_command
from runtime.files import write_json
from runtime.flags import parse_command

UNIT = 2 * SIDE**3 / 1e9  # GFLOP


@dataclass(frozen=True)
class Options:
    """Print milliseconds a picture of `fix`: the shipped weights at 256x192 and, on a GPU, random
    weights of the original's size at 512x512 and 960x540.

    The unit is a 2048x2048x2048 float32 product. The floor is the time of the executed FLOPs at the
    rate of that product in the networks' precision. Both are timed just before each call.
    """

    json: Path | None = None
    """Also write the figures to this file."""
    dtypes: tuple[str, ...] = ("float32", "bf16")
    repeats: int = 7
    """Runs of each call; the fastest counts."""
    depth: int = 24
    """Transformer blocks of the original's form, on a GPU."""
    graphs: bool = False
    """Run as CUDA graphs."""
    compiled: bool = False
    """torch.compile the transformer's blocks; the table has the seconds of the first call."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Case:
    """Pictures of one size in one call."""

    name: str
    size: tuple[int, int]
    pictures: int = 1
    reference: bool = True
    known: bool = False
    """Whether the fixer has seen the references before."""
    target: float | None = None
    """Milliseconds a picture to aim at."""


SHIPPED = (
    Case("256x192, new reference", (192, 256)),
    Case("256x192, reference known", (192, 256), known=True),
    Case("256x192, no reference", (192, 256), reference=False),
    Case("256x192, 4 at a time", (192, 256), 4),
    Case("256x192, clip of 49", (192, 256), 49),
)
ORIGINAL = (
    Case("512x512, reference and bridge", (512, 512), target=45),
    Case("512x512, neither", (512, 512), reference=False, target=20),
    Case("512x512, reference known", (512, 512), known=True, target=25),
    Case("960x540, reference and bridge", (540, 960), target=110),
    Case("512x512, 8 at a time", (512, 512), 8),
)


def random_images(case: Case, *, seed: int) -> Tensor:
    """[N,H,W,3] in [0,1]."""
    shape = (case.pictures, *case.size, 3)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def measure(fixer: GSVARFixer, case: Case, options: Options, dtype: torch.dtype) -> dict:
    """Milliseconds and units a picture, first call, floor, GFLOP and peak memory (GPU)."""
    device = options.device
    renders = random_images(case, seed=0).to(device)
    alphas = torch.rand(renders.shape[:3]).to(device) if fixer.needs.alpha else None
    repeats = options.repeats if case.pictures < 9 else 2
    guides = [random_images(case, seed=1 + i)[:, None].to(device) for i in range(repeats + 2)]
    turn = iter(range(len(guides)))

    def call() -> Tensor:
        i = 0 if case.known else next(turn)
        return fixer.fix(renders, guides[i] if case.reference else None, alphas=alphas)

    first = seconds(call, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    if case.known:
        call()
    graphs, fixer.graphs = fixer.graphs, None  # a replayed graph does not count
    with FlopCounterMode(display=False) as counter:
        call()
    fixer.graphs = graphs
    gflop = counter.get_total_flops() / 1e9 / case.pictures
    rates = {}
    for name, work in (("unit", product(device)), ("own", product(device, dtype))):
        rates[name] = best(work, 5, device)
    times = [seconds(call, device) / case.pictures for _ in range(repeats)]
    floor = gflop / UNIT * rates["own"]
    result = {"case": case.name, "dtype": str(dtype).removeprefix("torch."), "first": first}
    result |= {"seconds": min(times), "units": min(times) / rates["unit"]}
    result |= {"gflop": gflop, "floor": floor, "target_ms": case.target}
    peak = None if device == "cpu" else torch.cuda.max_memory_allocated(device) / 1e9
    return result | {"memory": peak}


def original_fixer(options: Options, dtype: torch.dtype, bridge: bool, attends: str) -> GSVARFixer:
    """Random weights of the original's form."""
    sizes = networks.Options(depth=options.depth, bridge=bridge, device=options.device)
    model = networks.random_model(sizes, dtype, ref_attends=attends)
    return GSVARFixer(model, graphs=options.graphs, compiled=options.compiled)


def shipped_fixer(options: Options, dtype: torch.dtype) -> GSVARFixer:
    """The shipped weights."""
    ways = {"graphs": options.graphs, "compiled": options.compiled}
    return GSVARFixer.load(GSVAROptions(dtype=dtype, batch_size=8, keep=64, **ways), options.device)


def format_row(row: dict) -> str:
    """A line of the Markdown table."""
    memory = "" if row["memory"] is None else f"{row['memory']:.1f} GB"
    target = "" if row["target_ms"] is None else f"{row['target_ms']:.0f} ms"
    cells = [row["case"], row["dtype"], f"{row['seconds'] * 1e3:.0f} ms", f"{row['units']:.2f}"]
    cells += [f"{row['gflop']:.0f}", f"{row['floor'] / row['seconds']:.0%}"]
    return "| " + " | ".join((*cells, f"{row['first']:.1f} s", memory, target)) + " |"


def main() -> None:
    """Print a row for each precision and call, and write --json."""
    options = parse_command(Options, "python -m benchmarks.speed.engine")
    choose_device(options.device)
    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats}: give at least 1")
    dtypes = measurable(options.dtypes, options.device)
    heads = ("call", "precision", "a picture", "units", "GFLOP", "of the floor's speed")
    heads += ("first call", "peak memory", "aim")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    rows = []
    for dtype in dtypes:
        fixer = shipped_fixer(options, dtype)
        calls: list[tuple[Callable[[], GSVARFixer], Case]] = [
            (lambda fixer=fixer: fixer, case) for case in SHIPPED
        ]
        if options.device != "cpu":
            for case in ORIGINAL:
                attends = "self" if case.known else "all"
                calls.append(
                    (partial(original_fixer, options, dtype, case.reference, attends), case)
                )
        for make, case in calls:
            rows.append(measure(make(), case, options, dtype))
            print(format_row(rows[-1]), flush=True)
    if options.device == "cpu":
        for case in ORIGINAL:
            aim = "" if case.target is None else f"{case.target:.0f} ms"
            print(
                f"| depth {options.depth}, {case.name} | | not measured: no GPU {'| ' * 5}| {aim} |"
            )
    if options.json:
        write_json(options.json, {"device": options.device, "rows": rows})


if __name__ == "__main__":
    run_command(main)
