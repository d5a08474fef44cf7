# What became slower or faster than a stored table, in units that are comparable between machines.
#   python -m benchmarks.run --quick          takes a minute; --store replaces the table
#   python -m benchmarks.run                  every benchmark that needs no capture
from __future__ import annotations

import json
import logging
import math
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import torch
import tyro

from benchmarks.speed import quick
from benchmarks.timing import use_threads, warn_if_busy
from runtime.command import choose_device, run_command
from runtime.files import write_json
from runtime.flags import parse_command

log = logging.getLogger(__name__)

TABLE = Path(__file__).with_name("table.json")
MOVED = 0.15
ALL = (
    "benchmarks.speed.engine",
    "benchmarks.speed.fixer",
    "benchmarks.speed.rasterize",
    "benchmarks.speed.procedural",
    "benchmarks.speed.loading",
    "benchmarks.speed.training",
    "benchmarks.speed.growth",
    "benchmarks.speed.scaling",
)
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Options:
    """Report parts whose time differs by more than 15 % from the stored table; never fails for it.

    The unit is a 2048x2048x2048 float32 product by as many threads, timed between the parts.
    """

    quick: Switch = False
    """Only the parts, in a minute; otherwise every benchmark that needs no capture."""
    store: Switch = False
    """Replace the table (with --quick)."""
    table: Path = TABLE
    rounds: int = 7
    """Runs of each part; the median counts."""
    threads: int = 2
    device: str = "cpu"


def read_table(path: Path) -> tuple[dict[str, float], dict[str, str]]:
    """A stored table's units by case, and its settings; ValueError for any other file."""
    try:
        content = json.loads(path.read_text())
        units = {name: float(row["units"]) for name, row in content["cases"].items()}
        settings = {key: str(value) for key, value in content["settings"].items()}
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; --quick --store writes it") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} is no table of this benchmark; --quick --store writes it"
        ) from None
    if not all(0 < value < math.inf for value in units.values()):
        raise ValueError(f"{path} has units that are not positive; --quick --store replaces it")
    return units, settings


def relative_changes(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """By how much each case of both takes longer than before: 0.2 is 20 %."""
    return {name: after[name] / before[name] - 1 for name in after if name in before}


def format_table(now: dict[str, dict[str, float]], before: dict[str, float]) -> str:
    """A Markdown table, and a sentence for each part that moved."""
    moved = relative_changes(before, {name: row["units"] for name, row in now.items()})
    lines = ["| part | ms | units | stored | moved |", "|---|---|---|---|---|"]
    for name, row in now.items():
        known = f"{before[name]:.3f} | {moved[name]:+.0%}" if name in before else "new |"
        lines.append(f"| {name} | {row['ms']:.1f} | {row['units']:.3f} | {known} |")
    lines += [f"| {name} | | | {before[name]:.3f} | gone |" for name in before if name not in now]
    lines.append("")
    far = {name: by for name, by in moved.items() if abs(by) > MOVED}
    for name, by in sorted(far.items(), key=lambda item: -item[1]):
        lines.append(f"{name}: {abs(by):.0%} {'slower' if by > 0 else 'faster'}")
    if before and not far:
        lines.append(f"nothing moved by more than {MOVED:.0%}")
    return "\n".join(lines) + "\n"


def read_settings(options: Options) -> dict[str, str]:
    """Hardware, versions and the like, for the table."""
    return {
        "hardware": hardware_name(options.device),
        "device": options.device,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "precision": "float32 where a part does not name another",
        "date": date.today().isoformat(),
    }


def hardware_name(device: str) -> str:
    """The GPU's or the processor's name."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def compare(options: Options) -> None:
    """Time the parts and print them beside the stored table, or store them."""
    use_threads(options.threads)
    settings, before = read_settings(options), {}
    if not options.store:
        try:
            before, stored = read_table(options.table)
        except ValueError as error:
            log.warning("%s", error)
        else:
            for key in ("hardware", "device", "threads", "torch"):
                if stored.get(key) != settings[key]:
                    log.warning(
                        "the table is of %s %s, not %s", key, stored.get(key), settings[key]
                    )
    warn_if_busy(options.threads)
    scenes_log = logging.getLogger("scenes")
    level = scenes_log.level
    scenes_log.setLevel(logging.WARNING)
    try:
        now = quick.measure(quick.cases(options.device), options.rounds, options.device)
    finally:
        scenes_log.setLevel(level)
    sys.stdout.write(format_table(now, before))
    if options.store:
        write_json(options.table, {"settings": settings, "cases": now})


def main() -> None:
    """Check the options, then compare or run every benchmark in a process of its own."""
    options = parse_command(Options, "python -m benchmarks.run")
    choose_device(options.device)
    for name in ("rounds", "threads"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)}: give at least 1")
    if options.store and not options.quick:
        raise ValueError("--store goes with --quick")
    if options.quick:
        compare(options)
        return
    for module in ALL:
        log.info("python -m %s", module)
        if subprocess.run([sys.executable, "-m", module]).returncode:
            raise ValueError(f"python -m {module} failed")


if __name__ == "__main__":
    run_command(main)
