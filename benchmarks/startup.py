# How long commands take to show their help, and packages to import, beside `import torch`.
#   python -m benchmarks.startup
from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from runtime.command import run_command
from runtime.flags import parse_command

ROOT = Path(__file__).parents[1]
LIMIT = 1.3  # times `import torch`
TORCH = ("-c", "import torch")
COMMANDS = (
    ("-m", "scenes", "--help"),
    ("-m", "fixers", "--help"),
    ("-m", "examples.gsplat.simple_trainer_difix3d", "--help"),
    ("-m", "models.checkpoints", "--help"),
    ("-m", "splats", "convert", "--help"),
    ("-m", "splats.view", "--help"),
    ("-m", "gen_data.gen_data", "--help"),
    ("-m", "gen_data.gen_data_json", "--help"),
    ("test_tile.py", "--help"),
    ("test_varsr.py", "--help"),
    ("VQVAE_train.py", "--help"),
    ("VAR_train.py", "--help"),
    ("VAE_train.py", "--help"),
    ("examples/efficient_lvsm/app.py", "--help"),
)
ROOMS = (
    "evaluation",
    "fixers",
    "gen_data",
    "generators",
    "models",
    "reconstruction",
    "runtime",
    "scenes",
    "splats",
    "training",
    "triplets",
)


@dataclass(frozen=True)
class Options:
    """Print CPU seconds (user and system) of each command, and their ratio to `import torch`.

    Commands and `import torch` take turns, and the best run of each counts: other processes cannot
    make it better.
    """

    repeats: int = 5
    """Runs of each."""


def cpu_seconds(arguments: tuple[str, ...]) -> float:
    """User and system seconds of a Python process; ValueError if it fails."""
    # as a user starts it: run_command has set these for this process
    own = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    with Path(os.devnull).open("w") as nothing:
        files = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 1)]
        pid = os.posix_spawn(sys.executable, [sys.executable, *arguments], own, file_actions=files)
        _, status, usage = os.wait4(pid, 0)
    if status:
        raise ValueError(f"python {' '.join(arguments)} failed")
    return usage.ru_utime + usage.ru_stime


def measure(repeats: int) -> dict[tuple[str, ...], float]:
    """The least seconds of each command and import, `import torch` first."""
    jobs = (TORCH, *COMMANDS, *(("-c", f"import {room}") for room in ROOMS))
    least = dict.fromkeys(jobs, float("inf"))
    for _ in range(repeats):
        for job in jobs:
            least[job] = min(least[job], cpu_seconds(job))
    return least


def main() -> None:
    """Print a line for each command and each package."""
    options = parse_command(Options, "python -m benchmarks.startup")
    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats}: give at least 1")
    os.chdir(ROOT)
    least = measure(options.repeats)
    print("| command | CPU s | of `import torch` | |\n|---|---|---|---|")
    for job, seconds in least.items():
        ratio = seconds / least[TORCH]
        verdict = f"above {LIMIT}" if ratio > LIMIT else ""
        print(f"| python {' '.join(job)} | {seconds:.2f} | {ratio:.2f} | {verdict} |")


if __name__ == "__main__":
    run_command(main)
